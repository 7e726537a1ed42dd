//! I/O through the page cache: at once on the data thread where that does not block, else elsewhere.
//!
//! A read that would wait for the medium says so (`RWF_NOWAIT`) and is made again by the ring or the
//! pool. Few file systems say so of writes; on the others a write is made at once if it is short,
//! covers its pages or finds them in memory, and the kernel has not been holding writers back.
//!
//! A long transfer keeps the data thread busy with copying. It is left to others if there is more to do
//! ([`Files::expect_more`](crate::ports::Files::expect_more)), so that socket and file are copied beside
//! each other.
//!
//! What never waits would never let another task run; each transfer therefore uses up some of its
//! task's budget for one turn.

use super::handle::{Handle, Traits};
use super::{HostFile, call, direct, write_on_pool};
use block::{Buffer, ByteRange};
use bytes::Bytes;
use call::Now;
use rustix::io::ReadWriteFlags;
use std::io;
use std::time::{Duration, Instant};
use tokio::task::coop::consume_budget;

/// Longest transfer made on the data thread although it has more to do, in bytes. Up to here copying
/// costs less than waking another thread.
const SHORT: usize = 256 << 10;
/// Longest transfer ever made on the data thread, in bytes: what comes meanwhile waits for it.
const LONGEST: usize = 4 << 20;
/// Size of a page of the page cache, in bytes.
const PAGE: u64 = 4096;
/// A write that took longer was held back.
const SLOW_WRITE: Duration = Duration::from_millis(5);
/// How long writes go to the pool after that.
const HELD_BACK: Duration = Duration::from_secs(1);

/// What was learnt of how a file's buffered I/O is best done.
#[derive(Clone, Copy)]
pub(super) struct Manner {
    /// The file system says whether a read would block.
    reads_tell: bool,
    /// The file system says whether a write would block.
    writes_tell: bool,
    /// The kernel has held a writer back; until then the data thread does not write itself.
    held_back_until: Option<Instant>,
}

impl Manner {
    /// Nothing is known yet.
    pub(super) fn new(traits: Traits) -> Manner {
        Manner {
            reads_tell: !traits.in_memory,
            writes_tell: !traits.in_memory,
            held_back_until: None,
        }
    }
}

impl HostFile {
    pub(super) async fn read_buffered(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        // One that reads on and on must let the others of its thread in between.
        consume_budget().await;
        let mut buffer = Buffer::with_capacity(length);
        if self.read_now(offset, &mut buffer)? == Now::Done {
            return Ok(buffer.freeze());
        }
        // Boxed: the way through memory stays short.
        Box::pin(self.read_waiting(offset, buffer)).await
    }

    /// Whether a transfer is best made by another thread, beside what this one has to do.
    fn leaves_to_others(&self, length: usize) -> bool {
        length > LONGEST || (length > SHORT && self.shared.backlog.get())
    }

    fn read_now(&self, offset: u64, buffer: &mut Buffer) -> io::Result<Now> {
        let handle = self.handle.borrow();
        if self.leaves_to_others(buffer.capacity()) {
            return Ok(Now::WouldBlock);
        }
        if self.traits.in_memory {
            return call::read(&handle, offset, buffer, ReadWriteFlags::empty());
        }
        let manner = self.manner.get();
        if !manner.reads_tell {
            return Ok(Now::WouldBlock);
        }
        let result = call::read(&handle, offset, buffer, ReadWriteFlags::NOWAIT)?;
        if result == Now::CannotTell {
            self.manner.set(Manner {
                reads_tell: false,
                ..manner
            });
        }
        Ok(result)
    }

    async fn read_waiting(&self, offset: u64, mut buffer: Buffer) -> io::Result<Bytes> {
        if let Some(ring) = self.ring() {
            return direct::read(&ring, &self.handle(), offset, buffer).await;
        }
        self.on_pool(move |handle| {
            call::read(handle, offset, &mut buffer, ReadWriteFlags::empty())?;
            Ok(buffer.freeze())
        })
        .await
    }

    pub(super) async fn write_buffered(&self, mut offset: u64, mut data: Bytes) -> io::Result<()> {
        consume_budget().await;
        if self.write_now(&mut offset, &mut data)? == Now::Done {
            return Ok(());
        }
        Box::pin(write_on_pool(&self.shared, self.handle(), offset, data)).await
    }

    fn write_now(&self, offset: &mut u64, data: &mut Bytes) -> io::Result<Now> {
        let handle = self.handle.borrow();
        if self.leaves_to_others(data.len()) || (data.len() > SHORT && !self.traits.in_memory) {
            return Ok(Now::WouldBlock);
        }
        if self.traits.in_memory {
            return call::write(&handle, offset, data, ReadWriteFlags::empty());
        }
        let manner = self.manner.get();
        if manner.writes_tell {
            let result = call::write(&handle, offset, data, ReadWriteFlags::NOWAIT)?;
            if result != Now::CannotTell {
                return Ok(result);
            }
            self.manner.set(Manner {
                writes_tell: false,
                ..manner
            });
        }
        let start = Instant::now();
        if manner.held_back_until.is_some_and(|until| start < until)
            || must_read_pages(&handle, range_of(*offset, data))
        {
            return Ok(Now::WouldBlock);
        }
        let result = call::write(&handle, offset, data, ReadWriteFlags::empty());
        self.note_pace(start);
        result
    }

    /// The kernel holds writers back when it has too much to write. That must not hold back all the
    /// disks of this thread: for a while the pool waits instead.
    fn note_pace(&self, start: Instant) {
        let end = Instant::now();
        if end.saturating_duration_since(start) > SLOW_WRITE {
            self.manner.set(Manner {
                held_back_until: Some(end + HELD_BACK),
                ..self.manner.get()
            });
        }
    }
}

fn range_of(offset: u64, data: &Bytes) -> ByteRange {
    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
    ByteRange::between(offset, offset.saturating_add(length))
}

/// Whether writing `range` makes the kernel read a page first: one written in part and not in memory.
fn must_read_pages(handle: &Handle, range: ByteRange) -> bool {
    let mut edges = [range.offset(), range.end()].into_iter();
    edges.any(|edge| {
        let page = block::align_down(edge, PAGE);
        if page == edge {
            return false;
        }
        let mut probe = [0; 1];
        let mut parts = [io::IoSliceMut::new(&mut probe)];
        rustix::io::preadv2(handle, &mut parts, page, ReadWriteFlags::NOWAIT).is_err()
    })
}
