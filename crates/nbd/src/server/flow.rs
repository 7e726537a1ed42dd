//! How much a client has in flight: admission and release.
//!
//! A request counts from the moment its header is taken until its reply has been handed to the
//! transport, so that a client that sends and never reads is stopped by the same bound.

use super::{Limits, Ticket, Unanswered};

/// Requests and what they hold.
#[derive(Clone, Copy, Default)]
struct Load {
    requests: u32,
    writes: u32,
    bytes: u64,
}

/// The load of one connection.
#[derive(Default)]
pub(super) struct Flow {
    /// Taken from the input and not yet handed to the transport.
    taken: Load,
    /// Of those, answered.
    answered: Load,
}

impl Flow {
    /// Whether another request may be looked at.
    pub(super) fn has_room(&self, limits: &Limits) -> bool {
        self.taken.requests < limits.requests
    }

    /// Whether a request with this much payload may be taken.
    pub(super) fn admits(&self, payload: u32, limits: &Limits) -> bool {
        self.taken.bytes.saturating_add(u64::from(payload)) <= limits.bytes
    }

    pub(super) fn take(&mut self, ticket: &Ticket) {
        add(&mut self.taken, ticket);
    }

    /// Counts a reply. Uses the ticket up, so that there cannot be a second one.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "taking the ticket away is the point"
    )]
    pub(super) fn answer(&mut self, ticket: Ticket) {
        add(&mut self.answered, &ticket);
    }

    /// The replies given so far have been handed to the transport.
    pub(super) fn release(&mut self) {
        let Load {
            requests,
            writes,
            bytes,
        } = std::mem::take(&mut self.answered);
        self.taken.requests = self.taken.requests.saturating_sub(requests);
        self.taken.writes = self.taken.writes.saturating_sub(writes);
        self.taken.bytes = self.taken.bytes.saturating_sub(bytes);
    }

    /// Whether every request has its reply, taken or not.
    pub(super) fn all_answered(&self) -> bool {
        self.taken.requests == self.answered.requests
    }

    pub(super) fn unanswered(&self) -> Unanswered {
        Unanswered {
            requests: self.taken.requests,
            writes: self.taken.writes,
        }
    }
}

fn add(load: &mut Load, ticket: &Ticket) {
    load.requests = load.requests.saturating_add(1);
    load.writes = load.writes.saturating_add(u32::from(ticket.modifies()));
    load.bytes = load.bytes.saturating_add(u64::from(ticket.payload()));
}
