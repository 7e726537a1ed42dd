//! The way of a change: forwarded, or into the secondary's view.

use super::{Path, Replication};
use block::{Answer, ByteRange, Child, Error, Extent, LockKind, Op, WriteFlags, ZeroFlags};
use bytes::Bytes;
use futures_util::future::join;

/// A request that changes data.
#[derive(Clone)]
pub(super) enum Change {
    Write(u64, Bytes, WriteFlags),
    Zero(ByteRange, ZeroFlags),
    Discard(ByteRange),
}

impl Change {
    pub(super) fn range(&self) -> ByteRange {
        match self {
            Change::Write(offset, data, _) => {
                let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                ByteRange::between(*offset, offset.saturating_add(length))
            }
            Change::Zero(range, _) | Change::Discard(range) => *range,
        }
    }

    fn op(&self) -> Op {
        match self {
            Change::Write(..) => Op::Write,
            Change::Zero(..) => Op::WriteZeroes,
            Change::Discard(_) => Op::Discard,
        }
    }

    async fn send(self, child: &Child) -> Result<(), Error> {
        match self {
            Change::Write(offset, data, flags) => child.write(offset, data, flags).await,
            Change::Zero(range, flags) => child.write_zeroes(range, flags).await,
            Change::Discard(range) => child.discard(range).await,
        }
    }

    /// The same with contents that are the same on every disk: a discard becomes zeroes.
    fn defined(self) -> Change {
        let flags = ZeroFlags {
            may_unmap: true,
            ..ZeroFlags::default()
        };
        match self {
            Change::Discard(range) => Change::Zero(range, flags),
            Change::Write(..) | Change::Zero(..) => self,
        }
    }

    /// The part of the change that lies in `part`.
    fn cut(&self, part: ByteRange) -> Change {
        match self {
            Change::Write(offset, data, flags) => {
                let from = usize::try_from(part.offset().saturating_sub(*offset));
                let length = usize::try_from(part.length());
                let (from, length) = (from.unwrap_or(usize::MAX), length.unwrap_or(usize::MAX));
                let data = data.slice(from..from.saturating_add(length));
                Change::Write(part.offset(), data, *flags)
            }
            Change::Zero(_, flags) => Change::Zero(part, *flags),
            Change::Discard(_) => Change::Discard(part),
        }
    }
}

impl Replication {
    pub(super) fn change(&self, change: Change) -> Answer<'_, ()> {
        match self.write_path() {
            Path::Refuse => Box::pin(std::future::ready(Err(self.refused()))),
            Path::Swallow => Box::pin(std::future::ready(Ok(()))),
            Path::Active | Path::File => Box::pin(change.send(&self.file)),
            Path::Forward => Box::pin(async move {
                let what = (change.op(), change.range());
                self.forward(what, change.send(&self.file)).await
            }),
            Path::Both => Box::pin(self.write_both(change)),
            Path::Split => Box::pin(self.write_split(change)),
        }
    }

    /// Failover: to active, where the view is read, and to the secondary disk, so that what the
    /// commit has copied stays true. Only active's answer counts: what does not reach the secondary
    /// disk is copied later.
    async fn write_both(&self, change: Change) -> Result<(), Error> {
        let range = change.range();
        let secondary = self.buffers()?.secondary;
        let _alone = self.commit.lock(range, LockKind::Exclusive).await;
        let change = change.defined();
        let (active, disk) = join(change.clone().send(&self.file), change.send(&secondary)).await;
        if active.is_err() || disk.is_err() {
            self.commit.mark(range);
        }
        active
    }

    /// Failed failover: runs that active or hidden hold go to active, the others straight to the
    /// secondary disk; no new overlay space is taken (R72 to R77).
    async fn write_split(&self, change: Change) -> Result<(), Error> {
        let secondary = self.buffers()?.secondary;
        let range = change.range();
        let _alone = self.commit.lock(range, LockKind::Exclusive).await;
        let mut rest = range;
        while !rest.is_empty() {
            for extent in self.held(rest).await? {
                let part = change.cut(extent.range);
                if is_held(&extent) {
                    self.commit.mark(extent.range);
                    part.send(&self.file).await?;
                } else {
                    part.send(&secondary).await?;
                }
                rest = ByteRange::between(extent.range.end(), range.end());
            }
        }
        Ok(())
    }

    /// The extents of `range` as the view's layers hold them, from its start on.
    pub(super) async fn held(&self, range: ByteRange) -> Result<Vec<Extent>, Error> {
        let extents = self.file.block_status(range).await?;
        if extents.is_empty() {
            // A driver that says nothing cannot be told from one that holds everything.
            return Ok(vec![Extent::data(range)]);
        }
        Ok(extents)
    }

    /// Failover and after: hidden first, because active's record says that both are complete.
    pub(super) async fn flush_both(&self) -> Result<(), Error> {
        let buffers = self.buffers()?;
        buffers.hidden.flush().await?;
        self.file.flush().await?;
        buffers.secondary.flush().await
    }
}

/// Whether active (1) or hidden (2) hold it.
pub(super) fn is_held(extent: &Extent) -> bool {
    (1..=2).contains(&extent.depth)
}
