//! What happened, for everybody who listens.
//!
//! A subscriber that does not read loses the oldest events, never memory of the daemon.

use block::Op;
use drivers::ports::Runtime;
use qmp::event::{QuorumFailure, QuorumOpType, QuorumReportBad};
use qmp::{Event, EventLimiter, Timestamp};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

/// Where events are sent. Clones share the subscribers.
#[derive(Clone)]
pub struct Events {
    inner: Rc<Inner>,
}

struct Inner {
    runtime: Rc<dyn Runtime>,
    backlog: usize,
    limiter: RefCell<EventLimiter>,
    /// Whether somebody sees to what the limiter holds back.
    expiring: Cell<bool>,
    subscribers: RefCell<Vec<Weak<Queue>>>,
}

#[derive(Default)]
struct Queue {
    events: RefCell<VecDeque<(Timestamp, Event)>>,
    waiting: RefCell<Option<Waker>>,
}

/// A place where all events from now on arrive. Dropping it ends the subscription.
pub struct Subscription {
    queue: Rc<Queue>,
}

impl Events {
    pub(crate) fn new(runtime: Rc<dyn Runtime>, backlog: usize) -> Events {
        Events {
            inner: Rc::new(Inner {
                runtime,
                backlog,
                limiter: RefCell::default(),
                expiring: Cell::new(false),
                subscribers: RefCell::default(),
            }),
        }
    }

    /// Sends `event` to everybody. Floods of a kind are held back to one a second.
    pub(crate) fn send(&self, event: Event) {
        let runtime = &self.inner.runtime;
        let timestamp = Timestamp::new(runtime.wall_clock());
        let mut limiter = self.inner.limiter.borrow_mut();
        let event = limiter.offer(event, timestamp, runtime.now());
        let waits = limiter.deadline().is_some();
        drop(limiter);
        if let Some(event) = event {
            self.deliver(timestamp, &event);
        }
        if waits && !self.inner.expiring.replace(true) {
            let task = self.clone().expire();
            self.inner.runtime.spawn(Box::pin(task));
        }
    }

    /// Sends what was held back when its time has come.
    async fn expire(self) {
        let runtime = Rc::clone(&self.inner.runtime);
        loop {
            let deadline = self.inner.limiter.borrow().deadline();
            let Some(deadline) = deadline else {
                break;
            };
            runtime.sleep(deadline.saturating_sub(runtime.now())).await;
            let leaving = self.inner.limiter.borrow_mut().expire(runtime.now());
            for (event, timestamp) in leaving {
                self.deliver(timestamp, &event);
            }
        }
        self.inner.expiring.set(false);
    }

    fn deliver(&self, timestamp: Timestamp, event: &Event) {
        let mut subscribers = self.inner.subscribers.borrow_mut();
        subscribers.retain(|queue| queue.strong_count() > 0);
        let queues: Vec<Rc<Queue>> = subscribers.iter().filter_map(Weak::upgrade).collect();
        drop(subscribers);
        for queue in queues {
            let mut events = queue.events.borrow_mut();
            if events.len() >= self.inner.backlog {
                events.pop_front();
            }
            events.push_back((timestamp, event.clone()));
            drop(events);
            if let Some(waker) = queue.waiting.take() {
                waker.wake();
            }
        }
    }

    /// All events from now on.
    pub fn subscribe(&self) -> Subscription {
        let queue = Rc::new(Queue::default());
        let mut subscribers = self.inner.subscribers.borrow_mut();
        subscribers.push(Rc::downgrade(&queue));
        Subscription { queue }
    }
}

impl Subscription {
    /// The next event.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost by dropping it.
    pub async fn next(&self) -> (Timestamp, Event) {
        poll_fn(|cx| {
            if let Some(event) = self.try_next() {
                return Poll::Ready(event);
            }
            self.queue.waiting.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// The next event, if there is one already.
    pub fn try_next(&self) -> Option<(Timestamp, Event)> {
        self.queue.events.borrow_mut().pop_front()
    }
}

/// The event that a driver's report becomes; `None` if what it is about has gone.
pub(crate) fn translate(
    event: drivers::event::Event,
    group: &Weak<crate::replication::Inner>,
) -> Option<Event> {
    use drivers::event::Event as Report;

    match event {
        Report::QuorumReportBad {
            op,
            node,
            offset,
            length,
            error,
        } => {
            let (sector_num, sectors_count) = sectors(offset, length);
            Some(Event::QuorumReportBad(QuorumReportBad {
                kind: match op {
                    Op::Read | Op::BlockStatus => QuorumOpType::Read,
                    Op::Flush => QuorumOpType::Flush,
                    Op::Write
                    | Op::WriteZeroes
                    | Op::Discard
                    | Op::Open
                    | Op::CopyBeforeWrite
                    | Op::MakeEmpty
                    | Op::Commit
                    | Op::Resize => QuorumOpType::Write,
                },
                error: error.map(|error| error.to_string()),
                node_name: node,
                sector_num,
                sectors_count,
            }))
        }
        Report::QuorumFailure {
            node,
            offset,
            length,
        } => {
            let (sector_num, sectors_count) = sectors(offset, length);
            Some(Event::QuorumFailure(QuorumFailure {
                reference: node,
                sector_num,
                sectors_count,
            }))
        }
        Report::ReplicationError { node, .. } => {
            let group = crate::replication::Group::upgrade(group)?;
            group.error_event(&node)
        }
    }
}

/// A range in sectors of 512 bytes.
fn sectors(offset: u64, length: u64) -> (u64, u64) {
    let end = offset.saturating_add(length).div_ceil(512);
    let start = offset / 512;
    (start, end.saturating_sub(start))
}
