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
/// How often a close looks whether a commit has ended.
const POLL: Duration = Duration::from_millis(5);

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
        member.copying.set(true);
        let job = self.group.begin_job(member);
        let commit = self.group.clone().commit(Rc::clone(member), job);
        let task = self.group.inner.ports.runtime.spawn(Box::pin(commit));
        member.commit.replace(Some(task));
    }

    /// A commit that did not end in time (`end_commit`) is halted; it can be resumed.
    pub(super) async fn await_commit(&self, member: &Rc<Member>) -> Result<(), Error> {
        let runtime = &self.group.inner.ports.runtime;
        let deadline = runtime.now().saturating_add(self.group.inner.options.drain);
        member.driver().cancel_commit();
        while member.driver().is_committing() && runtime.now() < deadline {
            runtime.sleep(POLL).await;
        }
        if let Some(task) = member.commit.take() {
            task.abort();
        }
        Ok(())
    }

    pub(super) async fn flush_secondary(&self, member: &Rc<Member>) -> Result<(), Error> {
        member.chain()?.secondary.flush().await
    }

    //= docs/spec/replication.md#commit
    //# A commit that ends well MUST replace active by the secondary disk for everyone above, detach
    //# the extra children, and end in DONE without error.
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
    async fn commit(self, member: Rc<Member>, job: Rc<Job>) {
        let error = loop {
            member.copying.set(true);
            let copied = member.driver().commit().await;
            member.copying.set(false);
            if let Err(error) = copied {
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

    //= docs/spec/replication.md#commit
    //# The commit MUST be visible as a job with progress and end with an event.
    fn begin_job(&self, member: &Rc<Member>) -> Rc<Job> {
        let of = Rc::clone(member);
        let progress = move || {
            let progress = of.driver().commit_progress().unwrap_or_default();
            (progress.done, progress.total)
        };
        let job = Job::internal(JobType::Commit, member.name(), progress);
        self.inner.jobs.begin(job)
    }

    //= docs/spec/replication.md#close-and-restart
    //# Closing in FAILOVER MUST wait for the commit, bounded, or leave it such that it can be
    //# resumed.
    /// Before a close: a commit gets its time to end, and is finished if it has copied everything.
    /// The caller has its turn, which the commit would wait for.
    pub(super) async fn end_commit(&self, member: &Rc<Member>) {
        let runtime = &self.inner.ports.runtime;
        let deadline = runtime.now().saturating_add(self.inner.options.close);
        while member.copying.get() && runtime.now() < deadline {
            runtime.sleep(POLL).await;
        }
        let is_copied = !member.copying.get() && member.driver().commit_remaining() == 0;
        if member.stage() != Stage::Failover || !is_copied {
            return;
        }
        if let Some(task) = member.commit.take() {
            task.abort();
        }
        if let Finish::Failed(error) = self.finish(member).await {
            tracing::warn!(node = member.name(), %error, "finishing a commit");
        }
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
