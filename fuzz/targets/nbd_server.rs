//! The NBD server session against a client that sends anything at all, in chunks of any size,
//! while requests are answered in any order and any way.

#![no_main]

use bytes::Bytes;
use fuzz::Script;
use libfuzzer_sys::fuzz_target;
use nbd::server::{
    Command, Event, ExportInfo, Limits, Piece, Request, Session, Ticket, Unanswered,
};
use nbd::wire::{
    BlockSizes, ClientFlags, ClientHello, CommandCode, CommandFlags, ContextExtents, ContextQuery,
    ContextSet, Cookie, ExportName, Extent, InfoRequest, MetaContext, MetaRequest, OptionCode,
    OptionHeader, OptionRequest, RepError, RequestHeader, TransmissionFlags,
};
use nbd::{Errno, Want};
use std::time::Duration;
use zerocopy::IntoBytes;

const SIZE: u64 = 1 << 20;
const LIMITS: Limits = Limits {
    handshake: Duration::from_secs(10),
    option: 4096,
    payload: 64 << 10,
    requests: 4,
    bytes: 128 << 10,
    extents: 8,
};

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let mut client = Client {
        flags: TransmissionFlags::from_bits(script.u16()),
        session: Session::new(LIMITS, Duration::ZERO),
        requests: Vec::new(),
        closed: false,
    };
    while !script.is_over() {
        client.act(&mut script);
        client.run();
    }
    client.session.handle_end_of_stream();
    client.run();
    while let Some(Request { ticket, .. }) = client.requests.pop() {
        client.session.reply_error(ticket, Errno::Shutdown, "");
    }
    client.run();
    assert!(client.closed);
});

struct Client {
    flags: TransmissionFlags,
    session: Session,
    requests: Vec<Request>,
    closed: bool,
}

impl Client {
    fn act(&mut self, script: &mut Script<'_>) {
        match script.byte() % 16 {
            0 => self.session.handle_bytes(script.bytes()),
            1 => {
                let flags = ClientFlags::from_bits(u32::from(script.byte()));
                self.send(ClientHello { flags }.encode().as_bytes());
            }
            2 => {
                let code = OptionCode(u32::from(script.byte() % 16));
                let data = script.bytes();
                let length = u32::try_from(data.len()).unwrap();
                self.send(OptionHeader { code, length }.encode().as_bytes());
                self.session.handle_bytes(data);
            }
            3 => self.send(&OptionRequest::StructuredReply.encode()),
            4 => {
                let queries = vec![ContextQuery::Context(MetaContext::BaseAllocation)];
                let name = name();
                self.send(&OptionRequest::SetMetaContext(MetaRequest { name, queries }).encode());
            }
            5 => {
                let (name, wanted) = (name(), Vec::new());
                self.send(&OptionRequest::Go(InfoRequest { name, wanted }).encode());
            }
            6 => self.send(&OptionRequest::ExportName(name()).encode()),
            7..=10 => self.request(script),
            11 | 12 => {
                let index = usize::from(script.byte()).checked_rem(self.requests.len());
                if let Some(index) = index {
                    let request = self.requests.swap_remove(index);
                    self.answer(script, request);
                }
            }
            13 => self.payload(),
            14 => match script.byte() {
                0 => self.session.shut_down(),
                1 => self.session.handle_end_of_stream(),
                2 => self.session.handle_timeout(Duration::from_secs(11)),
                _ => {}
            },
            _ => {
                let mut parts = Vec::new();
                self.session.poll_transmit(&mut parts);
                let total: usize = parts.iter().map(Bytes::len).sum();
                assert!(total < (128 << 10) + 32768, "{total} bytes at once");
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.session.handle_bytes(Bytes::copy_from_slice(bytes));
    }

    fn request(&mut self, script: &mut Script<'_>) {
        let header = RequestHeader {
            command: CommandCode::from_code(u16::from(script.byte() % 10)),
            flags: CommandFlags::from_bits(u16::from(script.byte())),
            cookie: Cookie(u64::from(script.byte())),
            offset: u64::from(script.u16()) << (script.byte() % 50),
            length: u32::from(script.u16()) << (script.byte() % 17),
        };
        self.send(header.encode().as_bytes());
        self.session.handle_bytes(script.bytes());
    }

    /// Reads the rest of a large payload, if there is one.
    fn payload(&mut self) {
        if let Want::Payload { length, received } = self.session.poll_want() {
            let mut payload = vec![1; length];
            assert_eq!(self.session.copy_payload(&mut payload), received);
            self.session.handle_payload(Bytes::from(payload));
        }
    }

    fn answer(&mut self, script: &mut Script<'_>, request: Request) {
        let Request { ticket, command } = request;
        match script.byte() % 6 {
            0 => self.session.reply_error(ticket, Errno::NotSup, "no"),
            1 => self.session.reply_ok(ticket),
            2 => self.session.reply_data(ticket, script.bytes()),
            3 => {
                let pieces = vec![
                    Piece::Zeroes(u64::from(script.u16())),
                    Piece::Data(script.bytes()),
                    Piece::Zeroes(script.u64()),
                ];
                self.session.reply_pieces(ticket, pieces);
            }
            4 => {
                let extents = (0..script.byte() % 16)
                    .map(|_| Extent {
                        length: u64::from(script.u32()),
                        flags: u32::from(script.byte() % 4),
                    })
                    .collect();
                let context = MetaContext::BaseAllocation;
                let contexts = [ContextExtents { context, extents }];
                self.session.reply_block_status(ticket, &contexts);
            }
            _ => self.succeed(ticket, &command),
        }
    }

    fn succeed(&mut self, ticket: Ticket, command: &Command) {
        match command {
            Command::Read { range } => {
                let data = vec![7; usize::try_from(range.length()).unwrap()];
                self.session.reply_data(ticket, Bytes::from(data));
            }
            Command::BlockStatus { .. } => self.session.reply_block_status(ticket, &[]),
            _ => self.session.reply_ok(ticket),
        }
    }

    fn run(&mut self) {
        while let Some(event) = self.session.poll_event() {
            assert!(!self.closed, "an event after the end");
            match event {
                Event::ListExports => self.session.exports_listed([(name(), String::new())]),
                Event::DescribeExport(asked) | Event::OpenExport(asked) if asked == name() => {
                    self.session.export_found(export(self.flags));
                }
                Event::DescribeExport(_) | Event::OpenExport(_) => {
                    self.session
                        .export_refused(RepError::Unknown, "no such export");
                }
                Event::Request(request) => {
                    check(&request.command);
                    self.requests.push(request);
                }
                Event::Closed(closed) => {
                    assert!(closed.unanswered.requests <= LIMITS.requests);
                    self.closed = true;
                }
            }
        }
        let Unanswered { requests, writes } = self.session.unanswered();
        assert!(writes <= requests && requests <= LIMITS.requests);
    }
}

fn name() -> ExportName {
    ExportName::try_from("disk").unwrap()
}

fn export(flags: TransmissionFlags) -> ExportInfo {
    ExportInfo {
        name: name(),
        description: "a disk".to_owned(),
        size: SIZE,
        flags,
        block_sizes: BlockSizes::new(512, 4096, 64 << 10).unwrap(),
        contexts: ContextSet::NONE.with(MetaContext::BaseAllocation),
    }
}

/// What the caller may rely on.
fn check(command: &Command) {
    let range = match command {
        Command::Flush => return,
        Command::Read { range }
        | Command::Write { range, .. }
        | Command::Trim { range, .. }
        | Command::WriteZeroes { range, .. }
        | Command::Cache { range }
        | Command::BlockStatus { range, .. } => *range,
    };
    assert!(!range.is_empty() && range.end() <= SIZE && range.is_aligned(512));
    if let Command::Write { data, .. } = command {
        assert_eq!(u64::try_from(data.len()).unwrap(), range.length());
    }
}
