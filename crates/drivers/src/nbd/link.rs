//! What the requests of a node and its connection have in common: the session, who waits for what,
//! and whether there is a connection at all.
//!
//! ```text
//!  Opening ──▶ Up ──lost──▶ Waiting (reconnect-delay) ──▶ Down ─┐
//!     │        ▲ ▲             │  requests wait, are        │    │ requests fail,
//!     │        │ └─────────────┘  sent again after it       │    │ attempts go on
//!     ▼        └────────────────────────────────────────────┘◀───┘
//!   Closed (failed to open, yanked, or the node was closed; for good)
//! ```
//!
//! *Lost requests are never silent*: each is answered with an error, counted, and the first is
//! logged and kept. *Lost durability is not either*: if writes had been answered but not flushed
//! when the connection was lost, the next flush fails, once, for the server may have forgotten
//! them.

use super::changes::Changes;
use crate::ports::Stream;
use ::nbd::Errno;
use ::nbd::client::{Completion, ExportInfo, Failure, Refused, Reply, Session};
use ::nbd::wire::{Cookie, TransmissionFlags};
use block::{Error, ErrorKind};
use futures_channel::oneshot;
use futures_util::FutureExt;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// What an answered request means for durability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The contents have changed.
    Change,
    /// They have not.
    Other,
}

/// Who waits for the answer to a request.
struct Waiting {
    kind: Kind,
    sender: oneshot::Sender<Result<Reply, Failure>>,
}

/// The answer to a request, when it comes.
type Answered = oneshot::Receiver<Result<Reply, Failure>>;

/// Shared by the requests of a node and its connection.
pub(super) struct Link {
    /// Whether requests outlive a connection: they wait, and are sent again.
    patient: bool,
    state: RefCell<State>,
    /// What the server said of the export when it was first reached.
    export: RefCell<Option<ExportInfo>>,
    waiting: RefCell<BTreeMap<Cookie, Waiting>>,
    /// Requests that wait for room, or for the state to change.
    sleepers: RefCell<Vec<Waker>>,
    /// The connection's task, to be woken when there is something to send.
    carrier: RefCell<Option<Waker>>,
    changes: Cell<Changes>,
    losses: RefCell<Losses>,
    outages: Cell<u64>,
    /// The node is being closed: no new connection is made.
    leaving: Cell<bool>,
    /// Somebody did not wait for an answer: what was asked may have come too late.
    forsaken: Cell<bool>,
}

/// Whether there is a connection.
enum State {
    /// Not yet.
    Opening,
    /// Yes.
    Up {
        session: Rc<RefCell<Session>>,
        stream: Rc<dyn Stream>,
    },
    /// Lost; it may come back in time.
    Waiting,
    /// Lost; requests fail until it comes back.
    Down(Error),
    /// There will never be one again.
    Closed(Error),
}

/// Requests whose fate is unknown.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    pub(super) requests: u64,
    pub(super) first: Option<Error>,
}

impl Link {
    pub(super) fn new(patient: bool) -> Link {
        Link {
            patient,
            state: RefCell::new(State::Opening),
            export: RefCell::new(None),
            waiting: RefCell::default(),
            sleepers: RefCell::default(),
            carrier: RefCell::default(),
            changes: Cell::default(),
            losses: RefCell::default(),
            outages: Cell::new(0),
            leaving: Cell::new(false),
            forsaken: Cell::new(false),
        }
    }

    /// Sends a request and waits for its answer; for a patient link, across connections.
    pub(super) async fn call(
        &self,
        kind: Kind,
        submit: impl Fn(&mut Session) -> Result<Cookie, Refused>,
    ) -> Result<Reply, Error> {
        loop {
            let answer = poll_fn(|cx| self.poll_submit(cx, kind, &submit)).await?;
            match answer.await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(Failure::Answered(Errno::Shutdown, _))) if self.will_return() => {}
                Ok(Err(Failure::Lost(_))) | Err(_) if self.will_return() => {}
                Ok(Err(failure @ Failure::Lost(_))) => return Err(self.lose(failure.into())),
                Ok(Err(failure)) => return Err(failure.into()),
                Err(_) => {
                    let reason = self.closed();
                    return Err(self.lose(reason.unwrap_or(ErrorKind::Io.into())));
                }
            }
        }
    }

    fn poll_submit(
        &self,
        cx: &mut Context<'_>,
        kind: Kind,
        submit: &impl Fn(&mut Session) -> Result<Cookie, Refused>,
    ) -> Poll<Result<Answered, Error>> {
        match &*self.state.borrow() {
            State::Down(error) | State::Closed(error) => return Poll::Ready(Err(error.clone())),
            State::Opening | State::Waiting => {}
            State::Up { session, .. } => match submit(&mut session.borrow_mut()) {
                Ok(cookie) => return Poll::Ready(Ok(self.expect(cookie, kind))),
                Err(refused @ Refused::Rule(..)) => return Poll::Ready(Err(refused.into())),
                // Room comes with the next answer, a new session with the next connection.
                Err(Refused::Busy | Refused::NotReady | Refused::Closed) => {}
            },
        }
        self.sleep(cx);
        Poll::Pending
    }

    fn sleep(&self, cx: &Context<'_>) {
        let mut sleepers = self.sleepers.borrow_mut();
        if !sleepers.iter().any(|waker| waker.will_wake(cx.waker())) {
            sleepers.push(cx.waker().clone());
        }
    }

    fn expect(&self, cookie: Cookie, kind: Kind) -> Answered {
        let (sender, receiver) = oneshot::channel();
        let waiting = Waiting { kind, sender };
        self.waiting.borrow_mut().insert(cookie, waiting);
        if let Some(carrier) = self.carrier.borrow_mut().take() {
            carrier.wake();
        }
        receiver
    }

    /// Whether lost requests may be sent again.
    fn will_return(&self) -> bool {
        self.patient && matches!(&*self.state.borrow(), State::Up { .. } | State::Waiting)
    }

    fn wake_sleepers(&self) {
        self.sleepers.take().into_iter().for_each(Waker::wake);
    }

    fn enter(&self, state: State) {
        if matches!(&*self.state.borrow(), State::Closed(_)) {
            return;
        }
        self.state.replace(state);
        self.wake_sleepers();
    }
}

/// Durability.
impl Link {
    /// Flushes, and tells whether all that was answered before is durable.
    pub(super) async fn flush(&self) -> Result<(), Error> {
        let before = self.changes.get();
        if self.can(TransmissionFlags::SEND_FLUSH) {
            self.call(Kind::Other, Session::flush).await?;
        }
        let now = self.changes.get();
        self.changes.set(now.flushed_since(before));
        if now.doubtful_since(before) {
            let message = "the connection was lost after writes that had not been flushed: the \
                           server may have forgotten them";
            return Err(Error::with_message(ErrorKind::Io, message));
        }
        Ok(())
    }

    /// Counts a request whose fate is unknown.
    fn lose(&self, error: Error) -> Error {
        let mut losses = self.losses.borrow_mut();
        losses.requests = losses.requests.saturating_add(1);
        losses.first.get_or_insert_with(|| error.clone());
        error
    }

    /// Requests whose fate is unknown, so far.
    pub(super) fn losses(&self) -> Losses {
        self.losses.borrow().clone()
    }
}

/// The export.
impl Link {
    /// What the server said of the export when it was first reached.
    pub(super) fn export(&self) -> Option<ExportInfo> {
        self.export.borrow().clone()
    }

    /// Whether the export offers this.
    pub(super) fn can(&self, flag: TransmissionFlags) -> bool {
        let export = self.export.borrow();
        export.as_ref().is_some_and(|e| e.flags.contains(flag))
    }

    /// Whether the export is the one that was opened.
    fn check_same(&self, now: &ExportInfo) -> Result<(), Error> {
        let export = self.export.borrow();
        let Some(before) = &*export else {
            return Ok(());
        };
        let message = if now.size != before.size {
            format!("it has {} bytes now and had {}", now.size, before.size)
        } else if now.block_sizes != before.block_sizes {
            "it has other block sizes now".to_owned()
        } else if now.flags != before.flags || now.contexts != before.contexts {
            "it can do other things now".to_owned()
        } else {
            return Ok(());
        };
        let message = format!("the export has changed: {message}; add the node anew");
        Err(Error::with_message(ErrorKind::Io, message))
    }
}

/// The connection's side.
impl Link {
    /// A connection is there.
    ///
    /// # Errors
    ///
    /// It is of no use: the export has changed, or nobody wants it any more.
    pub(super) fn up(
        &self,
        session: &Rc<RefCell<Session>>,
        stream: &Rc<dyn Stream>,
        export: ExportInfo,
    ) -> Result<(), Error> {
        if let Some(reason) = self.closed() {
            return Err(reason);
        }
        self.check_same(&export)?;
        self.export.borrow_mut().get_or_insert(export);
        self.enter(State::Up {
            session: Rc::clone(session),
            stream: Rc::clone(stream),
        });
        Ok(())
    }

    /// The connection is gone: requests wait if the link is patient, else they fail for `reason`.
    pub(super) fn lost(&self, reason: Error) {
        self.changes.set(self.changes.get().cut_off());
        self.outages.set(self.outages.get().wrapping_add(1));
        self.waiting.take();
        self.enter(match (self.leaving.get(), self.patient) {
            (true, _) => State::Closed(reason),
            (false, true) => State::Waiting,
            (false, false) => State::Down(reason),
        });
    }

    /// How often a connection was lost.
    pub(super) fn outages(&self) -> u64 {
        self.outages.get()
    }

    /// Those who still wait have waited long enough.
    pub(super) fn give_up(&self, reason: Error) {
        if matches!(&*self.state.borrow(), State::Waiting) {
            self.enter(State::Down(reason));
        }
    }

    /// Ends it for good: cuts the connection, fails what waits.
    pub(super) fn close(&self, reason: Error) {
        if let State::Up { stream, .. } = &*self.state.borrow() {
            stream.shutdown();
        }
        self.enter(State::Closed(reason));
        // Those who wait for an answer hear that it will not come.
        self.waiting.take();
    }

    /// Ends it for good without waiting for anybody. A server that owes no answer, and whose
    /// answers all came in time, is told, so that it need not suspect a loss.
    pub(super) fn cut(&self, reason: Error) {
        if self.waiting.borrow().is_empty()
            && !self.forsaken.get()
            && let State::Up { session, stream } = &*self.state.borrow()
        {
            let mut parts = Vec::new();
            let mut session = session.borrow_mut();
            session.disconnect();
            while session.poll_event().is_some() {}
            if session.poll_transmit(&mut parts) {
                // Whatever the socket does not take at once is not sent.
                let _ = stream.write(parts).now_or_never();
            }
        }
        self.close(reason);
    }

    /// Whether it has ended for good, and why.
    pub(super) fn closed(&self) -> Option<Error> {
        match &*self.state.borrow() {
            State::Closed(reason) => Some(reason.clone()),
            State::Opening | State::Up { .. } | State::Waiting | State::Down(_) => None,
        }
    }

    /// Resolves when the first connection is up, or will never be.
    pub(super) async fn opened(&self) -> Result<ExportInfo, Error> {
        poll_fn(|cx| {
            if let Some(export) = self.export() {
                return Poll::Ready(Ok(export));
            }
            self.poll_closed(cx).map(Err)
        })
        .await
    }

    /// Ready when it has ended for good.
    pub(super) fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<Error> {
        if let Some(reason) = self.closed() {
            return Poll::Ready(reason);
        }
        self.sleep(cx);
        Poll::Pending
    }

    /// Hands an answer to who waits for it; there is room for another request now.
    pub(super) fn deliver(&self, completion: Completion) {
        let waiting = self.waiting.borrow_mut().remove(&completion.cookie);
        if let Some(Waiting { kind, sender }) = waiting {
            if kind == Kind::Change && completion.result.is_ok() {
                self.changes.set(self.changes.get().with_one_more());
            }
            if sender.send(completion.result).is_err() {
                self.forsaken.set(true);
            }
        }
        self.wake_sleepers();
    }

    /// Wakes this task when there is something to send.
    pub(super) fn carried_by(&self, carrier: &Waker) {
        let mut known = self.carrier.borrow_mut();
        if !known.as_ref().is_some_and(|known| known.will_wake(carrier)) {
            *known = Some(carrier.clone());
        }
    }

    /// Takes leave of the server, once everything in flight has been answered.
    pub(super) fn leave(&self) {
        self.leaving.set(true);
        if let State::Up { session, .. } = &*self.state.borrow() {
            session.borrow_mut().disconnect();
        }
        if let Some(carrier) = self.carrier.borrow_mut().take() {
            carrier.wake();
        }
    }
}
