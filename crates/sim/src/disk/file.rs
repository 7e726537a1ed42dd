//! An open file of a simulated disk.

use super::{DiskOp, Disks, Effect, errno};
use crate::executor::Life;
use crate::medium::{Change, Medium, SECTOR};
use block::{Buffer, ByteRange, Extent, Shares, align_down};
use bytes::Bytes;
use drivers::ports::{File, FileInfo, Runtime};
use futures_util::future::LocalBoxFuture;
use std::cell::{Cell, RefCell};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

/// An open file.
#[derive(Clone)]
pub(super) struct SimFile {
    pub(super) disks: Disks,
    /// The hardware as it was when the file was opened: after a power cut it answers no more.
    pub(super) hardware: Life,
    pub(super) medium: Rc<RefCell<Medium>>,
    pub(super) path: PathBuf,
    pub(super) alignment: u64,
    pub(super) writable: Cell<bool>,
}

impl SimFile {
    /// Makes `change` at some moment, as one or in two parts.
    async fn change(self, op: DiskOp, range: ByteRange, change: Change) -> io::Result<()> {
        self.check_access(range)?;
        let effect = self.disks.strike(op, &self.path, Some(range));
        self.disks.a_moment(&self.hardware).await;
        let change = match effect {
            Some(Effect::Fail(number)) => {
                if self.disks.state.temper.get().tears {
                    let rng = &self.disks.state.rng;
                    self.medium.borrow_mut().tear(&change, rng);
                }
                return Err(errno(number));
            }
            Some(Effect::Slow(time)) => {
                self.hardware.sleep(time).await;
                change
            }
            Some(Effect::Misdirect(distance)) => displaced(change, distance),
            Some(Effect::Lie | Effect::Rot) | None => change,
        };
        if matches!(change, Change::Write(..)) {
            self.disks.check_space(&self.medium, range)?;
        }
        let (first, rest) = self.halves(change);
        self.medium.borrow_mut().change(first);
        if let Some(rest) = rest {
            self.disks.a_moment(&self.hardware).await;
            self.medium.borrow_mut().change(rest);
        }
        self.disks.a_moment(&self.hardware).await;
        Ok(())
    }

    /// Cuts one write in four where a sector ends; sectors are never torn.
    fn halves(&self, change: Change) -> (Change, Option<Change>) {
        let rng = &self.disks.state.rng;
        let tears = self.disks.state.temper.get().tears;
        let (offset, data) = match change {
            Change::Write(offset, data) if tears && rng.percent(25) => (offset, data),
            whole @ (Change::Write(..) | Change::Zero(..) | Change::Length(_)) => {
                return (whole, None);
            }
        };
        let middle = align_down(offset.saturating_add(rng.below(len(data.len()))), SECTOR);
        let Some(within) = middle.checked_sub(offset).filter(|within| *within > 0) else {
            return (Change::Write(offset, data), None);
        };
        let within = usize::try_from(within).unwrap_or(0);
        let head = Change::Write(offset, data.slice(..within));
        let tail = Change::Write(middle, data.slice(within..));
        if rng.percent(50) {
            (head, Some(tail))
        } else {
            (tail, Some(head))
        }
    }

    async fn read(self, range: ByteRange) -> io::Result<Bytes> {
        self.check_alignment(range)?;
        let effect = self.disks.strike(DiskOp::Read, &self.path, Some(range));
        self.disks.a_moment(&self.hardware).await;
        match effect {
            Some(Effect::Fail(number)) => return Err(errno(number)),
            Some(Effect::Slow(time)) => self.hardware.sleep(time).await,
            Some(Effect::Rot) => {
                let rng = &self.disks.state.rng;
                let place = range.offset().saturating_add(rng.below(range.length()));
                self.medium.borrow_mut().rot(place, rng.next());
            }
            Some(Effect::Lie | Effect::Misdirect(_)) | None => {}
        }
        let data = copy(self.medium.borrow().read(range));
        self.disks.a_moment(&self.hardware).await;
        Ok(data)
    }

    async fn sync_now(self) -> io::Result<()> {
        let effect = self.disks.strike(DiskOp::Sync, &self.path, None);
        self.disks.a_moment(&self.hardware).await;
        match effect {
            Some(Effect::Fail(number)) => {
                self.medium.borrow_mut().forget_pending();
                return Err(errno(number));
            }
            Some(Effect::Lie) => return Ok(()),
            Some(Effect::Slow(time)) => self.hardware.sleep(time).await,
            Some(Effect::Misdirect(_) | Effect::Rot) | None => {}
        }
        self.medium.borrow_mut().sync();
        self.disks.a_moment(&self.hardware).await;
        Ok(())
    }

    fn check_access(&self, range: ByteRange) -> io::Result<()> {
        if !self.writable.get() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.check_alignment(range)
    }

    fn check_alignment(&self, range: ByteRange) -> io::Result<()> {
        if range.is_aligned(self.alignment) {
            return Ok(());
        }
        Err(io::ErrorKind::InvalidInput.into())
    }
}

impl File for SimFile {
    fn info(&self) -> FileInfo {
        FileInfo {
            length: self.medium.borrow().length(),
            alignment: self.alignment,
            is_device: false,
        }
    }

    fn read_at(&self, offset: u64, length: usize) -> LocalBoxFuture<'_, io::Result<Bytes>> {
        let range = ByteRange::between(offset, offset.saturating_add(len(length)));
        Box::pin(Disks::run(&self.hardware, self.clone().read(range)))
    }

    fn write_at(&self, offset: u64, data: Bytes) -> LocalBoxFuture<'_, io::Result<()>> {
        let range = ByteRange::between(offset, offset.saturating_add(len(data.len())));
        let change = Change::Write(offset, data);
        let operation = self.clone().change(DiskOp::Write, range, change);
        Box::pin(Disks::run(&self.hardware, operation))
    }

    fn zero(&self, range: ByteRange, may_unmap: bool) -> LocalBoxFuture<'_, io::Result<()>> {
        let change = Change::Zero(range, may_unmap);
        let operation = self.clone().change(DiskOp::Write, range, change);
        Box::pin(Disks::run(&self.hardware, operation))
    }

    fn discard(&self, range: ByteRange) -> LocalBoxFuture<'_, io::Result<()>> {
        let change = Change::Zero(range, true);
        let operation = self.clone().change(DiskOp::Discard, range, change);
        Box::pin(Disks::run(&self.hardware, operation))
    }

    fn sync(&self) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(Disks::run(&self.hardware, self.clone().sync_now()))
    }

    fn set_length(&self, length: u64) -> LocalBoxFuture<'_, io::Result<()>> {
        let change = Change::Length(length);
        let whole = ByteRange::between(0, 0);
        let operation = self.clone().change(DiskOp::SetLength, whole, change);
        Box::pin(Disks::run(&self.hardware, operation))
    }

    fn extents(&self, range: ByteRange) -> LocalBoxFuture<'_, io::Result<Vec<Extent>>> {
        let extents = self.medium.borrow().extents(range);
        Box::pin(async { Ok(extents) })
    }

    fn relock(&self, _shares: Shares) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn set_writable(&self, writable: bool) -> LocalBoxFuture<'_, io::Result<()>> {
        self.writable.set(writable);
        Box::pin(async { Ok(()) })
    }

    fn allocated_bytes(&self) -> Option<u64> {
        Some(self.medium.borrow().allocated_bytes())
    }
}

fn displaced(change: Change, distance: u64) -> Change {
    match change {
        Change::Write(offset, data) => Change::Write(offset.saturating_add(distance), data),
        other @ (Change::Zero(..) | Change::Length(_)) => other,
    }
}

fn copy(bytes: &[u8]) -> Bytes {
    let mut buffer = Buffer::with_capacity(bytes.len());
    buffer.fill(bytes);
    buffer.freeze()
}

fn len(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
