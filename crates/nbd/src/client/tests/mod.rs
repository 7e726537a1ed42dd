//! Tests of the client session: a scripted server, and what comes of its words.

mod handshake;
mod hostile;
mod transmission;

use super::{CloseReason, Event, Limits, Options, Session};
use crate::wire::{
    BlockSizes, ChunkFlags, ChunkHeader, ChunkKind, ClientHello, ContextSet, Cookie, ExportName,
    HandshakeFlags, Info, MetaContext, OptionCode, OptionHeader, OptionReply, OptionRequest,
    RequestHeader, ServerHello, SimpleReply, TransmissionFlags,
};
use crate::{Errno, testing};
use block::ByteRange;
use bytes::{Bytes, BytesMut};
use std::fmt::Write;
use std::time::Duration;
use zerocopy::{Immutable, IntoBytes};

/// A session, the server's words so far and all that came of them, as a transcript.
struct Server {
    session: Session,
    /// What the client has sent and nobody has printed.
    sent: BytesMut,
    greeted: bool,
    ready: bool,
    transcript: String,
    closed: Option<CloseReason>,
}

#[expect(clippy::needless_pass_by_value, reason = "callers have temporaries")]
fn bytes(message: impl IntoBytes + Immutable) -> Vec<u8> {
    message.as_bytes().to_vec()
}

fn range(offset: u64, length: u64) -> ByteRange {
    ByteRange::new(offset, length).unwrap()
}

fn ordinary() -> TransmissionFlags {
    TransmissionFlags::HAS_FLAGS
        | TransmissionFlags::SEND_FLUSH
        | TransmissionFlags::SEND_FUA
        | TransmissionFlags::SEND_TRIM
        | TransmissionFlags::SEND_WRITE_ZEROES
        | TransmissionFlags::SEND_CACHE
        | TransmissionFlags::SEND_DF
}

const SIZE: u64 = 1 << 20;
const BOTH: HandshakeFlags = HandshakeFlags::ALL;

impl Server {
    fn accept() -> Server {
        Server::with(Limits::default())
    }

    fn with(limits: Limits) -> Server {
        let options = Options {
            export: ExportName::try_from("disk").unwrap(),
            contexts: ContextSet::NONE.with(MetaContext::BaseAllocation),
            limits,
        };
        Server {
            session: Session::new(options, Duration::ZERO),
            sent: BytesMut::new(),
            greeted: false,
            ready: false,
            transcript: String::new(),
            closed: None,
        }
    }

    /// Ready, with structured replies and block status.
    fn structured() -> Server {
        let mut server = Server::accept();
        server.hello(BOTH);
        server.reply(OptionCode::STRUCTURED_REPLY, &OptionReply::Ack);
        server.context(7, "base:allocation");
        server.reply(OptionCode::SET_META_CONTEXT, &OptionReply::Ack);
        server.go(SIZE, ordinary());
        server.transcript.clear();
        server
    }

    /// Ready, with simple replies.
    fn simple() -> Server {
        Server::simple_with(Limits::default())
    }

    fn simple_with(limits: Limits) -> Server {
        let mut server = Server::with(limits);
        server.hello(BOTH);
        server.unsup(OptionCode::STRUCTURED_REPLY);
        server.go(SIZE, ordinary());
        server.transcript.clear();
        server
    }

    fn hello(&mut self, flags: HandshakeFlags) {
        self.send(&bytes(ServerHello { flags }.encode()));
    }

    fn context(&mut self, id: u32, name: &str) {
        let reply = OptionReply::MetaContext(id, name.to_owned());
        self.reply(OptionCode::SET_META_CONTEXT, &reply);
    }

    fn unsup(&mut self, option: OptionCode) {
        let error = crate::wire::RepError::Unsup;
        self.reply(option, &OptionReply::Error(error, String::new()));
    }

    fn go(&mut self, size: u64, flags: TransmissionFlags) {
        self.reply(
            OptionCode::GO,
            &OptionReply::Info(Info::Export(size, flags)),
        );
        let sizes = BlockSizes::new(1, 4096, 65536).unwrap();
        self.reply(OptionCode::GO, &OptionReply::Info(Info::BlockSize(sizes)));
        self.reply(OptionCode::GO, &OptionReply::Ack);
    }

    fn reply(&mut self, option: OptionCode, reply: &OptionReply) {
        self.send(&reply.encode(option));
    }

    fn answer(&mut self, cookie: Cookie, error: Option<Errno>, data: &[u8]) {
        let mut message = bytes(SimpleReply { cookie, error }.encode());
        message.extend_from_slice(data);
        self.send(&message);
    }

    fn chunk(&mut self, cookie: Cookie, kind: ChunkKind, flags: ChunkFlags, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap();
        let header = ChunkHeader {
            flags,
            kind,
            cookie,
            length,
        };
        let mut message = bytes(header.encode());
        message.extend_from_slice(payload);
        self.send(&message);
    }

    fn data(&mut self, cookie: Cookie, flags: ChunkFlags, offset: u64, data: &[u8]) {
        let payload = [&offset.to_be_bytes()[..], data].concat();
        self.chunk(cookie, ChunkKind::OffsetData, flags, &payload);
    }

    fn send(&mut self, bytes: &[u8]) {
        self.session.handle_bytes(Bytes::copy_from_slice(bytes));
        self.run();
    }

    fn end(&mut self) {
        self.session.handle_end_of_stream();
        self.run();
    }

    /// Lets the session work until it waits.
    fn run(&mut self) {
        while let Some(event) = self.session.poll_event() {
            self.print_sent();
            match &event {
                Event::Ready(export) => {
                    self.ready = true;
                    writeln!(self.transcript, "E {export:?}").unwrap();
                }
                Event::Completed(completion) => {
                    let (cookie, result) = (number(completion.cookie), &completion.result);
                    writeln!(self.transcript, "E #{cookie} {result:?}").unwrap();
                }
                Event::Closed(reason) => {
                    writeln!(self.transcript, "E Closed: {reason}").unwrap();
                    self.closed = Some(reason.clone());
                }
            }
        }
        self.print_sent();
    }

    fn print_sent(&mut self) {
        let mut parts = Vec::new();
        self.session.poll_transmit(&mut parts);
        for part in parts {
            self.sent.extend_from_slice(&part);
        }
        while let Some(line) = self.message() {
            writeln!(self.transcript, "C {line}").unwrap();
        }
        assert!(self.sent.is_empty());
    }

    fn message(&mut self) -> Option<String> {
        if !self.greeted {
            let hello = ClientHello::parse(*self.sent.first_chunk()?).unwrap();
            drop(self.sent.split_to(ClientHello::LENGTH));
            self.greeted = true;
            return Some(format!("flags {:?}", hello.flags));
        }
        if let Some(header) = self.sent.first_chunk().copied()
            && let Ok(header) = OptionHeader::parse(header)
        {
            drop(self.sent.split_to(OptionHeader::LENGTH));
            let data = self.sent.split_to(usize::try_from(header.length).unwrap());
            return Some(format!(
                "{:?}",
                OptionRequest::parse(header.code, &data).unwrap()
            ));
        }
        let mut header = RequestHeader::parse(*self.sent.first_chunk()?).unwrap();
        drop(self.sent.split_to(RequestHeader::LENGTH));
        let carries = header.command == crate::wire::CommandCode::Write;
        let length = usize::try_from(header.length).unwrap() * usize::from(carries);
        let data = self.sent.split_to(length);
        header.cookie = Cookie(number(header.cookie));
        Some(format!("{header:?}{}", testing::summary(&data)))
    }

    fn transcript(&mut self) -> String {
        std::mem::take(&mut self.transcript)
    }
}

/// The number of a request among all of its connection.
fn number(cookie: Cookie) -> u64 {
    cookie.0 >> 16
}
