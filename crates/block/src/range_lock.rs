//! Shared and exclusive locks on byte ranges, granted in the order they were asked for.
//!
//! A request waits for every earlier request that overlaps it, unless both are shared. Order of
//! arrival decides, so there is no deadlock and no starvation: a waiter is never overtaken
//! by a later request that conflicts with it.
//!
//! Used where requests must not cross: read-modify-write against its neighbours, and a reader of an
//! old view against the copy that saves it and the write that follows.
//!
//! Cancellation contract: dropping a pending [`RangeLock::lock`] or a [`RangeGuard`] gives its
//! place up.

use crate::ByteRange;
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// How a range is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Together with other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

/// Locks on the ranges of one node. Clones share the same locks.
#[derive(Clone, Debug, Default)]
pub struct RangeLock {
    entries: Rc<RefCell<Entries>>,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    /// Holders and waiters in order of arrival.
    list: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    range: ByteRange,
    kind: LockKind,
    waker: Option<Waker>,
}

impl RangeLock {
    /// No locks held.
    pub fn new() -> RangeLock {
        RangeLock::default()
    }

    /// Takes its place in the order at once; resolves when nothing earlier conflicts.
    pub fn lock(&self, range: ByteRange, kind: LockKind) -> Acquire {
        let mut entries = self.entries.borrow_mut();
        let id = entries.next;
        entries.next = id.wrapping_add(1);
        entries.list.push(Entry {
            id,
            range,
            kind,
            waker: None,
        });
        let guard = RangeGuard {
            entries: Rc::clone(&self.entries),
            id,
        };
        Acquire { guard: Some(guard) }
    }

    /// Takes the lock if nothing conflicts now.
    pub fn try_lock(&self, range: ByteRange, kind: LockKind) -> Option<RangeGuard> {
        let mut acquire = self.lock(range, kind);
        let guard = acquire.guard.take()?;
        let free = !self.entries.borrow().blocked(guard.id);
        free.then_some(guard)
    }

    /// How many locks are held or waited for.
    pub fn len(&self) -> usize {
        self.entries.borrow().list.len()
    }

    /// Whether nobody holds or waits for a lock.
    pub fn is_empty(&self) -> bool {
        self.entries.borrow().list.is_empty()
    }
}

impl Entries {
    /// Whether something before entry `id` conflicts with it.
    fn blocked(&self, id: u64) -> bool {
        let Some(index) = self.list.iter().position(|entry| entry.id == id) else {
            return false;
        };
        let (before, rest) = self.list.split_at(index);
        rest.first()
            .is_some_and(|this| before.iter().any(|other| conflict(other, this)))
    }
}

fn conflict(a: &Entry, b: &Entry) -> bool {
    let both_shared = a.kind == LockKind::Shared && b.kind == LockKind::Shared;
    !both_shared && a.range.overlaps(b.range)
}

/// A place in the order, waiting for its turn.
#[derive(Debug)]
pub struct Acquire {
    guard: Option<RangeGuard>,
}

impl Future for Acquire {
    type Output = RangeGuard;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RangeGuard> {
        let guard = self.guard.take().expect("polled again after it was ready");
        let mut entries = guard.entries.borrow_mut();
        if !entries.blocked(guard.id) {
            drop(entries);
            return Poll::Ready(guard);
        }
        let id = guard.id;
        if let Some(entry) = entries.list.iter_mut().find(|entry| entry.id == id) {
            entry.waker = Some(cx.waker().clone());
        }
        drop(entries);
        self.guard = Some(guard);
        Poll::Pending
    }
}

/// A held lock; dropping it lets those behind it go on.
#[derive(Debug)]
pub struct RangeGuard {
    entries: Rc<RefCell<Entries>>,
    id: u64,
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        let mut entries = self.entries.borrow_mut();
        let Some(index) = entries.list.iter().position(|entry| entry.id == self.id) else {
            return;
        };
        let gone = entries.list.remove(index);
        let waiting = entries
            .list
            .iter_mut()
            .skip(index)
            .filter(|entry| conflict(&gone, entry));
        let wakers: Vec<Waker> = waiting.filter_map(|entry| entry.waker.take()).collect();
        drop(entries);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::between(start, end)
    }

    #[test]
    fn readers_share_and_a_writer_waits_for_them() {
        let lock = RangeLock::new();
        let one = lock
            .lock(range(0, 10), LockKind::Shared)
            .now_or_never()
            .unwrap();
        let two = lock
            .lock(range(5, 15), LockKind::Shared)
            .now_or_never()
            .unwrap();
        let mut writer = lock.lock(range(8, 9), LockKind::Exclusive);
        assert!((&mut writer).now_or_never().is_none());
        drop(one);
        assert!((&mut writer).now_or_never().is_none());
        drop(two);
        assert!((&mut writer).now_or_never().is_some());
    }

    #[test]
    fn a_waiter_is_not_overtaken() {
        let lock = RangeLock::new();
        let held = lock
            .lock(range(0, 10), LockKind::Shared)
            .now_or_never()
            .unwrap();
        let mut writer = lock.lock(range(0, 10), LockKind::Exclusive);
        assert!((&mut writer).now_or_never().is_none());
        assert!(lock.try_lock(range(0, 1), LockKind::Shared).is_none());
        assert!(lock.try_lock(range(10, 11), LockKind::Exclusive).is_some());
        drop(held);
        assert!((&mut writer).now_or_never().is_some());
        assert!(lock.is_empty());
    }

    #[test]
    fn a_dropped_waiter_gives_its_place_up() {
        let lock = RangeLock::new();
        let held = lock
            .lock(range(0, 10), LockKind::Exclusive)
            .now_or_never()
            .unwrap();
        let waiter = lock.lock(range(0, 10), LockKind::Exclusive);
        drop(waiter);
        drop(held);
        assert!(lock.try_lock(range(0, 10), LockKind::Exclusive).is_some());
    }
}
