//! The first error of a filter, kept until it is cleared (R21, R22), and its report.

use crate::event::{Event, EventSink};
use block::Error;
use std::cell::RefCell;
use std::time::Duration;

/// An error that was remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latched {
    /// Disk, operation, range and cause.
    pub error: Error,
    /// Wall clock at that moment, since 1970.
    pub time: Duration,
}

/// Room for one error.
pub(super) struct Latch {
    node: String,
    events: EventSink,
    first: RefCell<Option<Latched>>,
}

impl Latch {
    pub(super) fn new(node: String, events: EventSink) -> Latch {
        Latch {
            node,
            events,
            first: RefCell::new(None),
        }
    }

    pub(super) fn get(&self) -> Option<Latched> {
        self.first.borrow().clone()
    }

    //= docs/spec/replication.md#errors
    //# Lost forwards, failed copies, failed writes to the active disk, failed flushes, failed
    //# checkpoints and failed commits MUST all reach the status and an event.
    /// Keeps and reports `error` if it is the first.
    pub(super) fn set(&self, error: Error, time: Duration) {
        if self.first.borrow().is_some() {
            return;
        }
        let kept = error.clone();
        self.first.replace(Some(Latched { error: kept, time }));
        self.events.send(Event::ReplicationError {
            node: self.node.clone(),
            error,
        });
    }

    pub(super) fn clear(&self) {
        self.first.replace(None);
    }
}
