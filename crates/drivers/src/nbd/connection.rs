//! One task a node: connects, carries bytes between session and socket, and connects again.

use super::link::Link;
use crate::host::block_error;
use crate::ports::{Address, Ports, Stream};
use ::nbd::Want;
use ::nbd::client::{CloseReason, Event, Options, Session};
use block::{Buffer, Error, ErrorKind};
use bytes::Bytes;
use futures_util::future::{Either, LocalBoxFuture, select};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

/// Size of the first read; it grows and shrinks with what arrives, within these bounds, in bytes.
const CHUNK: std::ops::RangeInclusive<usize> = (16 << 10)..=(256 << 10);
/// The first pause between two attempts; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How long a farewell may take.
const FAREWELL: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How a server is reached.
pub(super) struct Dialer {
    pub(super) ports: Ports,
    pub(super) address: Address,
    pub(super) session: Options,
    pub(super) reconnect_delay: Duration,
    pub(super) open_timeout: Duration,
}

/// Keeps `link` connected until it is closed.
pub(super) async fn keep(link: Rc<Link>, dialer: Dialer) {
    let give_up = dialer.now().saturating_add(dialer.open_timeout);
    let mut pause = FIRST_PAUSE;
    while link.closed().is_none() {
        let ended = dialer.connection(&link).await;
        if ended.was_up {
            pause = FIRST_PAUSE;
            if link.closed().is_none() {
                dialer.report(&link, &ended.error);
                dialer.expire_later(&link, ended.error);
            }
        } else if link.export().is_none() && dialer.now() >= give_up {
            link.close(ended.error);
        }
        if link.closed().is_none() {
            dialer.ports.runtime.sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }
}

/// How a connection, or the attempt to make one, ended.
struct Ended {
    was_up: bool,
    error: Error,
}

impl Dialer {
    fn now(&self) -> Duration {
        self.ports.runtime.now()
    }

    /// Makes one connection and carries it to its end.
    async fn connection(&self, link: &Link) -> Ended {
        let (stream, session) = match self.within_bound(self.greet(link)).await {
            Ok(connected) => connected,
            Err(error) => {
                return Ended {
                    was_up: false,
                    error,
                };
            }
        };
        let mut wire = Wire::new(&session, &*stream);
        let reason = loop {
            let event = poll_fn(|cx| {
                link.carried_by(cx.waker());
                wire.poll_event(cx)
            });
            match event.await {
                Event::Ready(_) => {}
                Event::Completed(completion) => link.deliver(completion),
                Event::Closed(reason) => break reason,
            }
        };
        if matches!(
            reason,
            CloseReason::Disconnected | CloseReason::ServerShutdown
        ) {
            // Nothing is in flight. The server may not care to hear it.
            select(pin!(wire.farewell()), self.ports.runtime.sleep(FAREWELL)).await;
        }
        stream.shutdown();
        let error = self.closed(&reason);
        link.lost(error.clone());
        Ended {
            was_up: true,
            error,
        }
    }

    /// Connects and shakes hands; the link is up then.
    async fn greet(&self, link: &Link) -> Result<(Rc<dyn Stream>, Rc<RefCell<Session>>), Error> {
        let stream = self.ports.network.connect(&self.address).await;
        let stream = stream.map_err(|error| block_error(&error))?;
        let session = Session::new(self.session.clone(), self.now());
        let session = Rc::new(RefCell::new(session));
        let mut wire = Wire::new(&session, &*stream);
        match poll_fn(|cx| wire.poll_event(cx)).await {
            Event::Ready(export) => link.up(&session, &stream, export)?,
            Event::Closed(reason) => return Err(self.closed(&reason)),
            Event::Completed(_) => return Err(ErrorKind::Io.into()),
        }
        drop(wire);
        Ok((stream, session))
    }

    /// Bounds what a server may make us wait for.
    async fn within_bound<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let bound = self.session.limits.handshake;
        match select(pin!(work), self.ports.runtime.sleep(bound)).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => {
                let message = format!(
                    "NBD server {} has not answered within {bound:?}",
                    self.address
                );
                Err(Error::with_message(ErrorKind::TimedOut, message))
            }
        }
    }

    fn closed(&self, reason: &CloseReason) -> Error {
        let kind = match reason {
            CloseReason::HandshakeTimeout => ErrorKind::TimedOut,
            CloseReason::Refused(..) => ErrorKind::NotPermitted,
            CloseReason::Disconnected
            | CloseReason::ServerShutdown
            | CloseReason::EndOfStream
            | CloseReason::Violation(_) => ErrorKind::Io,
        };
        Error::with_message(kind, format!("NBD server {}: {reason}", self.address))
    }

    fn report(&self, link: &Link, error: &Error) {
        let requests = link.losses().requests;
        let then = if self.reconnect_delay.is_zero() {
            "requests fail until it is back"
        } else {
            "requests wait for it to come back"
        };
        tracing::error!(%error, lost = requests, "an NBD connection ended; {then}");
    }

    /// Lets requests that wait fail once `reconnect-delay` has passed.
    fn expire_later(&self, link: &Rc<Link>, reason: Error) {
        if self.reconnect_delay.is_zero() {
            return;
        }
        let link = Rc::downgrade(link);
        let outage = link.upgrade().map(|link| link.outages());
        let delay = self.ports.runtime.sleep(self.reconnect_delay);
        let expire = async move {
            delay.await;
            if let Some(link) = link.upgrade().filter(|link| Some(link.outages()) == outage) {
                link.give_up(reason);
            }
        };
        drop(self.ports.runtime.spawn(Box::pin(expire)));
    }
}

/// Carries bytes between a session and its socket.
struct Wire<'a> {
    session: &'a RefCell<Session>,
    stream: &'a dyn Stream,
    reading: Option<Reading<'a>>,
    writing: Option<LocalBoxFuture<'a, io::Result<()>>>,
    chunk: usize,
}

/// A read in progress.
struct Reading<'a> {
    buffer: LocalBoxFuture<'a, io::Result<Buffer>>,
    /// How much of a large payload had arrived before; `None`: these are any bytes.
    payload: Option<usize>,
}

impl<'a> Wire<'a> {
    fn new(session: &'a RefCell<Session>, stream: &'a dyn Stream) -> Wire<'a> {
        Wire {
            session,
            stream,
            reading: None,
            writing: None,
            chunk: *CHUNK.start(),
        }
    }

    /// The session's next event; moves bytes until there is one.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            if let Some(event) = self.session.borrow_mut().poll_event() {
                return Poll::Ready(event);
            }
            let wrote = self.poll_write(cx);
            let read = self.poll_read(cx);
            if !wrote && !read {
                return Poll::Pending;
            }
        }
    }

    /// Writes what there is; the requests of a turn go together.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        loop {
            if self.writing.is_none() {
                let mut parts: Vec<Bytes> = Vec::new();
                if !self.session.borrow_mut().poll_transmit(&mut parts) {
                    return moved;
                }
                self.writing = Some(self.stream.write(parts));
            }
            let Some(Poll::Ready(result)) = self.writing.as_mut().map(|w| w.as_mut().poll(cx))
            else {
                return moved;
            };
            self.writing = None;
            moved = true;
            if result.is_err() {
                self.session.borrow_mut().handle_end_of_stream();
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
        let payload = reading.payload;
        self.reading = None;
        match result {
            Ok(buffer) if buffer.len() > payload.unwrap_or(0) => {
                self.take(buffer, payload.is_some());
            }
            Ok(_) | Err(_) => self.session.borrow_mut().handle_end_of_stream(),
        }
        true
    }

    fn start_read(&mut self) -> Option<Reading<'a>> {
        let want = self.session.borrow().poll_want();
        match want {
            Want::Nothing => None,
            Want::Bytes { most } => {
                let buffer = Buffer::with_capacity(self.chunk.min(most.max(1)));
                Some(self.read(buffer, None))
            }
            Want::Payload { length, .. } => {
                let mut buffer = Buffer::with_capacity(length);
                let received = self.session.borrow().copy_payload(buffer.spare_mut());
                buffer.advance(received);
                Some(self.read(buffer, Some(received)))
            }
        }
    }

    fn read(&self, buffer: Buffer, payload: Option<usize>) -> Reading<'a> {
        let buffer = self.stream.read(buffer);
        Reading { buffer, payload }
    }

    /// More has arrived.
    fn take(&mut self, buffer: Buffer, is_payload: bool) {
        let (filled, asked) = (buffer.len(), buffer.capacity());
        if is_payload && filled < asked {
            self.reading = Some(self.read(buffer, Some(filled)));
            return;
        }
        let mut session = self.session.borrow_mut();
        if is_payload {
            session.handle_payload(buffer.freeze());
            return;
        }
        session.handle_bytes(buffer.freeze());
        if filled == asked && asked == self.chunk {
            self.chunk = self.chunk.saturating_mul(2).min(*CHUNK.end());
        } else if filled < self.chunk / 8 {
            self.chunk = (self.chunk / 2).max(*CHUNK.start());
        }
    }

    /// Writes what the session still has to say.
    async fn farewell(&mut self) {
        poll_fn(|cx| {
            self.poll_write(cx);
            if self.writing.is_some() {
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}
