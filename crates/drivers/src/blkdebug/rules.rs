//! Which request meets which fault: a pure table of rules and one state number.
//!
//! The state is 1 at first. A request is an [`Event`] of its kind; the event first moves the
//! state (by the first [`Transition`] of that event and the present state), and then the first rule of each
//! sort that fits decides. A rule bound to [`Event::Any`] is always armed.
//!
//! Pure: no I/O, no clock.

use block::{ByteRange, Op};
use std::time::Duration;

/// A moment that rules are bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Every moment (`none`: the rule is always armed).
    Any,
    /// A request of this kind begins (`read_aio`, `write_aio`, `pwritev`, `flush_to_os`, ...).
    Begins(Op),
}

/// A change of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What triggers it.
    pub event: Event,
    /// The state in which it holds; `None`: any.
    pub state: Option<u32>,
    /// The state afterwards.
    pub new_state: u32,
}

/// A fault and the requests that meet it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What arms it.
    pub event: Event,
    /// The state in which it holds; `None`: any.
    pub state: Option<u32>,
    /// Kinds of request that meet it.
    pub ops: Vec<Op>,
    /// A byte the request must touch; `None`: any. A flush touches none.
    pub at: Option<u64>,
    /// How many requests that fit it lets pass first.
    pub skip: u64,
    /// Whether it holds for one request only.
    pub once: bool,
    /// What happens.
    pub fault: Fault,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error number without reaching the child.
    Fail {
        /// The error number.
        errno: i32,
        /// Whether it fails at once, or only after other tasks have run.
        immediately: bool,
    },
    /// It takes this much longer.
    Delay(Duration),
    /// The first `bytes` of a write are stored, then it fails with `errno`.
    Tear {
        /// How many bytes are stored.
        bytes: u64,
        /// The error number.
        errno: i32,
    },
    /// A flush is answered without reaching the child.
    LoseFlush,
}

impl Rule {
    /// A rule that every request meets that the fault makes sense for, block status excepted (as in
    /// QEMU).
    pub fn new(fault: Fault) -> Rule {
        let ops = match fault {
            Fault::Fail { .. } | Fault::Delay(_) => {
                vec![Op::Read, Op::Write, Op::WriteZeroes, Op::Discard, Op::Flush]
            }
            Fault::Tear { .. } => vec![Op::Write],
            Fault::LoseFlush => vec![Op::Flush],
        };
        Rule {
            event: Event::Any,
            state: None,
            ops,
            at: None,
            skip: 0,
            once: false,
            fault,
        }
    }

    fn fits(&self, state: u32, op: Op, range: ByteRange) -> bool {
        let armed = match self.event {
            Event::Any => true,
            Event::Begins(begun) => begun == op,
        };
        let touches = |at: u64| range.overlaps(ByteRange::between(at, at.saturating_add(1)));
        armed
            && self.state.is_none_or(|wanted| wanted == state)
            && self.ops.contains(&op)
            && self.at.is_none_or(touches)
    }
}

/// What was decided for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How long it waits first.
    pub delay: Duration,
    /// What becomes of it then; `None`: it is passed on. Never a delay.
    pub fault: Option<Fault>,
}

/// All rules of a node.
#[derive(Clone, Debug)]
pub struct Rules {
    state: u32,
    transitions: Vec<Transition>,
    list: Vec<Rule>,
}

impl Rules {
    /// Rules in state 1.
    pub fn new(rules: Vec<Rule>, transitions: Vec<Transition>) -> Rules {
        Rules {
            state: 1,
            transitions,
            list: rules,
        }
    }

    /// Adds a rule behind the others.
    pub fn add(&mut self, rule: Rule) {
        self.list.push(rule);
    }

    /// Removes all rules; state and transitions stay.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// The state now.
    pub fn state(&self) -> u32 {
        self.state
    }

    /// Decides about one request.
    pub fn judge(&mut self, op: Op, range: ByteRange) -> Verdict {
        let event = Event::Begins(op);
        let moved = self.transitions.iter().find(|transition| {
            transition.event == event && transition.state.is_none_or(|state| state == self.state)
        });
        if let Some(transition) = moved {
            self.state = transition.new_state;
        }
        let delay = match self.take(op, range, |fault| matches!(fault, Fault::Delay(_))) {
            Some(Fault::Delay(delay)) => delay,
            _ => Duration::ZERO,
        };
        let fault = self.take(op, range, |fault| !matches!(fault, Fault::Delay(_)));
        Verdict { delay, fault }
    }

    /// The fault of the first rule that fits and is of that sort.
    fn take(&mut self, op: Op, range: ByteRange, sort: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let state = self.state;
        for index in 0..self.list.len() {
            let rule = self.list.get_mut(index)?;
            if !sort(&rule.fault) || !rule.fits(state, op, range) {
                continue;
            }
            if let Some(left) = rule.skip.checked_sub(1) {
                rule.skip = left;
                continue;
            }
            let fault = rule.fault;
            if rule.once {
                self.list.remove(index);
            }
            return Some(fault);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EIO: Fault = Fault::Fail {
        errno: 5,
        immediately: true,
    };

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::between(start, end)
    }

    /// What becomes of each request, as one word.
    fn transcript(mut rules: Rules, requests: &[(Op, ByteRange)]) -> String {
        let words = requests.iter().map(|&(op, range)| {
            let word = match rules.judge(op, range).fault {
                None => "ok",
                Some(Fault::Fail { .. }) => "fails",
                Some(Fault::Tear { .. }) => "tears",
                Some(Fault::LoseFlush) => "lost",
                Some(Fault::Delay(_)) => unreachable!("a delay is no outcome"),
            };
            format!("{op} {word}")
        });
        words.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_rule_meets_the_requests_that_touch_its_byte() {
        let rule = Rule {
            at: Some(512),
            ..Rule::new(EIO)
        };
        let requests = [
            (Op::Write, range(0, 512)),
            (Op::Write, range(0, 513)),
            (Op::Read, range(512, 513)),
            (Op::Read, range(513, 1024)),
            (Op::Flush, range(0, 0)),
            (Op::BlockStatus, range(0, 1024)),
        ];
        assert_eq!(
            transcript(Rules::new(vec![rule], vec![]), &requests),
            "write ok, write fails, read fails, read ok, flush ok, block-status ok"
        );
    }

    #[test]
    fn a_rule_can_hold_once_and_let_some_pass_first() {
        let rule = Rule {
            skip: 2,
            once: true,
            ops: vec![Op::Write],
            ..Rule::new(EIO)
        };
        let write = (Op::Write, range(0, 1));
        let requests = [write, (Op::Read, range(0, 1)), write, write, write];
        assert_eq!(
            transcript(Rules::new(vec![rule], vec![]), &requests),
            "write ok, read ok, write ok, write fails, write ok"
        );
    }

    #[test]
    fn events_move_the_state_that_rules_ask_for() {
        // After a flush the next write fails; the one after is well again.
        let transitions = vec![
            Transition {
                event: Event::Begins(Op::Flush),
                state: Some(1),
                new_state: 2,
            },
            Transition {
                event: Event::Begins(Op::Write),
                state: Some(2),
                new_state: 3,
            },
        ];
        let rule = Rule {
            state: Some(3),
            once: true,
            ..Rule::new(EIO)
        };
        let (write, flush) = ((Op::Write, range(0, 1)), (Op::Flush, range(0, 0)));
        assert_eq!(
            transcript(
                Rules::new(vec![rule], transitions),
                &[write, flush, write, write, flush]
            ),
            "write ok, flush ok, write fails, write ok, flush ok"
        );
    }

    #[test]
    fn a_request_may_be_delayed_and_then_fail() {
        let delay = Duration::from_secs(1);
        let rules = vec![Rule::new(EIO), Rule::new(Fault::Delay(delay))];
        let mut rules = Rules::new(rules, vec![]);
        let verdict = rules.judge(Op::Read, range(0, 1));
        assert_eq!(
            verdict,
            Verdict {
                delay,
                fault: Some(EIO)
            }
        );
        rules.clear();
        assert_eq!(rules.judge(Op::Read, range(0, 1)), Verdict::default());
    }
}
