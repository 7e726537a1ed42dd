//! Carrying an operation out, step by step.

use super::status::{mode, stage as shown};
use super::{Group, Member};
use crate::drain::{Section, drain};
use crate::words::describe;
use block::{Error, ErrorKind, Node, Root};
use qmp::Event;
use qmp::event::StageChange;
use replication::{Action, ErrorChange, Input, Operation, Stage, Step, Trouble, refusal, step};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

/// What one operation has at hand.
pub(super) struct Run<'a> {
    pub(super) group: &'a Group,
    members: &'a [Rc<Member>],
    section: RefCell<Option<Section>>,
    /// The last error of each member, for latching.
    errors: RefCell<Vec<(String, Error)>>,
}

impl Group {
    /// Serves `input` on `members` and then what was reported of them meanwhile. The caller has
    /// its turn.
    pub(super) async fn run(&self, input: Input, members: &[Rc<Member>]) -> Result<(), qmp::Error> {
        self.run_held(input, members, None).await
    }

    /// As `run`, in a drained section that is there already.
    pub(super) async fn run_held(
        &self,
        input: Input,
        members: &[Rc<Member>],
        section: Option<Section>,
    ) -> Result<(), qmp::Error> {
        self.inner.busy.set(true);
        let run = Run {
            group: self,
            members,
            section: RefCell::new(section),
            errors: RefCell::default(),
        };
        let result = run.carry_out(input).await;
        drop(run);
        self.inner.busy.set(false);
        self.serve_reports();
        result.map_err(|troubles| qmp::Error::generic(in_words(&troubles, members)))
    }

    /// Something happened to a filter: serves it now, or after the command that is on its way.
    pub(super) fn report(&self, member: &Rc<Member>, input: Input, error: Error) {
        member.reports.borrow_mut().push((input, error));
        if !self.inner.busy.get() {
            self.serve_reports();
        }
    }

    fn serve_reports(&self) {
        for member in self.members() {
            let reports = member.reports.take();
            for (input, error) in reports {
                self.serve_report(&member, input, error);
            }
        }
    }

    /// Reports change the stage and the latch at once; they ask for no work.
    fn serve_report(&self, member: &Rc<Member>, input: Input, error: Error) {
        let Ok(transition) = step(member.role(), member.stage(), input) else {
            tracing::error!(node = member.name(), ?input, "unexpected report");
            return;
        };
        if transition.error == ErrorChange::Latch {
            member.driver().latch(error);
        }
        self.enter(member, transition.next);
    }

    //= docs/spec/replication.md#commands
    //# Changes of stage MUST be reported by an event that names the node.
    /// The filter is in this stage from now on.
    pub(super) fn enter(&self, member: &Rc<Member>, stage: Stage) {
        let driver = member.driver();
        if driver.stage() == stage {
            return;
        }
        let from = shown(driver.stage());
        driver.set_stage(stage);
        tracing::info!(node = member.name(), ?stage, "replication stage");
        let to = shown(stage);
        // Out of sync and unprotected are ways of running; the error that led there is an event of
        // its own.
        if from == to {
            return;
        }
        self.inner.events.send(Event::StageChange(StageChange {
            node_name: member.name().to_owned(),
            mode: mode(member.role()),
            from,
            to,
        }));
    }

    /// Everybody who may reach one of `nodes`.
    pub(super) fn roots_above(&self, nodes: &[Rc<Node>]) -> Vec<Rc<Root>> {
        self.inner.edits.look(|graph| graph.roots_above(nodes))
    }

    /// A drained section of `nodes`.
    pub(super) async fn section(&self, nodes: &[Rc<Node>]) -> Result<Section, Error> {
        let roots = self.roots_above(nodes);
        let runtime = &*self.inner.ports.runtime;
        let drained = drain(runtime, &roots, self.inner.options.drain).await;
        drained.map_err(|busy| {
            let message = format!("requests did not come to rest: {busy}");
            Error::with_message(ErrorKind::TimedOut, message)
        })
    }
}

impl Run<'_> {
    async fn carry_out(&self, input: Input) -> Result<(), Vec<Trouble<String, Error>>> {
        let members = self.members.iter().map(|member| replication::Member {
            disk: member.name().to_owned(),
            role: member.role(),
            stage: member.stage(),
        });
        let mut operation = Operation::begin(input, members.collect())?;
        while let Some(step) = operation.poll_step() {
            operation.report(self.carry_out_step(step).await);
        }
        operation.finish()
    }

    async fn carry_out_step(&self, step: Step<String>) -> Result<(), Error> {
        match step {
            Step::Hold => self.hold().await,
            Step::Release => {
                self.section.take();
                Ok(())
            }
            Step::Act(name, action) => {
                let member = self.member(&name)?;
                let result = self.act(member, action).await;
                if let Err(error) = &result {
                    tracing::warn!(node = name, ?action, %error, "replication");
                    self.errors.borrow_mut().push((name, error.clone()));
                }
                result
            }
            Step::Enter(name, stage) => {
                let member = self.member(&name)?;
                self.group.enter(member, stage);
                Ok(())
            }
            Step::Error(name, change) => {
                let member = self.member(&name)?;
                self.change_error(member, change);
                Ok(())
            }
        }
    }

    fn member(&self, name: &str) -> Result<&Rc<Member>, Error> {
        let mut members = self.members.iter();
        members
            .find(|member| member.name() == name)
            .ok_or_else(|| Error::new(ErrorKind::ShuttingDown))
    }

    fn change_error(&self, member: &Member, change: ErrorChange) {
        match change {
            ErrorChange::Keep => {}
            ErrorChange::Clear => member.driver().clear_error(),
            ErrorChange::Latch => {
                let errors = self.errors.borrow();
                let mut errors = errors.iter().rev();
                if let Some((_, error)) = errors.find(|(name, _)| name == member.name()) {
                    member.driver().latch(error.clone());
                }
            }
        }
    }

    //= docs/spec/replication.md#checkpoint
    //# A checkpoint MUST hold new requests to all exports of all disks, drain what is in flight,
    //# reads of the view included, switch all disks, and only then let requests in.
    /// The barrier. A writer that was lost before it was reached breaks it: what it did not send
    /// is missing from what the barrier would stand for.
    async fn hold(&self) -> Result<(), Error> {
        let nodes: Vec<Rc<Node>> = self.members.iter().flat_map(|m| m.nodes()).collect();
        let section = self.group.section(&nodes).await?;
        for member in self.members {
            if let Some((_, error)) = member.reports.borrow().first() {
                return Err(error.clone());
            }
        }
        self.section.replace(Some(section));
        Ok(())
    }

    /// How long a single step may wait.
    pub(super) fn bound(&self) -> Duration {
        self.group.inner.options.drain
    }

    async fn act(&self, member: &Rc<Member>, action: Action) -> Result<(), Error> {
        match action {
            Action::ValidateChain => self.validate_chain(member),
            Action::ReopenWritable => self.reopen_writable(member).await,
            Action::RestoreReadOnly => self.restore_read_only(member).await,
            Action::AttachBuffers => self.attach_buffers(member).await,
            Action::DetachBuffers => self.detach_buffers(member).await,
            Action::BlockTop => self.block_top(member),
            Action::UnblockTop => {
                self.unblock_top(member);
                Ok(())
            }
            Action::InsertCopyBeforeWrite => self.insert_copy_before_write(member).await,
            Action::RemoveCopyBeforeWrite => self.remove_copy_before_write(member).await,
            Action::MarkOverlaysRunning => self.mark_running(member).await,
            Action::MarkOverlaysIdle => self.mark_idle(member).await,
            Action::PrepareEmpty => self.prepare_empty(member).await,
            // Preparing only looks and waits.
            Action::AbandonEmpty => Ok(()),
            Action::EmptyBuffers => self.empty_buffers(member).await,
            Action::FlushBuffers => self.flush_buffers(member).await,
            Action::FenceWriters => self.fence_writers(member).await,
            Action::RecordFailover => member.driver().record_failover().await,
            Action::StartCommit => {
                self.start_commit(member);
                Ok(())
            }
            Action::AwaitCommit => self.await_commit(member).await,
            Action::FlushSecondary => self.flush_secondary(member).await,
            Action::RecordDone => member.driver().record_done().await,
            Action::SwapInSecondary => self.swap_in_secondary(member).await,
        }
    }
}

//= docs/spec/replication.md#commands
//# Errors of these commands MUST be of class `GenericError` and name the replication node.
/// All that went wrong, in the order in which it did; the same words once.
fn in_words(troubles: &[Trouble<String, Error>], members: &[Rc<Member>]) -> String {
    let mut words: Vec<String> = Vec::new();
    for trouble in troubles {
        let line = match trouble {
            Trouble::Refused(node, refused) => refusal(node, *refused),
            Trouble::Failed(node, _, error) => format!("node '{node}': {}", describe(error)),
            Trouble::NotDrained(error) => {
                let names = members.iter().rev().map(|m| format!("node '{}'", m.name()));
                let names: Vec<String> = names.collect();
                format!("{}: {}", names.join(", "), describe(error))
            }
        };
        if !words.contains(&line) {
            words.push(line);
        }
    }
    words.join("; ")
}
