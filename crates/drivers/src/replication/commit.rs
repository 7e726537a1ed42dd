//! The active commit: what active and hidden hold goes into the secondary disk while the guest
//! reads and writes.
//!
//! ```text
//! look ─▶ remaining: the blocks of active and hidden ─▶ copy, up to 16 runs at a time ─▶ flush
//!                          ▲ a write that did not reach the secondary disk
//! ```
//!
//! Order contract: a copy and a guest's write to the same bytes exclude each other, so that active
//! and the secondary disk always get them in the same order.
//!
//! Cancel safety: dropping the commit keeps what was not copied in `remaining`.

use super::Replication;
use super::view::is_held;
use block::{BlockMap, ByteRange, Error, ErrorKind, LockKind, RangeLock, ZeroFlags, is_zero};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use std::cell::{Cell, RefCell};

/// What `remaining` counts in, in bytes. Copies are whole blocks of the view.
const BLOCK: u64 = 4096;
/// Longest run copied at once, in bytes.
const RUN: u64 = 1 << 20;
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
pub(super) struct Commit {
    order: RangeLock,
    /// Blocks to be copied; `None` until the overlays have been looked at.
    remaining: RefCell<Option<BlockMap>>,
    done: Cell<u64>,
    running: Cell<bool>,
    cancelled: Cell<bool>,
}

impl Commit {
    pub(super) fn new() -> Commit {
        Commit {
            order: RangeLock::new(),
            remaining: RefCell::new(None),
            done: Cell::new(0),
            running: Cell::new(false),
            cancelled: Cell::new(false),
        }
    }

    pub(super) fn lock(&self, range: ByteRange, kind: LockKind) -> block::Acquire {
        self.order.lock(range, kind)
    }

    /// The blocks of `range` have to be copied (again).
    pub(super) fn mark(&self, range: ByteRange) {
        if let Some(remaining) = &mut *self.remaining.borrow_mut() {
            remaining.insert(blocks(range));
        }
    }

    fn unmark(&self, range: ByteRange) {
        if let Some(remaining) = &mut *self.remaining.borrow_mut() {
            remaining.remove(blocks(range));
        }
    }

    /// The first run to copy at or after `from`.
    fn next(&self, from: u64, length: u64) -> Option<ByteRange> {
        let remaining = self.remaining.borrow();
        let remaining = remaining.as_ref()?;
        let mut runs = remaining.runs(from / BLOCK..remaining.blocks());
        let (_, run) = runs.find(|(member, _)| *member)?;
        let start = run.start.saturating_mul(BLOCK);
        let end = run.end.saturating_mul(BLOCK).min(length);
        Some(ByteRange::between(
            start,
            end.min(start.saturating_add(RUN)),
        ))
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

    /// Lets a running commit end after the runs it is copying.
    pub fn cancel_commit(&self) {
        self.commit.cancelled.set(self.commit.running.get());
    }

    /// Whether a commit is running.
    pub fn is_committing(&self) -> bool {
        self.commit.running.get()
    }

    /// Bytes that have not been copied yet; the whole length as long as nobody has looked.
    pub fn commit_remaining(&self) -> u64 {
        match &*self.commit.remaining.borrow() {
            Some(remaining) => remaining.len().saturating_mul(BLOCK),
            None => self.file.length(),
        }
    }

    /// How far the commit has come; `None` until the overlays have been looked at.
    pub fn commit_progress(&self) -> Option<Progress> {
        self.commit.remaining.borrow().as_ref()?;
        let done = self.commit.done.get();
        let total = done.saturating_add(self.commit_remaining());
        Some(Progress { done, total })
    }

    /// Finds out what the overlays hold. A write meanwhile goes to both disks; whether it is
    /// found does not matter.
    async fn look(&self) -> Result<(), Error> {
        if self.commit.remaining.borrow().is_some() {
            return Ok(());
        }
        let length = self.file.length();
        let mut found = BlockMap::new(length.div_ceil(BLOCK));
        let mut at = 0;
        while at < length {
            self.check_cancelled()?;
            let range = ByteRange::between(at, at.saturating_add(LOOK).min(length));
            for extent in self.held(range).await? {
                if is_held(&extent) {
                    found.insert(blocks(extent.range));
                }
                at = at.max(extent.range.end());
            }
        }
        self.commit.remaining.replace(Some(found));
        Ok(())
    }

    async fn copy_all(&self) -> Result<(), Error> {
        let length = self.file.length();
        let mut copies = FuturesUnordered::new();
        let mut at = 0;
        loop {
            while copies.len() < RUNS {
                let Some(run) = self.commit.next(at, length) else {
                    break;
                };
                self.check_cancelled()?;
                at = run.end();
                copies.push(self.copy(run));
            }
            match copies.next().await {
                Some(result) => result?,
                // What was marked behind `at` meanwhile is found from the start again.
                None if at > 0 => at = 0,
                None => return Ok(()),
            }
        }
    }

    async fn copy(&self, run: ByteRange) -> Result<(), Error> {
        let secondary = self.buffers()?.secondary;
        let _alone = self.commit.lock(run, LockKind::Exclusive).await;
        let data = self.file.read(run).await?;
        if is_zero(&data) {
            let flags = ZeroFlags {
                may_unmap: true,
                ..ZeroFlags::default()
            };
            secondary.write_zeroes(run, flags).await?;
        } else {
            let flags = block::WriteFlags::default();
            secondary.write(run.offset(), data, flags).await?;
        }
        self.commit.unmark(run);
        let done = self.commit.done.get().saturating_add(run.length());
        self.commit.done.set(done);
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

/// Says that a commit is running, for as long as it lives.
struct Running<'a>(&'a Commit);

impl<'a> Running<'a> {
    fn enter(commit: &'a Commit) -> Running<'a> {
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

/// The blocks that `range` touches.
fn blocks(range: ByteRange) -> std::ops::Range<u64> {
    range.offset() / BLOCK..range.end().div_ceil(BLOCK)
}
