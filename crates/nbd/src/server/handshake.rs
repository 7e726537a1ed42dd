//! The handshake: greeting, client flags, options one after the other.
//!
//! Source: NBD protocol, "Newstyle negotiation", "Fixed newstyle negotiation", "Option types",
//! "NOTLS mode".

use super::{CloseReason, Event, ExportInfo, Limits, Step, Want};
use crate::check::Agreed;
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use crate::wire::{
    ClientFlags, ClientHello, ContextSet, ExportName, ExportNameReply, HandshakeFlags, Info,
    InfoKind, InfoRequest, Malformed, MetaContext, MetaRequest, OptionCode, OptionHeader,
    OptionReply, OptionRequest, RepError, ServerHello, TransmissionFlags,
};

/// How far the handshake has come, and what has been agreed on.
pub(super) struct Handshake {
    expect: Expect,
    client: ClientFlags,
    structured: bool,
    /// The contexts last selected, and the export they are of.
    selected: Option<(ExportName, ContextSet)>,
}

/// Which input is legal.
enum Expect {
    ClientFlags,
    Option,
    /// The caller's answer to the event this option has led to.
    Answer(OptionRequest),
}

/// The handshake flags this server offers, and so accepts.
const OFFERED: HandshakeFlags = HandshakeFlags::FIXED_NEWSTYLE.with(HandshakeFlags::NO_ZEROES);

impl Handshake {
    /// Sends the greeting.
    pub(super) fn begin(outbox: &mut Outbox) -> Handshake {
        outbox.header(&ServerHello { flags: OFFERED }.encode());
        Handshake {
            expect: Expect::ClientFlags,
            client: ClientFlags::NONE,
            structured: false,
            selected: None,
        }
    }

    pub(super) fn want(&self, inbox: &Inbox) -> Want {
        let missing = match self.expect {
            Expect::ClientFlags => inbox.len() < ClientHello::LENGTH,
            Expect::Option => option_is_missing(inbox),
            Expect::Answer(_) => false,
        };
        if missing { Want::ANY } else { Want::Nothing }
    }

    pub(super) fn step(
        &mut self,
        inbox: &mut Inbox,
        outbox: &mut Outbox,
        limits: &Limits,
        shutting_down: bool,
    ) -> Step {
        match self.expect {
            Expect::ClientFlags => self.client_flags(inbox),
            // A client must have read all replies to an option before it sends the next.
            Expect::Option if !outbox.is_empty() => Step::Wait,
            Expect::Option => match read_option(inbox, outbox, limits) {
                Ok(Some((code, _))) if shutting_down && code != OptionCode::ABORT => refuse(
                    outbox,
                    code,
                    RepError::Shutdown,
                    "the server is shutting down",
                ),
                Ok(Some((code, data))) => match OptionRequest::parse(code, &data) {
                    Ok(option) => self.option(outbox, option),
                    Err(malformed) if code == OptionCode::EXPORT_NAME => malformed.into(),
                    Err(Malformed(why)) => refuse(outbox, code, RepError::Invalid, why),
                },
                Ok(None) => Step::Wait,
                Err(malformed) => malformed.into(),
            },
            Expect::Answer(_) => Step::Wait,
        }
    }

    fn client_flags(&mut self, inbox: &mut Inbox) -> Step {
        let Some(bytes) = inbox.peek() else {
            return Step::Wait;
        };
        inbox.skip(ClientHello::LENGTH);
        match ClientHello::parse(bytes) {
            Ok(hello) => {
                self.client = hello.flags;
                self.expect = Expect::Option;
                Step::Continue
            }
            Err(malformed) => malformed.into(),
        }
    }

    fn option(&mut self, outbox: &mut Outbox, option: OptionRequest) -> Step {
        let code = option.code();
        let fixed = self.client.contains(ClientFlags::FIXED_NEWSTYLE);
        if !fixed && code != OptionCode::EXPORT_NAME {
            // Such a client could not read a reply.
            return Malformed("only EXPORT_NAME is allowed without fixed newstyle").into();
        }
        let event = match &option {
            OptionRequest::ExportName(name) => Event::OpenExport(name.clone()),
            OptionRequest::Go(request) => Event::OpenExport(request.name.clone()),
            OptionRequest::Info(request) => Event::DescribeExport(request.name.clone()),
            OptionRequest::List => Event::ListExports,
            OptionRequest::ListMetaContext(request) | OptionRequest::SetMetaContext(request) => {
                if matches!(option, OptionRequest::SetMetaContext(_)) {
                    // Even an attempt that fails replaces what was selected before.
                    self.selected = None;
                }
                if !self.structured {
                    let why = "structured replies must be negotiated first";
                    return refuse(outbox, code, RepError::Invalid, why);
                }
                Event::DescribeExport(request.name.clone())
            }
            OptionRequest::Abort => {
                reply(outbox, code, &OptionReply::Ack);
                return Step::Close(CloseReason::Aborted);
            }
            OptionRequest::StructuredReply => {
                self.structured = true;
                reply(outbox, code, &OptionReply::Ack);
                return Step::Continue;
            }
            OptionRequest::StartTls => {
                return refuse(outbox, code, RepError::Unsup, "this server has no TLS");
            }
            OptionRequest::Unknown(_) => {
                return refuse(
                    outbox,
                    code,
                    RepError::Unsup,
                    "this server lacks the option",
                );
            }
        };
        self.expect = Expect::Answer(option);
        Step::Event(event)
    }

    pub(super) fn exports_listed(
        &mut self,
        outbox: &mut Outbox,
        exports: impl IntoIterator<Item = (ExportName, String)>,
    ) {
        if !matches!(self.expect, Expect::Answer(OptionRequest::List)) {
            return;
        }
        for (name, description) in exports {
            reply(
                outbox,
                OptionCode::LIST,
                &OptionReply::Server(name, description),
            );
        }
        reply(outbox, OptionCode::LIST, &OptionReply::Ack);
        self.expect = Expect::Option;
    }

    /// What client and server have agreed on, if this ends the handshake.
    pub(super) fn export_found(
        &mut self,
        outbox: &mut Outbox,
        export: ExportInfo,
    ) -> Option<Agreed> {
        let option = self.take_answered()?;
        let code = option.code();
        let agreed = self.agree(&export);
        match option {
            OptionRequest::ExportName(_) => {
                let (size, flags) = (agreed.size, agreed.flags);
                outbox.header(&ExportNameReply { size, flags }.encode());
                if !self.client.contains(ClientFlags::NO_ZEROES) {
                    outbox.bytes(&ExportNameReply::PADDING);
                }
                return Some(agreed);
            }
            OptionRequest::Go(request) => {
                describe(outbox, code, &request, &export, &agreed);
                return Some(agreed);
            }
            OptionRequest::Info(request) => describe(outbox, code, &request, &export, &agreed),
            OptionRequest::ListMetaContext(request) => {
                list_contexts(outbox, &request, export.contexts);
            }
            OptionRequest::SetMetaContext(request) => {
                let contexts = set_contexts(outbox, &request, export.contexts);
                self.selected = Some((export.name, contexts));
            }
            OptionRequest::Abort
            | OptionRequest::List
            | OptionRequest::StartTls
            | OptionRequest::StructuredReply
            | OptionRequest::Unknown(_) => {}
        }
        None
    }

    pub(super) fn export_refused(
        &mut self,
        outbox: &mut Outbox,
        error: RepError,
        message: &str,
    ) -> Step {
        match self.take_answered() {
            None => Step::Continue,
            Some(OptionRequest::ExportName(_)) => Step::Close(CloseReason::ExportRefused),
            Some(option) => refuse(outbox, option.code(), error, message),
        }
    }

    /// The option about an export that has just been answered, if one was waiting.
    fn take_answered(&mut self) -> Option<OptionRequest> {
        if !matches!(&self.expect, Expect::Answer(option) if *option != OptionRequest::List) {
            return None;
        }
        match std::mem::replace(&mut self.expect, Expect::Option) {
            Expect::Answer(option) => Some(option),
            Expect::ClientFlags | Expect::Option => None,
        }
    }

    fn agree(&self, export: &ExportInfo) -> Agreed {
        let mut flags = export.flags.with(TransmissionFlags::HAS_FLAGS);
        flags = flags.without(TransmissionFlags::SEND_DF);
        if self.structured {
            flags = flags.with(TransmissionFlags::SEND_DF);
        }
        if !flags.contains(TransmissionFlags::SEND_WRITE_ZEROES) {
            flags = flags.without(TransmissionFlags::SEND_FAST_ZERO);
        }
        let contexts = match &self.selected {
            // Contexts count only for the export they were selected for.
            Some((name, contexts)) if *name == export.name => *contexts,
            _ => ContextSet::NONE,
        };
        Agreed {
            size: export.size,
            flags,
            block_sizes: export.block_sizes,
            contexts,
            structured: self.structured,
        }
    }
}

/// Whether the next option has not arrived as a whole. A header that is wrong, or too long a
/// length, is found by [`read_option`].
fn option_is_missing(inbox: &Inbox) -> bool {
    let Some(header) = inbox
        .peek()
        .and_then(|bytes| OptionHeader::parse(bytes).ok())
    else {
        return inbox.len() < OptionHeader::LENGTH;
    };
    inbox.len() < OptionHeader::LENGTH.saturating_add(length(header.length))
}

/// The next option and its data, once it has arrived as a whole.
fn read_option(
    inbox: &mut Inbox,
    outbox: &mut Outbox,
    limits: &Limits,
) -> Result<Option<(OptionCode, bytes::Bytes)>, Malformed> {
    let Some(bytes) = inbox.peek() else {
        return Ok(None);
    };
    let header = OptionHeader::parse(bytes)?;
    if header.length > limits.option {
        // Skipping gigabytes would serve nobody; the client learns why before it is left.
        if header.code != OptionCode::EXPORT_NAME {
            refuse(
                outbox,
                header.code,
                RepError::TooBig,
                "the option's data is too long",
            );
        }
        return Err(Malformed(
            "the data of an option is longer than the server's bound",
        ));
    }
    if option_is_missing(inbox) {
        return Ok(None);
    }
    inbox.skip(OptionHeader::LENGTH);
    Ok(inbox
        .take(length(header.length))
        .map(|data| (header.code, data)))
}

fn length(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn reply(outbox: &mut Outbox, option: OptionCode, reply: &OptionReply) {
    outbox.bytes(&reply.encode(option));
}

fn refuse(outbox: &mut Outbox, option: OptionCode, error: RepError, why: &str) -> Step {
    reply(outbox, option, &OptionReply::Error(error, why.to_owned()));
    Step::Continue
}

/// The replies to `NBD_OPT_INFO` and `NBD_OPT_GO`. The block sizes are sent to all: whoever does
/// not know them ignores them.
fn describe(
    outbox: &mut Outbox,
    option: OptionCode,
    request: &InfoRequest,
    export: &ExportInfo,
    agreed: &Agreed,
) {
    let mut information = vec![Info::Export(agreed.size, agreed.flags)];
    if request.wanted.contains(&InfoKind::Name) {
        information.push(Info::Name(export.name.clone()));
    }
    if request.wanted.contains(&InfoKind::Description) && !export.description.is_empty() {
        information.push(Info::Description(export.description.clone()));
    }
    information.push(Info::BlockSize(agreed.block_sizes));
    for info in information {
        reply(outbox, option, &OptionReply::Info(info));
    }
    reply(outbox, option, &OptionReply::Ack);
}

fn list_contexts(outbox: &mut Outbox, request: &MetaRequest, offered: ContextSet) {
    let code = OptionCode::LIST_META_CONTEXT;
    let wanted = |context: &MetaContext| {
        request.queries.is_empty() || request.queries.iter().any(|query| query.lists(*context))
    };
    for context in offered.iter().filter(wanted) {
        // The number is reserved in a list.
        reply(
            outbox,
            code,
            &OptionReply::MetaContext(0, context.name().to_owned()),
        );
    }
    reply(outbox, code, &OptionReply::Ack);
}

fn set_contexts(outbox: &mut Outbox, request: &MetaRequest, offered: ContextSet) -> ContextSet {
    let code = OptionCode::SET_META_CONTEXT;
    let wanted = |context: &MetaContext| request.queries.iter().any(|q| q.selects(*context));
    let selected: ContextSet = offered.iter().filter(wanted).collect();
    for context in selected.iter() {
        let name = context.name().to_owned();
        reply(outbox, code, &OptionReply::MetaContext(context.id(), name));
    }
    reply(outbox, code, &OptionReply::Ack);
    selected
}
