//! The client's side of one connection.
//!
//! ```text
//!  ExpectHello ─▶ ExpectStructuredReply ─▶ ExpectContexts ─▶ ExpectGo ──────────────┐
//!       │                    │ refused                          │ unknown option     │
//!       │ not fixed          └────────────────────────────────▶ │                   ▼
//!       └──────────────────────────────────────────▶ ExpectExportName ─▶ Ready: ExpectReply
//!                                                                          │ ▲        │
//!   any violation, end of stream, deadline, refusal                        ▼ │        │
//!       └─▶ Closed: first every request in flight is lost             ExpectPayload   │
//!                                                           disconnect, ESHUTDOWN     │
//!                                                     Closed ◀── Leaving ◀────────────┘
//! ```
//!
//! Driven like the server's session: `poll_event` until `None`, `poll_transmit`, `poll_want`.
//!
//! # Contracts
//!
//! *Three outcomes.* A request that was taken ends in exactly one [`Completion`]: done, refused
//! by the server, or lost. Lost means unknown: the server may have carried it out.
//!
//! *Nothing is believed.* Sizes, block sizes and flags are checked before [`Event::Ready`]. Each
//! chunk must lie in its request and overlap no other; a read succeeds only if every byte of it
//! has been sent. Whatever breaks the protocol ends the connection.
//!
//! *Bounds.* Requests and bytes in flight are bounded by [`Limits`], and with them all a server
//! can make the client hold: option replies are counted, chunks a reply are counted, the length
//! of each is checked before it is waited for. The time of the handshake is bounded; the time of
//! a request is the caller's affair.
//!
//! *No copies.* Data that arrives as one chunk is handed on as a slice of the input, or read by
//! the caller straight into a buffer of its own.

mod event;
mod handshake;
mod limits;
mod pending;
mod transmission;

#[cfg(test)]
mod tests;

pub use event::{CloseReason, Completion, Event, ExportInfo, Failure, Refused, Reply};
pub use limits::{Limits, Options};

use crate::Want;
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use crate::wire::{CommandCode, CommandFlags, Cookie, Malformed, RequestHeader};
use block::ByteRange;
use bytes::Bytes;
use handshake::Handshake;
use std::time::Duration;
use transmission::Transmission;

/// The client's side of one connection; see the module's description.
pub struct Session {
    limits: Limits,
    inbox: Inbox,
    outbox: Outbox,
    phase: Phase,
    deadline: Duration,
    end_of_stream: bool,
}

enum Phase {
    Handshake(Handshake),
    Ready(Transmission),
    /// The connection is over: these requests are lost, then the event says why, once.
    Closed(Vec<Cookie>, Option<CloseReason>),
}

/// What one look at the input led to.
enum Step {
    /// Look again.
    Continue,
    /// More bytes are needed first.
    Wait,
    /// Something for the caller.
    Event(Event),
    /// The handshake is done.
    Ready(Box<(ExportInfo, Transmission)>),
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
    /// A connection that has just been made. `now` is the time since any fixed instant.
    pub fn new(options: Options, now: Duration) -> Session {
        let limits = options.limits.sane();
        Session {
            limits,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            phase: Phase::Handshake(Handshake::new(options.export, options.contexts)),
            deadline: now.saturating_add(limits.handshake),
            end_of_stream: false,
        }
    }

    /// The server has sent these bytes; any split of the stream will do.
    pub fn handle_bytes(&mut self, chunk: Bytes) {
        if !self.is_closed() {
            self.inbox.push(chunk);
        }
    }

    /// The whole payload that [`Want::Payload`] asked for.
    ///
    /// # Panics
    ///
    /// If its length is not the one asked for: a bug of the caller, never of the server.
    pub fn handle_payload(&mut self, payload: Bytes) {
        if let Phase::Ready(transmission) = &mut self.phase {
            transmission.handle_payload(&mut self.inbox, payload);
        }
    }

    /// The server will send no more, or the connection has failed.
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

/// Requests. Each returns the name under which its [`Completion`] will come, or refuses what the
/// server would refuse, or what exceeds a bound.
impl Session {
    /// Reads a range.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing has been sent then.
    pub fn read(&mut self, range: ByteRange) -> Result<Cookie, Refused> {
        self.submit(CommandCode::Read, range, CommandFlags::NONE, Bytes::new())
    }

    /// Writes `data` at `offset`; with [`CommandFlags::FUA`] durably.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing has been sent then.
    pub fn write(
        &mut self,
        offset: u64,
        data: Bytes,
        flags: CommandFlags,
    ) -> Result<Cookie, Refused> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let range = ByteRange::new(offset, length).ok_or(Refused::PAST_THE_END)?;
        self.submit(CommandCode::Write, range, flags, data)
    }

    /// Makes durable every write that has completed.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing has been sent then.
    pub fn flush(&mut self) -> Result<Cookie, Refused> {
        let nothing = ByteRange::between(0, 0);
        self.submit(
            CommandCode::Flush,
            nothing,
            CommandFlags::NONE,
            Bytes::new(),
        )
    }

    /// Says that the contents of a range are no longer needed.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing has been sent then.
    pub fn trim(&mut self, range: ByteRange, flags: CommandFlags) -> Result<Cookie, Refused> {
        self.submit(CommandCode::Trim, range, flags, Bytes::new())
    }

    /// Makes a range read as zeroes; takes `FUA`, `NO_HOLE` and `FAST_ZERO`.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing has been sent then.
    pub fn write_zeroes(
        &mut self,
        range: ByteRange,
        flags: CommandFlags,
    ) -> Result<Cookie, Refused> {
        self.submit(CommandCode::WriteZeroes, range, flags, Bytes::new())
    }

    /// Lets the server prepare for reading a range.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing has been sent then.
    pub fn cache(&mut self, range: ByteRange) -> Result<Cookie, Refused> {
        self.submit(CommandCode::Cache, range, CommandFlags::NONE, Bytes::new())
    }

    /// Asks what the parts of a range are; takes `REQ_ONE`. The answer may cover less than the
    /// range, never more.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing has been sent then.
    pub fn block_status(
        &mut self,
        range: ByteRange,
        flags: CommandFlags,
    ) -> Result<Cookie, Refused> {
        self.submit(CommandCode::BlockStatus, range, flags, Bytes::new())
    }

    /// Leaves: no request is taken any more; once those in flight have completed, the server is
    /// told and the connection is over.
    pub fn disconnect(&mut self) {
        match &mut self.phase {
            // An option is in flight: there is no polite way out.
            Phase::Handshake(_) => self.close(CloseReason::Disconnected),
            Phase::Ready(transmission) => transmission.leave(CloseReason::Disconnected),
            Phase::Closed(..) => {}
        }
    }

    fn submit(
        &mut self,
        command: CommandCode,
        range: ByteRange,
        flags: CommandFlags,
        data: Bytes,
    ) -> Result<Cookie, Refused> {
        let header = RequestHeader {
            flags,
            command,
            cookie: Cookie(0),
            offset: range.offset(),
            length: u32::try_from(range.length()).map_err(|_| Refused::TOO_LONG)?,
        };
        match &mut self.phase {
            Phase::Handshake(_) => Err(Refused::NotReady),
            Phase::Closed(..) => Err(Refused::Closed),
            Phase::Ready(transmission) => {
                transmission.submit(&mut self.outbox, &self.limits, header, data)
            }
        }
    }
}

/// Work for the caller.
impl Session {
    /// The next event. After `None` it is worth asking again once bytes have arrived.
    pub fn poll_event(&mut self) -> Option<Event> {
        loop {
            let step = match &mut self.phase {
                Phase::Handshake(handshake) => {
                    handshake.step(&mut self.inbox, &mut self.outbox, &self.limits)
                }
                Phase::Ready(transmission) => {
                    transmission.step(&mut self.inbox, &mut self.outbox, &self.limits)
                }
                Phase::Closed(lost, reason) => return closed_event(lost, reason),
            };
            match step {
                Step::Continue => {}
                Step::Event(event) => return Some(event),
                Step::Ready(ready) => {
                    let (export, transmission) = *ready;
                    self.phase = Phase::Ready(transmission);
                    return Some(Event::Ready(export));
                }
                Step::Close(reason) => self.close(reason),
                Step::Wait if self.end_of_stream => self.close(CloseReason::EndOfStream),
                Step::Wait => return None,
            }
        }
    }

    /// Appends all output to `parts`, to be written in this order; says whether there was any.
    /// Still to be called after [`Event::Closed`]: a farewell may be waiting.
    pub fn poll_transmit(&mut self, parts: &mut Vec<Bytes>) -> bool {
        self.outbox.drain_into(parts)
    }

    /// What to read next, once [`Session::poll_event`] has nothing more.
    pub fn poll_want(&self) -> Want {
        if self.end_of_stream {
            return Want::Nothing;
        }
        match &self.phase {
            Phase::Handshake(_) => Want::ANY,
            Phase::Ready(transmission) => transmission.want(&self.inbox),
            Phase::Closed(..) => Want::Nothing,
        }
    }

    /// Copies the part of the payload that has arrived to the start of `buffer`, which has the
    /// length [`Want::Payload`] named.
    pub fn copy_payload(&self, buffer: &mut [u8]) -> usize {
        self.inbox.copy_to(buffer)
    }

    /// When [`Session::handle_timeout`] is due, if at all.
    pub fn poll_deadline(&self) -> Option<Duration> {
        matches!(self.phase, Phase::Handshake(_)).then_some(self.deadline)
    }
}

/// Getters.
impl Session {
    /// Whether the connection is over.
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed(..))
    }

    /// Whether a request with a payload of `bytes` would be within the bounds now.
    pub fn has_room(&self, bytes: u64) -> bool {
        match &self.phase {
            Phase::Ready(transmission) => transmission.has_room(bytes, &self.limits),
            Phase::Handshake(_) | Phase::Closed(..) => false,
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        match &self.phase {
            Phase::Ready(transmission) => transmission.in_flight(),
            Phase::Handshake(_) | Phase::Closed(..) => 0,
        }
    }

    fn close(&mut self, reason: CloseReason) {
        let lost = match &self.phase {
            Phase::Handshake(_) => Vec::new(),
            Phase::Ready(transmission) => transmission.cookies(),
            Phase::Closed(..) => return,
        };
        self.inbox.clear();
        self.phase = Phase::Closed(lost, Some(reason));
    }
}

/// First every lost request, oldest first, then the end itself.
fn closed_event(lost: &mut Vec<Cookie>, reason: &mut Option<CloseReason>) -> Option<Event> {
    match (lost.pop(), &reason) {
        (Some(cookie), Some(reason)) => Some(Event::Completed(Completion {
            cookie,
            result: Err(Failure::Lost(reason.clone())),
        })),
        _ => reason.take().map(Event::Closed),
    }
}
