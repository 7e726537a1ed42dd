//! Files and block devices of the host.
//!
//! ```text
//!             read                              write
//! memory      inline, else pool                 inline, else pool
//! buffered    NOWAIT inline, else ring or pool  inline if short and no page must be read, else pool
//! direct      ring (io_uring) or pool           ring or pool
//! everything else (sync, zero, extents, ...)    pool
//! ```
//!
//! Buffered writes never go through the ring: common file systems hand them to kernel threads,
//! which costs more than the write itself.

mod buffered;
mod call;
mod direct;
mod handle;

use super::Shared;
use crate::ports::{Aio, File, FileInfo, FileOptions, Files};
use block::{ByteRange, Extent, Shares};
use buffered::Manner;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use handle::{Opened, Traits, open_file, reopen, reopen_buffered};
use rustix::fs::{fstat, ftruncate};
use rustix::io::ReadWriteFlags;
use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

pub(super) use handle::Handle;

/// Longest range zeroed or discarded on the data thread where all is memory, in bytes.
const INLINE_ZERO: u64 = 1 << 20;

/// [`Files`] of the host.
pub(super) struct HostFiles {
    shared: Rc<Shared>,
}

impl HostFiles {
    pub(super) fn new(shared: Rc<Shared>) -> HostFiles {
        HostFiles { shared }
    }
}

impl Files for HostFiles {
    fn open(&self, options: FileOptions) -> LocalBoxFuture<'_, io::Result<Rc<dyn File>>> {
        Box::pin(async move {
            let wanted = options.clone();
            let opened = self.shared.pool.run(move || open_file(&wanted)).await?;
            let file: Rc<dyn File> = Rc::new(HostFile::new(&self.shared, opened, &options));
            Ok(file)
        })
    }

    fn remove(&self, path: &Path) -> LocalBoxFuture<'_, io::Result<()>> {
        let path = path.to_owned();
        Box::pin(self.shared.pool.run(move || std::fs::remove_file(path)))
    }

    fn expect_more(&self, more: bool) {
        self.shared.backlog.set(more);
    }
}

/// An open file of the host.
struct HostFile {
    shared: Rc<Shared>,
    handle: RefCell<Arc<Handle>>,
    /// For the unaligned end of a file under direct I/O.
    tail: RefCell<Option<Arc<Handle>>>,
    traits: Traits,
    direct: bool,
    no_flush: bool,
    aio: Aio,
    unmap: bool,
    length: Cell<u64>,
    manner: Cell<Manner>,
    /// A range known to be data. Zeroing, discarding and cutting make it unknown again.
    known_data: Cell<ByteRange>,
}

impl HostFile {
    fn new(shared: &Rc<Shared>, opened: Opened, options: &FileOptions) -> HostFile {
        HostFile {
            shared: Rc::clone(shared),
            handle: RefCell::new(Arc::new(opened.handle)),
            tail: RefCell::new(opened.tail.map(Arc::new)),
            traits: opened.traits,
            direct: options.direct,
            no_flush: options.no_flush,
            aio: options.aio,
            unmap: options.unmap,
            length: Cell::new(opened.length),
            manner: Cell::new(Manner::new(opened.traits)),
            known_data: Cell::new(ByteRange::between(0, 0)),
        }
    }

    fn handle(&self) -> Arc<Handle> {
        Arc::clone(&self.handle.borrow())
    }

    /// Runs a blocking call on the pool.
    async fn on_pool<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Handle) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let handle = self.handle();
        self.shared.pool.run(move || call(&handle)).await
    }

    /// The ring, if this file is to use it and there is one.
    fn ring(&self) -> Option<super::ring::Ring> {
        match self.aio {
            Aio::IoUring => self.shared.ring(),
            Aio::Threads => None,
        }
    }

    fn note_written(&self, end: u64) {
        self.length.set(self.length.get().max(end));
    }

    /// Forgets what is known of data in `range`.
    fn forget_data(&self, range: ByteRange) {
        if self.known_data.get().overlaps(range) {
            self.known_data.set(ByteRange::between(0, 0));
        }
    }

    async fn deallocate(
        &self,
        range: ByteRange,
        call: fn(&Handle, ByteRange) -> io::Result<()>,
    ) -> io::Result<()> {
        self.forget_data(range);
        if self.traits.in_memory && range.length() <= INLINE_ZERO {
            return call(&self.handle(), range);
        }
        let result = self.on_pool(move |handle| call(handle, range)).await;
        // What was asked meanwhile may have seen the old data.
        self.forget_data(range);
        result
    }
}

/// Writes on the pool; the data comes back to this thread, whose memory it is.
async fn write_on_pool(
    shared: &Shared,
    handle: Arc<Handle>,
    mut offset: u64,
    data: Bytes,
) -> io::Result<()> {
    let work = move || {
        let mut rest = data.clone();
        let result = call::write(&handle, &mut offset, &mut rest, ReadWriteFlags::empty());
        Ok((result, data))
    };
    let (result, _data) = shared.pool.run(work).await?;
    result.map(|_| ())
}

impl File for HostFile {
    fn info(&self) -> FileInfo {
        FileInfo {
            length: self.length.get(),
            alignment: self.traits.alignment,
            is_device: self.traits.is_device,
        }
    }

    fn read_at(&self, offset: u64, length: usize) -> LocalBoxFuture<'_, io::Result<Bytes>> {
        if self.direct {
            return Box::pin(self.read_direct(offset, length));
        }
        Box::pin(self.read_buffered(offset, length))
    }

    fn write_at(&self, offset: u64, data: Bytes) -> LocalBoxFuture<'_, io::Result<()>> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let end = offset.saturating_add(length);
        if self.direct {
            return Box::pin(async move {
                self.write_direct(offset, data).await?;
                self.note_written(end);
                Ok(())
            });
        }
        Box::pin(async move {
            self.write_buffered(offset, data).await?;
            self.note_written(end);
            Ok(())
        })
    }

    fn zero(&self, range: ByteRange, may_unmap: bool) -> LocalBoxFuture<'_, io::Result<()>> {
        let call = if may_unmap && self.unmap {
            call::punch_hole
        } else {
            call::zero
        };
        Box::pin(self.deallocate(range, call))
    }

    fn punch_hole(&self, range: ByteRange) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(self.deallocate(range, call::punch_hole))
    }

    fn discard(&self, range: ByteRange) -> LocalBoxFuture<'_, io::Result<()>> {
        if !self.unmap {
            return Box::pin(async { Ok(()) });
        }
        Box::pin(self.deallocate(range, call::punch_hole))
    }

    fn sync(&self) -> LocalBoxFuture<'_, io::Result<()>> {
        if self.no_flush {
            return Box::pin(async { Ok(()) });
        }
        if self.traits.in_memory {
            return Box::pin(async { call::sync(&self.handle()) });
        }
        Box::pin(self.on_pool(call::sync))
    }

    fn set_length(&self, length: u64) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            self.known_data.set(ByteRange::between(0, 0));
            if !length.is_multiple_of(self.traits.alignment) && self.tail.borrow().is_none() {
                let tail = self.on_pool(|handle| reopen_buffered(handle, true)).await?;
                self.tail.replace(Some(Arc::new(tail)));
            }
            self.on_pool(move |handle| Ok(ftruncate(handle, length)?))
                .await?;
            self.length.set(length);
            Ok(())
        })
    }

    fn extents(&self, range: ByteRange) -> LocalBoxFuture<'_, io::Result<Vec<Extent>>> {
        Box::pin(async move {
            let known = self.known_data.get().intersection(range);
            if known.offset() == range.offset() && !known.is_empty() {
                return Ok(vec![Extent::data(known)]);
            }
            let mut extents = self
                .on_pool(move |handle| call::extents(handle, range))
                .await?;
            if let Some(last) = extents.last_mut().filter(|extent| extent.data) {
                self.known_data.set(last.range);
                last.range = last.range.intersection(range);
            }
            Ok(extents)
        })
    }

    fn relock(&self, shares: Shares) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(self.on_pool(move |handle| handle.lock().change(shares)))
    }

    fn set_writable(&self, writable: bool) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            let has_tail = self.tail.borrow().is_some();
            let (handle, tail) = self
                .on_pool(move |handle| {
                    let tail = has_tail.then(|| reopen_buffered(handle, writable));
                    Ok((reopen(handle, writable)?, tail.transpose()?))
                })
                .await?;
            self.handle.replace(Arc::new(handle));
            self.tail.replace(tail.map(Arc::new));
            Ok(())
        })
    }

    fn allocated_bytes(&self) -> Option<u64> {
        if self.traits.is_device {
            return None;
        }
        let status = fstat(&**self.handle.borrow()).ok()?;
        u64::try_from(status.st_blocks).ok()?.checked_mul(512)
    }
}

#[cfg(test)]
mod tests;
