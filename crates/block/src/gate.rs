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
    waiting: Vec<Waker>,
    draining: Vec<Waker>,
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
        poll_fn(|cx| {
            if let Some(pass) = self.try_enter() {
                return Poll::Ready(pass);
            }
            remember(&mut self.state.borrow_mut().waiting, cx.waker());
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
        poll_fn(|cx| {
            let mut state = self.state.borrow_mut();
            if state.inside == 0 {
                return Poll::Ready(());
            }
            remember(&mut state.draining, cx.waker());
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

/// Keeps one waker per waiting task.
fn remember(list: &mut Vec<Waker>, waker: &Waker) {
    if !list.iter().any(|known| known.will_wake(waker)) {
        list.push(waker.clone());
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
        if state.inside > 0 || state.draining.is_empty() {
            return;
        }
        let wakers = std::mem::take(&mut state.draining);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
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
        let wakers = std::mem::take(&mut state.waiting);
        drop(state);
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

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
    fn holds_nest() {
        let gate = Gate::new();
        let (outer, inner) = (gate.hold(), gate.hold());
        drop(outer);
        assert!(gate.is_held());
        drop(inner);
        assert!(gate.try_enter().is_some());
    }
}
