//! The transmission phase: requests in, one after the other, as long as there is room.
//!
//! Source: NBD protocol, "Transmission", "Request types", "Terminating the transmission phase".

use super::flow::Flow;
use super::{CloseReason, Closed, Command, Event, Limits, Request, Step, Ticket, Unanswered, Want};
use crate::Errno;
use crate::check::{Agreed, check};
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use crate::wire::{CommandCode, CommandFlags, Malformed, RequestHeader};
use block::ByteRange;
use bytes::Bytes;

/// An export in use.
pub(super) struct Transmission {
    pub(super) agreed: Agreed,
    pub(super) flow: Flow,
    expect: Expect,
    /// The last request carried a payload that was read directly.
    large: bool,
}

/// Which input is legal.
enum Expect {
    Request,
    /// The payload of this write, or what the caller has read of it: all.
    Payload(RequestHeader, Option<Bytes>),
    /// As many bytes of a payload that has been refused.
    Refused(usize),
    /// None: the client has disconnected with this much unanswered.
    Nothing(Unanswered),
}

impl Transmission {
    pub(super) fn new(agreed: Agreed) -> Transmission {
        Transmission {
            agreed,
            flow: Flow::default(),
            expect: Expect::Request,
            large: false,
        }
    }

    pub(super) fn unanswered(&self) -> Unanswered {
        self.flow.unanswered()
    }

    /// The end, with what was unanswered when the client left: at its farewell, or now.
    pub(super) fn closed(&self, reason: CloseReason) -> Closed {
        match self.expect {
            // It took its leave properly and need not wait for the replies.
            Expect::Nothing(unanswered) => Closed {
                reason: CloseReason::Disconnected,
                unanswered,
            },
            Expect::Request | Expect::Payload(..) | Expect::Refused(_) => Closed {
                reason,
                unanswered: self.flow.unanswered(),
            },
        }
    }

    pub(super) fn output_taken(&mut self) {
        self.flow.release();
    }

    pub(super) fn want(&self, inbox: &Inbox, limits: &Limits) -> Want {
        match &self.expect {
            Expect::Request if !self.flow.has_room(limits) => Want::Nothing,
            Expect::Request if inbox.len() >= RequestHeader::LENGTH => Want::Nothing,
            Expect::Request if self.large => Want::SHORT,
            Expect::Request | Expect::Refused(_) => Want::ANY,
            Expect::Payload(header, None) => Want::payload(length(header), inbox.len()),
            Expect::Payload(_, Some(_)) | Expect::Nothing(_) => Want::Nothing,
        }
    }

    pub(super) fn handle_payload(&mut self, inbox: &mut Inbox, payload: Bytes) {
        if let Expect::Payload(header, whole @ None) = &mut self.expect {
            assert_eq!(payload.len(), length(header), "a payload of another length");
            // Its first part lay in the inbox and has been copied.
            inbox.clear();
            *whole = Some(payload);
        }
    }

    pub(super) fn step(
        &mut self,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
        limits: &Limits,
        shutting_down: bool,
    ) -> Step {
        match &mut self.expect {
            Expect::Request => self.request(inbox, outbox, limits, shutting_down),
            Expect::Payload(header, whole) => {
                let header = *header;
                self.large = whole.is_some();
                let Some(data) = whole.take().or_else(|| inbox.take(length(&header))) else {
                    return Step::Wait;
                };
                self.expect = Expect::Request;
                let range = ByteRange::between(
                    header.offset,
                    header.offset.saturating_add(u64::from(header.length)),
                );
                let fua = header.flags.contains(CommandFlags::FUA);
                event(&header, Command::Write { range, data, fua })
            }
            Expect::Refused(left) => {
                *left = left.saturating_sub(inbox.skip(*left));
                if *left > 0 {
                    return Step::Wait;
                }
                self.expect = Expect::Request;
                Step::Continue
            }
            Expect::Nothing(_) if self.flow.all_answered() => {
                Step::Close(CloseReason::Disconnected)
            }
            Expect::Nothing(_) => Step::Wait,
        }
    }

    /// Takes the next request if it has arrived and there is room for it.
    fn request(
        &mut self,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
        limits: &Limits,
        shutting_down: bool,
    ) -> Step {
        if !self.flow.has_room(limits) {
            return Step::Wait;
        }
        let Some(bytes) = inbox.peek() else {
            return Step::Wait;
        };
        let header = match RequestHeader::parse(bytes) {
            Ok(header) => header,
            Err(malformed) => return malformed.into(),
        };
        if header.command == CommandCode::Write && header.length > limits.payload {
            // Neither to be held nor to be skipped: it may be four gigabytes.
            return Malformed("the payload of a write is longer than the maximum").into();
        }
        if header.command == CommandCode::Disc {
            self.expect = Expect::Nothing(self.flow.unanswered());
            inbox.clear();
            return Step::Continue;
        }
        let verdict = if shutting_down {
            Err((Errno::Shutdown, "the server is shutting down"))
        } else {
            check(&header, &self.agreed)
        };
        let ticket = ticket(&header);
        // A read that is refused holds nothing; a write that is refused is not kept.
        if verdict.is_ok() && !self.flow.admits(ticket.payload(), limits) {
            return Step::Wait;
        }
        inbox.skip(RequestHeader::LENGTH);
        self.flow.take(&ticket);
        match verdict {
            Ok(range) => self.admitted(&header, range, ticket, outbox),
            Err((errno, rule)) => {
                let message = if self.agreed.structured {
                    format!("{header:?}: {rule}")
                } else {
                    String::new()
                };
                self.reply_error(outbox, ticket, errno, &message);
                if header.command == CommandCode::Write {
                    self.expect = Expect::Refused(length(&header));
                }
                Step::Continue
            }
        }
    }

    fn admitted(
        &mut self,
        header: &RequestHeader,
        range: ByteRange,
        ticket: Ticket,
        outbox: &mut Outbox,
    ) -> Step {
        if range.is_empty() && header.command != CommandCode::Flush {
            // Unspecified by the protocol, but no reason to disconnect.
            self.reply_ok(outbox, ticket);
            return Step::Continue;
        }
        let has = |flag| header.flags.contains(flag);
        let fua = has(CommandFlags::FUA);
        let command = match header.command {
            CommandCode::Read => Command::Read { range },
            CommandCode::Flush => Command::Flush,
            CommandCode::Trim => Command::Trim { range, fua },
            CommandCode::Cache => Command::Cache { range },
            CommandCode::WriteZeroes => Command::WriteZeroes {
                range,
                no_hole: has(CommandFlags::NO_HOLE),
                fast_zero: has(CommandFlags::FAST_ZERO),
                fua,
            },
            CommandCode::BlockStatus => Command::BlockStatus {
                range,
                req_one: has(CommandFlags::REQ_ONE),
                contexts: self.agreed.contexts,
            },
            CommandCode::Write => {
                self.expect = Expect::Payload(*header, None);
                return Step::Continue;
            }
            CommandCode::Disc | CommandCode::Unknown(_) => {
                self.reply_error(outbox, ticket, Errno::Inval, "unknown command");
                return Step::Continue;
            }
        };
        self.large = false;
        Step::Event(Event::Request(Request { ticket, command }))
    }
}

fn length(header: &RequestHeader) -> usize {
    usize::try_from(header.length).unwrap_or(usize::MAX)
}

fn ticket(header: &RequestHeader) -> Ticket {
    Ticket {
        cookie: header.cookie,
        offset: header.offset,
        length: header.length,
        code: header.command,
        flags: header.flags,
    }
}

fn event(header: &RequestHeader, command: Command) -> Step {
    Step::Event(Event::Request(Request {
        ticket: ticket(header),
        command,
    }))
}
