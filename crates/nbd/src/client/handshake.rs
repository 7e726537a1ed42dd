//! The handshake, one option after the other, each falling back to what older servers know.
//!
//! Source: NBD protocol, "Newstyle negotiation", "Fixed newstyle negotiation", "Option types",
//! "Option reply types", "Size constraints".

use super::transmission::Transmission;
use super::{CloseReason, ExportInfo, Limits, Step};
use crate::check::Agreed;
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use crate::wire::{
    BlockSizes, ClientFlags, ClientHello, ContextQuery, ContextSet, ExportName, ExportNameReply,
    HandshakeFlags, Info, InfoKind, InfoRequest, Malformed, MetaContext, MetaRequest, OptionReply,
    OptionRequest, RepError, ReplyHeader, ServerHello, TransmissionFlags,
};

/// How far the handshake has come, and what has been learned.
pub(super) struct Handshake {
    export: ExportName,
    /// Contexts to ask for.
    wanted: ContextSet,
    expect: Expect,
    /// Option replies seen so far.
    replies: u32,
    /// The server's flags, once it has greeted.
    server: HandshakeFlags,
    structured: bool,
    /// Contexts selected, with the server's number for each.
    contexts: Vec<(MetaContext, u32)>,
    size_and_flags: Option<(u64, TransmissionFlags)>,
    block_sizes: Option<BlockSizes>,
}

/// Which input is legal. The option is the one in flight.
enum Expect {
    Hello,
    Reply(OptionRequest),
    ExportName,
}

/// What a reply means for the option in flight.
enum Outcome {
    /// More replies follow.
    More,
    /// The option is done.
    Done,
    /// The server lacks or refuses the option.
    Refused(RepError, String),
}

impl Handshake {
    pub(super) fn new(export: ExportName, wanted: ContextSet) -> Handshake {
        Handshake {
            export,
            wanted,
            expect: Expect::Hello,
            replies: 0,
            server: HandshakeFlags::NONE,
            structured: false,
            contexts: Vec::new(),
            size_and_flags: None,
            block_sizes: None,
        }
    }

    pub(super) fn step(&mut self, inbox: &mut Inbox, outbox: &mut Outbox, limits: &Limits) -> Step {
        let step = match &self.expect {
            Expect::Hello => self.hello(inbox, outbox),
            Expect::Reply(_) => self.reply(inbox, outbox, limits),
            Expect::ExportName => self.export_name(inbox, limits),
        };
        step.unwrap_or_else(Step::from)
    }

    fn hello(&mut self, inbox: &mut Inbox, outbox: &mut Outbox) -> Result<Step, Malformed> {
        let Some(bytes) = inbox.peek() else {
            return Ok(Step::Wait);
        };
        self.server = ServerHello::parse(bytes)?.flags;
        inbox.skip(ServerHello::LENGTH);
        let mut flags = ClientFlags::NONE;
        if self.server.contains(HandshakeFlags::NO_ZEROES) {
            flags = flags | ClientFlags::NO_ZEROES;
        }
        if self.server.contains(HandshakeFlags::FIXED_NEWSTYLE) {
            flags = flags | ClientFlags::FIXED_NEWSTYLE;
            outbox.header(&ClientHello { flags }.encode());
            self.send(outbox, OptionRequest::StructuredReply);
        } else {
            outbox.header(&ClientHello { flags }.encode());
            self.send_export_name(outbox);
        }
        Ok(Step::Continue)
    }

    fn reply(
        &mut self,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
        limits: &Limits,
    ) -> Result<Step, Malformed> {
        let Expect::Reply(option) = &self.expect else {
            return Ok(Step::Wait);
        };
        let Some(bytes) = inbox.peek() else {
            return Ok(Step::Wait);
        };
        let header = ReplyHeader::parse(bytes)?;
        if header.option != option.code() {
            return Err(Malformed(
                "an option reply names another option than the one sent",
            ));
        }
        if header.length > limits.reply {
            return Err(Malformed(
                "an option reply is longer than the client's bound",
            ));
        }
        let length = usize::try_from(header.length).unwrap_or(usize::MAX);
        if inbox.len() < ReplyHeader::LENGTH.saturating_add(length) {
            return Ok(Step::Wait);
        }
        self.replies = self.replies.saturating_add(1);
        if self.replies > limits.replies {
            return Err(Malformed(
                "the server sends more option replies than the client's bound",
            ));
        }
        inbox.skip(ReplyHeader::LENGTH);
        let data = inbox.take(length).unwrap_or_default();
        let outcome = match OptionReply::parse(header.kind, &data)? {
            OptionReply::Ack => Outcome::Done,
            OptionReply::Error(error, text) => Outcome::Refused(error, text),
            OptionReply::Info(info) => self.info(&info)?,
            OptionReply::MetaContext(id, name) => self.context(id, &name)?,
            OptionReply::Server(..) => {
                return Err(Malformed("the server lists exports without being asked"));
            }
        };
        self.outcome(outcome, outbox, limits)
    }

    /// What to do next, once the option in flight is done or refused.
    fn outcome(
        &mut self,
        outcome: Outcome,
        outbox: &mut Outbox,
        limits: &Limits,
    ) -> Result<Step, Malformed> {
        let Expect::Reply(option) = &self.expect else {
            return Ok(Step::Continue);
        };
        match (option, outcome) {
            (_, Outcome::More) => {}
            (_, Outcome::Refused(error @ (RepError::TlsReqd | RepError::Shutdown), text)) => {
                return Ok(give_up(outbox, error, text));
            }
            (OptionRequest::StructuredReply, Outcome::Done) => {
                self.structured = true;
                if self.wanted.is_empty() {
                    self.send_go(outbox);
                } else {
                    self.send_contexts(outbox);
                }
            }
            (OptionRequest::StructuredReply, Outcome::Refused(..)) => self.send_go(outbox),
            (OptionRequest::SetMetaContext(_), Outcome::Done) => self.send_go(outbox),
            (OptionRequest::SetMetaContext(_), Outcome::Refused(..)) => {
                // What was sent before the error does not count.
                self.contexts.clear();
                self.send_go(outbox);
            }
            (OptionRequest::Go(_), Outcome::Done) => return self.ready(limits),
            (OptionRequest::Go(_), Outcome::Refused(RepError::Unsup, _)) => {
                self.send_export_name(outbox);
            }
            (_, Outcome::Refused(error, text)) => return Ok(give_up(outbox, error, text)),
            (_, Outcome::Done) => {}
        }
        Ok(Step::Continue)
    }

    fn info(&mut self, info: &Info) -> Result<Outcome, Malformed> {
        if !matches!(self.expect, Expect::Reply(OptionRequest::Go(_))) {
            return Err(Malformed(
                "the server describes an export without being asked",
            ));
        }
        match info {
            Info::Export(size, flags) => self.size_and_flags = Some((*size, *flags)),
            Info::BlockSize(sizes) => self.block_sizes = Some(*sizes),
            Info::Name(_) | Info::Description(_) | Info::Other(_) => {}
        }
        Ok(Outcome::More)
    }

    fn context(&mut self, id: u32, name: &str) -> Result<Outcome, Malformed> {
        if !matches!(self.expect, Expect::Reply(OptionRequest::SetMetaContext(_))) {
            return Err(Malformed(
                "the server names a metadata context without being asked",
            ));
        }
        let context = MetaContext::from_name(name.as_bytes())
            .filter(|context| self.wanted.contains(*context))
            .ok_or(Malformed(
                "the server selects a metadata context nobody asked for",
            ))?;
        if self
            .contexts
            .iter()
            .any(|(other, number)| *other == context || *number == id)
        {
            return Err(Malformed(
                "the server gives a metadata context or its number twice",
            ));
        }
        self.contexts.push((context, id));
        Ok(Outcome::More)
    }

    /// The answer to `NBD_OPT_EXPORT_NAME`, which has no header.
    fn export_name(&mut self, inbox: &mut Inbox, limits: &Limits) -> Result<Step, Malformed> {
        let padding = if self.server.contains(HandshakeFlags::NO_ZEROES) {
            0
        } else {
            ExportNameReply::PADDING.len()
        };
        let Some(bytes) = inbox.peek() else {
            return Ok(Step::Wait);
        };
        if inbox.len() < ExportNameReply::LENGTH.saturating_add(padding) {
            return Ok(Step::Wait);
        }
        inbox.skip(ExportNameReply::LENGTH.saturating_add(padding));
        let reply = ExportNameReply::parse(bytes);
        self.size_and_flags = Some((reply.size, reply.flags));
        self.contexts.clear();
        self.ready(limits)
    }

    /// Checks what the server has said of the export.
    fn ready(&mut self, limits: &Limits) -> Result<Step, Malformed> {
        let (size, flags) = self.size_and_flags.ok_or(Malformed(
            "the server accepts the export without describing it",
        ))?;
        if i64::try_from(size).is_err() {
            return Err(Malformed("the size of an export must be below 2^63 bytes"));
        }
        if !flags.contains(TransmissionFlags::HAS_FLAGS) {
            return Err(Malformed("the transmission flags lack NBD_FLAG_HAS_FLAGS"));
        }
        let block_sizes = self.block_sizes.unwrap_or_else(|| usual_block_sizes(size));
        if !size.is_multiple_of(u64::from(block_sizes.minimum())) {
            return Err(Malformed(
                "the size of the export is no multiple of its minimum block size",
            ));
        }
        let export = ExportInfo {
            size,
            flags: self.usable(flags),
            block_sizes: block_sizes.capped(limits.payload),
            structured: self.structured,
            contexts: self.contexts.iter().map(|(context, _)| *context).collect(),
        };
        let agreed = Agreed {
            size,
            flags: export.flags,
            block_sizes: export.block_sizes,
            contexts: export.contexts,
            structured: self.structured,
        };
        let transmission = Transmission::new(agreed, std::mem::take(&mut self.contexts));
        Ok(Step::Ready(Box::new((export, transmission))))
    }

    /// The flags whose conditions hold (NBD protocol, "Transmission flags").
    fn usable(&self, flags: TransmissionFlags) -> TransmissionFlags {
        let mut flags = flags;
        if !self.structured {
            flags = flags.without(TransmissionFlags::SEND_DF);
        }
        if !flags.contains(TransmissionFlags::SEND_WRITE_ZEROES) {
            flags = flags.without(TransmissionFlags::SEND_FAST_ZERO);
        }
        flags
    }

    fn send(&mut self, outbox: &mut Outbox, option: OptionRequest) {
        outbox.bytes(&option.encode());
        self.expect = Expect::Reply(option);
    }

    fn send_contexts(&mut self, outbox: &mut Outbox) {
        let request = MetaRequest {
            name: self.export.clone(),
            queries: self.wanted.iter().map(ContextQuery::Context).collect(),
        };
        self.send(outbox, OptionRequest::SetMetaContext(request));
    }

    fn send_go(&mut self, outbox: &mut Outbox) {
        let request = InfoRequest {
            name: self.export.clone(),
            wanted: vec![InfoKind::BlockSize],
        };
        self.send(outbox, OptionRequest::Go(request));
    }

    fn send_export_name(&mut self, outbox: &mut Outbox) {
        outbox.bytes(&OptionRequest::ExportName(self.export.clone()).encode());
        self.expect = Expect::ExportName;
    }
}

/// Takes leave of a server that does not want us.
fn give_up(outbox: &mut Outbox, error: RepError, text: String) -> Step {
    outbox.bytes(&OptionRequest::Abort.encode());
    Step::Close(CloseReason::Refused(error, text))
}

/// What most servers can do if they say nothing: whole sectors where the size has no odd end.
fn usual_block_sizes(size: u64) -> BlockSizes {
    if size.is_multiple_of(512) {
        BlockSizes::SECTORS
    } else {
        BlockSizes::DEFAULT
    }
}
