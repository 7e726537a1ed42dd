//! Tasks, time and randomness of a data thread, by tokio and the kernel.

use crate::ports::{Random, Runtime, Task};
use futures_util::future::LocalBoxFuture;
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// [`Runtime`] of a data thread.
pub(super) struct HostRuntime {
    start: Instant,
}

impl HostRuntime {
    pub(super) fn new() -> HostRuntime {
        HostRuntime {
            start: Instant::now(),
        }
    }
}

impl Runtime for HostRuntime {
    fn spawn(&self, task: LocalBoxFuture<'static, ()>) -> Task {
        let done = Rc::new(Cell::new(false));
        let mark = SetWhenDropped(Rc::clone(&done));
        let handle = tokio::task::spawn_local(async move {
            let _mark = mark;
            task.await;
        });
        let abort = handle.abort_handle();
        Task::new(Box::new(move || abort.abort()), done)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    fn wall_clock(&self) -> Duration {
        // A clock before 1970 is only shown wrongly.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }
}

/// Tells that a task has ended, by itself or by force.
struct SetWhenDropped(Rc<Cell<bool>>);

impl Drop for SetWhenDropped {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// [`Random`] of the kernel.
pub(super) struct HostRandom;

impl Random for HostRandom {
    fn identity(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the kernel always has random numbers");
        bytes
    }
}
