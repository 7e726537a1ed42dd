//! A small world for the drivers' own tests: a seeded executor, virtual time, disks in memory.
//!
//! Which task goes on next is chosen by the seed, so that a thousand seeds are a thousand
//! interleavings and one seed is one.

mod disk;
pub(crate) mod program;

pub(crate) use disk::{Disk, Entry, after_power_cut};

use crate::event::{Event, EventSink};
use crate::ports::{
    Address, File, FileOptions, Files, Listener, Network, Ports, Random, Runtime, Stream, Task,
};
use block::{Child, ChildRole, Driver, Node, NodeOptions};
use futures_util::future::LocalBoxFuture;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// A deterministic world. Clones share it.
#[derive(Clone)]
pub(crate) struct World(Rc<Inner>);

struct Inner {
    tasks: RefCell<BTreeMap<u64, LocalBoxFuture<'static, ()>>>,
    ready: Arc<Mutex<BTreeSet<u64>>>,
    timers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    now: Cell<Duration>,
    next: Cell<u64>,
    random: Cell<u64>,
    events: RefCell<Vec<Event>>,
}

struct Signal {
    task: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap().insert(self.task);
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        World(Rc::new(Inner {
            tasks: RefCell::default(),
            ready: Arc::default(),
            timers: RefCell::default(),
            now: Cell::new(Duration::ZERO),
            next: Cell::new(0),
            random: Cell::new(seed.wrapping_mul(2).wrapping_add(1)),
            events: RefCell::default(),
        }))
    }

    pub(crate) fn ports(&self) -> Ports {
        Ports {
            runtime: Rc::new(self.clone()),
            files: Rc::new(Nothing),
            network: Rc::new(Nothing),
            random: Rc::new(self.clone()),
        }
    }

    pub(crate) fn sink(&self) -> EventSink {
        let world = self.clone();
        EventSink::new(move |event| world.0.events.borrow_mut().push(event))
    }

    /// The events reported since the last call.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.events.take()
    }

    /// A number below `bound`.
    pub(crate) fn random(&self, bound: u64) -> u64 {
        let next = self.0.random.get().wrapping_mul(0x5851_f42d_4c95_7f2d);
        let next = next.wrapping_add(0x1405_7b7e_f767_814f);
        self.0.random.set(next);
        (next >> 33) % bound
    }

    /// Lets others run, up to a few times.
    pub(crate) async fn pause(&self) {
        for _ in 0..self.random(3) {
            yield_now().await;
        }
    }

    /// Lets a little time pass.
    pub(crate) async fn sleep_a_little(&self) {
        self.sleep(Duration::from_millis(10)).await;
    }

    /// Runs `future` and everything spawned until it is ready. Panics if nothing can go on.
    pub(crate) fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let result = Rc::new(Cell::new(None));
        let slot = Rc::clone(&result);
        self.start(Box::pin(async move { slot.set(Some(future.await)) }));
        loop {
            if let Some(value) = result.take() {
                return value;
            }
            assert!(self.step(), "nothing can go on: deadlock");
        }
    }

    /// Runs until nothing can go on without time passing.
    pub(crate) fn settle(&self) {
        while !self.0.ready.lock().unwrap().is_empty() {
            self.step();
        }
    }

    /// Runs until nothing can go on, however much time that takes.
    pub(crate) fn run_out(&self) {
        while self.step() {}
    }

    /// Until the next instant at which somebody wakes; all who wake then are ready together.
    fn let_time_pass(&self) -> bool {
        let mut timers = self.0.timers.borrow_mut();
        let Some((&(time, _), _)) = timers.first_key_value() else {
            return false;
        };
        self.0.now.set(time);
        while let Some(due) = timers.first_entry().filter(|timer| timer.key().0 == time) {
            due.remove().wake();
        }
        true
    }

    fn start(&self, future: LocalBoxFuture<'static, ()>) -> u64 {
        let id = self.0.next.get();
        self.0.next.set(id + 1);
        self.0.tasks.borrow_mut().insert(id, future);
        self.0.ready.lock().unwrap().insert(id);
        id
    }

    /// Lets one task go on, or time pass.
    fn step(&self) -> bool {
        let ready: Vec<u64> = self.0.ready.lock().unwrap().iter().copied().collect();
        if ready.is_empty() {
            return self.let_time_pass();
        }
        let chosen = self.random(ready.len().try_into().unwrap());
        let task = ready[usize::try_from(chosen).unwrap()];
        self.0.ready.lock().unwrap().remove(&task);
        let Some(mut future) = self.0.tasks.borrow_mut().remove(&task) else {
            return true;
        };
        let ready = Arc::clone(&self.0.ready);
        let waker = Waker::from(Arc::new(Signal { task, ready }));
        if future
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending()
        {
            self.0.tasks.borrow_mut().insert(task, future);
        }
        true
    }
}

impl Runtime for World {
    fn spawn(&self, task: LocalBoxFuture<'static, ()>) -> Task {
        let done = Rc::new(Cell::new(false));
        let finished = Rc::clone(&done);
        let id = self.start(Box::pin(async move {
            task.await;
            finished.set(true);
        }));
        let world = self.clone();
        let abort = move || drop(world.0.tasks.borrow_mut().remove(&id));
        Task::new(Box::new(abort), done)
    }

    fn now(&self) -> Duration {
        self.0.now.get()
    }

    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()> {
        let world = self.clone();
        let end = self.now() + duration;
        let id = self.0.next.get();
        self.0.next.set(id + 1);
        Box::pin(poll_fn(move |cx| {
            if world.now() >= end {
                return Poll::Ready(());
            }
            let waker = cx.waker().clone();
            world.0.timers.borrow_mut().insert((end, id), waker);
            Poll::Pending
        }))
    }

    fn wall_clock(&self) -> Duration {
        self.now()
    }
}

impl Random for World {
    fn identity(&self) -> [u8; 16] {
        [0; 16].map(|_| u8::try_from(self.random(256)).unwrap())
    }
}

/// No files and no network.
struct Nothing;

impl Files for Nothing {
    fn open(&self, _: FileOptions) -> LocalBoxFuture<'_, io::Result<Rc<dyn File>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn remove(&self, _: &Path) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

impl Network for Nothing {
    fn connect(&self, _: &Address) -> LocalBoxFuture<'_, io::Result<Rc<dyn Stream>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn listen(&self, _: &Address) -> LocalBoxFuture<'_, io::Result<Rc<dyn Listener>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }
}

pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A node of `driver`, writable.
pub(crate) fn node(name: &str, driver: impl Driver + 'static) -> Rc<Node> {
    Node::new(name, Box::new(driver), NodeOptions::default())
}

/// An edge that permits everything.
pub(crate) fn edge(name: &str, role: ChildRole, target: &Rc<Node>) -> Rc<Child> {
    Child::unrestricted(name, role, Rc::clone(target))
}
