//! What drivers report besides answers: facts an operator or a manager has to hear of.
//!
//! The engine turns them into QMP events and keeps them for status.

use block::{Error, Op};
use std::rc::Rc;

/// Something a driver noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A child of a quorum failed a request or disagreed (`QUORUM_REPORT_BAD`).
    QuorumReportBad {
        /// What it was asked.
        op: Op,
        /// The child's node.
        node: String,
        /// First byte of the request.
        offset: u64,
        /// Its length in bytes; 0 for a flush.
        length: u64,
        /// What it said; `None` if it answered but disagreed.
        error: Option<Error>,
    },
    /// Fewer children than the threshold succeeded (`QUORUM_FAILURE`).
    QuorumFailure {
        /// The quorum's node.
        node: String,
        /// First byte of the request.
        offset: u64,
        /// Its length in bytes.
        length: u64,
    },
    /// The first error of a replication node since its last start was latched
    /// (`X_AI_REPLICATION_ERROR`).
    ReplicationError {
        /// The replication node.
        node: String,
        /// What went wrong, with disk, operation and offset.
        error: Error,
    },
}

/// Where drivers report to.
#[derive(Clone)]
pub struct EventSink(Rc<dyn Fn(Event)>);

impl EventSink {
    /// A sink that calls `receive`, which must not block and must not call back into a node.
    pub fn new(receive: impl Fn(Event) + 'static) -> EventSink {
        EventSink(Rc::new(receive))
    }

    /// Reports `event`.
    pub fn send(&self, event: Event) {
        (self.0)(event);
    }
}
