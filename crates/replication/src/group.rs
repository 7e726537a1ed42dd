//! One command on its way over several disks.
//!
//! ```text
//! action 1 on every disk ─▶ … ─▶ hold ─▶ the first action that needs quiet on every disk ─▶ … ─▶
//! enter the stage on every disk ─▶ release ─▶ what follows the stage
//! ```
//!
//! All-or-nothing contract: start, checkpoint and stop are refused as a whole if one disk refuses
//! them, and undone on all disks if one fails. Every action that can fail and be undone has
//! succeeded on all disks before the switch ([`Action::EmptyBuffers`]) is made on the first.
//!
//! Failover contract: it proceeds on every disk that can, and every error is returned.
//!
//! Order contract: newest disk first, as QEMU does.
//!
//! Driving it: `while let Some(step) = operation.poll_step() { operation.report(do(step)) }`.
//! Reports about a disk (a writer lost, a commit done) that arrive meanwhile are served after it;
//! what protects data at once (a primary that has lost a write sends no further one) does not
//! wait for the stage.
//!
//! Source: `docs/spec/replication.md`, section "Several disks".

use crate::action::{Action, OnFailure, Task};
use crate::refused::Refused;
use crate::stage::{ErrorChange, Input, Role, Stage, Transition, step};
use std::collections::VecDeque;

/// A replication filter that takes part in an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member<K> {
    /// How the caller names it.
    pub disk: K,
    /// Its side.
    pub role: Role,
    /// Its stage now.
    pub stage: Stage,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<K> {
    /// Hold admission to all exports of all members' disks and drain what is in flight, views
    /// included; bounded in time. If it fails, nothing is held.
    Hold,
    /// Carry out an action.
    Act(K, Action),
    /// The member is in this stage from now on.
    Enter(K, Stage),
    /// Change the member's latched error; [`ErrorChange::Latch`] means the last error reported
    /// for it.
    Error(K, ErrorChange),
    /// Let requests in again.
    Release,
}

/// Something that went wrong in an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble<K, E> {
    /// The disk does not accept the command in its stage.
    Refused(K, Refused),
    /// An action failed.
    Failed(K, Action, E),
    /// The barrier could not be reached in time.
    NotDrained(E),
}

/// A command or report on its way.
#[derive(Clone, Debug)]
pub struct Operation<K, E> {
    members: Vec<Member<K>>,
    queue: VecDeque<Queued<K>>,
    current: Option<Queued<K>>,
    done: Vec<(K, Action)>,
    is_held: bool,
    troubles: Vec<Trouble<K, E>>,
}

#[derive(Clone, Debug)]
struct Queued<K> {
    step: Step<K>,
    on_failure: OnFailure,
}

impl<K: Clone + PartialEq, E> Operation<K, E> {
    /// Begins `input` on `members`, given in order of creation.
    ///
    /// # Errors
    ///
    /// The refusals, newest disk first, if any disk refuses and the input is not a failover;
    /// nothing has changed then.
    pub fn begin(
        input: Input,
        members: Vec<Member<K>>,
    ) -> Result<Operation<K, E>, Vec<Trouble<K, E>>> {
        let mut operation = Operation {
            members,
            queue: VecDeque::new(),
            current: None,
            done: Vec::new(),
            is_held: false,
            troubles: Vec::new(),
        };
        //= docs/spec/replication.md#several-disks
        //# Commands MUST act on all replication nodes of the process, newest first, and succeed if
        //# there are none.
        operation.members.reverse();
        let rows = operation.rows(input);
        //= docs/spec/replication.md#several-disks
        //# A start, checkpoint or stop that one disk refuses MUST change nothing on any disk.
        if input != Input::Failover && !operation.troubles.is_empty() {
            return Err(operation.troubles);
        }
        operation.plan(&rows);
        Ok(operation)
    }

    /// What to do next, the same until it is reported; `None` at the end.
    pub fn poll_step(&mut self) -> Option<Step<K>> {
        if self.current.is_none() {
            self.current = self.queue.pop_front();
        }
        self.current.as_ref().map(|queued| queued.step.clone())
    }

    /// The step of [`Operation::poll_step`] has been carried out, or has failed.
    pub fn report(&mut self, result: Result<(), E>) {
        let Some(Queued { step, on_failure }) = self.current.take() else {
            return;
        };
        match (step, result) {
            (Step::Act(disk, action), Ok(())) => self.done.push((disk, action)),
            (Step::Act(disk, action), Err(error)) => {
                let trouble = Trouble::Failed(disk.clone(), action, error);
                self.troubles.push(trouble);
                self.recover(disk, action, on_failure);
            }
            (Step::Hold, Ok(())) => self.is_held = true,
            (Step::Hold, Err(error)) => {
                self.troubles.push(Trouble::NotDrained(error));
                self.give_up_hold();
            }
            (Step::Enter(disk, stage), _) => {
                let members = self.members.iter_mut().filter(|m| m.disk == disk);
                members.for_each(|member| member.stage = stage);
            }
            (Step::Error(..), _) => {}
            (Step::Release, _) => self.is_held = false,
        }
    }

    /// What came of it.
    ///
    /// # Errors
    ///
    /// Everything that went wrong, in order.
    pub fn finish(self) -> Result<(), Vec<Trouble<K, E>>> {
        if self.troubles.is_empty() {
            Ok(())
        } else {
            Err(self.troubles)
        }
    }

    /// The rows of the members that accept `input`; the others' refusals become troubles.
    fn rows(&mut self, input: Input) -> Vec<(K, Stage, Transition)> {
        let mut rows = Vec::new();
        for member in &self.members {
            match step(member.role, member.stage, input) {
                Ok(row) => rows.push((member.disk.clone(), member.stage, row)),
                Err(refused) => {
                    let refusal = Trouble::Refused(member.disk.clone(), refused);
                    self.troubles.push(refusal);
                }
            }
        }
        rows
    }

    fn plan(&mut self, rows: &[(K, Stage, Transition)]) {
        let longest = rows.iter().map(|(_, _, row)| row.tasks.len()).max();
        let mut holds = false;
        for index in 0..longest.unwrap_or(0) {
            let nth: Vec<_> = rows
                .iter()
                .filter_map(|(disk, _, row)| row.tasks.get(index).map(|task| act(disk, *task)))
                .collect();
            if !holds && nth.iter().any(Queued::needs_quiet) {
                holds = true;
                self.queue.push_back(unfailing(Step::Hold));
            }
            self.queue.extend(nth);
        }
        for (disk, stage, row) in rows {
            self.queue.extend(conclusion(disk, *stage, *row));
        }
        if holds {
            self.queue.push_back(unfailing(Step::Release));
        }
        for (disk, _, row) in rows {
            self.queue
                .extend(row.then.iter().map(|task| act(disk, *task)));
        }
    }

    /// The barrier was not reached: what comes after it cannot be done.
    //= docs/spec/replication.md#checkpoint
    //# The wait for requests in flight MUST be bounded; past the bound there is no checkpoint, an
    //# error, and nothing has changed.
    fn give_up_hold(&mut self) {
        let ahead: Vec<_> = self
            .queue
            .iter()
            .filter_map(|queued| match &queued.step {
                Step::Act(disk, _) => Some((disk.clone(), queued.on_failure)),
                Step::Hold | Step::Enter(..) | Step::Error(..) | Step::Release => None,
            })
            .collect();
        self.queue.clear();
        match ahead.first() {
            Some((_, OnFailure::Undo(_))) => self.undo(),
            Some((_, OnFailure::Leave(_) | OnFailure::GoOn)) | None => {
                let mut left: Vec<K> = Vec::new();
                for (disk, on_failure) in ahead {
                    if let OnFailure::Leave(input) = on_failure
                        && !left.contains(&disk)
                    {
                        let detour = self.detour(&disk, input);
                        self.queue.extend(detour);
                        left.push(disk);
                    }
                }
            }
        }
    }

    /// Queues the undoing of everything done so far, newest first.
    //= docs/spec/replication.md#start
    //# A start that fails anywhere MUST undo everything it did, newest first, and leave a filter
    //# that can be started again.
    //= docs/spec/replication.md#several-disks
    //# A start, checkpoint or stop that fails on one disk before any disk has switched MUST be
    //# undone on all of them.
    fn undo(&mut self) {
        let undone = std::mem::take(&mut self.done);
        let undoing = undone.into_iter().rev().filter_map(|(disk, action)| {
            let step = Step::Act(disk, action.undone_by()?);
            Some(unfailing(step))
        });
        self.queue.extend(undoing);
    }

    fn recover(&mut self, disk: K, failed: Action, on_failure: OnFailure) {
        match on_failure {
            OnFailure::GoOn => {}
            //= docs/spec/replication.md#several-disks
            //# A failover MUST proceed on every disk that can, and return the errors of all others.
            OnFailure::Leave(input) => {
                self.queue.retain(|queued| queued.disk() != Some(&disk));
                let detour = self.detour(&disk, input);
                for queued in detour.into_iter().rev() {
                    self.queue.push_front(queued);
                }
            }
            OnFailure::Undo(input) => {
                self.queue.clear();
                let detour = self.detour(&disk, input);
                self.done.push((disk, failed));
                self.undo();
                self.queue.extend(detour);
                if self.is_held {
                    self.queue.push_back(unfailing(Step::Release));
                }
            }
        }
    }

    /// What one disk does on its own after a failure.
    fn detour(&mut self, disk: &K, input: Input) -> Vec<Queued<K>> {
        let Some(member) = self.members.iter().find(|member| &member.disk == disk) else {
            return Vec::new();
        };
        match step(member.role, member.stage, input) {
            Ok(row) => {
                let mut steps: Vec<_> = row.tasks.iter().map(|task| act(disk, *task)).collect();
                steps.extend(conclusion(disk, member.stage, row));
                steps.extend(row.then.iter().map(|task| act(disk, *task)));
                steps
            }
            Err(refused) => {
                self.troubles.push(Trouble::Refused(disk.clone(), refused));
                Vec::new()
            }
        }
    }
}

impl<K> Queued<K> {
    fn needs_quiet(&self) -> bool {
        matches!(&self.step, Step::Act(_, action) if action.needs_quiet())
    }

    fn disk(&self) -> Option<&K> {
        match &self.step {
            Step::Act(disk, _) | Step::Enter(disk, _) | Step::Error(disk, _) => Some(disk),
            Step::Hold | Step::Release => None,
        }
    }
}

fn act<K: Clone>(disk: &K, task: Task) -> Queued<K> {
    Queued {
        step: Step::Act(disk.clone(), task.action),
        on_failure: task.on_failure,
    }
}

fn unfailing<K>(step: Step<K>) -> Queued<K> {
    Queued {
        step,
        on_failure: OnFailure::GoOn,
    }
}

/// The stage and error change at the end of a row; nothing where nothing changes.
fn conclusion<K: Clone>(disk: &K, stage: Stage, row: Transition) -> Vec<Queued<K>> {
    let enter = (row.next != stage).then(|| Step::Enter(disk.clone(), row.next));
    let error = (row.error != ErrorChange::Keep).then(|| Step::Error(disk.clone(), row.error));
    enter.into_iter().chain(error).map(unfailing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use std::collections::BTreeMap;

    /// Given as what fails: the barrier.
    const HOLD_FAILS: &[(&str, Action)] = &[("", Action::ValidateChain)];

    fn member(disk: &'static str, role: Role, stage: Stage) -> Member<&'static str> {
        Member { disk, role, stage }
    }

    fn secondaries(stage: Stage) -> Vec<Member<&'static str>> {
        vec![
            member("old", Role::Secondary, stage),
            member("new", Role::Secondary, stage),
        ]
    }

    /// Runs the operation; what `fails` matches fails. One line a step, then the troubles.
    fn transcript(
        input: Input,
        members: Vec<Member<&'static str>>,
        fails: &[(&str, Action)],
    ) -> String {
        let mut lines = Vec::new();
        let result = Operation::begin(input, members).and_then(|mut operation| {
            while let Some(step) = operation.poll_step() {
                let failed = match &step {
                    Step::Act(disk, action) => fails.contains(&(disk, *action)),
                    Step::Hold => fails == HOLD_FAILS,
                    Step::Enter(..) | Step::Error(..) | Step::Release => false,
                };
                let mark = if failed { " FAILS" } else { "" };
                lines.push(format!("{}{mark}", line(&step)));
                operation.report(if failed { Err("broken") } else { Ok(()) });
            }
            operation.finish()
        });
        for trouble in result.err().into_iter().flatten() {
            lines.push(match trouble {
                Trouble::Refused(disk, refused) => format!("refused by {disk}: {refused}"),
                Trouble::Failed(disk, action, _) => format!("error: {action:?} of {disk}"),
                Trouble::NotDrained(_) => "error: not drained".to_string(),
            });
        }
        lines.join("\n")
    }

    fn line(step: &Step<&'static str>) -> String {
        match step {
            Step::Hold => "hold".into(),
            Step::Act(disk, action) => format!("{disk}: {action:?}"),
            Step::Enter(disk, stage) => format!("{disk}: enter {stage:?}"),
            Step::Error(disk, change) => format!("{disk}: error {change:?}"),
            Step::Release => "release".into(),
        }
    }

    #[track_caller]
    fn check(
        input: Input,
        members: Vec<Member<&'static str>>,
        fails: &[(&str, Action)],
        expected: &Expect,
    ) {
        expected.assert_eq(&transcript(input, members, fails));
    }

    //= docs/spec/replication.md#start
    //= type=test
    //# Copy-before-write MUST be in place before the first request is let in after a start.
    #[test]
    fn a_start_puts_copy_before_write_in_place_before_requests_are_let_in() {
        check(
            Input::Start(Role::Secondary),
            vec![member("disk", Role::Secondary, Stage::NotStarted)],
            &[],
            &expect![[r"
                disk: ValidateChain
                disk: ReopenWritable
                hold
                disk: AttachBuffers
                disk: BlockTop
                disk: InsertCopyBeforeWrite
                disk: PrepareEmpty
                disk: MarkOverlaysRunning
                disk: EmptyBuffers
                disk: enter Running
                disk: error Clear
                release"]],
        );
    }

    //= docs/spec/replication.md#several-disks
    //= type=test
    //# Commands MUST act on all replication nodes of the process, newest first
    #[test]
    fn a_start_that_fails_on_one_disk_is_undone_on_all() {
        check(
            Input::Start(Role::Secondary),
            secondaries(Stage::NotStarted),
            &[("old", Action::BlockTop)],
            &expect![[r"
                new: ValidateChain
                old: ValidateChain
                new: ReopenWritable
                old: ReopenWritable
                hold
                new: AttachBuffers
                old: AttachBuffers
                new: BlockTop
                old: BlockTop FAILS
                old: UnblockTop
                new: UnblockTop
                old: DetachBuffers
                new: DetachBuffers
                old: RestoreReadOnly
                new: RestoreReadOnly
                release
                error: BlockTop of old"]],
        );
    }

    //= docs/spec/replication.md#checkpoint
    //= type=test
    //# A checkpoint MUST hold new requests to all exports of all disks, drain what is in flight,
    //# reads of the view included, switch all disks, and only then let requests in.
    #[test]
    fn a_checkpoint_switches_all_disks_between_hold_and_release() {
        check(
            Input::Checkpoint,
            secondaries(Stage::Running),
            &[],
            &expect![[r"
                hold
                new: PrepareEmpty
                old: PrepareEmpty
                new: EmptyBuffers
                old: EmptyBuffers
                release"]],
        );
    }

    //= docs/spec/replication.md#several-disks
    //= type=test
    //# Every action of a checkpoint that can fail MUST have succeeded on all disks before the first
    //# disk is switched.
    #[test]
    fn a_checkpoint_that_cannot_be_prepared_on_one_disk_switches_none() {
        check(
            Input::Checkpoint,
            secondaries(Stage::Running),
            &[("old", Action::PrepareEmpty)],
            &expect![[r"
                hold
                new: PrepareEmpty
                old: PrepareEmpty FAILS
                old: AbandonEmpty
                new: AbandonEmpty
                old: error Latch
                release
                error: PrepareEmpty of old"]],
        );
    }

    //= docs/spec/replication.md#several-disks
    //= type=test
    //# A start, checkpoint or stop that one disk refuses MUST change nothing on any disk.
    #[test]
    fn a_checkpoint_that_one_disk_refuses_is_refused_for_all() {
        let mut members = secondaries(Stage::Running);
        members[0].stage = Stage::OutOfSync;
        check(
            Input::Checkpoint,
            members,
            &[],
            &expect![
                "refused by old: the peer's writes may be incomplete: stop replication or fail over"
            ],
        );
    }

    //= docs/spec/replication.md#several-disks
    //= type=test
    //# A failover MUST proceed on every disk that can, and return the errors of all others.
    #[test]
    fn a_failover_proceeds_on_every_disk_and_returns_every_error() {
        let mut members = secondaries(Stage::Running);
        members.push(member("idle", Role::Secondary, Stage::NotStarted));
        check(
            Input::Failover,
            members,
            &[
                ("new", Action::RecordFailover),
                ("old", Action::FenceWriters),
            ],
            &expect![[r"
                new: FenceWriters
                old: FenceWriters FAILS
                old: enter OutOfSync
                old: error Latch
                new: RecordFailover FAILS
                new: enter OutOfSync
                new: error Latch
                hold
                release
                refused by idle: replication is not running
                error: FenceWriters of old
                error: RecordFailover of new"]],
        );
    }

    #[test]
    fn a_stop_that_cannot_tidy_up_still_ends() {
        check(
            Input::Stop,
            vec![member("disk", Role::Secondary, Stage::Running)],
            &[("disk", Action::MarkOverlaysIdle)],
            &expect![[r"
                hold
                disk: PrepareEmpty
                disk: EmptyBuffers
                disk: RemoveCopyBeforeWrite
                disk: MarkOverlaysIdle FAILS
                disk: UnblockTop
                disk: DetachBuffers
                disk: RestoreReadOnly
                disk: enter Done
                disk: error Clear
                release
                error: MarkOverlaysIdle of disk"]],
        );
    }

    //= docs/spec/replication.md#failover
    //= type=test
    //# A promoted secondary MUST be able to serve as a primary in the same process: a start in mode
    //# `primary` starts only the new filter.
    #[test]
    fn a_start_after_promotion_starts_only_the_new_filter() {
        let members = vec![
            member("promoted", Role::Secondary, Stage::Done),
            member("fresh", Role::Primary, Stage::NotStarted),
        ];
        check(
            Input::Start(Role::Primary),
            members,
            &[],
            &expect![[r"
            fresh: enter Running
            fresh: error Clear"]],
        );
    }

    //= docs/spec/replication.md#several-disks
    //= type=test
    //# Commands MUST act on all replication nodes of the process, newest first, and succeed if
    //# there are none.
    #[test]
    fn without_disks_every_command_succeeds() {
        for input in [Input::Start(Role::Primary), Input::Checkpoint, Input::Stop] {
            assert_eq!(transcript(input, Vec::new(), &[]), "");
        }
    }

    #[test]
    fn a_start_whose_barrier_is_not_reached_is_undone() {
        check(
            Input::Start(Role::Secondary),
            secondaries(Stage::NotStarted),
            HOLD_FAILS,
            &expect![[r"
                new: ValidateChain
                old: ValidateChain
                new: ReopenWritable
                old: ReopenWritable
                hold FAILS
                old: RestoreReadOnly
                new: RestoreReadOnly
                error: not drained"]],
        );
    }

    //= docs/spec/replication.md#checkpoint
    //= type=test
    //# The wait for requests in flight MUST be bounded; past the bound there is no checkpoint, an
    //# error, and nothing has changed.
    #[test]
    fn a_checkpoint_whose_barrier_is_not_reached_changes_nothing() {
        check(
            Input::Checkpoint,
            secondaries(Stage::Running),
            HOLD_FAILS,
            &expect![[r"
                hold FAILS
                error: not drained"]],
        );
    }

    #[test]
    fn a_failover_is_recorded_before_the_view_is_held_and_commits_after_its_release() {
        check(
            Input::Failover,
            secondaries(Stage::Running),
            &[],
            &expect![[r"
                new: FenceWriters
                old: FenceWriters
                new: RecordFailover
                old: RecordFailover
                hold
                new: RemoveCopyBeforeWrite
                old: RemoveCopyBeforeWrite
                new: UnblockTop
                old: UnblockTop
                new: enter Failover
                new: error Clear
                old: enter Failover
                old: error Clear
                release
                new: StartCommit
                old: StartCommit"]],
        );
    }

    #[test]
    fn a_failover_whose_barrier_is_not_reached_can_be_tried_again() {
        check(
            Input::Failover,
            vec![member("disk", Role::Secondary, Stage::Running)],
            HOLD_FAILS,
            &expect![[r"
                disk: FenceWriters
                disk: RecordFailover
                hold FAILS
                disk: enter OutOfSync
                disk: error Latch
                error: not drained"]],
        );
    }

    //= docs/spec/replication.md#failover
    //= type=test
    //# A failover whose commit cannot be started MUST end in FAILOVER_FAILED with the error
    //# returned.
    #[test]
    fn a_commit_that_cannot_start_leaves_a_failed_failover() {
        check(
            Input::Failover,
            vec![member("disk", Role::Secondary, Stage::Running)],
            &[("disk", Action::StartCommit)],
            &expect![[r"
                disk: FenceWriters
                disk: RecordFailover
                hold
                disk: RemoveCopyBeforeWrite
                disk: UnblockTop
                disk: enter Failover
                disk: error Clear
                release
                disk: StartCommit FAILS
                disk: RecordFailover
                disk: enter FailoverFailed
                disk: error Latch
                error: StartCommit of disk"]],
        );
    }

    #[test]
    fn a_finished_commit_is_recorded_and_swapped_in_while_the_view_is_held() {
        check(
            Input::CommitDone,
            vec![member("disk", Role::Secondary, Stage::Failover)],
            &[],
            &expect![[r"
                disk: FlushSecondary
                hold
                disk: RecordDone
                disk: SwapInSecondary
                disk: DetachBuffers
                disk: RestoreReadOnly
                disk: enter Done
                disk: error Clear
                release"]],
        );
    }

    /// Every single failure of every all-or-nothing command: either both disks have got to the
    /// next stage, or both are where they were and everything done before the switch is undone.
    //= docs/spec/replication.md#several-disks
    //= type=test
    //# A start, checkpoint or stop that fails on one disk before any disk has switched MUST be
    //# undone on all of them.
    #[test]
    fn whatever_fails_both_disks_end_in_the_same_stage() {
        let commands = [
            (Input::Start(Role::Secondary), Stage::NotStarted),
            (Input::Checkpoint, Stage::Running),
            (Input::Stop, Stage::Running),
        ];
        for (input, stage) in commands {
            let row = step(Role::Secondary, stage, input).unwrap();
            for task in row.tasks {
                for failing in ["old", "new"] {
                    let text = transcript(input, secondaries(stage), &[(failing, task.action)]);
                    let entered = text.matches("enter").count();
                    let undone = matches!(task.on_failure, OnFailure::Undo(_));
                    let expected = if undone || input == Input::Checkpoint {
                        0
                    } else {
                        2
                    };
                    assert_eq!(entered, expected, "{text}");
                    assert_eq!(
                        text.matches("hold").count(),
                        text.matches("release").count()
                    );
                    let balance = open_actions(&text);
                    assert!(!undone || balance.is_empty(), "{text}\nleft: {balance:?}");
                }
            }
        }
    }

    /// Actions of a transcript that were done, can be undone, and were not.
    fn open_actions(text: &str) -> BTreeMap<(String, String), i32> {
        let mut open = BTreeMap::new();
        let undone_by: BTreeMap<String, String> = crate::START
            .iter()
            .filter_map(|task| {
                let undo = task.action.undone_by()?;
                Some((format!("{undo:?}"), format!("{:?}", task.action)))
            })
            .collect();
        let actions = text.lines().filter(|line| !line.starts_with("error"));
        for (disk, action) in actions.filter_map(|line| line.split_once(": ")) {
            let action = action.trim_end_matches(" FAILS").to_string();
            if let Some(done) = undone_by.get(&action) {
                open.remove(&(disk.to_string(), done.clone()));
            } else if undone_by.values().any(|done| *done == action) {
                open.insert((disk.to_string(), action), 1);
            }
        }
        open
    }
}
