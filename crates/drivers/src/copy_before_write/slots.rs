//! A bound on how many copies run at a time, and news of those that end.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Room for so many copies at a time.
pub(super) struct Slots {
    size: usize,
    running: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
}

impl Slots {
    pub(super) fn new(size: usize) -> Slots {
        Slots {
            size,
            running: Cell::new(0),
            waiting: RefCell::default(),
        }
    }

    /// Resolves when there is room.
    pub(super) async fn enter(&self) -> Slot<'_> {
        self.wait(|| self.running.get() < self.size).await;
        self.running.set(self.running.get().saturating_add(1));
        Slot(self)
    }

    /// Resolves when `ready` says so; asked again after every [`Slots::notify`].
    pub(super) async fn wait(&self, ready: impl Fn() -> bool) {
        poll_fn(|cx| {
            if ready() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Something has ended.
    pub(super) fn notify(&self) {
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// The place of a copy that runs.
pub(super) struct Slot<'a>(&'a Slots);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get().saturating_sub(1));
        self.0.notify();
    }
}
