//! Counting rare states.

use super::{Run, Stage};
use crate::model::Writer;
use crate::script::{Command, Mishap, Request};
use std::ops::Range;

impl Run<'_> {
    pub(super) fn count(&self, what: &'static str) {
        let mut counters = self.counters.borrow_mut();
        let counter = counters.entry(what).or_default();
        *counter = counter.saturating_add(1);
    }

    fn writes_in_flight(&self, from: Writer) -> bool {
        let list = self.in_flight.borrow();
        list.iter()
            .any(|(f, request)| *f == from && changed(request).is_some())
    }

    pub(super) fn note_neighbours(&self, from: Writer, request: &Request) {
        let Request::Read(read) = request else { return };
        if from == Writer::Peer {
            return;
        }
        let passes = self.in_flight.borrow().iter().any(|(other, request)| {
            let changed = changed(request);
            *other == Writer::Peer
                && changed.is_some_and(|c| c.start < read.end && read.start < c.end)
        });
        if passes {
            self.count("guest read of what the peer was writing");
        }
    }

    pub(super) fn note_command(&self, command: Command) {
        let (peer, guest) = (
            self.writes_in_flight(Writer::Peer),
            self.writes_in_flight(Writer::Guest),
        );
        match command {
            Command::Checkpoint if peer => {
                self.count("checkpoint with the peer's writes in flight");
            }
            Command::Checkpoint if guest => {
                self.count("checkpoint with the guest's writes in flight");
            }
            Command::Stop if peer => self.count("stop with the peer's writes in flight"),
            Command::Failover if peer => self.count("failover with the peer's writes in flight"),
            Command::Failover if self.subject.stage() == Stage::FailoverFailed => {
                self.count("failover retried");
            }
            Command::Start | Command::Checkpoint | Command::Stop | Command::Failover => {}
        }
    }

    pub(super) fn note_mishap(&self, mishap: &Mishap, before: Stage) {
        match mishap {
            Mishap::Kill | Mishap::PowerCut => {
                let earlier = self
                    .so_far
                    .crashes
                    .replace(self.so_far.crashes.get().saturating_add(1));
                match before {
                    Stage::Failover if earlier > 0 => self.count("double crash during the commit"),
                    Stage::Failover => self.count("crash during the commit"),
                    Stage::Running if self.so_far.promoting.get() => {
                        self.count("crash while failing over");
                    }
                    Stage::Running => self.count("crash while replicating"),
                    Stage::None | Stage::FailoverFailed | Stage::Done | Stage::Lost => {}
                }
            }
            Mishap::Lose(_) if self.writes_in_flight(Writer::Peer) => {
                self.count("connection lost with writes in flight");
            }
            Mishap::PeerDies if self.writes_in_flight(Writer::Peer) => {
                self.count("peer died with writes in flight");
            }
            Mishap::Hang(_) if self.writes_in_flight(Writer::Peer) => {
                self.count("secondary hung with writes in flight");
            }
            Mishap::Fault(_)
            | Mishap::Space(_)
            | Mishap::Heal
            | Mishap::Lose(_)
            | Mishap::Silence
            | Mishap::PeerDies
            | Mishap::Hang(_) => {}
        }
    }
}

/// The blocks a request changes.
fn changed(request: &Request) -> Option<&Range<usize>> {
    match request {
        Request::Write(blocks, _) | Request::Zero(blocks) | Request::Discard(blocks) => {
            Some(blocks)
        }
        Request::Flush | Request::Read(_) => None,
    }
}
