//! The active commit: what active and hidden hold goes into the secondary disk while the guest
//! reads and writes.
//!
//! ```text
//! look ─▶ dirty: the chunks of active and hidden ─▶ copy, up to 16 runs at a time ─▶ flush
//!           ▲                                         │
//!           └─ what a guest's write left unknown      └─ while guests write: `Commit` orders both
//! ```
//!
//! Guests write from the first moment, also while the overlays are looked at. Their writes keep to the
//! order of `Commit` from the start: a chunk that is found after a write has passed it is copied
//! from active, where that write is.
//!
//! Cancel safety: dropping the commit, or a write, counts as its failure; what it leaves unknown is
//! copied.

use super::Replication;
use super::view::Change;
use ::replication::Commit;
use ::replication::commit::{CopyTicket, Next, Outcome, WriteTicket};
use block::{ByteRange, Error, ErrorKind, WriteFlags, ZeroFlags, is_zero};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::task::{Context, Poll};

/// What is copied together at least, in bytes.
const CHUNK: u64 = 4096;
/// Runs copied at a time.
const RUNS: usize = 16;
/// How much of the disk is looked at between two turns of other work, in bytes.
const LOOK: u64 = 1 << 30;

/// How far a commit has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes copied.
    pub done: u64,
    /// Bytes copied and still to be copied.
    pub total: u64,
}

/// The state of a commit; it outlives a failed one.
pub(super) struct Committing {
    plan: RefCell<Commit>,
    /// Everything the overlays held when they were looked at is in the plan.
    looked: Cell<bool>,
    running: Cell<bool>,
    cancelled: Cell<bool>,
}

impl Committing {
    pub(super) fn new(length: u64) -> Committing {
        Committing {
            plan: RefCell::new(Commit::new(length, CHUNK)),
            looked: Cell::new(false),
            running: Cell::new(false),
            cancelled: Cell::new(false),
        }
    }

    /// `range` has to be copied (again).
    pub(super) fn add(&self, range: ByteRange) {
        self.plan.borrow_mut().add(range);
    }

    /// Polls the plan.
    fn poll<T>(
        &self,
        ask: impl Fn(&mut Commit, &mut Context<'_>) -> Poll<T>,
    ) -> impl Future<Output = T> {
        poll_fn(move |cx| ask(&mut self.plan.borrow_mut(), cx))
    }
}

impl Replication {
    /// Copies everything active and hidden hold into the secondary disk and makes it durable.
    /// After an error, calling it again goes on with what remains.
    ///
    /// # Errors
    ///
    /// The first error of a disk; [`ErrorKind::ShuttingDown`] if it was cancelled.
    pub async fn commit(&self) -> Result<(), Error> {
        let _running = Running::enter(&self.commit);
        self.look().await?;
        self.copy_all().await?;
        self.buffers()?.secondary.flush().await
    }

    /// Lets a running commit end with an error, at its next step.
    pub fn cancel_commit(&self) {
        self.commit.cancelled.set(self.commit.running.get());
    }

    /// Whether a commit is running.
    pub fn is_committing(&self) -> bool {
        self.commit.running.get()
    }

    /// Bytes that have to be copied before the secondary disk shows what the guest sees; the whole
    /// length as long as nobody has looked. Exact while nothing is in flight.
    pub fn commit_remaining(&self) -> u64 {
        let progress = self.commit_progress();
        progress.map_or(self.file.length(), |p| p.total.saturating_sub(p.done))
    }

    /// How far the commit has come; `None` until the overlays have been looked at.
    pub fn commit_progress(&self) -> Option<Progress> {
        let (done, total) = self.commit.plan.borrow().progress();
        let progress = Progress { done, total };
        self.commit.looked.get().then_some(progress)
    }

    //= docs/spec/replication.md#failover
    //# In FAILOVER the guest MUST be able to read and write throughout.
    /// FAILOVER: to active, where the view is read, and to the secondary disk wherever the commit has
    /// been. Only active's answer counts: what does not reach the secondary disk is copied later.
    pub(super) async fn write_committing(&self, change: Change) -> Result<(), Error> {
        let range = change.range();
        let ticket = self.commit.plan.borrow_mut().begin_write(range);
        let mut report = WriteReport::new(&self.commit, ticket);
        self.commit
            .poll(|commit, cx| commit.poll_active(ticket, cx))
            .await;
        let written = change.clone().send(&self.file).await;
        let outcome = if written.is_ok() {
            Outcome::Done
        } else {
            Outcome::Failed
        };
        self.commit.plan.borrow_mut().in_active(ticket, outcome);
        written?;
        report.outcome = self.write_through(ticket, &change).await;
        Ok(())
    }

    async fn write_through(&self, ticket: WriteTicket, change: &Change) -> Outcome {
        let parts = self
            .commit
            .poll(|commit, cx| commit.poll_through(ticket, cx))
            .await;
        for part in parts {
            let written = match self.buffers() {
                Ok(buffers) => change.cut(part).send(&buffers.secondary).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                tracing::debug!(%error, "a write was not passed through; it will be copied");
                return Outcome::Failed;
            }
        }
        Outcome::Done
    }

    /// Finds out what the overlays hold.
    async fn look(&self) -> Result<(), Error> {
        if self.commit.looked.get() {
            return Ok(());
        }
        let length = self.file.length();
        let mut at = 0;
        while at < length {
            self.check_cancelled()?;
            let range = ByteRange::between(at, at.saturating_add(LOOK).min(length));
            let extents = self.file.block_status(range).await?;
            let end = extents.last().map_or(at, |last| last.range.end());
            if end <= at {
                let message = format!("block status says nothing about offset {at}");
                return Err(Error::with_message(ErrorKind::Io, message));
            }
            let held = extents.iter().filter(|e| (1..=2).contains(&e.depth));
            held.for_each(|extent| self.commit.add(extent.range));
            at = end;
        }
        self.commit.looked.set(true);
        Ok(())
    }

    async fn copy_all(&self) -> Result<(), Error> {
        let mut copies = FuturesUnordered::new();
        loop {
            self.check_cancelled()?;
            let has_room = copies.len() < RUNS;
            let step = poll_fn(|cx| {
                if has_room
                    && let Poll::Ready(next) = self.commit.plan.borrow_mut().poll_next_copy(cx)
                {
                    return Poll::Ready(Step::Next(next));
                }
                match copies.poll_next_unpin(cx) {
                    Poll::Ready(Some(result)) => Poll::Ready(Step::Copied(result)),
                    Poll::Ready(None) | Poll::Pending => Poll::Pending,
                }
            });
            match step.await {
                Step::Next(Next::Copy(ticket, run)) => {
                    // Made here: a copy that is dropped before it runs counts as well.
                    let report = CopyReport::new(&self.commit, ticket);
                    copies.push(self.copy(report, run));
                }
                Step::Next(Next::Finished) => return Ok(()),
                Step::Copied(result) => result?,
            }
        }
    }

    //= docs/spec/replication.md#commit
    //# A commit MUST copy what active or hidden hold into the secondary disk, reading what the guest
    //# sees.
    async fn copy(&self, mut report: CopyReport<'_>, run: ByteRange) -> Result<(), Error> {
        let secondary = self.buffers()?.secondary;
        let data = self.file.read(run).await?;
        if is_zero(&data) {
            let flags = ZeroFlags {
                may_unmap: true,
                ..ZeroFlags::default()
            };
            secondary.write_zeroes(run, flags).await?;
        } else {
            let flags = WriteFlags::default();
            secondary.write(run.offset(), data, flags).await?;
        }
        report.outcome = Outcome::Done;
        Ok(())
    }

    fn check_cancelled(&self) -> Result<(), Error> {
        if self.commit.cancelled.get() {
            let message = "the commit was cancelled";
            return Err(Error::with_message(ErrorKind::ShuttingDown, message));
        }
        Ok(())
    }
}

/// What the copier does next, or has done.
enum Step {
    Next(Next),
    Copied(Result<(), Error>),
}

/// Tells the bookkeeping how a copy ended, also one that was dropped.
struct CopyReport<'a> {
    commit: &'a Committing,
    ticket: CopyTicket,
    outcome: Outcome,
}

impl<'a> CopyReport<'a> {
    fn new(commit: &'a Committing, ticket: CopyTicket) -> CopyReport<'a> {
        CopyReport {
            commit,
            ticket,
            outcome: Outcome::Failed,
        }
    }
}

impl Drop for CopyReport<'_> {
    fn drop(&mut self) {
        let (ticket, outcome) = (self.ticket, self.outcome);
        self.commit.plan.borrow_mut().copied(ticket, outcome);
    }
}

/// Tells the bookkeeping how a guest's write ended, also one that was dropped.
struct WriteReport<'a> {
    commit: &'a Committing,
    ticket: WriteTicket,
    outcome: Outcome,
}

impl<'a> WriteReport<'a> {
    fn new(commit: &'a Committing, ticket: WriteTicket) -> WriteReport<'a> {
        WriteReport {
            commit,
            ticket,
            outcome: Outcome::Failed,
        }
    }
}

impl Drop for WriteReport<'_> {
    fn drop(&mut self) {
        let (ticket, outcome) = (self.ticket, self.outcome);
        self.commit.plan.borrow_mut().end_write(ticket, outcome);
    }
}

/// Says that a commit is running, for as long as it lives.
struct Running<'a>(&'a Committing);

impl<'a> Running<'a> {
    fn enter(commit: &'a Committing) -> Running<'a> {
        commit.cancelled.set(false);
        commit.running.set(true);
        Running(commit)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.set(false);
    }
}
