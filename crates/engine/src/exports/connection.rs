//! One NBD connection: bytes in, requests out, replies back. The hot path.
//!
//! ```text
//! Stream ─read─▶ Session ─▶ request ─polled at once─▶ ready: reply
//!    ▲                                     └ pending: in flight ─▶ reply
//!    └──────── one vectored write for all replies of a turn ◀────────┘
//! ```
//!
//! A turn does whatever can be done without waiting, then takes all replies together. Reading,
//! writing and the requests in flight go on beside each other: a client that does not read its
//! replies keeps nobody waiting, its own requests included, and the session's bounds stop it.
//!
//! When the connection ends, for whatever reason, its requests in flight are still carried
//! through: a write that was begun is never left half done because a client has gone.

use super::Exports;
use super::ahead::{Ahead, LONG, long_read};
use super::export::Seat;
use super::request::{Outcome, serve};
use block::Buffer;
use bytes::Bytes;
use drivers::ports::{Runtime, Stream};
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use nbd::Want;
use nbd::server::{Closed, Command, Event, Request, Session, Ticket};
use nbd::wire::RepError;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

/// Least and most that is read at once, in bytes. Much traffic makes the chunks grow, so that an
/// idle connection holds little memory.
const CHUNK: std::ops::RangeInclusive<usize> = 4 << 10..=256 << 10;
/// Turns taken before other tasks of the thread get theirs.
const TURNS: u32 = 32;

/// The answer to a request that could not be answered at once.
type Pending = LocalBoxFuture<'static, Answered>;

/// A request that has been carried out.
struct Answered {
    ticket: Ticket,
    outcome: Outcome,
    /// Bytes, if it was a long read.
    long: u64,
}

/// A connection being served.
pub(super) struct Connection<'a> {
    stream: &'a Rc<dyn Stream>,
    runtime: &'a dyn Runtime,
    exports: &'a Exports,
    session: Session,
    seat: Option<Seat>,
    in_flight: FuturesUnordered<Pending>,
    ahead: Ahead,
    reading: Option<Reading<'a>>,
    writing: Option<LocalBoxFuture<'a, io::Result<()>>>,
    deadline: Option<LocalBoxFuture<'a, ()>>,
    chunk: usize,
    closed: Option<Closed>,
}

/// A read that is under way.
struct Reading<'a> {
    buffer: LocalBoxFuture<'a, io::Result<Buffer>>,
    into: Into,
}

/// What the bytes are for.
#[derive(Clone, Copy)]
enum Into {
    /// Whatever comes next.
    Chunk,
    /// One large payload, of which so many bytes have been there before.
    Payload(usize),
}

/// How a connection ended.
pub(super) struct Ended {
    /// Its place at an export; `None` if it never came so far.
    pub(super) seat: Option<Seat>,
    /// Who ended it, and why.
    pub(super) closed: Closed,
}

impl<'a> Connection<'a> {
    pub(super) fn new(stream: &'a Rc<dyn Stream>, exports: &'a Exports) -> Connection<'a> {
        let runtime = &*exports.ports().runtime;
        let limits = exports.nbd_limits();
        Connection {
            stream,
            runtime,
            exports,
            session: Session::new(limits, runtime.now()),
            seat: None,
            in_flight: FuturesUnordered::new(),
            ahead: Ahead::default(),
            reading: None,
            writing: None,
            deadline: Some(runtime.sleep(limits.handshake)),
            chunk: *CHUNK.start(),
            closed: None,
        }
    }

    /// Serves the client until it has gone and nothing of it is in flight.
    pub(super) async fn run(mut self) -> Ended {
        let closed = poll_fn(|cx| self.poll(cx)).await;
        self.reading = None;
        let seat = self.seat.take();
        Ended { seat, closed }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Closed> {
        for _ in 0..TURNS {
            let mut moved = self.poll_answers(cx);
            moved |= self.poll_deadline(cx);
            moved |= self.take_events(cx);
            moved |= self.poll_write(cx);
            moved |= self.start_waiting(cx);
            if let Some(closed) = self.closed
                && self.in_flight.is_empty()
                && self.writing.is_none()
            {
                return Poll::Ready(closed);
            }
            moved |= self.poll_read(cx);
            if !moved {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Replies to requests that have been carried out.
    fn poll_answers(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some(answered)) = self.in_flight.poll_next_unpin(cx) {
            self.ahead.ended(answered.long);
            self.answer(answered.ticket, answered.outcome);
            moved = true;
        }
        moved
    }

    /// The handshake has a bound, and so has the writing of what is left when it is all over.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = &mut self.deadline else {
            return false;
        };
        if self.closed.is_none() && self.session.poll_deadline().is_none() {
            self.deadline = None;
            return false;
        }
        if deadline.as_mut().poll(cx).is_pending() {
            return false;
        }
        self.deadline = None;
        if self.closed.is_some() {
            // Whoever does not read its last replies must not keep its place for ever.
            self.stream.shutdown();
        } else {
            self.session.handle_timeout(self.runtime.now());
        }
        true
    }

    fn close(&mut self, closed: Closed) {
        self.ahead.clear();
        self.closed = Some(closed);
        self.deadline = Some(self.runtime.sleep(self.exports.close_bound()));
    }

    fn take_events(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(event) = self.session.poll_event() {
            moved = true;
            match event {
                Event::Request(request) => {
                    if let Some(request) = self.ahead.admit(request, self.session.output_bytes()) {
                        self.start(cx, request);
                    }
                }
                Event::ListExports => self.session.exports_listed(self.exports.nbd_list()),
                Event::DescribeExport(name) => match self.exports.find_nbd(name.as_str()) {
                    Some(export) => self.session.export_found(export.info()),
                    None => self.refuse(name.as_str()),
                },
                Event::OpenExport(name) => match self.exports.find_nbd(name.as_str()) {
                    Some(export) => {
                        self.session.export_found(export.info());
                        self.seat = Some(Seat::take(export, self.stream));
                    }
                    None => self.refuse(name.as_str()),
                },
                Event::Closed(closed) => self.close(closed),
            }
        }
        moved
    }

    fn refuse(&mut self, name: &str) {
        let message = format!("there is no export named '{name}'");
        self.session.export_refused(RepError::Unknown, &message);
    }

    /// Starts long reads that have stood in line until replies were sent.
    fn start_waiting(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Some(request) = self.ahead.next(self.session.output_bytes()) {
            self.start(cx, request);
            moved = true;
        }
        moved
    }

    /// Starts a request; most end at once and cost no more than the call.
    fn start(&mut self, cx: &mut Context<'_>, request: Request) {
        let Request { ticket, command } = request;
        let Some(seat) = &self.seat else {
            // The session admits requests only after an export was opened.
            let error = block::Error::new(block::ErrorKind::ShuttingDown);
            return Outcome::Failed(error).reply(&mut self.session, ticket);
        };
        let export = Rc::clone(seat.export());
        if transferred(&command) > LONG {
            let more = self.has_more(cx);
            self.exports.ports().files.expect_more(more);
        }
        let long = long_read(&command);
        let mut outcome = Box::pin(serve(export, command));
        match outcome.as_mut().poll(cx) {
            Poll::Ready(outcome) => self.answer(ticket, outcome),
            Poll::Pending => {
                self.ahead.begun(long);
                self.in_flight.push(Box::pin(async move {
                    let outcome = outcome.await;
                    Answered {
                        ticket,
                        outcome,
                        long,
                    }
                }));
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        if let (Outcome::Failed(error), Some(seat)) = (&outcome, &self.seat) {
            self.exports.request_failed(seat.export(), error);
        }
        outcome.reply(&mut self.session, ticket);
    }

    /// Whether there is more to do than the request just taken.
    fn has_more(&mut self, cx: &mut Context<'_>) -> bool {
        self.poll_read(cx);
        self.writing.is_some() || self.session.has_input() || self.session.unanswered().requests > 1
    }

    /// Writes what there is; the replies of a turn go together.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        loop {
            if self.writing.is_none() {
                let mut parts: Vec<Bytes> = Vec::new();
                self.ahead.sending(self.session.output_bytes());
                if !self.session.poll_transmit(&mut parts) {
                    return moved;
                }
                self.writing = Some(self.stream.write(parts));
            }
            let Some(writing) = &mut self.writing else {
                return moved;
            };
            let Poll::Ready(result) = writing.as_mut().poll(cx) else {
                return moved;
            };
            self.writing = None;
            self.ahead.sending(0);
            moved = true;
            if result.is_err() {
                self.lose();
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> bool {
        if self.reading.is_none() {
            self.reading = self.start_read();
        }
        let Some(reading) = &mut self.reading else {
            return false;
        };
        let Poll::Ready(result) = reading.buffer.as_mut().poll(cx) else {
            return false;
        };
        let into = reading.into;
        self.reading = None;
        match (result, into) {
            (Ok(buffer), Into::Payload(before)) if buffer.len() > before => {
                self.take_payload(buffer);
            }
            (Ok(buffer), Into::Chunk) if !buffer.is_empty() => self.take_chunk(buffer),
            (Ok(_) | Err(_), _) => self.lose(),
        }
        true
    }

    fn start_read(&mut self) -> Option<Reading<'a>> {
        match self.session.poll_want() {
            Want::Nothing => None,
            Want::Bytes { most } => {
                let buffer = Buffer::with_capacity(self.chunk.min(most.max(1)));
                Some(self.read(buffer, Into::Chunk))
            }
            Want::Payload { length, .. } => {
                let mut buffer = Buffer::with_capacity(length);
                let received = self.session.copy_payload(buffer.spare_mut());
                buffer.advance(received);
                Some(self.read(buffer, Into::Payload(received)))
            }
        }
    }

    fn read(&self, buffer: Buffer, into: Into) -> Reading<'a> {
        let buffer = self.stream.read(buffer);
        Reading { buffer, into }
    }

    fn take_chunk(&mut self, buffer: Buffer) {
        let (filled, asked) = (buffer.len(), buffer.capacity());
        if filled == asked && asked == self.chunk {
            self.chunk = self.chunk.saturating_mul(2).min(*CHUNK.end());
        } else if filled < self.chunk / 8 {
            self.chunk = (self.chunk / 2).max(*CHUNK.start());
        }
        self.session.handle_bytes(buffer.freeze());
    }

    /// More of a large payload has arrived.
    fn take_payload(&mut self, buffer: Buffer) {
        if buffer.len() == buffer.capacity() {
            self.session.handle_payload(buffer.freeze());
        } else {
            let received = buffer.len();
            self.reading = Some(self.read(buffer, Into::Payload(received)));
        }
    }

    /// The connection has failed, or the client has gone without a word.
    fn lose(&mut self) {
        self.session.handle_end_of_stream();
    }
}

/// Bytes that a request moves.
fn transferred(command: &Command) -> u64 {
    match command {
        Command::Read { range } | Command::Write { range, .. } => range.length(),
        Command::Flush
        | Command::Trim { .. }
        | Command::WriteZeroes { .. }
        | Command::Cache { .. }
        | Command::BlockStatus { .. } => 0,
    }
}
