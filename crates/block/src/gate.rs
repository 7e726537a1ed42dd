//! Admission: who may enter now, and when everyone has left. The heart of a drained section.
//!
//! ```text
//!           enter() ──▶ Pass (a request in flight)
//! open ─── hold() ───▶ held: enter() waits; drained() resolves when the last Pass is dropped
//!   ▲                    │
//!   └──── Hold dropped ──┘        holds nest
//! ```

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Counts requests in flight and lets new ones in, or not. Clones share one gate.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    state: Rc<RefCell<State>>,
}

#[derive(Debug, Default)]
struct State {
    holds: u32,
    inside: u64,
    waiting: Waiters,
    draining: Waiters,
}

impl Gate {
    /// An open gate with nobody inside.
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Waits until the gate is open and enters.
    ///
    /// Cancel safety: dropping it before it resolves leaves no trace.
    pub async fn enter(&self) -> Pass {
        let mut place = Place::new(&self.state, |state| &mut state.waiting);
        poll_fn(|cx| {
            if let Some(pass) = self.try_enter() {
                return Poll::Ready(pass);
            }
            place.wait(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Enters if the gate is open.
    pub fn try_enter(&self) -> Option<Pass> {
        let mut state = self.state.borrow_mut();
        if state.holds > 0 {
            return None;
        }
        state.inside = state.inside.saturating_add(1);
        drop(state);
        Some(Pass {
            state: Rc::clone(&self.state),
        })
    }

    /// Shuts the gate until the hold is dropped. Those inside go on.
    pub fn hold(&self) -> Hold {
        let mut state = self.state.borrow_mut();
        state.holds = state.holds.saturating_add(1);
        drop(state);
        Hold {
            state: Rc::clone(&self.state),
        }
    }

    /// Resolves when nobody is inside. Meaningful while held.
    pub async fn drained(&self) {
        let mut place = Place::new(&self.state, |state| &mut state.draining);
        poll_fn(|cx| {
            if self.inside() == 0 {
                return Poll::Ready(());
            }
            place.wait(cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// How many are inside.
    pub fn inside(&self) -> u64 {
        self.state.borrow().inside
    }

    /// Whether the gate is shut.
    pub fn is_held(&self) -> bool {
        self.state.borrow().holds > 0
    }
}

/// Tasks that wait for the same thing.
#[derive(Debug, Default)]
struct Waiters {
    next: u64,
    list: Vec<(u64, Waker)>,
}

impl Waiters {
    fn take(&mut self) -> Vec<(u64, Waker)> {
        std::mem::take(&mut self.list)
    }
}

/// One future's place among the waiters. A place holds one waker however often the future is polled:
/// two wakers of one task need not compare equal, so comparing them would not bound the list.
struct Place<'a> {
    state: &'a RefCell<State>,
    among: fn(&mut State) -> &mut Waiters,
    id: Option<u64>,
}

impl<'a> Place<'a> {
    fn new(state: &'a RefCell<State>, among: fn(&mut State) -> &mut Waiters) -> Place<'a> {
        let id = None;
        Place { state, among, id }
    }

    fn wait(&mut self, waker: &Waker) {
        let mut state = self.state.borrow_mut();
        let waiters = (self.among)(&mut state);
        let id = *self.id.get_or_insert_with(|| {
            waiters.next = waiters.next.wrapping_add(1);
            waiters.next
        });
        match waiters.list.iter_mut().find(|(known, _)| *known == id) {
            Some((_, known)) => known.clone_from(waker),
            None => waiters.list.push((id, waker.clone())),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut state = self.state.borrow_mut();
            (self.among)(&mut state)
                .list
                .retain(|(known, _)| *known != id);
        }
    }
}

fn wake(waiters: Vec<(u64, Waker)>) {
    for (_, waker) in waiters {
        waker.wake();
    }
}

/// A request inside the gate.
#[derive(Debug)]
pub struct Pass {
    state: Rc<RefCell<State>>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        state.inside = state.inside.saturating_sub(1);
        if state.inside > 0 || state.draining.list.is_empty() {
            return;
        }
        let waiters = state.draining.take();
        drop(state);
        wake(waiters);
    }
}

/// Keeps the gate shut.
#[derive(Debug)]
#[must_use = "the gate opens again when this is dropped"]
pub struct Hold {
    state: Rc<RefCell<State>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        state.holds = state.holds.saturating_sub(1);
        if state.holds > 0 {
            return;
        }
        let waiters = state.waiting.take();
        drop(state);
        wake(waiters);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::task::ArcWake;
    use std::future::Future;
    use std::sync::Arc;
    use std::task::Context;

    #[test]
    fn a_held_gate_lets_nobody_in_and_is_drained_by_the_last_to_leave() {
        let gate = Gate::new();
        let inside = gate.enter().now_or_never().unwrap();
        let hold = gate.hold();
        assert!(gate.enter().now_or_never().is_none());
        assert!(gate.drained().now_or_never().is_none());
        drop(inside);
        assert!(gate.drained().now_or_never().is_some());
        drop(hold);
        assert!(gate.enter().now_or_never().is_some());
    }

    #[test]
    fn a_future_waits_in_one_place_however_often_it_is_polled() {
        let gate = Gate::new();
        let _inside = gate.try_enter();
        let _hold = gate.hold();
        let (mut drained, mut entered) = (Box::pin(gate.drained()), Box::pin(gate.enter()));
        for _ in 0..10 {
            // Each time with a waker that equals no other.
            assert!((&mut drained).now_or_never().is_none());
            let waker = futures_util::task::waker(Arc::new(Idle));
            let mut cx = Context::from_waker(&waker);
            assert!(drained.as_mut().poll(&mut cx).is_pending());
            assert!(entered.as_mut().poll(&mut cx).is_pending());
        }
        let waiting = || {
            let state = gate.state.borrow();
            (state.draining.list.len(), state.waiting.list.len())
        };
        assert_eq!(waiting(), (1, 1));
        drop((drained, entered));
        assert_eq!(waiting(), (0, 0));
    }

    struct Idle;

    impl ArcWake for Idle {
        fn wake_by_ref(_: &Arc<Idle>) {}
    }

    #[test]
    fn holds_nest() {
        let gate = Gate::new();
        let (outer, inner) = (gate.hold(), gate.hold());
        drop(outer);
        assert!(gate.is_held());
        drop(inner);
        assert!(gate.try_enter().is_some());
    }
}
