//! A connection's two ends, each a `ports::Stream`.

use super::Internet;
use super::pipe::{Found, Pipe};
use block::Buffer;
use bytes::Bytes;
use drivers::ports::Stream;
use futures_util::future::LocalBoxFuture;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::task::{Context, Poll};

/// Which end of a link: who connected is first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    First,
    Second,
}

impl Side {
    fn other(self) -> Side {
        match self {
            Side::First => Side::Second,
            Side::Second => Side::First,
        }
    }
}

/// A connection: each side has the pipe it writes into.
pub(super) struct Link {
    pub(super) hosts: [String; 2],
    pub(super) pipes: [RefCell<Pipe>; 2],
}

impl Link {
    /// The pipe that `side` writes into.
    pub(super) fn pipe(&self, side: Side) -> &RefCell<Pipe> {
        let [first, second] = &self.pipes;
        match side {
            Side::First => first,
            Side::Second => second,
        }
    }

    pub(super) fn host(&self, side: Side) -> &str {
        let [first, second] = &self.hosts;
        match side {
            Side::First => first,
            Side::Second => second,
        }
    }

    /// The side on `from` whose peer is on `to`.
    pub(super) fn side_from(&self, from: &str, to: &str) -> Option<Side> {
        [Side::First, Side::Second]
            .into_iter()
            .find(|side| self.host(*side) == from && self.host(side.other()) == to)
    }

    /// `side` closes; with bytes unread that resets the connection, as TCP does.
    pub(super) fn close(&self, side: Side) {
        let unread = !self.pipe(side.other()).borrow().is_empty();
        if unread {
            self.pipe(side).borrow_mut().lose(true);
        } else {
            self.pipe(side).borrow_mut().finish();
        }
        self.pipe(side.other()).borrow_mut().lose(false);
    }

    /// The side on `host`, if one is.
    pub(super) fn side_of(&self, host: &str) -> Option<Side> {
        [Side::First, Side::Second]
            .into_iter()
            .find(|side| self.host(*side) == host)
    }

    pub(super) fn lose(&self, rest: bool) {
        for pipe in &self.pipes {
            pipe.borrow_mut().lose(rest);
        }
    }

    pub(super) fn wake_all(&self) {
        for pipe in &self.pipes {
            pipe.borrow_mut().wake_both();
        }
    }
}

/// One end of a connection.
pub(super) struct SimStream {
    internet: Internet,
    link: Rc<Link>,
    side: Side,
    closed: Cell<bool>,
}

impl SimStream {
    pub(super) fn new(internet: &Internet, link: &Rc<Link>, side: Side) -> SimStream {
        SimStream {
            internet: internet.clone(),
            link: Rc::clone(link),
            side,
            closed: Cell::new(false),
        }
    }

    fn outgoing(&self) -> &RefCell<Pipe> {
        self.link.pipe(self.side)
    }

    fn incoming(&self) -> &RefCell<Pipe> {
        self.link.pipe(self.side.other())
    }

    fn poll_read(&self, most: usize, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.closed.get() {
            return Poll::Ready(Err(ErrorKind::NotConnected.into()));
        }
        let net = &self.internet;
        let mut pipe = self.incoming().borrow_mut();
        pipe.wait_to_read(cx.waker());
        let (from, to) = (self.link.host(self.side.other()), self.link.host(self.side));
        if !net.reaches(from, to) {
            return Poll::Pending;
        }
        // Half of the reads get all there is, the others any part of it.
        let rng = &net.state.rng;
        let most = if rng.percent(50) {
            most
        } else {
            rng.index(most).saturating_add(1)
        };
        match pipe.take(net.state.executor.now(), most) {
            Found::Bytes(bytes) => Poll::Ready(Ok(bytes)),
            Found::Later(when) => {
                net.state.executor.wake_at(when, cx.waker());
                Poll::Pending
            }
            Found::Nothing => Poll::Pending,
            Found::End => Poll::Ready(Ok(Bytes::new())),
            Found::Lost => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
        }
    }

    /// Puts in as much of `bytes` as there is room for.
    fn poll_write(&self, bytes: &mut Bytes, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closed.get() {
            return Poll::Ready(Err(ErrorKind::NotConnected.into()));
        }
        let net = &self.internet;
        let mut pipe = self.outgoing().borrow_mut();
        while !bytes.is_empty() {
            match pipe.room() {
                None => return Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
                Some(0) => {
                    pipe.wait_to_write(cx.waker());
                    return Poll::Pending;
                }
                Some(room) => {
                    let piece = net
                        .state
                        .rng
                        .index(bytes.len().saturating_mul(2))
                        .saturating_add(1);
                    let piece = bytes.split_to(piece.min(room).min(bytes.len()));
                    let arrives = net.state.executor.now().saturating_add(net.some_time());
                    pipe.put(piece, arrives);
                }
            }
            if pipe.is_cut() {
                drop(pipe);
                self.link.lose(true);
                return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream for SimStream {
    fn read(&self, mut buffer: Buffer) -> LocalBoxFuture<'_, io::Result<Buffer>> {
        Box::pin(async move {
            let most = buffer.spare_mut().len();
            let bytes = poll_fn(|cx| self.poll_read(most, cx)).await?;
            buffer.fill(&bytes);
            Ok(buffer)
        })
    }

    fn write(&self, parts: Vec<Bytes>) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            for mut part in parts {
                poll_fn(|cx| self.poll_write(&mut part, cx)).await?;
            }
            Ok(())
        })
    }

    fn shutdown(&self) {
        if self.closed.replace(true) {
            return;
        }
        let host = self.link.host(self.side);
        // A host without power says goodbye to nobody.
        if !self.internet.state.down.borrow().contains(host) {
            self.link.close(self.side);
        }
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.shutdown();
    }
}
