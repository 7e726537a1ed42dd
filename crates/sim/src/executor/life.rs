//! Processes of the simulated world: tasks that run, stop and end together; and their timers.

use super::Core;
use super::ready::TaskWaker;
use drivers::ports::{Runtime, Task};
use futures_util::future::LocalBoxFuture;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::time::Duration;

/// What the simulated wall clock shows at the start: some day in 2026.
const EPOCH: Duration = Duration::from_secs(1_780_000_000);

/// A process: its tasks run, stop and end together. Clones share it.
#[derive(Clone)]
pub struct Life {
    core: Rc<Core>,
    state: Rc<LifeState>,
}

struct LifeState {
    name: String,
    ended: Cell<bool>,
    stopped: Cell<bool>,
    /// Tasks that would have been polled while stopped.
    parked: RefCell<Vec<Arc<TaskWaker>>>,
}

impl Life {
    /// A process called `name` on the executor of `core`.
    pub(super) fn new(core: Rc<Core>, name: &str) -> Life {
        Life {
            core,
            state: Rc::new(LifeState {
                name: name.to_owned(),
                ended: Cell::new(false),
                stopped: Cell::new(false),
                parked: RefCell::default(),
            }),
        }
    }

    /// Its name, for lists of tasks.
    pub(super) fn label(&self) -> String {
        let stopped = if self.state.stopped.get() {
            " (stopped)"
        } else {
            ""
        };
        format!("{}{stopped}", self.state.name)
    }

    /// Takes `waker`'s task aside if the process is stopped.
    pub(super) fn park(&self, waker: &Arc<TaskWaker>) -> bool {
        let stopped = self.state.stopped.get();
        if stopped {
            self.state.parked.borrow_mut().push(Arc::clone(waker));
        }
        stopped
    }

    /// Ends it at once (SIGKILL): its tasks are dropped where they stand and no new ones start.
    pub fn end(&self) {
        self.state.ended.set(true);
        let mut tasks = self.core.tasks.borrow_mut();
        let own = tasks
            .iter_mut()
            .filter(|(_, entry)| Rc::ptr_eq(&entry.life.state, &self.state));
        let futures: Vec<_> = own
            .map(|(_, entry)| {
                entry.aborted = true;
                entry.done.set(true);
                entry.waker.wake_by_ref();
                entry.future.take()
            })
            .collect();
        drop(tasks);
        drop(futures);
    }

    /// Whether it was ended.
    pub fn has_ended(&self) -> bool {
        self.state.ended.get()
    }

    /// Stops it (SIGSTOP): nothing of it runs until [`Life::resume`].
    pub fn stop(&self) {
        self.state.stopped.set(true);
    }

    /// Lets it run again.
    pub fn resume(&self) {
        self.state.stopped.set(false);
        let parked = self.state.parked.take();
        parked.iter().for_each(Wake::wake_by_ref);
    }
}

impl Runtime for Life {
    fn spawn(&self, task: LocalBoxFuture<'static, ()>) -> Task {
        if self.state.ended.get() {
            return Task::new(Box::new(|| {}), Rc::new(Cell::new(true)));
        }
        self.core.spawn(self, task)
    }

    fn now(&self) -> Duration {
        self.core.now()
    }

    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        sleep(&self.core, duration)
    }

    fn wall_clock(&self) -> Duration {
        EPOCH.saturating_add(self.core.now())
    }
}

/// Resolves when `duration` has passed; dropping it takes the timer back.
pub(super) fn sleep(core: &Rc<Core>, duration: Duration) -> LocalBoxFuture<'static, ()> {
    let core = Rc::clone(core);
    let deadline = core.now().saturating_add(duration);
    Box::pin(async move {
        let mut timer = Timer { core, key: None };
        poll_fn(move |cx| timer.poll(deadline, cx)).await;
    })
}

/// A timer that is taken back when dropped.
struct Timer {
    core: Rc<Core>,
    key: Option<(Duration, u64)>,
}

impl Timer {
    fn poll(&mut self, deadline: Duration, cx: &mut Context<'_>) -> Poll<()> {
        self.cancel();
        if self.core.now() >= deadline {
            return Poll::Ready(());
        }
        self.key = Some(self.core.set_timer(deadline, cx.waker().clone()));
        Poll::Pending
    }

    fn cancel(&mut self) {
        if let Some(key) = self.key.take() {
            self.core.timers.borrow_mut().remove(&key);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.cancel();
    }
}
