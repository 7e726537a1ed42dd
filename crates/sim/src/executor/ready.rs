//! The queue of tasks that want to be polled, and the wakers that fill it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

/// Tasks to poll. Wakers must be `Send`, hence the lock; nobody ever waits for it.
#[derive(Default)]
pub(super) struct Ready {
    queue: Mutex<VecDeque<u64>>,
}

impl Ready {
    pub(super) fn lock(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts its task into the ready queue, once.
pub(super) struct TaskWaker {
    id: u64,
    pub(super) queued: AtomicBool,
    ready: Arc<Ready>,
}

impl TaskWaker {
    pub(super) fn new(id: u64, ready: &Arc<Ready>) -> Arc<TaskWaker> {
        Arc::new(TaskWaker {
            id,
            queued: AtomicBool::new(false),
            ready: Arc::clone(ready),
        })
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().push_back(self.id);
        }
    }
}
