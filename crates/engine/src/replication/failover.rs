//! Failover: the peer is kept out, the decision is durable, the commit runs, the disk stands alone.

use super::member::Chain;
use super::run::Run;
use super::start::close_all;
use super::{Group, Member};
use crate::jobs::{Job, Outcome};
use block::{Error, ErrorKind, OverlayStage};
use qmp::types::JobType;
use replication::{Input, Stage};
use std::rc::Rc;
use std::time::Duration;

/// Pause before another attempt to finish a commit whose disk did not come to rest.
const RETRY: Duration = Duration::from_millis(100);

impl Member {
    /// Whether the overlays say that a commit was interrupted; active's record is the witness.
    pub(super) fn is_interrupted(&self) -> bool {
        let active = self.chain().map(|chain| chain.active);
        active.is_ok_and(|active| {
            let header = active.driver().capabilities().overlay_state;
            header.is_some_and(|header| header.stage() == OverlayStage::Failover)
        })
    }

    /// The secondary disk, if there is one below.
    pub(super) fn secondary(&self) -> Option<Rc<block::Node>> {
        let chain = self.chain().ok()?;
        Some(chain.secondary)
    }
}

impl Run<'_> {
    /// R102.
    pub(super) async fn fence_writers(&self, member: &Rc<Member>) -> Result<(), Error> {
        let Chain { secondary, .. } = member.chain()?;
        let exports = &self.group.inner.exports;
        let fenced = exports.fence(&secondary, member.node()).await;
        fenced.map_err(|error| Error::with_message(ErrorKind::TimedOut, error.desc()))
    }

    pub(super) fn start_commit(&self, member: &Rc<Member>) {
        let commit = self.group.clone().commit(Rc::clone(member));
        let task = self.group.inner.ports.runtime.spawn(Box::pin(commit));
        member.commit.replace(Some(task));
    }

    /// Closing waits for the commit, bounded; past that it can be resumed.
    pub(super) async fn await_commit(&self, member: &Rc<Member>) -> Result<(), Error> {
        let runtime = &self.group.inner.ports.runtime;
        let deadline = runtime.now().saturating_add(self.group.inner.options.close);
        while member.driver().is_committing() && runtime.now() < deadline {
            runtime.sleep(Duration::from_millis(10)).await;
        }
        member.driver().cancel_commit();
        if let Some(task) = member.commit.take() {
            task.abort();
        }
        Ok(())
    }

    pub(super) async fn flush_secondary(&self, member: &Rc<Member>) -> Result<(), Error> {
        member.chain()?.secondary.flush().await
    }

    /// R68: everybody above active uses the secondary disk from this instant on.
    pub(super) async fn swap_in_secondary(&self, member: &Rc<Member>) -> Result<(), Error> {
        let chain = member.chain()?;
        let swapped = self.group.inner.edits.edit(|edit| {
            edit.replace_node(&chain.active, &chain.secondary);
            Ok(())
        });
        let ((), gone) = swapped.await?;
        close_all(&gone).await
    }
}

impl Group {
    /// Copies what the overlays hold, then finishes, in turns with everything else.
    async fn commit(self, member: Rc<Member>) {
        let job = self.begin_job(&member);
        let error = loop {
            if let Err(error) = member.driver().commit().await {
                break Some(error);
            }
            let turn = self.inner.turns.take().await;
            match self.finish(&member).await {
                Finish::Done => break None,
                Finish::Failed(error) => break Some(error),
                Finish::NotYet => {
                    drop(turn);
                    self.inner.ports.runtime.sleep(RETRY).await;
                }
            }
        };
        member.commit.take();
        let outcome = error.clone().map_or(Outcome::Completed, Outcome::Failed);
        self.inner.jobs.end(&job, outcome);
        if let Some(error) = error {
            let _turn = self.inner.turns.take().await;
            self.commit_failed(&member, error).await;
        }
    }

    fn begin_job(&self, member: &Rc<Member>) -> Rc<Job> {
        let of = Rc::clone(member);
        let progress = move || {
            let progress = of.driver().commit_progress().unwrap_or_default();
            (progress.done, progress.total)
        };
        let job = Job::internal(JobType::Commit, member.name(), progress);
        self.inner.jobs.begin(job)
    }

    /// The drained section in which the disk begins to stand alone.
    async fn finish(&self, member: &Rc<Member>) -> Finish {
        let Ok(section) = self.section(&member.nodes()).await else {
            return Finish::NotYet;
        };
        if member.driver().commit_remaining() > 0 {
            return Finish::NotYet;
        }
        let members = std::slice::from_ref(member);
        match self
            .run_held(Input::CommitDone, members, Some(section))
            .await
        {
            Ok(()) => Finish::Done,
            Err(error) => Finish::Failed(Error::with_message(ErrorKind::Io, error.desc())),
        }
    }

    async fn commit_failed(&self, member: &Rc<Member>, error: Error) {
        if member.stage() != Stage::Failover {
            return;
        }
        member.driver().latch(error);
        let members = std::slice::from_ref(member);
        if let Err(error) = self.run(Input::CommitFailed, members).await {
            tracing::error!(
                node = member.name(),
                error = error.desc(),
                "after a failed commit"
            );
        }
    }
}

/// What came of an attempt to finish.
enum Finish {
    Done,
    NotYet,
    Failed(Error),
}
