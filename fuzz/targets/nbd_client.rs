//! The NBD client session against a server that answers anything at all, in chunks of any size.

#![no_main]

use bytes::Bytes;
use fuzz::Script;
use libfuzzer_sys::fuzz_target;
use nbd::client::{Completion, Event, ExportInfo, Limits, Options, Reply, Session};
use nbd::wire::{
    ChunkFlags, ChunkHeader, ChunkKind, CommandFlags, ContextSet, Cookie, ExportName,
    HandshakeFlags, Info, MetaContext, OptionCode, OptionReply, ReplyHeader, ServerHello,
    SimpleReply, TransmissionFlags,
};
use nbd::{Errno, Want};
use std::collections::BTreeMap;
use std::time::Duration;
use zerocopy::IntoBytes;

const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(10),
    replies: 16,
    reply: 4096,
    payload: 64 << 10,
    requests: 4,
    bytes: 128 << 10,
    extents: 8,
};

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let options = Options {
        export: ExportName::try_from("disk").unwrap(),
        contexts: ContextSet::NONE.with(MetaContext::BaseAllocation),
        limits: LIMITS,
    };
    let mut server = Server {
        session: Session::new(options, Duration::ZERO),
        export: None,
        requests: BTreeMap::new(),
        closed: false,
    };
    while !script.is_over() {
        server.act(&mut script);
        server.run();
    }
    server.session.handle_end_of_stream();
    server.run();
    assert!(server.closed);
});

/// What a request may return.
enum Expected {
    Nothing,
    Data(u64),
    BlockStatus(u64),
}

struct Server {
    session: Session,
    export: Option<ExportInfo>,
    requests: BTreeMap<Cookie, Expected>,
    closed: bool,
}

impl Server {
    fn act(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0 => self.session.handle_bytes(script.bytes()),
            1 => {
                let flags = HandshakeFlags::from_bits(u16::from(script.byte()));
                self.send(ServerHello { flags }.encode().as_bytes());
            }
            2 => {
                let option = OptionCode(u32::from(script.byte() % 16));
                let kind = u32::from(script.byte() % 8) | u32::from(script.byte() & 128) << 24;
                let data = script.bytes();
                let length = u32::try_from(data.len()).unwrap();
                let header = ReplyHeader {
                    option,
                    kind,
                    length,
                };
                self.send(header.encode().as_bytes());
                self.session.handle_bytes(data);
            }
            3 => self.send(&OptionReply::Ack.encode(OptionCode::STRUCTURED_REPLY)),
            4 => {
                let context = OptionReply::MetaContext(1, "base:allocation".to_owned());
                self.send(&context.encode(OptionCode::SET_META_CONTEXT));
                self.send(&OptionReply::Ack.encode(OptionCode::SET_META_CONTEXT));
            }
            5 => {
                let flags = TransmissionFlags::from_bits(script.u16() | 1);
                let size = u64::from(script.u32());
                let export = OptionReply::Info(Info::Export(size, flags));
                self.send(&export.encode(OptionCode::GO));
                self.send(&OptionReply::Ack.encode(OptionCode::GO));
            }
            6..=8 => self.request(script),
            9 => self.simple(script),
            10..=12 => self.chunk(script),
            13 => self.payload(),
            14 => match script.byte() {
                0 => self.session.disconnect(),
                1 => self.session.handle_end_of_stream(),
                2 => self.session.handle_timeout(Duration::from_secs(11)),
                _ => {}
            },
            _ => drop(self.session.poll_transmit(&mut Vec::new())),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.session.handle_bytes(Bytes::copy_from_slice(bytes));
    }

    fn request(&mut self, script: &mut Script<'_>) {
        let kind = script.byte() % 7;
        let flags = CommandFlags::from_bits(u16::from(script.byte()));
        let (offset, length) = (u64::from(script.u16()) * 8, u64::from(script.u16()) * 8);
        let range = block::ByteRange::between(offset, offset + length);
        let session = &mut self.session;
        let (taken, expected) = match kind {
            0 | 1 => (session.read(range), Expected::Data(length)),
            2 => (
                session.write(offset, script.bytes(), flags),
                Expected::Nothing,
            ),
            3 => (session.flush(), Expected::Nothing),
            4 => (session.trim(range, flags), Expected::Nothing),
            5 => (session.write_zeroes(range, flags), Expected::Nothing),
            _ => (
                session.block_status(range, flags),
                Expected::BlockStatus(length),
            ),
        };
        if let Ok(cookie) = taken {
            assert!(
                self.requests.insert(cookie, expected).is_none(),
                "a cookie given twice"
            );
        }
        assert!(self.session.in_flight() <= LIMITS.requests);
    }

    /// The cookie of a request in flight, or nearly.
    fn cookie(&self, script: &mut Script<'_>) -> Cookie {
        let cookies: Vec<Cookie> = self.requests.keys().copied().collect();
        let cookie = script.choose(&cookies).map_or(0, |cookie| cookie.0);
        let wrong = script.byte();
        Cookie(if wrong > 250 {
            cookie ^ u64::from(wrong)
        } else {
            cookie
        })
    }

    fn simple(&mut self, script: &mut Script<'_>) {
        let cookie = self.cookie(script);
        let error = Errno::from_value(u32::from(script.byte() / 2));
        self.send(SimpleReply { cookie, error }.encode().as_bytes());
        self.session.handle_bytes(script.bytes());
    }

    fn chunk(&mut self, script: &mut Script<'_>) {
        let kinds = [
            ChunkKind::None,
            ChunkKind::OffsetData,
            ChunkKind::OffsetHole,
            ChunkKind::BlockStatus,
            ChunkKind::Error,
            ChunkKind::ErrorOffset,
        ];
        let cookie = self.cookie(script);
        let kind = *script.choose(&kinds).unwrap();
        let flags = ChunkFlags::from_bits(u16::from(script.byte()));
        let (first, second) = (u64::from(script.u16()) * 8, u32::from(script.u16()) * 8);
        let mut payload = match kind {
            ChunkKind::OffsetData => first.to_be_bytes().to_vec(),
            ChunkKind::OffsetHole => [&first.to_be_bytes()[..], &second.to_be_bytes()].concat(),
            ChunkKind::BlockStatus => 1_u32.to_be_bytes().to_vec(),
            _ => Vec::new(),
        };
        payload.extend_from_slice(&script.bytes());
        let mut length = u32::try_from(payload.len()).unwrap();
        if script.byte() == 255 {
            // The rest comes later, or directly.
            length += second;
        }
        let header = ChunkHeader {
            flags,
            kind,
            cookie,
            length,
        };
        self.send(header.encode().as_bytes());
        self.session.handle_bytes(Bytes::from(payload));
    }

    /// Reads the rest of large data, if there is some.
    fn payload(&mut self) {
        if let Want::Payload { length, received } = self.session.poll_want() {
            let mut payload = vec![1; length];
            assert_eq!(self.session.copy_payload(&mut payload), received);
            self.session.handle_payload(Bytes::from(payload));
        }
    }

    fn run(&mut self) {
        while let Some(event) = self.session.poll_event() {
            assert!(!self.closed, "an event after the end");
            match event {
                Event::Ready(export) => {
                    assert!(self.export.is_none(), "ready twice");
                    assert!(i64::try_from(export.size).is_ok());
                    assert!(export.block_sizes.maximum() <= LIMITS.payload);
                    self.export = Some(export);
                }
                Event::Completed(completion) => self.completed(completion),
                Event::Closed(_) => {
                    assert!(self.requests.is_empty(), "requests that never ended");
                    self.closed = true;
                }
            }
        }
    }

    fn completed(&mut self, completion: Completion) {
        let expected = self
            .requests
            .remove(&completion.cookie)
            .expect("each ends once");
        match (expected, completion.result) {
            (_, Err(_)) | (Expected::Nothing, Ok(Reply::Done)) => {}
            (Expected::Data(length), Ok(Reply::Data(data))) => {
                assert_eq!(u64::try_from(data.len()).unwrap(), length);
            }
            (Expected::BlockStatus(length), Ok(Reply::BlockStatus(contexts))) => {
                for context in contexts {
                    assert!(!context.extents.is_empty());
                    assert!(context.extents.len() <= LIMITS.extents);
                    let total: u64 = context.extents.iter().map(|extent| extent.length).sum();
                    assert!(total <= length);
                }
            }
            (_, Ok(reply)) => panic!("a reply of the wrong kind: {reply:?}"),
        }
    }
}
