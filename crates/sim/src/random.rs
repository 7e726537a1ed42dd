//! Random scripts: many things at once, close together, where it hurts.
//!
//! Requests are short and keep to a few neighbourhoods, the ends of copy-before-write's clusters
//! above all, so that they overlap. Each script has one [`Mood`].

use crate::disk::{DiskOp, Effect, Fault};
use crate::layout::Layout;
use crate::model::{Tag, Writer};
use crate::pair::LOCAL;
use crate::rng::Rng;
use crate::script::{Action, Command, Mishap, Request, Script, Step, Timed};
use std::ops::Range;
use std::time::Duration;

/// Tags of random writes begin above the letters.
const FIRST_TAG: Tag = 1000;
/// Steps of a script at most.
const STEPS: u64 = 4;
/// Actions of a step at most.
const ACTIONS: u64 = 24;
/// How far apart the actions of a step begin, in microseconds.
const SPAN: u64 = 3000;
/// Blocks of `Layout::untearable` in the 4 KiB that are saved and allocated together.
const CLUSTER: usize = 12;
const EIO: i32 = 5;

/// What goes wrong in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Nothing: every request must succeed.
    Calm,
    /// Disks fail.
    Faults,
    /// The secondary is killed or loses power.
    Crashes,
    /// Connections are lost, fall silent, hang.
    Network,
}

/// A script for disks of `layout` in some mood.
pub fn script(rng: &Rng, layout: &Layout) -> (Mood, Script) {
    let moods = [
        Mood::Calm,
        Mood::Calm,
        Mood::Faults,
        Mood::Crashes,
        Mood::Network,
    ];
    let mood = *rng.pick(&moods).unwrap_or(&Mood::Calm);
    let writer = Author {
        rng,
        layout,
        mood,
        next_tag: FIRST_TAG,
    };
    (mood, writer.script())
}

struct Author<'a> {
    rng: &'a Rng,
    layout: &'a Layout,
    mood: Mood,
    next_tag: Tag,
}

impl Author<'_> {
    fn script(mut self) -> Script {
        let steps = self.rng.between(1, STEPS);
        let mut script: Vec<Step> = (0..steps).map(|_| self.busy_step()).collect();
        script.extend(self.ending());
        Script(script)
    }

    /// Requests of both sides beside checkpoints, and beside what goes wrong.
    fn busy_step(&mut self) -> Step {
        let actions = self.rng.between(1, ACTIONS);
        Step(
            (0..actions)
                .map(|_| self.at_some_time(Self::action))
                .collect(),
        )
    }

    fn at_some_time(&mut self, action: impl Fn(&mut Self) -> Action) -> Timed {
        let after = if self.rng.percent(50) {
            0
        } else {
            self.rng.below(SPAN)
        };
        Timed {
            after,
            action: action(self),
        }
    }

    fn action(&mut self) -> Action {
        let mishaps = if self.mood == Mood::Calm { 0 } else { 8 };
        match self.rng.below(100) {
            roll if roll < mishaps => Action::Mishap(self.mishap()),
            roll if roll < 16 => Action::Command(Command::Checkpoint),
            roll if roll < 60 => Action::Request(Writer::Peer, self.request(Writer::Peer)),
            _ => Action::Request(Writer::Guest, self.request(Writer::Guest)),
        }
    }

    /// How a script ends: not at all, by a stop, by a failover, now and then interrupted.
    fn ending(&mut self) -> Vec<Step> {
        match self.rng.below(4) {
            0 => Vec::new(),
            1 => vec![self.beside(Command::Stop), self.guests_alone(), settle()],
            _ => {
                let mut steps = vec![self.beside(Command::Failover), self.guests_alone()];
                if self.mood == Mood::Faults {
                    steps.push(single(Action::Mishap(Mishap::Heal)));
                    steps.push(single(Action::Command(Command::Failover)));
                }
                steps.push(settle());
                steps.push(self.guests_alone());
                steps
            }
        }
    }

    /// A command in the middle of everything.
    fn beside(&mut self, command: Command) -> Step {
        let mut step = self.busy_step();
        step.0
            .retain(|timed| !matches!(timed.action, Action::Command(_)));
        let after = self.rng.below(SPAN);
        let action = Action::Command(command);
        step.0.push(Timed { after, action });
        step
    }

    /// What happens after the peer has gone.
    fn guests_alone(&mut self) -> Step {
        let mut step = self.busy_step();
        step.0.retain(|timed| match timed.action {
            Action::Request(from, _) => from == Writer::Guest,
            Action::Mishap(_) => true,
            Action::Command(_) | Action::Settle => false,
        });
        if step.0.is_empty() { settle() } else { step }
    }

    fn request(&mut self, from: Writer) -> Request {
        let blocks = self.blocks();
        match self.rng.below(20) {
            0 => Request::Flush,
            1 | 2 => Request::Zero(blocks),
            3 => Request::Discard(blocks),
            roll if roll < 9 && from == Writer::Guest => Request::Read(blocks),
            4 => Request::Read(blocks),
            _ => {
                self.next_tag = self.next_tag.saturating_add(1);
                Request::Write(blocks, self.next_tag)
            }
        }
    }

    /// A few blocks near the end of a cluster; sometimes many, anywhere.
    fn blocks(&self) -> Range<usize> {
        let all = self.layout.blocks();
        let clusters = all.div_ceil(CLUSTER).saturating_add(1);
        let edge = self.rng.index(clusters).saturating_mul(CLUSTER);
        let start = if self.rng.percent(20) {
            self.rng.index(all)
        } else {
            edge.saturating_add(self.rng.index(6)).saturating_sub(3)
        };
        let length = if self.rng.percent(10) {
            self.rng.index(all)
        } else {
            self.rng.index(12)
        };
        let start = start.min(all.saturating_sub(1));
        start..start.saturating_add(length).saturating_add(1).min(all)
    }

    fn mishap(&mut self) -> Mishap {
        let rng = self.rng;
        match self.mood {
            Mood::Calm | Mood::Faults => match rng.below(10) {
                0 => Mishap::Space(rng.below(64).saturating_mul(4096)),
                1 | 2 => Mishap::Heal,
                _ => Mishap::Fault(self.fault()),
            },
            Mood::Crashes if rng.percent(50) => Mishap::Kill,
            Mood::Crashes => Mishap::PowerCut,
            Mood::Network => match rng.below(12) {
                0 => Mishap::PeerDies,
                2 | 3 => Mishap::Silence,
                4..=6 => Mishap::Hang(rng.between(1, 3000)),
                7 | 8 => Mishap::Heal,
                _ => Mishap::Lose(rng.index(20_000)),
            },
        }
    }

    fn fault(&self) -> Fault {
        let rng = self.rng;
        let ops = [
            DiskOp::Read,
            DiskOp::Write,
            DiskOp::Write,
            DiskOp::Discard,
            DiskOp::Sync,
        ];
        let effects = [
            Effect::Fail(EIO),
            Effect::Fail(EIO),
            Effect::Slow(Duration::from_millis(20)),
        ];
        let file = *rng
            .pick(&["active", "hidden", "disk", LOCAL])
            .unwrap_or(&"");
        Fault {
            op: *rng.pick(&ops).unwrap_or(&DiskOp::Write),
            file: file.to_owned(),
            range: None,
            skip: u32::try_from(rng.below(6)).unwrap_or(0),
            times: u32::try_from(rng.between(1, 3)).unwrap_or(1),
            effect: *rng.pick(&effects).unwrap_or(&Effect::Fail(EIO)),
        }
    }
}

fn settle() -> Step {
    single(Action::Settle)
}

fn single(action: Action) -> Step {
    Step(vec![Timed { after: 0, action }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_scripts_can_be_read_back() {
        let layout = Layout::untearable(148 << 10);
        for seed in 0..200 {
            let (_, script) = script(&Rng::new(seed), &layout);
            let text = script.to_string();
            assert_eq!(text.parse::<Script>(), Ok(script), "{text}");
        }
    }
}
