//! The way of a change: forwarded, or into the secondary's view.

use super::Replication;
use ::replication::{Path, Request, Run, Split, Target};
use block::{Answer, ByteRange, Child, Error, ErrorKind, Op, WriteFlags, ZeroFlags};
use bytes::Bytes;
use futures_util::future::try_join;
use std::future::{Future, ready};

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

    fn request(&self) -> (Request, Op) {
        match self {
            Change::Write(..) => (Request::Write, Op::Write),
            Change::Zero(..) => (Request::WriteZeroes, Op::WriteZeroes),
            Change::Discard(_) => (Request::Discard, Op::Discard),
        }
    }

    pub(super) async fn send(self, child: &Child) -> Result<(), Error> {
        match self {
            Change::Write(offset, data, flags) => child.write(offset, data, flags).await,
            Change::Zero(range, flags) => child.write_zeroes(range, flags).await,
            Change::Discard(range) => child.discard(range).await,
        }
    }

    /// The same with defined contents: a discard becomes zeroes. Active, merely told that it may
    /// forget, would let the layers below show again; two disks, each told so, would differ.
    //= docs/spec/replication.md#requests
    //# A discard by the secondary's guest MUST NOT let older data of a lower layer show again: while
    //# the overlays are in place it counts as zeroes.
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

    /// The part of the change that lies in `part`, which lies in its range.
    pub(super) fn cut(&self, part: ByteRange) -> Change {
        match self {
            Change::Write(offset, data, flags) => {
                let from = to_usize(part.offset().saturating_sub(*offset));
                let to = from.saturating_add(to_usize(part.length()));
                Change::Write(part.offset(), data.slice(from..to), *flags)
            }
            Change::Zero(_, flags) => Change::Zero(part, *flags),
            Change::Discard(_) => Change::Discard(part),
        }
    }
}

impl Replication {
    pub(super) fn change(&self, change: Change) -> Answer<'_, ()> {
        let (request, op) = change.request();
        match self.path(request) {
            Path::Fail => Box::pin(ready(Err(self.refused()))),
            Path::Drop => Box::pin(ready(Ok(()))),
            Path::File | Path::Both => Box::pin(change.send(&self.file)),
            //= docs/spec/replication.md#requests
            //# A running secondary MUST send its guest's writes and zeroes to the active disk and
            //# to nothing else.
            Path::Active => Box::pin(self.noticing(change.defined().send(&self.file))),
            Path::Forward(on_loss) => {
                let what = (op, change.range());
                Box::pin(self.forward(what, on_loss, change.send(&self.file)))
            }
            Path::Commit => Box::pin(self.noticing(self.write_committing(change.defined()))),
            Path::Split => Box::pin(self.noticing(self.write_split(change.defined()))),
        }
    }

    /// A failure of the secondary's own disks: the guest's error, unchanged, and the first one is
    /// remembered.
    //= docs/spec/replication.md#requests
    //# An error of the secondary's own disks MUST be returned to the guest unchanged.
    pub(super) async fn noticing(
        &self,
        request: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let result = request.await;
        if let Err(error) = &result
            && error.kind() != ErrorKind::Unsupported
        {
            self.latch(error.clone());
        }
        result
    }

    //= docs/spec/replication.md#after-a-failed-failover
    //# A write in FAILOVER_FAILED MUST NOT take new space in an overlay; reads go on through the
    //# chain.
    /// After a failed failover (R72 to R77): what the overlays hold is written there, and has to be
    /// copied (again) by a retry; everything else goes past them.
    async fn write_split(&self, change: Change) -> Result<(), Error> {
        let secondary = self.buffers()?.secondary;
        let mut split = Split::new(change.range());
        while let Some(rest) = split.rest() {
            let extents = self.file.block_status(rest).await?;
            let run = split
                .next(&extents)
                .map_err(|no_answer| Error::with_message(ErrorKind::Io, no_answer.to_string()))?;
            let Run { range, target } = run;
            match target {
                Target::Active => {
                    let written = change.cut(range).send(&self.file).await;
                    self.commit.add(range);
                    written?;
                }
                //= docs/spec/replication.md#after-a-failed-failover
                //# The first run that fails MUST end the write with its error; runs before it stay
                //# written.
                Target::Secondary => change.cut(range).send(&secondary).await?,
            }
        }
        Ok(())
    }

    /// Failover and after: hidden before active, because active's record says that both are
    /// complete.
    pub(super) async fn flush_both(&self) -> Result<(), Error> {
        let buffers = self.buffers()?;
        let overlays = async {
            buffers.hidden.flush().await?;
            self.file.flush().await
        };
        try_join(overlays, buffers.secondary.flush()).await?;
        Ok(())
    }
}

/// A length that memory was or can be asked for; larger ones never get here.
fn to_usize(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
