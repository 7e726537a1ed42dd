//! Commands and mishaps, and what they are allowed to lead to.

use super::{Run, Stage};
use crate::model::Checkpoint;
use crate::pair::LOCAL;
use crate::script::{Command, Mishap};
use block::{ByteRange, LockKind};

impl Run<'_> {
    pub(super) async fn command(&self, command: Command) -> Result<Option<String>, String> {
        // There is one manager, which does one thing at a time, but for a failover.
        let turn = self
            .manager
            .lock(ByteRange::between(0, 1), LockKind::Exclusive);
        let _turn = if command == Command::Failover {
            None
        } else {
            Some(turn.await)
        };
        let before = self.subject.stage();
        self.note_command(command);
        // A start begins with a checkpoint of its own (R43).
        let moves_the_view = match command {
            Command::Checkpoint | Command::Stop => before == Stage::Running,
            Command::Start => before == Stage::None,
            Command::Failover => false,
        };
        let called = if moves_the_view {
            Some(self.model.borrow_mut().begin_checkpoint())
        } else {
            None
        };
        self.so_far
            .promoting
            .set(self.so_far.promoting.get() || command == Command::Failover);
        if command == Command::Stop {
            let called = called.or(self.so_far.stopping.get());
            self.so_far.stopping.set(called);
        }
        let result = self.subject.command(command).await;
        if command == Command::Failover && result.is_ok() && before != Stage::Done {
            self.so_far.promoted.set(true);
        }
        if let Some(called) = called {
            let verdict = match &result {
                // A stop whose tidying up fails has stopped all the same.
                Err(_) if command == Command::Stop && self.subject.stage() == Stage::Done => {
                    Checkpoint::Done
                }
                Err(_) => Checkpoint::Failed,
                // Which of the two came first, nobody was told.
                Ok(()) if self.so_far.promoting.get() => Checkpoint::Unknown,
                Ok(()) => Checkpoint::Done,
            };
            let stopped = command == Command::Stop && verdict == Checkpoint::Done;
            let mut model = self.model.borrow_mut();
            model.end_checkpoint(called, verdict);
            if stopped {
                model.stopped(called);
                self.so_far.stopped.set(true);
            }
        }
        self.judge_command(command, before, result)
    }

    /// Whether a command was allowed to end like this.
    fn judge_command(
        &self,
        command: Command,
        before: Stage,
        result: Result<(), String>,
    ) -> Result<Option<String>, String> {
        let Err(error) = result else {
            let unknown = command == Command::Start && before == Stage::Lost;
            return if unknown {
                Err("started over unknown contents".to_owned())
            } else {
                Ok(None)
            };
        };
        self.count(match command {
            Command::Start => "start refused",
            Command::Checkpoint => "checkpoint refused",
            Command::Stop => "stop refused",
            Command::Failover => "failover failed",
        });
        let legal = match command {
            Command::Start => before == Stage::None,
            Command::Checkpoint | Command::Stop | Command::Failover => before == Stage::Running,
        };
        if legal && !self.so_far.trouble.get() {
            return Err(format!("failed though nothing had gone wrong: {error}"));
        }
        Ok(Some(error))
    }

    pub(super) async fn mishap(&self, mishap: &Mishap) -> Result<Option<String>, String> {
        self.so_far.trouble.set(true);
        let local = matches!(mishap, Mishap::Fault(fault) if fault.file == LOCAL);
        if local || *mishap == Mishap::PeerDies {
            self.so_far.peer_trouble.set(true);
        }
        let crash = matches!(mishap, Mishap::Kill | Mishap::PowerCut);
        let before = self.subject.stage();
        self.note_mishap(mishap, before);
        if !crash {
            self.subject.mishap(mishap.clone()).await;
            return Ok(None);
        }
        if *mishap == Mishap::Kill {
            self.model.borrow_mut().crash();
        } else {
            self.model.borrow_mut().power_cut();
        }
        let replicating = before == Stage::Running;
        let called = replicating.then(|| self.model.borrow_mut().begin_checkpoint());
        self.subject.mishap(mishap.clone()).await;
        let after = self.subject.stage();
        if let Some(called) = called {
            let started = after == Stage::Running;
            let verdict = if started {
                Checkpoint::Done
            } else {
                Checkpoint::Failed
            };
            let mut model = self.model.borrow_mut();
            model.end_checkpoint(called, verdict);
            // The primary, which is stopped first, sends nothing since then.
            if let (true, Some(stop)) = (started, self.so_far.stopping.get()) {
                model.stopped(stop);
            }
        }
        let promised = match (before, after) {
            // It is recorded before it is answered: it is resumed, or over.
            (Stage::Failover | Stage::FailoverFailed, Stage::Failover | Stage::Done) => true,
            (Stage::Failover | Stage::FailoverFailed, Stage::None) => true,
            (Stage::Running, Stage::Lost) => true,
            // The stop had just recorded that the overlays hold nothing: they can be used again.
            (Stage::Running, Stage::Running) => self.so_far.stopping.get().is_some(),
            (Stage::Running, Stage::Failover | Stage::Done) => self.so_far.promoting.get(),
            (Stage::Done | Stage::None | Stage::Lost, _) => true,
            (_, _) => false,
        };
        if !promised {
            return Err(format!(
                "was {before:?} before the crash, is {after:?} after it"
            ));
        }
        if matches!(after, Stage::None | Stage::Done) {
            self.judge_disk()?;
        }
        Ok(Some(format!("{after:?}")))
    }
}
