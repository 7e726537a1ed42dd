//! Requests: reads through the map, first writes of blocks, zeroes, allocation.

use super::Core;
use super::format::{BLOCK, Layout};
use block::{
    Buffer, ByteRange, Error, ErrorKind, Extent, LockKind, RangeGuard, WriteFlags, ZeroFlags,
    align_down, coalesce, zeroes,
};
use bytes::Bytes;
use futures_util::stream::{self, TryStreamExt};

/// Runs of one read that are read at a time.
const RUNS: usize = 16;
/// Runs that one answer about the allocation covers at most, and extents after which it stops.
const STATUS_RUNS: usize = 1024;
/// Held runs shorter than this count as data; the file is not asked for holes in them (bytes).
const ASKED: u64 = 64 << 10;

impl Core {
    pub(super) async fn read(&self, range: ByteRange) -> Result<Bytes, Error> {
        //= docs/spec/ai-overlay.md#requests
        //# A read MUST hold its range until its read of the backing node has ended, so that a
        //# serialised write waits for it and excludes later ones.
        let _shared = self.order.lock(range, LockKind::Shared).await;
        let blocks = Layout::blocks(range);
        let (held, end) = self.map.borrow().run(blocks.clone());
        if end >= blocks.end {
            return self.read_run(held, range).await;
        }
        let runs = self.map.borrow().runs(blocks);
        let reads = runs.into_iter().map(|(held, blocks)| {
            let part = self.layout.bytes(blocks).intersection(range);
            Ok(self.read_run(held, part))
        });
        let buffer = Buffer::with_capacity(to_usize(range.length()));
        let fill = |mut buffer: Buffer, part: Bytes| async move {
            buffer.fill(&part);
            Ok::<Buffer, Error>(buffer)
        };
        let parts = stream::iter(reads).try_buffered(RUNS);
        Ok(parts.try_fold(buffer, fill).await?.freeze())
    }

    //= docs/spec/ai-overlay.md#requests
    //# Where the overlay holds a block it MUST show its own data, elsewhere its backing node's.
    //= docs/spec/replication.md#copy-before-write
    //# Data that the secondary's guest wrote MUST keep covering what the peer writes to the same
    //# place, until the next checkpoint.
    /// Reads a range that is held, or not, as a whole.
    async fn read_run(&self, held: bool, range: ByteRange) -> Result<Bytes, Error> {
        if held {
            self.file.read(self.layout.data(range)).await
        } else {
            self.backing.read(range).await
        }
    }

    pub(super) async fn write(
        &self,
        offset: u64,
        data: Bytes,
        serialise: bool,
    ) -> Result<(), Error> {
        self.check_change()?;
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let range = ByteRange::between(offset, offset.saturating_add(length));
        let _order = self.lock_for_write(range, serialise).await;
        let (at, data) = self.complete(range, data).await?;
        let at = self.layout.data(at).offset();
        self.file.write(at, data, WriteFlags::default()).await?;
        self.written(range);
        Ok(())
    }

    /// Whole blocks, and parts of blocks that are held, are written beside others. The first
    /// write of a part needs its block for itself, because it writes the rest as well.
    async fn lock_for_write(&self, range: ByteRange, serialise: bool) -> RangeGuard {
        let whole = self.layout.bytes(Layout::blocks(range));
        if !serialise {
            let guard = self.order.lock(whole, LockKind::Shared).await;
            if self.edges(range).is_empty() {
                return guard;
            }
        }
        self.order.lock(whole, LockKind::Exclusive).await
    }

    /// The parts of the blocks of `range` that lie outside it and have to be written with it.
    fn edges(&self, range: ByteRange) -> Vec<ByteRange> {
        let whole = self.layout.bytes(Layout::blocks(range));
        let head = ByteRange::between(whole.offset(), range.offset());
        let tail = ByteRange::between(range.end(), whole.end());
        let map = self.map.borrow();
        let needed = |edge: &ByteRange| !edge.is_empty() && !map.holds(edge.offset() / BLOCK);
        [head, tail].into_iter().filter(needed).collect()
    }

    //= docs/spec/ai-overlay.md#requests
    //# The first write of a part of a block MUST keep the rest as the backing node shows it.
    /// `data` with the edges around it, and where it lies. Without edges it is not touched.
    async fn complete(&self, range: ByteRange, data: Bytes) -> Result<(ByteRange, Bytes), Error> {
        let edges = self.edges(range);
        let start = edges.iter().map(|edge| edge.offset()).min();
        let end = edges.iter().map(|edge| edge.end()).max();
        let (Some(start), Some(end)) = (start, end) else {
            return Ok((range, data));
        };
        let all = ByteRange::between(start.min(range.offset()), end.max(range.end()));
        let head = ByteRange::between(all.offset(), range.offset());
        let tail = ByteRange::between(range.end(), all.end());
        let mut buffer = Buffer::with_capacity(to_usize(all.length()));
        if !head.is_empty() {
            buffer.fill(&self.backing.read(head).await?);
        }
        buffer.fill(&data);
        if !tail.is_empty() {
            buffer.fill(&self.backing.read(tail).await?);
        }
        Ok((all, buffer.freeze()))
    }

    /// The blocks of `range` hold data now.
    fn written(&self, range: ByteRange) {
        self.state.unflushed.set(true);
        self.map.borrow_mut().allocate(Layout::blocks(range));
    }

    //= docs/spec/ai-overlay.md#requests
    //# A block that was zeroed or discarded MUST read as zeroes and never as the backing node
    //# again.
    /// Zeroes are a hole in the file and bits in the map; only the ends that are not whole blocks
    /// are written.
    pub(super) async fn write_zeroes(
        &self,
        range: ByteRange,
        flags: ZeroFlags,
    ) -> Result<(), Error> {
        self.check_change()?;
        let inner = self.whole_blocks(range);
        if inner.is_empty() {
            return self.write_zero_bytes(range, flags.serialise).await;
        }
        let head = ByteRange::between(range.offset(), inner.offset());
        let tail = ByteRange::between(inner.end(), range.end());
        self.write_zero_bytes(head, flags.serialise).await?;
        self.zero_blocks(inner, flags).await?;
        self.write_zero_bytes(tail, flags.serialise).await
    }

    pub(super) async fn discard(&self, range: ByteRange) -> Result<(), Error> {
        self.check_change()?;
        let inner = self.whole_blocks(range);
        if inner.is_empty() {
            return Ok(());
        }
        self.zero_blocks(inner, ZeroFlags::default()).await
    }

    async fn zero_blocks(&self, range: ByteRange, flags: ZeroFlags) -> Result<(), Error> {
        let kind = if flags.serialise {
            LockKind::Exclusive
        } else {
            LockKind::Shared
        };
        let _order = self.order.lock(range, kind).await;
        let whole = ByteRange::between(range.offset(), range.end().next_multiple_of(BLOCK));
        self.zero_file(self.layout.data(whole), flags).await?;
        self.written(range);
        Ok(())
    }

    async fn zero_file(&self, range: ByteRange, flags: ZeroFlags) -> Result<(), Error> {
        match self.punch_hole(range).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                let flags = ZeroFlags {
                    may_unmap: true,
                    no_fallback: flags.no_fallback,
                    ..ZeroFlags::default()
                };
                self.file.write_zeroes(range, flags).await
            }
            result => result,
        }
    }

    async fn write_zero_bytes(&self, range: ByteRange, serialise: bool) -> Result<(), Error> {
        if range.is_empty() {
            return Ok(());
        }
        let data = zeroes(to_usize(range.length()));
        self.write(range.offset(), data, serialise).await
    }

    /// The whole blocks within `range`; the last one of the disk may be short.
    fn whole_blocks(&self, range: ByteRange) -> ByteRange {
        let end = if range.end() >= self.layout.length {
            self.layout.length
        } else {
            align_down(range.end(), BLOCK)
        };
        ByteRange::between(range.offset().next_multiple_of(BLOCK), end)
    }

    pub(super) async fn block_status(&self, range: ByteRange) -> Result<Vec<Extent>, Error> {
        let _shared = self.order.lock(range, LockKind::Shared).await;
        let blocks = Layout::blocks(range);
        let runs = self.map.borrow().first_runs(blocks, STATUS_RUNS);
        let mut extents = Vec::new();
        for (held, blocks) in runs {
            let run = self.layout.bytes(blocks).intersection(range);
            let found = self.run_status(held, run).await?;
            let end = found.last().map_or(run.offset(), |last| last.range.end());
            extents.extend(found);
            // A run of the backing node may have many extents of its own.
            if end < run.end() || extents.len() >= STATUS_RUNS {
                break;
            }
        }
        Ok(coalesce(extents))
    }

    async fn run_status(&self, held: bool, run: ByteRange) -> Result<Vec<Extent>, Error> {
        if !held {
            let extents = self.backing.block_status(run).await?;
            return Ok(extents.into_iter().map(Extent::one_deeper).collect());
        }
        if run.length() < ASKED {
            return Ok(vec![Extent::data(run)]);
        }
        let extents = self.file.block_status(self.layout.data(run)).await?;
        let here = extents.into_iter().map(|extent| Extent {
            range: self.layout.disk(extent.range).intersection(run),
            depth: 1,
            ..extent
        });
        Ok(here.collect())
    }
}

/// A length that memory was or can be asked for; larger ones never get here.
fn to_usize(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
