//! Direct I/O: aligned offsets and memory, through the ring or the pool.
//!
//! Memory that lies wrong is copied. The unaligned end of a file goes through the page cache, on a
//! descriptor of its own: a padded write would make the file grow, if only until it is cut again.

use super::call;
use super::handle::Handle;
use super::{HostFile, write_on_pool};
use crate::host::host_error;
use crate::os::ring::Ring;
use block::{Buffer, align_down};
use bytes::Bytes;
use rustix::io::ReadWriteFlags;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

impl HostFile {
    pub(super) async fn read_direct(&self, offset: u64, length: usize) -> io::Result<Bytes> {
        let whole = length.next_multiple_of(self.alignment());
        self.check_start(offset)?;
        let mut buffer = Buffer::with_capacity(whole);
        let handle = self.handle();
        let data = if let Some(ring) = self.ring() {
            read(&ring, &handle, offset, buffer).await?
        } else {
            let read = move || {
                call::read(&handle, offset, &mut buffer, ReadWriteFlags::empty())?;
                Ok(buffer.freeze())
            };
            self.shared.pool.run(read).await?
        };
        Ok(data.slice(..length.min(data.len())))
    }

    pub(super) async fn write_direct(&self, offset: u64, data: Bytes) -> io::Result<()> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let end = offset.saturating_add(length);
        let aligned_end = align_down(end, self.traits.alignment);
        self.check_start(offset)?;
        if aligned_end != end {
            self.check_end(end)?;
        }
        let split = usize::try_from(aligned_end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (body, rest) = (data.slice(..split), data.slice(split..));
        if !body.is_empty() {
            self.write_aligned(offset, body).await?;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let tail = self.tail.borrow().clone();
        let tail = tail.ok_or_else(|| misaligned(end, self.traits.alignment))?;
        write_on_pool(&self.shared, tail, aligned_end, rest).await
    }

    async fn write_aligned(&self, offset: u64, data: Bytes) -> io::Result<()> {
        let data = self.well_placed(data);
        match self.ring() {
            Some(ring) => write(&ring, &self.handle(), offset, data).await,
            None => write_on_pool(&self.shared, self.handle(), offset, data).await,
        }
    }

    /// The same bytes where the kernel takes them from.
    fn well_placed(&self, data: Bytes) -> Bytes {
        if data.as_ptr().align_offset(self.traits.memory_alignment) == 0 {
            return data;
        }
        let mut buffer = Buffer::with_capacity(data.len());
        buffer.fill(&data);
        buffer.freeze()
    }

    fn alignment(&self) -> usize {
        usize::try_from(self.traits.alignment).unwrap_or(usize::MAX)
    }

    fn check_start(&self, offset: u64) -> io::Result<()> {
        if offset.is_multiple_of(self.traits.alignment) {
            return Ok(());
        }
        Err(misaligned(offset, self.traits.alignment))
    }

    /// An unaligned write may only end where the file does.
    fn check_end(&self, end: u64) -> io::Result<()> {
        if end == self.length.get() {
            return Ok(());
        }
        Err(misaligned(end, self.traits.alignment))
    }
}

fn misaligned(offset: u64, alignment: u64) -> io::Error {
    let message =
        format!("offset {offset} is not a multiple of {alignment}, as direct I/O demands");
    host_error(libc::EINVAL, message)
}

/// The handle as the ring holds it.
fn file(handle: &Arc<Handle>) -> Arc<dyn AsFd> {
    // The ring's slot shares it, and so the image's lock, until the kernel has answered.
    Arc::<Handle>::clone(handle)
}

/// Reads through the ring until `buffer` is full or the file ends.
pub(super) async fn read(
    ring: &Ring,
    handle: &Arc<Handle>,
    offset: u64,
    mut buffer: Buffer,
) -> io::Result<Bytes> {
    while buffer.len() < buffer.capacity() && handle.may_go_on_at(buffer.len()) {
        let position = advance(offset, buffer.len());
        let (result, filled) = ring.read(file(handle), position, buffer).await;
        buffer = filled;
        match result {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(buffer.freeze())
}

/// Writes all of `data` through the ring.
async fn write(
    ring: &Ring,
    handle: &Arc<Handle>,
    mut offset: u64,
    mut data: Bytes,
) -> io::Result<()> {
    while !data.is_empty() {
        match ring.write(file(handle), offset, data.clone()).await {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                offset = advance(offset, count);
                let _ = data.split_to(count.min(data.len()));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn advance(offset: u64, count: usize) -> u64 {
    offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX))
}
