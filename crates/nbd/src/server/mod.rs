//! The server's side of one connection.
//!
//! ```text
//!                       ┌──────── reply ────────┐ DescribeExport, ListExports
//!                       ▼                       │
//!  ExpectClientFlags ─▶ ExpectOption ─────▶ ExpectAnswer
//!                       │      │                │ OpenExport, found
//!        ABORT, refused │      └── (time out) ──┤
//!                       │                       ▼
//!                       │               ┌─▶ ExpectRequest ── DISC ──▶ Draining
//!                       │       payload │       │                        │ last reply
//!                       │               └── ExpectPayload                │
//!                       ▼                       │ end of stream          ▼
//!                    Closed ◀───────────────────┴────────────────────────┘
//! ```
//!
//! # Driving it
//!
//! ```text
//! loop {
//!     while let Some(event) = session.poll_event() { … start work, or answer at once … }
//!     if session.poll_transmit(&mut parts) { write parts; continue; }   // room for more events
//!     match session.poll_want() { … read from the socket … }           // and wait for work done
//! }
//! ```
//!
//! Replies may be given in any order and at any time, also between two reads. Nothing blocks and
//! nothing is lost if the caller stops: what it holds are [`Ticket`]s, one for each request.
//!
//! # Contracts
//!
//! *Bounds.* At most [`Limits::requests`] requests and [`Limits::bytes`] bytes of payload are
//! between arrival and the moment [`Session::poll_transmit`] takes the reply; beyond that the
//! session parses nothing and wants no input. A caller that takes a batch only after the batch
//! before has been written therefore holds at most twice that, whatever the client does.
//! During the handshake no option is looked at before the replies to the last have been taken.
//!
//! *No copies.* A payload that lies in one chunk of input is handed out as a slice of the chunk.
//! A large one that does not is announced by [`Want::Payload`], so that the caller can read the
//! rest straight into a buffer of its own.
//!
//! *Every way to leave is told apart.* [`Closed`] says who ended the connection, how, and what
//! was unanswered then: a replica must know whether its writer left cleanly.

mod event;
mod flow;
mod handshake;
mod limits;
mod reply;
mod transmission;

#[cfg(test)]
mod tests;

pub use event::{CloseReason, Closed, Command, Event, ExportInfo, Request, Ticket, Unanswered};
pub use limits::Limits;
pub use reply::Piece;

use crate::Errno;
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use crate::want::Want;
use crate::wire::{ContextExtents, ExportName, Malformed, RepError};
use bytes::Bytes;
use handshake::Handshake;
use std::time::Duration;
use transmission::Transmission;

/// The server's side of one connection; see the module's description.
pub struct Session {
    limits: Limits,
    inbox: Inbox,
    outbox: Outbox,
    phase: Phase,
    deadline: Option<Duration>,
    end_of_stream: bool,
    shutting_down: bool,
}

enum Phase {
    Handshake(Handshake),
    Transmission(Transmission),
    /// The connection is over; the event says so once.
    Closed(Option<Closed>),
}

/// What one look at the input led to.
enum Step {
    /// Look again.
    Continue,
    /// Bytes, an answer or room are needed first.
    Wait,
    /// Something for the caller.
    Event(Event),
    /// The connection is over.
    Close(CloseReason),
}

impl From<Malformed> for Step {
    fn from(malformed: Malformed) -> Step {
        Step::Close(CloseReason::Violation(malformed))
    }
}

/// Input: what has happened.
impl Session {
    /// A connection that has just been accepted. `now` is the time since any fixed instant.
    pub fn new(limits: Limits, now: Duration) -> Session {
        let mut outbox = Outbox::default();
        let handshake = Handshake::begin(&mut outbox);
        Session {
            limits: limits.sane(),
            inbox: Inbox::default(),
            outbox,
            phase: Phase::Handshake(handshake),
            deadline: Some(now.saturating_add(limits.handshake)),
            end_of_stream: false,
            shutting_down: false,
        }
    }

    /// The client has sent these bytes; any split of the stream will do.
    pub fn handle_bytes(&mut self, chunk: Bytes) {
        if !self.is_closed() {
            self.inbox.push(chunk);
        }
    }

    /// The whole payload that [`Want::Payload`] asked for.
    ///
    /// # Panics
    ///
    /// If its length is not the one asked for: a bug of the caller, never of the client.
    pub fn handle_payload(&mut self, payload: Bytes) {
        if let Phase::Transmission(transmission) = &mut self.phase {
            transmission.handle_payload(&mut self.inbox, payload);
        }
    }

    /// The client will send no more, or the connection has failed.
    pub fn handle_end_of_stream(&mut self) {
        self.end_of_stream = true;
    }

    /// The time is now `now`.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.poll_deadline().is_some_and(|deadline| deadline <= now) {
            self.close(CloseReason::HandshakeTimeout);
        }
    }
}

/// Work for the caller.
impl Session {
    /// The next event. After `None` it is worth asking again once bytes have arrived, an answer
    /// has been given or output has been taken.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            let step = match &mut self.phase {
                Phase::Handshake(handshake) => handshake.step(
                    &mut self.inbox,
                    &mut self.outbox,
                    &self.limits,
                    self.shutting_down,
                ),
                Phase::Transmission(transmission) => transmission.step(
                    &mut self.inbox,
                    &mut self.outbox,
                    &self.limits,
                    self.shutting_down,
                ),
                Phase::Closed(closed) => return closed.take().map(Event::Closed),
            };
            match step {
                Step::Continue => {}
                Step::Event(event) => return Some(event),
                Step::Close(reason) => self.close(reason),
                Step::Wait if self.end_of_stream => self.close(CloseReason::EndOfStream),
                Step::Wait => return None,
            }
        }
    }

    /// Appends all output to `parts`, to be written in this order; says whether there was any.
    /// Still to be called after [`Event::Closed`]: the last replies may be waiting.
    pub fn poll_transmit(&mut self, parts: &mut Vec<Bytes>) -> bool {
        if let Phase::Transmission(transmission) = &mut self.phase {
            transmission.output_taken();
        }
        self.outbox.drain_into(parts)
    }

    /// What to read next, once [`Session::poll_event`] has nothing more.
    pub fn poll_want(&self) -> Want {
        if self.end_of_stream {
            return Want::Nothing;
        }
        match &self.phase {
            Phase::Handshake(handshake) => handshake.want(&self.inbox),
            Phase::Transmission(transmission) => transmission.want(&self.inbox, &self.limits),
            Phase::Closed(_) => Want::Nothing,
        }
    }

    /// Copies the part of the payload that has arrived to the start of `buffer`, which has the
    /// length [`Want::Payload`] named.
    pub fn copy_payload(&self, buffer: &mut [u8]) -> usize {
        self.inbox.copy_to(buffer)
    }

    /// When [`Session::handle_timeout`] is due, if at all.
    pub fn poll_deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Handshake(_) => self.deadline,
            Phase::Transmission(_) | Phase::Closed(_) => None,
        }
    }
}

/// Answers to the handshake's events. Without such an event they do nothing: the connection may
/// have ended meanwhile.
impl Session {
    /// Answers [`Event::ListExports`] with names and descriptions.
    pub fn exports_listed(&mut self, exports: impl IntoIterator<Item = (ExportName, String)>) {
        if let Phase::Handshake(handshake) = &mut self.phase {
            handshake.exports_listed(&mut self.outbox, exports);
        }
    }

    /// Answers [`Event::DescribeExport`] or [`Event::OpenExport`].
    pub fn export_found(&mut self, export: ExportInfo) {
        let export = ExportInfo {
            block_sizes: export.block_sizes.capped(self.limits.payload),
            ..export
        };
        if let Phase::Handshake(handshake) = &mut self.phase
            && let Some(agreed) = handshake.export_found(&mut self.outbox, export)
        {
            self.phase = Phase::Transmission(Transmission::new(agreed));
        }
    }

    /// Answers [`Event::DescribeExport`] or [`Event::OpenExport`]; `message` is for people.
    pub fn export_refused(&mut self, error: RepError, message: &str) {
        if let Phase::Handshake(handshake) = &mut self.phase
            && let Step::Close(reason) = handshake.export_refused(&mut self.outbox, error, message)
        {
            self.close(reason);
        }
    }
}

/// Replies to requests. After the end of the connection they do nothing.
impl Session {
    /// The request is done; for every request but a read or a block status.
    pub fn reply_ok(&mut self, ticket: Ticket) {
        if let Phase::Transmission(transmission) = &mut self.phase {
            transmission.reply_ok(&mut self.outbox, ticket);
        }
    }

    /// The data of a read, all of it.
    pub fn reply_data(&mut self, ticket: Ticket, data: Bytes) {
        if let Phase::Transmission(transmission) = &mut self.phase {
            transmission.reply_data(&mut self.outbox, ticket, data);
        }
    }

    /// The data of a read in pieces, in order and without gaps.
    pub fn reply_pieces(&mut self, ticket: Ticket, pieces: Vec<Piece>) {
        if let Phase::Transmission(transmission) = &mut self.phase {
            transmission.reply_pieces(&mut self.outbox, ticket, pieces);
        }
    }

    /// The status of the range from its start on. A context that is missing is reported without
    /// any flag, which is always safe.
    pub fn reply_block_status(&mut self, ticket: Ticket, contexts: &[ContextExtents]) {
        if let Phase::Transmission(transmission) = &mut self.phase {
            let most = self.limits.extents;
            transmission.reply_block_status(&mut self.outbox, ticket, contexts, most);
        }
    }

    /// The request has failed; `message` is for people and sent where the protocol can.
    pub fn reply_error(&mut self, ticket: Ticket, errno: Errno, message: &str) {
        if let Phase::Transmission(transmission) = &mut self.phase {
            transmission.reply_error(&mut self.outbox, ticket, errno, message);
        }
    }

    /// From now on every option and every request is refused with the protocol's "shutting
    /// down"; requests in flight are still answered. The caller ends the connection when
    /// [`Session::unanswered`] is empty, or when it has waited long enough.
    pub fn shut_down(&mut self) {
        self.shutting_down = true;
    }
}

/// Getters.
impl Session {
    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(_))
    }

    /// Whether bytes have arrived that no event has been made of.
    pub fn has_input(&self) -> bool {
        self.inbox.len() > 0
    }

    /// Bytes that [`Session::poll_transmit`] would give now.
    pub fn output_bytes(&self) -> usize {
        self.outbox.len()
    }

    /// Requests whose replies have not been taken by [`Session::poll_transmit`].
    pub fn unanswered(&self) -> Unanswered {
        match &self.phase {
            Phase::Transmission(transmission) => transmission.unanswered(),
            Phase::Handshake(_) | Phase::Closed(_) => Unanswered::default(),
        }
    }

    fn close(&mut self, reason: CloseReason) {
        let closed = match &self.phase {
            Phase::Handshake(_) => Closed {
                reason,
                unanswered: Unanswered::default(),
            },
            Phase::Transmission(transmission) => transmission.closed(reason),
            Phase::Closed(_) => return,
        };
        self.inbox.clear();
        self.phase = Phase::Closed(Some(closed));
    }
}
