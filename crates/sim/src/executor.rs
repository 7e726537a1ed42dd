//! One thread, one seed: tasks polled in a random order, and a clock that stands still while there
//! is anything to do.
//!
//! ```text
//!            wake                    pick at random (or first come, first served)
//!   task ───────────▶ ready queue ─────────────────────────────────────▶ poll
//!                        ▲  empty?
//!                        └────────── earliest timer: the clock jumps there
//! ```
//!
//! Every task belongs to a [`Life`]: a process that can be killed or stopped as a whole. When nothing
//! is ready and no timer is set, but the run is not over, everybody waits for everybody: that is
//! reported as [`Stuck::Deadlock`] with a list of the tasks, and not waited for.

mod life;
mod ready;

pub use life::Life;

use crate::rng::Rng;
use drivers::ports::Task;
use futures_util::future::LocalBoxFuture;
use ready::{Ready, TaskWaker};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// The future given to [`Executor::run`].
const MAIN: u64 = 0;

/// Who is polled next of those that are ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Any, as the seed says.
    Random,
    /// First come, first served: for scripts, whose transcripts are read by people.
    Fifo,
}

/// Why a run did not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// Nothing is ready and no timer is set.
    Deadlock(String),
    /// More polls than allowed: somebody is spinning.
    TooLong(String),
}

/// The simulated thread. Clones share it.
#[derive(Clone)]
pub struct Executor {
    core: Rc<Core>,
}

struct Core {
    order: Order,
    rng: Rng,
    tasks: RefCell<BTreeMap<u64, Entry>>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    ready: Arc<Ready>,
    now: Cell<Duration>,
    next_id: Cell<u64>,
    polls_left: Cell<u64>,
}

/// A task; its future is out while it is polled.
struct Entry {
    life: Life,
    future: Option<LocalBoxFuture<'static, ()>>,
    waker: Arc<TaskWaker>,
    done: Rc<Cell<bool>>,
    aborted: bool,
}

impl Executor {
    /// An executor that takes its decisions from `rng` and gives up after `polls` polls.
    pub fn new(rng: Rng, order: Order, polls: u64) -> Executor {
        Executor {
            core: Rc::new(Core {
                order,
                rng,
                tasks: RefCell::default(),
                timers: RefCell::default(),
                ready: Arc::default(),
                now: Cell::new(Duration::ZERO),
                next_id: Cell::new(MAIN + 1),
                polls_left: Cell::new(polls),
            }),
        }
    }

    /// Runs `main`, and whatever is spawned, until `main` has ended. The other tasks stay and go on
    /// with the next call.
    ///
    /// # Errors
    ///
    /// [`Stuck`], with a list of the tasks.
    pub fn run<T>(&self, main: impl Future<Output = T>) -> Result<T, Stuck> {
        let mut main = pin!(main);
        let task = TaskWaker::new(MAIN, &self.core.ready);
        task.wake_by_ref();
        let waker = Waker::from(task.clone());
        loop {
            let Some(id) = self.core.next_ready() else {
                if self.core.advance_clock() {
                    continue;
                }
                return Err(Stuck::Deadlock(self.core.dump()));
            };
            let Some(left) = self.core.polls_left.get().checked_sub(1) else {
                return Err(Stuck::TooLong(self.core.dump()));
            };
            self.core.polls_left.set(left);
            if id != MAIN {
                self.core.poll(id);
                continue;
            }
            task.queued.store(false, Ordering::Relaxed);
            if let Poll::Ready(value) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Ok(value);
            }
        }
    }

    /// A new process called `name`.
    pub fn life(&self, name: &str) -> Life {
        Life::new(Rc::clone(&self.core), name)
    }

    /// Simulated time since the start.
    pub fn now(&self) -> Duration {
        self.core.now.get()
    }

    /// Resolves when `duration` has passed.
    pub fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        life::sleep(&self.core, duration)
    }

    /// Wakes `waker` at `deadline`; there is no taking it back.
    pub fn wake_at(&self, deadline: Duration, waker: &Waker) {
        self.core.set_timer(deadline, waker.clone());
    }

    /// Drops all tasks and timers. They hold the executor, which holds them: without this a run
    /// leaves its memory behind.
    pub fn clear(&self) {
        loop {
            let tasks = self.core.tasks.take();
            if tasks.is_empty() {
                break;
            }
        }
        self.core.timers.take();
    }
}

impl Core {
    fn next_ready(&self) -> Option<u64> {
        let mut queue = self.ready.lock();
        match self.order {
            Order::Fifo => queue.pop_front(),
            Order::Random => {
                let index = self.rng.index(queue.len());
                queue.swap_remove_back(index)
            }
        }
    }

    fn now(&self) -> Duration {
        self.now.get()
    }

    fn advance_clock(&self) -> bool {
        let Some(((deadline, _), waker)) = self.timers.borrow_mut().pop_first() else {
            return false;
        };
        self.now.set(self.now.get().max(deadline));
        waker.wake();
        // Those due at the same instant become ready together, in whatever order the seed says.
        while let Some(waker) = self.pop_timer_at(deadline) {
            waker.wake();
        }
        true
    }

    fn pop_timer_at(&self, deadline: Duration) -> Option<Waker> {
        let mut timers = self.timers.borrow_mut();
        let entry = timers.first_entry()?;
        (entry.key().0 <= deadline).then(|| entry.remove())
    }

    fn set_timer(&self, deadline: Duration, waker: Waker) -> (Duration, u64) {
        let key = (deadline, self.fresh_id());
        self.timers.borrow_mut().insert(key, waker);
        key
    }

    fn fresh_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id.wrapping_add(1));
        id
    }

    fn poll(&self, id: u64) {
        let Some((mut future, waker)) = self.take_out(id) else {
            return;
        };
        let outcome = future
            .as_mut()
            .poll(&mut Context::from_waker(&Waker::from(waker)));
        let mut tasks = self.tasks.borrow_mut();
        match tasks.get_mut(&id) {
            Some(entry) if outcome.is_pending() && !entry.aborted => entry.future = Some(future),
            _ => {
                let entry = tasks.remove(&id);
                drop(tasks);
                drop(future);
                drop(entry);
            }
        }
    }

    /// The future of a task that is to be polled now; drops that of an aborted one.
    fn take_out(&self, id: u64) -> Option<(LocalBoxFuture<'static, ()>, Arc<TaskWaker>)> {
        let mut tasks = self.tasks.borrow_mut();
        let entry = tasks.get_mut(&id)?;
        entry.waker.queued.store(false, Ordering::Relaxed);
        if entry.aborted {
            let entry = tasks.remove(&id);
            drop(tasks);
            drop(entry);
            return None;
        }
        if entry.life.park(&entry.waker) {
            return None;
        }
        Some((entry.future.take()?, entry.waker.clone()))
    }

    fn spawn(self: &Rc<Core>, life: &Life, future: LocalBoxFuture<'static, ()>) -> Task {
        let id = self.fresh_id();
        let done = Rc::new(Cell::new(false));
        let waker = TaskWaker::new(id, &self.ready);
        waker.wake_by_ref();
        let entry = Entry {
            life: life.clone(),
            future: Some(future),
            waker,
            done: Rc::clone(&done),
            aborted: false,
        };
        self.tasks.borrow_mut().insert(id, entry);
        let core = Rc::downgrade(self);
        let abort = move || {
            let Some(core) = core.upgrade() else { return };
            if let Some(entry) = core.tasks.borrow_mut().get_mut(&id) {
                entry.aborted = true;
                entry.waker.wake_by_ref();
            }
        };
        Task::new(Box::new(abort), done)
    }

    fn dump(&self) -> String {
        let tasks = self.tasks.borrow();
        let line = |(id, entry): (&u64, &Entry)| format!("task {id} of {}\n", entry.life.label());
        let lines: String = tasks.iter().map(line).collect();
        format!("at {:?}:\n{lines}", self.now.get())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.done.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivers::ports::Runtime;
    use futures_channel::oneshot;
    use std::future::poll_fn;

    fn executor(seed: u64, order: Order) -> (Executor, Life) {
        let executor = Executor::new(Rng::new(seed), order, 10_000);
        let life = executor.life("test");
        (executor, life)
    }

    /// The order in which ten tasks that each yield once get their turns.
    fn turns(seed: u64, order: Order) -> Vec<u64> {
        let (executor, life) = executor(seed, order);
        let log = Rc::new(RefCell::new(Vec::new()));
        for number in 0..10 {
            let (log, clock) = (Rc::clone(&log), life.clone());
            life.spawn(Box::pin(async move {
                clock.sleep(Duration::from_millis(1)).await;
                log.borrow_mut().push(number);
            }));
        }
        executor.run(life.sleep(Duration::from_millis(2))).unwrap();
        log.take()
    }

    #[test]
    fn the_seed_decides_the_order_and_repeats_it() {
        assert_eq!(turns(1, Order::Random), turns(1, Order::Random));
        assert_ne!(turns(1, Order::Random), turns(2, Order::Random));
        assert_eq!(turns(1, Order::Fifo), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn the_clock_jumps_to_the_earliest_timer_when_nothing_is_ready() {
        let (executor, life) = executor(1, Order::Random);
        let clock = life.clone();
        let times = executor.run(async move {
            clock.sleep(Duration::from_hours(1)).await;
            let first = clock.now();
            clock.sleep(Duration::from_nanos(1)).await;
            (first, clock.now())
        });
        let hour = Duration::from_hours(1);
        assert_eq!(times, Ok((hour, hour + Duration::from_nanos(1))));
    }

    #[test]
    fn waiting_for_nothing_is_a_deadlock_that_names_the_tasks() {
        let (executor, life) = executor(1, Order::Random);
        life.spawn(Box::pin(std::future::pending()));
        let stuck = executor.run(std::future::pending::<()>());
        assert_eq!(
            stuck,
            Err(Stuck::Deadlock("at 0ns:\ntask 1 of test\n".into()))
        );
    }

    #[test]
    fn spinning_ends_at_the_bound() {
        let (executor, _) = executor(1, Order::Random);
        let stuck = executor.run(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        assert!(matches!(stuck, Err(Stuck::TooLong(_))));
    }

    #[test]
    fn an_aborted_task_is_dropped_at_its_next_turn() {
        let (executor, life) = executor(1, Order::Random);
        let (held, dropped) = oneshot::channel::<()>();
        let task = life.spawn(Box::pin(async move {
            let _held = held;
            std::future::pending::<()>().await;
        }));
        task.abort();
        assert!(!task.is_finished());
        assert_eq!(executor.run(dropped), Ok(Err(oneshot::Canceled)));
        assert!(task.is_finished());
    }

    #[test]
    fn a_life_that_ended_runs_nothing_any_more() {
        let (executor, life) = executor(1, Order::Random);
        let (held, dropped) = oneshot::channel::<()>();
        life.spawn(Box::pin(async move {
            let _held = held;
            std::future::pending::<()>().await;
        }));
        life.end();
        assert_eq!(executor.run(dropped), Ok(Err(oneshot::Canceled)));
        assert!(life.spawn(Box::pin(async {})).is_finished());
    }

    #[test]
    fn a_stopped_life_goes_on_where_it_was() {
        let (executor, life) = executor(1, Order::Random);
        let world = executor.life("world");
        let (send, received) = oneshot::channel();
        life.spawn(Box::pin(async move {
            let _ = send.send(7);
        }));
        life.stop();
        executor.run(world.sleep(Duration::from_secs(1))).unwrap();
        life.resume();
        assert_eq!(executor.run(received), Ok(Ok(7)));
    }
}
