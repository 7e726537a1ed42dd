//! The system calls of a file, as plain functions that may block.
//!
//! They run on the data thread where they cannot block, else on the pool. All of them carry on after
//! `EINTR` and after short transfers.

use super::handle::Handle;
use block::{Buffer, ByteRange, Extent};
use bytes::Bytes;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, fdatasync, seek};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use std::io::{self, IoSlice, IoSliceMut};

/// Most extents of one answer.
const EXTENTS: usize = 1024;

/// What became of a transfer that must not block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Now {
    /// It is done (a read possibly by reaching the end of the file).
    Done,
    /// The rest would block.
    WouldBlock,
    /// The file system cannot tell whether it would block.
    CannotTell,
}

/// Reads at `offset` until `buffer` is full or the file ends. With `NOWAIT` only what is in memory.
pub(super) fn read(
    handle: &Handle,
    offset: u64,
    buffer: &mut Buffer,
    flags: ReadWriteFlags,
) -> io::Result<Now> {
    while buffer.len() < buffer.capacity() && handle.may_go_on_at(buffer.len()) {
        let position = advance(offset, buffer.len());
        let mut parts = [IoSliceMut::new(buffer.spare_mut())];
        match preadv2(handle, &mut parts, position, flags) {
            Ok(0) => break,
            Ok(count) => buffer.advance(count),
            Err(Errno::INTR) => {}
            Err(error) => return cannot_now(error, flags),
        }
    }
    Ok(Now::Done)
}

/// Writes `data` at `offset` and takes what is written off its front.
pub(super) fn write(
    handle: &Handle,
    offset: &mut u64,
    data: &mut Bytes,
    flags: ReadWriteFlags,
) -> io::Result<Now> {
    while !data.is_empty() {
        match pwritev2(handle, &[IoSlice::new(data)], *offset, flags) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                *offset = advance(*offset, count);
                // Never more than was asked for.
                let _ = data.split_to(count.min(data.len()));
            }
            Err(Errno::INTR) => {}
            Err(error) => return cannot_now(error, flags),
        }
    }
    Ok(Now::Done)
}

fn cannot_now(error: Errno, flags: ReadWriteFlags) -> io::Result<Now> {
    if !flags.contains(ReadWriteFlags::NOWAIT) {
        return Err(error.into());
    }
    match error {
        Errno::AGAIN => Ok(Now::WouldBlock),
        Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => Ok(Now::CannotTell),
        error => Err(error.into()),
    }
}

/// Makes data and length durable.
pub(super) fn sync(handle: &Handle) -> io::Result<()> {
    Ok(fdatasync(handle)?)
}

/// Makes `range` read as zeroes and leaves it allocated.
pub(super) fn zero(handle: &Handle, range: ByteRange) -> io::Result<()> {
    let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    match fallocated(handle, flags, range) {
        // Where ranges cannot be zeroed (tmpfs) a hole filled with fresh space is the same.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            punch_hole(handle, range)?;
            fallocated(handle, FallocateFlags::KEEP_SIZE, range)
        }
        result => result,
    }
}

/// Makes `range` read as zeroes and gives its space back.
pub(super) fn punch_hole(handle: &Handle, range: ByteRange) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    fallocated(handle, flags, range)
}

fn fallocated(handle: &Handle, flags: FallocateFlags, range: ByteRange) -> io::Result<()> {
    loop {
        match fallocate(handle, flags, range.offset(), range.length()) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            // A block device that lacks the means, or a file system that does.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Data and holes from the start of `range` on, not past its end.
pub(super) fn extents(handle: &Handle, range: ByteRange) -> io::Result<Vec<Extent>> {
    let mut found = Vec::new();
    let mut next = range.offset();
    while next < range.end() && found.len() < EXTENTS {
        let data = match seek(handle, SeekFrom::Data(next)) {
            Ok(data) => data.min(range.end()),
            // A hole up to the end of the file.
            Err(Errno::NXIO) => range.end(),
            // No way to tell: all of it counts as data.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                found.push(Extent::data(ByteRange::between(next, range.end())));
                break;
            }
            Err(error) => return Err(error.into()),
        };
        if data > next {
            found.push(Extent::hole(ByteRange::between(next, data)));
        }
        if data >= range.end() {
            break;
        }
        let hole = match seek(handle, SeekFrom::Hole(data)) {
            Ok(hole) => hole.max(data.saturating_add(1)),
            // Cut off meanwhile.
            Err(Errno::NXIO) => range.end(),
            Err(error) => return Err(error.into()),
        };
        // The last data extent is told whole, for the caller to remember.
        found.push(Extent::data(ByteRange::between(data, hole)));
        next = hole;
    }
    Ok(found)
}

fn advance(offset: u64, count: usize) -> u64 {
    offset.saturating_add(u64::try_from(count).unwrap_or(u64::MAX))
}
