//! The transmission phase: requests out, replies in, each checked against its request.
//!
//! Source: NBD protocol, "Transmission", "Structured reply types", "Request types",
//! "Terminating the transmission phase".

use super::pending::{Table, payload};
use super::{CloseReason, Completion, Event, Failure, Limits, Refused, Step};
use crate::check::{Agreed, check};
use crate::extents::clip;
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use crate::wire::{
    Chunk, ChunkFlags, ChunkHeader, ChunkKind, CommandCode, CommandFlags, ContextExtents, Cookie,
    Malformed, MetaContext, ReplyMagic, RequestHeader, SimpleReply,
};
use crate::{Errno, Want};
use block::ByteRange;
use bytes::Bytes;

/// An export in use.
pub(super) struct Transmission {
    agreed: Agreed,
    /// The server's number for each selected metadata context.
    contexts: Vec<(MetaContext, u32)>,
    table: Table,
    expect: Expect,
    /// The last data was read directly.
    large: bool,
    /// No request is taken any more; the reason for the end.
    leaving: Option<CloseReason>,
}

/// Which input is legal.
enum Expect {
    Reply,
    /// The data of a read, or what the caller has read of it: all.
    Data(Data, Option<Bytes>),
    /// The payload of a chunk without data.
    Control(ChunkHeader),
}

/// Data on its way, already checked to lie in its request.
#[derive(Clone, Copy)]
struct Data {
    cookie: Cookie,
    range: ByteRange,
    /// Nothing follows for this request.
    done: bool,
}

impl Transmission {
    pub(super) fn new(agreed: Agreed, contexts: Vec<(MetaContext, u32)>) -> Transmission {
        Transmission {
            agreed,
            contexts,
            table: Table::default(),
            expect: Expect::Reply,
            large: false,
            leaving: None,
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.table.len()
    }

    /// All requests in flight, the newest first.
    pub(super) fn cookies(&self) -> Vec<Cookie> {
        self.table.cookies()
    }

    pub(super) fn has_room(&self, bytes: u64, limits: &Limits) -> bool {
        self.leaving.is_none()
            && self.table.len() < limits.requests.min(Table::MOST)
            && self.table.bytes().saturating_add(bytes) <= limits.bytes
    }

    /// Takes no more requests; the connection ends when none is in flight.
    pub(super) fn leave(&mut self, reason: CloseReason) {
        self.leaving.get_or_insert(reason);
    }

    pub(super) fn submit(
        &mut self,
        outbox: &mut Outbox,
        limits: &Limits,
        header: RequestHeader,
        data: Bytes,
    ) -> Result<Cookie, Refused> {
        if self.leaving.is_some() {
            return Err(Refused::Closed);
        }
        let range =
            check(&header, &self.agreed).map_err(|(errno, why)| Refused::Rule(errno, why))?;
        if range.is_empty() && header.command != CommandCode::Flush {
            // What servers do with it is not specified.
            return Err(Refused::Rule(Errno::Inval, "a request needs a length"));
        }
        let bytes = payload(&header);
        if bytes > u64::from(self.agreed.block_sizes.maximum()) {
            return Err(Refused::Rule(
                Errno::Inval,
                "longer than the maximum payload",
            ));
        }
        if !self.has_room(bytes, limits) {
            return Err(Refused::Busy);
        }
        let header = self.table.insert(header);
        outbox.header(&header.encode());
        outbox.payload(data);
        Ok(header.cookie)
    }

    pub(super) fn want(&self, inbox: &Inbox) -> Want {
        match &self.expect {
            Expect::Data(data, None) => Want::payload(data.length(), inbox.len()),
            Expect::Data(_, Some(_)) => Want::Nothing,
            Expect::Reply if self.large => Want::SHORT,
            Expect::Reply | Expect::Control(_) => Want::ANY,
        }
    }

    pub(super) fn handle_payload(&mut self, inbox: &mut Inbox, payload: Bytes) {
        if let Expect::Data(data, whole @ None) = &mut self.expect {
            assert_eq!(payload.len(), data.length(), "a payload of another length");
            // Its first part lay in the inbox and has been copied.
            inbox.clear();
            *whole = Some(payload);
        }
    }

    pub(super) fn step(&mut self, inbox: &mut Inbox, outbox: &mut Outbox, limits: &Limits) -> Step {
        if self.table.len() == 0
            && let Some(reason) = self.leaving.take()
        {
            outbox.header(&DISC.encode());
            return Step::Close(reason);
        }
        let step = match &mut self.expect {
            Expect::Reply => self.reply(inbox),
            Expect::Data(data, whole) => {
                let data = *data;
                let direct = whole.is_some();
                let Some(bytes) = whole.take().or_else(|| inbox.take(data.length())) else {
                    return Step::Wait;
                };
                self.large = direct;
                self.expect = Expect::Reply;
                self.data(data, Some(bytes))
            }
            Expect::Control(header) => {
                let header = *header;
                let Some(payload) = inbox.take(length(header.length)) else {
                    return Step::Wait;
                };
                self.expect = Expect::Reply;
                self.control(header, &payload, limits)
            }
        };
        step.unwrap_or_else(Step::from)
    }

    /// Takes the next header.
    fn reply(&mut self, inbox: &mut Inbox) -> Result<Step, Malformed> {
        let Some(magic) = inbox.peek() else {
            return Ok(Step::Wait);
        };
        match ReplyMagic::parse(magic)? {
            ReplyMagic::Simple => self.simple(inbox),
            ReplyMagic::Structured if !self.agreed.structured => Err(Malformed(
                "the server sends structured replies that were not negotiated",
            )),
            ReplyMagic::Structured => self.chunk(inbox),
        }
    }

    fn simple(&mut self, inbox: &mut Inbox) -> Result<Step, Malformed> {
        let Some(bytes) = inbox.peek() else {
            return Ok(Step::Wait);
        };
        let SimpleReply { cookie, error } = SimpleReply::parse(bytes);
        let structured = self.agreed.structured;
        let pending = self.table.get(cookie)?;
        if pending.chunks > 0 {
            return Err(Malformed("a reply is structured first and simple then"));
        }
        inbox.skip(SimpleReply::LENGTH);
        match (error, pending.header.command) {
            (Some(errno), _) => {
                pending.error = Some((errno, String::new()));
                self.complete(cookie)
            }
            (None, CommandCode::Read) if !structured => {
                let range = pending.range();
                let done = true;
                self.expect = Expect::Data(
                    Data {
                        cookie,
                        range,
                        done,
                    },
                    None,
                );
                Ok(Step::Continue)
            }
            (None, CommandCode::Read | CommandCode::BlockStatus) => {
                Err(Malformed("a reply that must be structured is simple"))
            }
            (None, _) => self.complete(cookie),
        }
    }

    fn chunk(&mut self, inbox: &mut Inbox) -> Result<Step, Malformed> {
        let Some(bytes) = inbox.peek() else {
            return Ok(Step::Wait);
        };
        let header = ChunkHeader::parse(bytes)?;
        let pending = self.table.get(header.cookie)?;
        if header.kind != ChunkKind::OffsetData {
            pending.check_control(&header)?;
            pending.count_chunk()?;
            inbox.skip(ChunkHeader::LENGTH);
            self.expect = Expect::Control(header);
            return Ok(Step::Continue);
        }
        let length = pending.data_length(&header)?;
        let Some(bytes) = inbox.peek::<{ ChunkHeader::LENGTH + Chunk::DATA_HEADER }>() else {
            return Ok(Step::Wait);
        };
        let offset = bytes
            .last_chunk()
            .map_or(0, |offset| u64::from_be_bytes(*offset));
        let range = pending.inside(offset, length)?;
        pending.count_chunk()?;
        inbox.skip(bytes.len());
        let data = Data {
            cookie: header.cookie,
            range,
            done: header.flags.contains(ChunkFlags::DONE),
        };
        self.expect = Expect::Data(data, None);
        Ok(Step::Continue)
    }

    /// The data of a read, or zeroes.
    fn data(&mut self, data: Data, bytes: Option<Bytes>) -> Result<Step, Malformed> {
        let pending = self.table.get(data.cookie)?;
        let request = pending.range();
        pending.read.put(request, data.range, bytes)?;
        self.finish(data.cookie, data.done)
    }

    /// A chunk without data.
    fn control(
        &mut self,
        header: ChunkHeader,
        payload: &[u8],
        limits: &Limits,
    ) -> Result<Step, Malformed> {
        let done = header.flags.contains(ChunkFlags::DONE);
        let cookie = header.cookie;
        let pending = self.table.get(cookie)?;
        match Chunk::parse(header.kind, payload, limits.extents)? {
            Chunk::None => {}
            Chunk::OffsetHole(offset, length) => {
                let range = pending.inside(offset, u64::from(length))?;
                return self.data(
                    Data {
                        cookie,
                        range,
                        done,
                    },
                    None,
                );
            }
            Chunk::Error(errno, text) => drop(pending.error.get_or_insert((errno, text))),
            Chunk::BlockStatus(id, extents) => {
                let (context, _) = *self
                    .contexts
                    .iter()
                    .find(|(_, number)| *number == id)
                    .ok_or(Malformed("block status of a context that was not selected"))?;
                if pending
                    .status
                    .iter()
                    .any(|status| status.context == context)
                {
                    return Err(Malformed("two block status chunks for one context"));
                }
                let extents = clip(&extents, pending.header.length, limits.extents);
                pending.status.push(ContextExtents { context, extents });
            }
        }
        self.finish(cookie, done)
    }

    fn finish(&mut self, cookie: Cookie, done: bool) -> Result<Step, Malformed> {
        if done {
            self.complete(cookie)
        } else {
            Ok(Step::Continue)
        }
    }

    /// The last of a reply has arrived.
    fn complete(&mut self, cookie: Cookie) -> Result<Step, Malformed> {
        let pending = self.table.get(cookie)?;
        let result = match pending.error.take() {
            Some((errno, text)) => Err(Failure::Answered(errno, text)),
            None => Ok(pending.reply(self.contexts.len())?),
        };
        // Only now: a violation must find the request still in flight, to be reported as lost.
        self.table.remove(cookie)?;
        if matches!(result, Err(Failure::Answered(Errno::Shutdown, _))) {
            self.leave(CloseReason::ServerShutdown);
        }
        Ok(Step::Event(Event::Completed(Completion { cookie, result })))
    }
}

/// What says farewell (NBD protocol, "Request types").
const DISC: RequestHeader = RequestHeader {
    flags: CommandFlags::NONE,
    command: CommandCode::Disc,
    cookie: Cookie(0),
    offset: 0,
    length: 0,
};

impl Data {
    fn length(&self) -> usize {
        usize::try_from(self.range.length()).unwrap_or(usize::MAX)
    }
}

fn length(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
