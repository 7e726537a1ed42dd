//! Server and client talk to each other in memory, in chunks of any size.

use crate::client::{self, Completion, Reply};
use crate::server::{self, Command, Piece, Request};
use crate::wire::{
    BlockSizes, CommandFlags, ContextExtents, ContextSet, Cookie, ExportName, Extent, MetaContext,
    TransmissionFlags,
};
use crate::{Errno, Want};
use block::ByteRange;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const SIZE: usize = 256 << 10;

/// What a test does, one after the other.
#[derive(Clone, Copy, Debug)]
enum Step {
    Read(usize, usize),
    Write(usize, usize, u8),
    WriteZeroes(usize, usize),
    Trim(usize, usize),
    Flush,
    BlockStatus(usize, usize),
    /// Past the end: the server must never see it.
    Wrong,
    /// The server answers the n-th of the requests it has.
    Answer(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let range = (0..SIZE, prop_oneof![1..64_usize, 1..SIZE])
        .prop_map(|(offset, length)| (offset, length.min(SIZE - offset)));
    prop_oneof![
        4 => range.clone().prop_map(|(offset, length)| Step::Read(offset, length)),
        4 => (range.clone(), any::<u8>())
            .prop_map(|((offset, length), fill)| Step::Write(offset, length, fill)),
        1 => range.clone().prop_map(|(offset, length)| Step::WriteZeroes(offset, length)),
        1 => range.clone().prop_map(|(offset, length)| Step::Trim(offset, length)),
        1 => Just(Step::Flush),
        1 => range.prop_map(|(offset, length)| Step::BlockStatus(offset, length)),
        1 => Just(Step::Wrong),
        6 => (0..16_usize).prop_map(Step::Answer),
    ]
}

/// One direction of the connection, cut into chunks.
struct Pipe {
    bytes: VecDeque<u8>,
    /// Lengths of the next chunks, used in turn.
    cuts: Vec<usize>,
    next: usize,
    /// Everything that ever went through.
    log: Vec<u8>,
}

impl Pipe {
    fn new(cuts: Vec<usize>) -> Pipe {
        Pipe {
            bytes: VecDeque::new(),
            cuts,
            next: 0,
            log: Vec::new(),
        }
    }

    fn write(&mut self, parts: &[Bytes]) {
        for part in parts {
            self.bytes.extend(part);
            self.log.extend_from_slice(part);
        }
    }

    /// The next chunk, of at most `most` bytes; empty if there is nothing.
    fn read(&mut self, most: usize) -> Bytes {
        let cut = self.cuts[self.next % self.cuts.len()];
        self.next += 1;
        let length = cut.min(most).min(self.bytes.len());
        self.bytes.drain(..length).collect()
    }
}

/// What a reader has to do; the same on both sides.
trait Reader {
    fn want(&self) -> Want;
    fn bytes(&mut self, chunk: Bytes);
    fn copy(&self, buffer: &mut [u8]) -> usize;
    fn payload(&mut self, payload: Bytes);
}

macro_rules! reader {
    ($session:ty) => {
        impl Reader for $session {
            fn want(&self) -> Want {
                self.poll_want()
            }
            fn bytes(&mut self, chunk: Bytes) {
                self.handle_bytes(chunk);
            }
            fn copy(&self, buffer: &mut [u8]) -> usize {
                self.copy_payload(buffer)
            }
            fn payload(&mut self, payload: Bytes) {
                self.handle_payload(payload);
            }
        }
    };
}

reader!(server::Session);
reader!(client::Session);

/// Reads once, as the session wants it; says whether anything came of it.
fn read(session: &mut impl Reader, pipe: &mut Pipe) -> bool {
    match session.want() {
        Want::Nothing => false,
        Want::Bytes { most } => {
            let chunk = pipe.read(most);
            let any = !chunk.is_empty();
            session.bytes(chunk);
            any
        }
        Want::Payload { length, received } if pipe.bytes.len() >= length - received => {
            let mut payload = vec![0; length];
            assert_eq!(session.copy(&mut payload), received);
            for byte in &mut payload[received..] {
                *byte = pipe.bytes.pop_front().unwrap();
            }
            session.payload(Bytes::from(payload));
            true
        }
        Want::Payload { .. } => {
            let chunk = pipe.read(usize::MAX);
            let any = !chunk.is_empty();
            session.bytes(chunk);
            any
        }
    }
}

/// Both sides, the disk, and what each request must return.
struct Pair {
    server: server::Session,
    client: client::Session,
    to_server: Pipe,
    to_client: Pipe,
    disk: Vec<u8>,
    requests: Vec<Request>,
    expected: BTreeMap<Cookie, Option<Bytes>>,
    ready: bool,
    closed: Option<server::Closed>,
}

fn name() -> ExportName {
    ExportName::try_from("disk").unwrap()
}

fn export() -> server::ExportInfo {
    server::ExportInfo {
        name: name(),
        description: String::new(),
        size: u64::try_from(SIZE).unwrap(),
        flags: TransmissionFlags::SEND_FLUSH
            | TransmissionFlags::SEND_FUA
            | TransmissionFlags::SEND_TRIM
            | TransmissionFlags::SEND_WRITE_ZEROES,
        block_sizes: BlockSizes::DEFAULT,
        contexts: ContextSet::NONE.with(MetaContext::BaseAllocation),
    }
}

fn range(offset: usize, length: usize) -> ByteRange {
    let offset = u64::try_from(offset).unwrap();
    ByteRange::new(offset, u64::try_from(length).unwrap()).unwrap()
}

fn indices(range: ByteRange) -> std::ops::Range<usize> {
    usize::try_from(range.offset()).unwrap()..usize::try_from(range.end()).unwrap()
}

impl Pair {
    fn new(cuts: (Vec<usize>, Vec<usize>)) -> Pair {
        let options = client::Options {
            export: name(),
            contexts: ContextSet::NONE.with(MetaContext::BaseAllocation),
            limits: client::Limits::default(),
        };
        Pair {
            server: server::Session::new(server::Limits::default(), Duration::ZERO),
            client: client::Session::new(options, Duration::ZERO),
            to_server: Pipe::new(cuts.0),
            to_client: Pipe::new(cuts.1),
            disk: vec![0; SIZE],
            requests: Vec::new(),
            expected: BTreeMap::new(),
            ready: false,
            closed: None,
        }
    }

    /// Moves bytes until nothing moves any more.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            while let Some(event) = self.server.poll_event() {
                self.server_event(event);
                moved = true;
            }
            while let Some(event) = self.client.poll_event() {
                self.client_event(event);
                moved = true;
            }
            let mut parts = Vec::new();
            moved |= self.server.poll_transmit(&mut parts);
            self.to_client.write(&std::mem::take(&mut parts));
            moved |= self.client.poll_transmit(&mut parts);
            self.to_server.write(&parts);
            moved |= read(&mut self.server, &mut self.to_server);
            moved |= read(&mut self.client, &mut self.to_client);
            if !moved {
                return;
            }
        }
    }

    fn server_event(&mut self, event: server::Event) {
        match event {
            server::Event::ListExports => self.server.exports_listed([]),
            server::Event::DescribeExport(asked) | server::Event::OpenExport(asked) => {
                assert_eq!(asked, name());
                self.server.export_found(export());
            }
            server::Event::Request(request) => self.requests.push(request),
            server::Event::Closed(closed) => self.closed = Some(closed),
        }
    }

    fn client_event(&mut self, event: client::Event) {
        match event {
            client::Event::Ready(_) => self.ready = true,
            client::Event::Completed(Completion { cookie, result }) => {
                let expected = self.expected.remove(&cookie).unwrap();
                match (expected, result.unwrap()) {
                    (None, Reply::Done) => {}
                    (Some(data), Reply::Data(read)) => assert!(data == read, "other data"),
                    (None, Reply::BlockStatus(contexts)) => assert_eq!(contexts.len(), 1),
                    (expected, reply) => panic!("{reply:?} instead of {expected:?}"),
                }
            }
            client::Event::Closed(reason) => {
                assert_eq!(reason, client::CloseReason::Disconnected);
            }
        }
    }

    fn step(&mut self, step: Step) {
        let none = CommandFlags::NONE;
        let client = &mut self.client;
        let cookie = match step {
            Step::Read(offset, length) => client.read(range(offset, length)),
            Step::Write(offset, length, fill) => {
                let data = Bytes::from(vec![fill; length]);
                client.write(range(offset, 0).offset(), data, CommandFlags::FUA)
            }
            Step::WriteZeroes(offset, length) => client.write_zeroes(range(offset, length), none),
            Step::Trim(offset, length) => client.trim(range(offset, length), none),
            Step::Flush => client.flush(),
            Step::BlockStatus(offset, length) => client.block_status(range(offset, length), none),
            Step::Wrong => {
                assert!(client.read(range(SIZE, 1)).is_err());
                return;
            }
            Step::Answer(index) => {
                if !self.requests.is_empty() {
                    let request = self.requests.remove(index % self.requests.len());
                    self.answer(request);
                }
                return;
            }
        };
        self.expected.insert(cookie.unwrap(), None);
    }

    /// Carries out a request; a read notes what the client must be given.
    fn answer(&mut self, Request { ticket, command }: Request) {
        match command {
            Command::Read { range } => {
                let data = Bytes::copy_from_slice(&self.disk[indices(range)]);
                let cookie = ticket.cookie();
                self.expected.insert(cookie, Some(data.clone()));
                self.server.reply_pieces(ticket, sparse(&data));
            }
            Command::Write { range, data, .. } => {
                self.disk[indices(range)].copy_from_slice(&data);
                self.server.reply_ok(ticket);
            }
            Command::WriteZeroes { range, .. } => {
                self.disk[indices(range)].fill(0);
                self.server.reply_ok(ticket);
            }
            Command::BlockStatus { range, .. } => {
                let extents = vec![Extent {
                    length: range.length(),
                    flags: 0,
                }];
                let context = MetaContext::BaseAllocation;
                let answer = ContextExtents { context, extents };
                self.server.reply_block_status(ticket, &[answer]);
            }
            Command::Flush | Command::Trim { .. } | Command::Cache { .. } => {
                self.server.reply_ok(ticket);
            }
        }
    }
}

/// The data in pieces, zeroes as such.
fn sparse(data: &Bytes) -> Vec<Piece> {
    let runs = data.chunk_by(|a, b| (*a == 0) == (*b == 0));
    let pieces = runs.map(|run| match run {
        [0, ..] => Piece::Zeroes(u64::try_from(run.len()).unwrap()),
        _ => Piece::Data(data.slice_ref(run)),
    });
    pieces.collect()
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    let cut = prop_oneof![1..40_usize, 1..5000_usize, Just(128 << 10)];
    proptest::collection::vec(cut, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn every_request_ends_as_it_should_however_the_streams_are_cut(
        steps in proptest::collection::vec(step(), 0..40),
        cuts in (cuts(), cuts()),
    ) {
        let mut pair = Pair::new(cuts);
        pair.settle();
        prop_assert!(pair.ready);
        for step in steps {
            pair.step(step);
            pair.settle();
        }
        pair.client.disconnect();
        for request in std::mem::take(&mut pair.requests) {
            pair.answer(request);
        }
        pair.settle();
        prop_assert!(pair.expected.is_empty());
        prop_assert!(pair.closed.unwrap().is_clean());
    }

    #[test]
    fn events_do_not_depend_on_how_the_stream_is_cut(
        steps in proptest::collection::vec(step(), 0..12),
        cuts in (cuts(), cuts()),
    ) {
        let mut pair = Pair::new((vec![128 << 10], vec![128 << 10]));
        pair.settle();
        for step in steps {
            pair.step(step);
        }
        pair.settle();
        pair.client.disconnect();
        for request in std::mem::take(&mut pair.requests) {
            pair.answer(request);
        }
        pair.settle();
        let whole = server_events(&pair.to_server.log, &[usize::MAX]);
        prop_assert_eq!(whole, server_events(&pair.to_server.log, &cuts.0));
    }
}

/// What a server makes of this stream; it answers everything with an error.
fn server_events(stream: &[u8], cuts: &[usize]) -> Vec<String> {
    let mut session = server::Session::new(server::Limits::default(), Duration::ZERO);
    let mut pipe = Pipe::new(cuts.to_vec());
    pipe.write(&[Bytes::copy_from_slice(stream)]);
    let mut events = Vec::new();
    loop {
        while let Some(event) = session.poll_event() {
            events.push(format!("{event:?}"));
            match event {
                server::Event::ListExports => session.exports_listed([]),
                server::Event::DescribeExport(_) | server::Event::OpenExport(_) => {
                    session.export_found(export());
                }
                server::Event::Request(Request { ticket, .. }) => {
                    session.reply_error(ticket, Errno::Io, "");
                }
                server::Event::Closed(_) => return events,
            }
            // Before the next look at the stream: what is unanswered shows at its end.
            session.poll_transmit(&mut Vec::new());
        }
        let sent = session.poll_transmit(&mut Vec::new());
        if !sent && !read(&mut session, &mut pipe) {
            session.handle_end_of_stream();
        }
    }
}
