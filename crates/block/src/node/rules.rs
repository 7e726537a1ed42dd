//! The rules a request passes: bounds, permission, zero detection, alignment, cutting, FUA.

use super::{DetectZeroes, Node};
use crate::range_lock::{LockKind, RangeGuard};
use crate::{
    Buffer, ByteRange, Error, ErrorKind, Extent, Limits, WriteFlags, ZeroFlags, is_zero, zeroes,
};
use bytes::Bytes;

/// Longest run of zero bytes written the slow way in one request, in bytes.
const ZERO_CHUNK: u64 = 1 << 20;

impl Node {
    pub(super) async fn read_aligned(&self, range: ByteRange) -> Result<Bytes, Error> {
        let limits = self.check_bounds(range)?;
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if range.is_aligned(limits.request_alignment) && range.length() <= limits.max_transfer {
            return self.driver.read(range).await;
        }
        let whole = range.align_out(limits.request_alignment);
        let mut buffer = Buffer::with_capacity(to_usize(whole.length()));
        for piece in cut(whole, limits.max_transfer) {
            buffer.fill(&self.driver.read(piece).await?);
        }
        let start = to_usize(range.offset().saturating_sub(whole.offset()));
        let data = buffer.freeze();
        Ok(data.slice(start..start.saturating_add(to_usize(range.length()))))
    }

    pub(super) async fn write_detecting(
        &self,
        range: ByteRange,
        data: Bytes,
        flags: WriteFlags,
    ) -> Result<(), Error> {
        let limits = self.check_change(range)?;
        if range.is_empty() {
            return self.flush_if(flags.fua).await;
        }
        if self.detect_zeroes != DetectZeroes::Off && is_zero(&data) {
            let may_unmap = self.detect_zeroes == DetectZeroes::Unmap;
            let WriteFlags { fua, serialise } = flags;
            let flags = ZeroFlags {
                fua,
                serialise,
                may_unmap,
                no_fallback: false,
            };
            return self.write_zeroes_aligned(range, flags).await;
        }
        self.write_aligned(limits, range, data, flags).await
    }

    async fn write_aligned(
        &self,
        limits: Limits,
        range: ByteRange,
        data: Bytes,
        flags: WriteFlags,
    ) -> Result<(), Error> {
        let alignment = limits.request_alignment;
        //= docs/spec/replication.md#requests
        //# A FUA write MUST be carried out as a write followed by a flush where the child has no
        //# FUA of its own.
        let driver_flags = WriteFlags {
            fua: flags.fua && limits.fua,
            ..flags
        };
        if range.is_aligned(alignment) {
            let _order = self.share_writes(limits, range).await;
            self.write_pieces(limits, range, data, driver_flags).await?;
        } else {
            let whole = range.align_out(alignment);
            let _order = self.writes.lock(whole, LockKind::Exclusive).await;
            //= docs/spec/replication.md#requests
            //# A request that is not aligned to the driver's blocks MUST leave every byte outside
            //# its range as it was.
            let data = self.complete(limits, whole, (range, data)).await?;
            self.write_pieces(limits, whole, data, driver_flags).await?;
        }
        self.flush_if(flags.fua && !limits.fua).await
    }

    /// The whole of an aligned range: `data` where it lies, the disk's own bytes around it.
    async fn complete(
        &self,
        limits: Limits,
        whole: ByteRange,
        (range, data): (ByteRange, Bytes),
    ) -> Result<Bytes, Error> {
        let mut buffer = Buffer::with_capacity(to_usize(whole.length()));
        let head = ByteRange::between(whole.offset(), range.offset());
        let tail = ByteRange::between(range.end(), whole.end());
        buffer.fill(&self.read_edge(limits, head, Edge::Start).await?);
        buffer.fill(&data);
        buffer.fill(&self.read_edge(limits, tail, Edge::End).await?);
        Ok(buffer.freeze())
    }

    /// Reads `part`, which lies at the start or the end of an aligned block.
    async fn read_edge(&self, limits: Limits, part: ByteRange, edge: Edge) -> Result<Bytes, Error> {
        if part.is_empty() {
            return Ok(Bytes::new());
        }
        let block = self
            .driver
            .read(part.align_out(limits.request_alignment))
            .await?;
        let length = to_usize(part.length());
        Ok(match edge {
            Edge::Start => block.slice(..length),
            Edge::End => block.slice(block.len().saturating_sub(length)..),
        })
    }

    async fn write_pieces(
        &self,
        limits: Limits,
        range: ByteRange,
        data: Bytes,
        flags: WriteFlags,
    ) -> Result<(), Error> {
        if range.length() <= limits.max_transfer {
            return self.driver.write(range.offset(), data, flags).await;
        }
        for piece in cut(range, limits.max_transfer) {
            let start = to_usize(piece.offset().saturating_sub(range.offset()));
            let part = data.slice(start..start.saturating_add(to_usize(piece.length())));
            self.driver.write(piece.offset(), part, flags).await?;
        }
        Ok(())
    }

    pub(super) async fn write_zeroes_aligned(
        &self,
        range: ByteRange,
        flags: ZeroFlags,
    ) -> Result<(), Error> {
        let limits = self.check_change(range)?;
        if range.is_empty() {
            return self.flush_if(flags.fua).await;
        }
        let inner = range.align_in(limits.request_alignment);
        if inner.is_empty() {
            self.write_zero_bytes(limits, range, flags).await?;
        } else {
            let (head, tail) = (
                ByteRange::between(range.offset(), inner.offset()),
                ByteRange::between(inner.end(), range.end()),
            );
            self.write_zero_bytes(limits, head, flags).await?;
            self.zero_blocks(limits, inner, flags).await?;
            self.write_zero_bytes(limits, tail, flags).await?;
        }
        self.flush_if(flags.fua && !limits.fua).await
    }

    /// Zeroes whole aligned blocks: by the driver's own means, else by writing.
    async fn zero_blocks(
        &self,
        limits: Limits,
        range: ByteRange,
        flags: ZeroFlags,
    ) -> Result<(), Error> {
        let driver_flags = ZeroFlags {
            fua: flags.fua && limits.fua,
            may_unmap: flags.may_unmap && !self.ignore_discards,
            ..flags
        };
        let order = self.share_writes(limits, range).await;
        match self.driver.write_zeroes(range, driver_flags).await {
            Err(error) if error.kind() == ErrorKind::Unsupported && !flags.no_fallback => {
                drop(order);
                self.write_zero_bytes(limits, range, flags).await
            }
            result => result,
        }
    }

    async fn write_zero_bytes(
        &self,
        limits: Limits,
        range: ByteRange,
        flags: ZeroFlags,
    ) -> Result<(), Error> {
        let flags = WriteFlags {
            fua: false,
            serialise: flags.serialise,
        };
        for piece in range.pieces(ZERO_CHUNK) {
            let data = zeroes(to_usize(piece.length()));
            self.write_aligned(limits, piece, data, flags).await?;
        }
        Ok(())
    }

    pub(super) async fn discard_aligned(&self, range: ByteRange) -> Result<(), Error> {
        let limits = self.check_change(range)?;
        let inner = range.align_in(limits.request_alignment);
        if inner.is_empty() || self.ignore_discards {
            return Ok(());
        }
        let _order = self.share_writes(limits, inner).await;
        match self.driver.discard(inner).await {
            // A discard is advice: not being able to is no failure.
            Err(error) if error.kind() == ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    pub(super) async fn block_status_aligned(
        &self,
        range: ByteRange,
    ) -> Result<Vec<Extent>, Error> {
        let limits = self.check_bounds(range)?;
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let whole = range.align_out(limits.request_alignment);
        let extents = self.driver.block_status(whole).await?;
        let cut = extents.into_iter().map(|extent| Extent {
            range: extent.range.intersection(range),
            ..extent
        });
        Ok(cut.filter(|extent| !extent.range.is_empty()).collect())
    }

    /// Keeps read-modify-write out of `range`. Drivers that take any byte range need none of it.
    async fn share_writes(&self, limits: Limits, range: ByteRange) -> Option<RangeGuard> {
        if limits.request_alignment == 1 {
            return None;
        }
        Some(self.writes.lock(range, LockKind::Shared).await)
    }

    async fn flush_if(&self, wanted: bool) -> Result<(), Error> {
        if wanted {
            self.driver.flush().await
        } else {
            Ok(())
        }
    }

    fn check_bounds(&self, range: ByteRange) -> Result<Limits, Error> {
        let limits = self.driver.limits();
        if range.end() <= limits.length {
            return Ok(limits);
        }
        let message = format!("the node ends at {}", limits.length);
        Err(Error::with_message(ErrorKind::InvalidRequest, message))
    }

    fn check_change(&self, range: ByteRange) -> Result<Limits, Error> {
        if self.read_only.get() {
            return Err(Error::with_message(
                ErrorKind::NotPermitted,
                "the node is read-only",
            ));
        }
        self.check_bounds(range)
    }
}

/// Which end of an aligned block a part lies at.
#[derive(Clone, Copy)]
enum Edge {
    Start,
    End,
}

/// Pieces of at most `longest` bytes.
fn cut(range: ByteRange, longest: u64) -> impl Iterator<Item = ByteRange> {
    let mut next = range.offset();
    std::iter::from_fn(move || {
        let start = next;
        next = start.saturating_add(longest.max(1)).min(range.end());
        (start < range.end()).then(|| ByteRange::between(start, next))
    })
}

/// A length that memory was or can be asked for; larger ones never get here.
fn to_usize(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
