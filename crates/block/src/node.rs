//! A node: a driver with a name, and the rules every request passes before the driver sees it.
//!
//! ```text
//! request ─▶ bounds ─▶ read-only? ─▶ detect zeroes ─▶ align (read-modify-write) ─▶ cut ─▶ driver
//!                                                                                   └▶ flush (FUA)
//! ```
//!
//! Clients may send any byte range. Where the driver wants aligned requests, a write that is
//! not aligned is completed with what the disk holds; it excludes overlapping writes meanwhile, so
//! no neighbour's bytes are put back.

use crate::range_lock::{LockKind, RangeGuard, RangeLock};
use crate::{
    Buffer, ByteRange, Driver, Error, ErrorKind, Extent, Limits, Op, WriteFlags, ZeroFlags,
    is_zero, zeroes,
};
use bytes::Bytes;
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

/// Longest run of zero bytes written the slow way in one request, in bytes.
const ZERO_CHUNK: u64 = 1 << 20;

/// What a node does with written data that is all zeroes (`detect-zeroes`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectZeroes {
    /// Write it as it is.
    #[default]
    Off,
    /// Turn it into a write-zeroes request.
    On,
    /// As `On`, and the range may become a hole.
    Unmap,
}

/// Properties of a node that do not depend on its driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeOptions {
    /// Refuse everything that would change the contents.
    pub read_only: bool,
    /// What to do with zeroes in written data.
    pub detect_zeroes: DetectZeroes,
    /// Succeed at discards without doing anything, and keep zeroed ranges allocated (`discard` is
    /// `ignore`).
    pub ignore_discards: bool,
}

/// A named node of the graph.
pub struct Node {
    name: String,
    driver: Box<dyn Driver>,
    detect_zeroes: DetectZeroes,
    ignore_discards: bool,
    read_only: Cell<bool>,
    /// Orders read-modify-write against the writes it overlaps.
    writes: RangeLock,
}

impl Node {
    /// A node called `name` (its `node-name`).
    pub fn new(name: impl Into<String>, driver: Box<dyn Driver>, options: NodeOptions) -> Rc<Node> {
        Rc::new(Node {
            name: name.into(),
            driver,
            detect_zeroes: options.detect_zeroes,
            ignore_discards: options.ignore_discards,
            read_only: Cell::new(options.read_only),
            writes: RangeLock::new(),
        })
    }

    /// Its `node-name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its driver.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// Length, alignment and other bounds.
    pub fn limits(&self) -> Limits {
        self.driver.limits()
    }

    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.driver.limits().length
    }

    /// Whether it refuses everything that would change its contents.
    pub fn is_read_only(&self) -> bool {
        self.read_only.get()
    }

    /// Changes that (a reopen; R36, R63).
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.set(read_only);
    }

    /// What it does with zeroes in written data.
    pub fn detect_zeroes(&self) -> DetectZeroes {
        self.detect_zeroes
    }

    /// Reads `range`; the answer has exactly its length.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] past the end; else what the driver says. Errors name the
    /// deepest node that failed.
    pub async fn read(&self, range: ByteRange) -> Result<Bytes, Error> {
        let result = self.read_aligned(range).await;
        result.map_err(|error| error.at(&self.name, Op::Read, range))
    }

    /// Writes `data` at `offset`; with [`WriteFlags::fua`] it is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] past the end, [`ErrorKind::NotPermitted`] on a read-only node;
    /// else what the driver says. After an error the range holds old data, new data or both.
    pub async fn write(&self, offset: u64, data: Bytes, flags: WriteFlags) -> Result<(), Error> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let Some(range) = ByteRange::new(offset, length) else {
            return Err(ErrorKind::InvalidRequest.into());
        };
        let result = self.write_detecting(range, data, flags).await;
        result.map_err(|error| error.at(&self.name, Op::Write, range))
    }

    /// Makes `range` read as zeroes.
    ///
    /// # Errors
    ///
    /// As [`Node::write`]; [`ErrorKind::Unsupported`] if a fast zero was asked for and there is none.
    pub async fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Result<(), Error> {
        let result = self.write_zeroes_aligned(range, flags).await;
        result.map_err(|error| error.at(&self.name, Op::WriteZeroes, range))
    }

    /// Gives the space of `range` back, as far as whole aligned blocks of it can be.
    ///
    /// # Errors
    ///
    /// As [`Node::write`]; a driver that cannot discard succeeds without doing anything.
    pub async fn discard(&self, range: ByteRange) -> Result<(), Error> {
        let result = self.discard_aligned(range).await;
        result.map_err(|error| error.at(&self.name, Op::Discard, range))
    }

    /// Makes all writes answered before this call durable.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Poisoned`] if this or an earlier flush failed: what is on the medium is
    /// unknown until the node is reopened. A read-only node has nothing to flush.
    pub async fn flush(&self) -> Result<(), Error> {
        let result = self.driver.flush().await;
        let whole = ByteRange::between(0, self.length());
        result.map_err(|error| error.at(&self.name, Op::Flush, whole))
    }

    /// The allocation of `range`, from its start on: at least one extent, the last one cut at
    /// the end of the range.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] past the end; else what the driver says.
    pub async fn block_status(&self, range: ByteRange) -> Result<Vec<Extent>, Error> {
        let result = self.block_status_aligned(range).await;
        result.map_err(|error| error.at(&self.name, Op::BlockStatus, range))
    }

    async fn read_aligned(&self, range: ByteRange) -> Result<Bytes, Error> {
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

    async fn write_detecting(
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

    async fn write_zeroes_aligned(&self, range: ByteRange, flags: ZeroFlags) -> Result<(), Error> {
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

    async fn discard_aligned(&self, range: ByteRange) -> Result<(), Error> {
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

    async fn block_status_aligned(&self, range: ByteRange) -> Result<Vec<Extent>, Error> {
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

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.driver.name())
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
