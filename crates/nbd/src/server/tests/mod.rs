//! Tests of the server session: transcripts of whole connections.

mod bounds;
mod handshake;
mod hostile;
mod matrix;
mod transmission;

use super::{Closed, Command, Event, ExportInfo, Limits, Piece, Request, Session, Ticket};
use crate::testing::{ServerStream, summary};
use crate::wire::{
    BlockSizes, ClientFlags, ClientHello, CommandCode, CommandFlags, ContextExtents, ContextSet,
    Cookie, ExportName, InfoKind, InfoRequest, MetaContext, OptionRequest, RequestHeader,
    TransmissionFlags,
};
use bytes::Bytes;
use std::fmt::Write;
use std::time::Duration;
use zerocopy::IntoBytes;

/// A session, the client's words so far and all that came of them, as a transcript.
struct Client {
    session: Session,
    stream: ServerStream,
    transcript: String,
    /// Requests that wait for their reply.
    requests: Vec<Request>,
    closed: Option<Closed>,
    export: ExportInfo,
    both: ClientFlags,
}

fn name(name: &str) -> ExportName {
    ExportName::try_from(name).unwrap()
}

fn disk() -> ExportInfo {
    ExportInfo {
        name: name("disk"),
        description: "a disk".to_owned(),
        size: 1 << 20,
        flags: TransmissionFlags::SEND_FLUSH
            | TransmissionFlags::SEND_FUA
            | TransmissionFlags::SEND_TRIM
            | TransmissionFlags::SEND_WRITE_ZEROES
            | TransmissionFlags::SEND_FAST_ZERO
            | TransmissionFlags::SEND_CACHE,
        block_sizes: BlockSizes::DEFAULT,
        contexts: ContextSet::NONE.with(MetaContext::BaseAllocation),
    }
}

fn request(code: CommandCode, cookie: u64, offset: u64, length: u32) -> RequestHeader {
    RequestHeader {
        flags: CommandFlags::NONE,
        command: code,
        cookie: Cookie(cookie),
        offset,
        length,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "callers have temporaries")]
fn bytes(message: impl IntoBytes + zerocopy::Immutable) -> Vec<u8> {
    message.as_bytes().to_vec()
}

impl Client {
    /// Connected; nothing sent yet.
    fn connect() -> Client {
        Client::with(Limits::default(), disk())
    }

    fn with(limits: Limits, export: ExportInfo) -> Client {
        let mut client = Client {
            session: Session::new(limits, Duration::ZERO),
            stream: ServerStream::default(),
            transcript: String::new(),
            requests: Vec::new(),
            closed: None,
            export,
            both: ClientFlags::FIXED_NEWSTYLE | ClientFlags::NO_ZEROES,
        };
        client.run();
        client.transcript.clear();
        client
    }

    /// Has sent its flags.
    fn greeted() -> Client {
        let mut client = Client::connect();
        client.hello(client.both);
        client.transcript.clear();
        client
    }

    /// In transmission, with structured replies and block status.
    fn structured() -> Client {
        Client::in_transmission(Limits::default(), disk(), true)
    }

    /// In transmission, with simple replies.
    fn simple() -> Client {
        Client::in_transmission(Limits::default(), disk(), false)
    }

    fn in_transmission(limits: Limits, export: ExportInfo, structured: bool) -> Client {
        let mut client = Client::with(limits, export);
        client.hello(client.both);
        if structured {
            client.option(&OptionRequest::StructuredReply);
            let queries = vec![crate::wire::ContextQuery::Context(
                MetaContext::BaseAllocation,
            )];
            let name = client.export.name.clone();
            client.option(&OptionRequest::SetMetaContext(crate::wire::MetaRequest {
                name,
                queries,
            }));
        }
        client.go();
        assert!(client.closed.is_none());
        client.transcript.clear();
        client
    }

    fn hello(&mut self, flags: ClientFlags) {
        writeln!(self.transcript, "C flags {flags:?}").unwrap();
        self.send(&bytes(ClientHello { flags }.encode()));
    }

    fn go(&mut self) {
        self.option(&OptionRequest::Go(InfoRequest {
            name: self.export.name.clone(),
            wanted: vec![InfoKind::BlockSize],
        }));
    }

    fn option(&mut self, option: &OptionRequest) {
        writeln!(self.transcript, "C {option:?}").unwrap();
        self.send(&option.encode());
    }

    /// Sends a request header, and what follows it.
    fn request(&mut self, header: RequestHeader, payload: &[u8]) {
        writeln!(self.transcript, "C {header:?}{}", summary(payload)).unwrap();
        if header.command == CommandCode::Read {
            let length = usize::try_from(header.length).unwrap();
            self.stream.reads.insert(header.cookie, length);
        }
        let mut message = bytes(header.encode());
        message.extend_from_slice(payload);
        self.send(&message);
    }

    fn send(&mut self, bytes: &[u8]) {
        self.session.handle_bytes(Bytes::copy_from_slice(bytes));
        self.run();
    }

    fn end(&mut self) -> Closed {
        self.session.handle_end_of_stream();
        self.run();
        self.closed.unwrap()
    }

    /// Lets the session work until it waits. Answers the handshake's events.
    fn run(&mut self) {
        loop {
            while let Some(event) = self.session.poll_event() {
                self.event(event);
            }
            let mut parts = Vec::new();
            if !self.session.poll_transmit(&mut parts) {
                break;
            }
            self.stream.print(&parts, &mut self.transcript);
            assert!(self.stream.is_whole());
        }
    }

    fn event(&mut self, event: Event) {
        let line = if let Event::Request(request) = &event {
            format!("{:?} {:?}", request.ticket, request.command)
        } else {
            format!("{event:?}")
        };
        writeln!(self.transcript, "E {line}").unwrap();
        match event {
            Event::ListExports => {
                let (name, text) = (self.export.name.clone(), self.export.description.clone());
                self.session.exports_listed([(name, text)]);
            }
            Event::DescribeExport(name) | Event::OpenExport(name) if name == self.export.name => {
                self.session.export_found(self.export.clone());
            }
            Event::DescribeExport(_) | Event::OpenExport(_) => {
                let error = crate::wire::RepError::Unknown;
                self.session
                    .export_refused(error, "there is no such export");
            }
            Event::Request(request) => self.requests.push(request),
            Event::Closed(closed) => self.closed = Some(closed),
        }
    }

    /// The ticket of the oldest request.
    fn ticket(&mut self) -> Ticket {
        self.requests.remove(0).ticket
    }

    /// Answers all requests with success; a read returns `a`s.
    fn answer(&mut self) {
        for Request { ticket, command } in std::mem::take(&mut self.requests) {
            match command {
                Command::Read { range } => {
                    let data = vec![b'a'; usize::try_from(range.length()).unwrap()];
                    self.session.reply_data(ticket, Bytes::from(data));
                }
                Command::BlockStatus { .. } => self.session.reply_block_status(ticket, &[]),
                Command::Write { .. }
                | Command::Flush
                | Command::Trim { .. }
                | Command::WriteZeroes { .. }
                | Command::Cache { .. } => self.session.reply_ok(ticket),
            }
        }
        self.run();
    }

    /// The transcript since the last look.
    fn transcript(&mut self) -> String {
        std::mem::take(&mut self.transcript)
    }
}
