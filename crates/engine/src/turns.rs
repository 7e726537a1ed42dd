//! One change of the graph at a time, in the order they were asked for.

use block::{ByteRange, LockKind, RangeGuard, RangeLock};

/// A queue of those who change the graph. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns {
    lock: RangeLock,
}

/// Somebody's turn; it ends when this is dropped.
#[derive(Debug)]
#[must_use = "the turn ends when this is dropped"]
pub(crate) struct Turn {
    _guard: RangeGuard,
}

impl Turns {
    /// Waits for everybody before.
    pub(crate) async fn take(&self) -> Turn {
        let all = ByteRange::between(0, 1);
        let guard = self.lock.lock(all, LockKind::Exclusive).await;
        Turn { _guard: guard }
    }
}
