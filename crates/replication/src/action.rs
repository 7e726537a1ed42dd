//! What a filter asks of its surroundings, and what each request that fails means.
//!
//! A command is a list of [`Task`]s, carried out in order. Each list has one shape:
//!
//! ```text
//!   what can be undone  │ the switch │ what only tidies up
//!   Undo                │ Undo       │ GoOn
//!   Undo, Undo, …       │ Leave      │ GoOn                     (failover and commit)
//! ```
//!
//! Undo contract: the undoing action is idempotent and takes back whatever part of the action has
//! happened, so that the failed action itself is undone as well.
//!
//! The lists are data: `group` runs them over several disks, tests check their shape, and no
//! driver decides what to do about a failure.

use self::Action::{
    AbandonEmpty, AttachBuffers, AwaitCommit, BlockTop, DetachBuffers, EmptyBuffers, FenceWriters,
    FlushBuffers, FlushSecondary, InsertCopyBeforeWrite, MarkOverlaysIdle, MarkOverlaysRunning,
    PrepareEmpty, RecordDone, RecordFailover, RemoveCopyBeforeWrite, ReopenWritable,
    RestoreReadOnly, StartCommit, SwapInSecondary, UnblockTop, ValidateChain,
};
use crate::stage::Input;

/// Work for the engine on one disk's chain: filter → active → hidden → secondary disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Check the chain, in this order: active has a backing disk, hidden has one, somebody uses
    /// (exports) the secondary disk, the three lengths are equal, active and hidden can be emptied
    /// and neither is marked "contents unknown".
    ValidateChain,
    /// Reopen hidden and the secondary disk read-write; remember which of them were read-only.
    ReopenWritable,
    /// Make those read-only again that [`Action::ReopenWritable`] changed and nobody writes now.
    RestoreReadOnly,
    /// Attach hidden and the secondary disk to the filter as children of their own.
    AttachBuffers,
    /// Detach them again.
    DetachBuffers,
    /// Find the node named by `top-id`, check that it is a root above this filter, and refuse
    /// operations on it.
    BlockTop,
    /// Allow operations on the top node again.
    UnblockTop,
    /// Put copy-before-write on top of the secondary disk and move its other parents onto it.
    InsertCopyBeforeWrite,
    /// Take copy-before-write out; its parents go back to the secondary disk.
    RemoveCopyBeforeWrite,
    /// Record durably in both overlays that their contents count: an end without a later record
    /// leaves them "contents unknown".
    MarkOverlaysRunning,
    /// Record durably in both overlays that they hold nothing of value.
    MarkOverlaysIdle,
    /// Do everything about emptying both overlays that can fail.
    PrepareEmpty,
    /// Forget what [`Action::PrepareEmpty`] did.
    AbandonEmpty,
    /// Empty active; then hidden and, in the same instant, the map of saved clusters.
    EmptyBuffers,
    /// Make the overlays' data and maps durable.
    FlushBuffers,
    /// Close the secondary disk's writable exports, refuse new ones for as long as the filter
    /// exists, and wait (bounded) until no write of theirs is in flight.
    FenceWriters,
    /// Make data and maps of both overlays durable, then record FAILOVER in hidden, then in
    /// active. Active's record is the witness: with it a restart resumes the commit.
    RecordFailover,
    /// Start the job that commits active and hidden into the secondary disk. The filter is in its
    /// new stage already, and no request that began before is in flight: the job would miss it.
    StartCommit,
    /// Wait, bounded, for the commit to end; halt it where it stands if it does not. If it ends,
    /// [`Input::CommitDone`] or [`Input::CommitFailed`] is served first.
    AwaitCommit,
    /// Make everything the commit has written durable.
    FlushSecondary,
    /// Record durably that the overlays are committed: hidden first, active last. Their contents
    /// stay readable until they are detached.
    RecordDone,
    /// Replace active by the secondary disk in all parents of active, at one instant.
    SwapInSecondary,
}

impl Action {
    /// Whether the action needs the view and the peer's writes held and drained: it changes what a
    /// request would meet half-way.
    #[must_use]
    pub fn needs_quiet(self) -> bool {
        match self {
            AttachBuffers
            | DetachBuffers
            | InsertCopyBeforeWrite
            | RemoveCopyBeforeWrite
            | PrepareEmpty
            | AbandonEmpty
            | EmptyBuffers
            | RecordDone
            | SwapInSecondary => true,
            ValidateChain | ReopenWritable | RestoreReadOnly | BlockTop | UnblockTop
            | MarkOverlaysRunning | MarkOverlaysIdle | FlushBuffers | FenceWriters
            | RecordFailover | StartCommit | AwaitCommit | FlushSecondary => false,
        }
    }

    /// The action that takes this one back, if anything needs to be.
    ///
    /// ```text
    /// ValidateChain          changes nothing
    /// EmptyBuffers           is the switch: nothing can take it back
    /// ```
    #[must_use]
    pub fn undone_by(self) -> Option<Action> {
        match self {
            ReopenWritable => Some(RestoreReadOnly),
            AttachBuffers => Some(DetachBuffers),
            BlockTop => Some(UnblockTop),
            InsertCopyBeforeWrite => Some(RemoveCopyBeforeWrite),
            MarkOverlaysRunning => Some(MarkOverlaysIdle),
            PrepareEmpty => Some(AbandonEmpty),
            ValidateChain
            | RestoreReadOnly
            | DetachBuffers
            | UnblockTop
            | RemoveCopyBeforeWrite
            | MarkOverlaysIdle
            | AbandonEmpty
            | EmptyBuffers
            | FlushBuffers
            | FenceWriters
            | RecordFailover
            | StartCommit
            | AwaitCommit
            | FlushSecondary
            | RecordDone
            | SwapInSecondary => None,
        }
    }
}

/// An action and what its failure leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// What to do.
    pub action: Action,
    /// What to do if that fails.
    pub on_failure: OnFailure,
}

/// What the failure of an action leads to. The error is returned in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// Undo everything, on all disks of the group, newest first; then serve this input on the
    /// disk that failed.
    Undo(Input),
    /// This disk leaves the list and serves this input; the others go on.
    Leave(Input),
    /// Go on with the next action: there is nothing better to do.
    GoOn,
}

/// Start of a secondary. Nothing in the overlays is lost before everything else has succeeded.
//= docs/spec/replication.md#start
//# A start of a secondary MUST end with a checkpoint: what the overlays held before is discarded.
//= docs/spec/replication.md#start
//# A secondary MUST NOT be in RUNNING before the checkpoint at the end of its start has succeeded.
//= docs/spec/replication.md#start
//# A start MUST record durably in both overlays that they are in use before it discards what they
//# held.
//= docs/spec/replication.md#start
//# Copy-before-write MUST be in place before the first request is let in after a start.
pub const START: &[Task] = &[
    undo(ValidateChain, Input::StartFailed),
    undo(ReopenWritable, Input::StartFailed),
    undo(AttachBuffers, Input::StartFailed),
    undo(BlockTop, Input::StartFailed),
    undo(InsertCopyBeforeWrite, Input::StartFailed),
    undo(PrepareEmpty, Input::StartFailed),
    undo(MarkOverlaysRunning, Input::StartFailed),
    undo(EmptyBuffers, Input::StartFailed),
];

/// Checkpoint of a secondary: everything that can fail, on all disks, before the first switch.
//= docs/spec/replication.md#several-disks
//# Every action of a checkpoint that can fail MUST have succeeded on all disks before the first
//# disk is switched.
pub const CHECKPOINT: &[Task] = &[
    undo(PrepareEmpty, Input::CheckpointFailed),
    undo(EmptyBuffers, Input::CheckpointFailed),
];

/// Stop without failover: the secondary disk keeps everything the primary sent.
///
/// The buffers are emptied while copy-before-write still protects them, so that a stop that fails
/// leaves a filter that runs.
//= docs/spec/replication.md#stop
//# A stop that cannot empty the overlays MUST leave a filter that runs, with copy-before-write in
//# place.
//= docs/spec/replication.md#stop
//# A stop MUST take copy-before-write out, allow operations on the top node again, detach the extra
//# children and make those disks read-only again that a start made writable.
//= docs/spec/replication.md#stop
//# A stop of a secondary without failover MUST discard both overlays, keep everything the primary
//# sent on the secondary disk, and end in DONE without error.
pub const STOP: &[Task] = &[
    undo(PrepareEmpty, Input::StopFailed),
    undo(EmptyBuffers, Input::StopFailed),
    go_on(RemoveCopyBeforeWrite),
    go_on(MarkOverlaysIdle),
    go_on(UnblockTop),
    go_on(DetachBuffers),
    go_on(RestoreReadOnly),
];

/// Failover: no write of the peer arrives any more, then the decision is durable. Every action may
/// be repeated: a retry runs the same list.
///
/// As long as copy-before-write is there the guest's writes must go to active alone: what went to
/// the secondary disk would have its old data saved in hidden and shown. So a failover that does
/// not get as far as taking it out leaves a filter that runs.
//= docs/spec/replication.md#failover
//# A failover MUST first close the secondary disk's writable exports, wait (bounded) for their
//# requests in flight, and refuse new ones for as long as the filter exists.
//= docs/spec/replication.md#failover
//# A failover MUST be recorded durably in both overlays, hidden first, before it is answered.
pub const FAILOVER: &[Task] = &[
    leave(FenceWriters, Input::FenceFailed),
    leave(RecordFailover, Input::FenceFailed),
    leave(RemoveCopyBeforeWrite, Input::FenceFailed),
    go_on(UnblockTop),
];

/// What follows once the filter is in failover.
//= docs/spec/replication.md#failover
//# A failover whose commit cannot be started MUST end in FAILOVER_FAILED with the error returned.
pub const COMMIT: &[Task] = &[leave(StartCommit, Input::CommitFailed)];

/// The commit has copied everything. Until both records are durable the overlays still count.
//= docs/spec/replication.md#commit
//# When everything is copied the secondary disk MUST be made durable before an overlay records that
//# it is done, hidden before active.
pub const FINISH: &[Task] = &[
    leave(FlushSecondary, Input::CommitFailed),
    leave(RecordDone, Input::CommitFailed),
    leave(SwapInSecondary, Input::CommitFailed),
    go_on(DetachBuffers),
    go_on(RestoreReadOnly),
];

/// A commit that failed may have left "done" in an overlay that goes on collecting writes.
pub const RECORD_AGAIN: &[Task] = &[go_on(RecordFailover)];

/// A filter was opened over overlays that a crash left in FAILOVER. Writers are closed out before
/// anything is held: a request that waits to be admitted does not end.
pub const RESUME: &[Task] = &[
    undo(FenceWriters, Input::StartFailed),
    undo(ReopenWritable, Input::StartFailed),
    undo(AttachBuffers, Input::StartFailed),
];

/// Close while a commit runs: it ends in time, or can be resumed.
pub const CLOSE_IN_FAILOVER: &[Task] = &[go_on(AwaitCommit), go_on(FlushBuffers)];

//= docs/spec/replication.md#close-and-restart
//# Closing a secondary that has lost a writer or its protection MUST keep the overlays' contents
//# and make them durable.
/// Close while the overlays hold the only copy of the last checkpoint.
pub const CLOSE_KEEPING: &[Task] = &[go_on(FlushBuffers)];

const fn undo(action: Action, input: Input) -> Task {
    Task {
        action,
        on_failure: OnFailure::Undo(input),
    }
}

const fn leave(action: Action, input: Input) -> Task {
    Task {
        action,
        on_failure: OnFailure::Leave(input),
    }
}

const fn go_on(action: Action) -> Task {
    Task {
        action,
        on_failure: OnFailure::GoOn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::collections::BTreeMap;
    use std::fmt::Write;

    const LISTS: [(&str, &[Task]); 10] = [
        ("START", START),
        ("CHECKPOINT", CHECKPOINT),
        ("STOP", STOP),
        ("FAILOVER", FAILOVER),
        ("COMMIT", COMMIT),
        ("FINISH", FINISH),
        ("RECORD_AGAIN", RECORD_AGAIN),
        ("RESUME", RESUME),
        ("CLOSE_IN_FAILOVER", CLOSE_IN_FAILOVER),
        ("CLOSE_KEEPING", CLOSE_KEEPING),
    ];

    //= docs/spec/replication.md#start
    //= type=test
    //# A start of a secondary MUST end with a checkpoint: what the overlays held before is
    //# discarded.
    //= docs/spec/replication.md#start
    //= type=test
    //# A secondary MUST NOT be in RUNNING before the checkpoint at the end of its start has
    //# succeeded.
    //= docs/spec/replication.md#start
    //= type=test
    //# A start MUST record durably in both overlays that they are in use before it discards what
    //# they held.
    //= docs/spec/replication.md#stop
    //= type=test
    //# A stop that cannot empty the overlays MUST leave a filter that runs, with copy-before-write
    //# in place.
    //= docs/spec/replication.md#stop
    //= type=test
    //# A stop MUST take copy-before-write out, allow operations on the top node again, detach the
    //# extra children and make those disks read-only again that a start made writable.
    //= docs/spec/replication.md#failover
    //= type=test
    //# A failover MUST first close the secondary disk's writable exports, wait (bounded) for their
    //# requests in flight, and refuse new ones for as long as the filter exists.
    //= docs/spec/replication.md#failover
    //= type=test
    //# A failover MUST be recorded durably in both overlays, hidden first, before it is answered.
    //= docs/spec/replication.md#commit
    //= type=test
    //# When everything is copied the secondary disk MUST be made durable before an overlay records
    //# that it is done, hidden before active.
    #[test]
    fn every_list_with_what_its_failures_lead_to() {
        let mut actual = String::new();
        for (name, tasks) in LISTS {
            writeln!(actual, "{name}").unwrap();
            for task in tasks {
                let undone_by = task.action.undone_by();
                let undone_by = undone_by.map(|a| format!(" (undone by {a:?})"));
                let undone_by = undone_by.unwrap_or_default();
                let quiet = if task.action.needs_quiet() {
                    "quiet, "
                } else {
                    ""
                };
                let (action, failure) = (task.action, task.on_failure);
                writeln!(actual, "  {action:?}: {quiet}{failure:?}{undone_by}").unwrap();
            }
        }
        expect![[r"
            START
              ValidateChain: Undo(StartFailed)
              ReopenWritable: Undo(StartFailed) (undone by RestoreReadOnly)
              AttachBuffers: quiet, Undo(StartFailed) (undone by DetachBuffers)
              BlockTop: Undo(StartFailed) (undone by UnblockTop)
              InsertCopyBeforeWrite: quiet, Undo(StartFailed) (undone by RemoveCopyBeforeWrite)
              PrepareEmpty: quiet, Undo(StartFailed) (undone by AbandonEmpty)
              MarkOverlaysRunning: Undo(StartFailed) (undone by MarkOverlaysIdle)
              EmptyBuffers: quiet, Undo(StartFailed)
            CHECKPOINT
              PrepareEmpty: quiet, Undo(CheckpointFailed) (undone by AbandonEmpty)
              EmptyBuffers: quiet, Undo(CheckpointFailed)
            STOP
              PrepareEmpty: quiet, Undo(StopFailed) (undone by AbandonEmpty)
              EmptyBuffers: quiet, Undo(StopFailed)
              RemoveCopyBeforeWrite: quiet, GoOn
              MarkOverlaysIdle: GoOn
              UnblockTop: GoOn
              DetachBuffers: quiet, GoOn
              RestoreReadOnly: GoOn
            FAILOVER
              FenceWriters: Leave(FenceFailed)
              RecordFailover: Leave(FenceFailed)
              RemoveCopyBeforeWrite: quiet, Leave(FenceFailed)
              UnblockTop: GoOn
            COMMIT
              StartCommit: Leave(CommitFailed)
            FINISH
              FlushSecondary: Leave(CommitFailed)
              RecordDone: quiet, Leave(CommitFailed)
              SwapInSecondary: quiet, Leave(CommitFailed)
              DetachBuffers: quiet, GoOn
              RestoreReadOnly: GoOn
            RECORD_AGAIN
              RecordFailover: GoOn
            RESUME
              FenceWriters: Undo(StartFailed)
              ReopenWritable: Undo(StartFailed) (undone by RestoreReadOnly)
              AttachBuffers: quiet, Undo(StartFailed) (undone by DetachBuffers)
            CLOSE_IN_FAILOVER
              AwaitCommit: GoOn
              FlushBuffers: GoOn
            CLOSE_KEEPING
              FlushBuffers: GoOn
        "]]
        .assert_eq(&actual);
    }

    /// What an action leaves behind, as facts about the chain. An action that fails may have
    /// brought about any beginning of its effects.
    fn effects(action: Action) -> &'static [(&'static str, bool)] {
        match action {
            ReopenWritable => &[("hidden writable", true), ("secondary writable", true)],
            RestoreReadOnly => &[("hidden writable", false), ("secondary writable", false)],
            AttachBuffers => &[("hidden attached", true), ("secondary attached", true)],
            DetachBuffers => &[("hidden attached", false), ("secondary attached", false)],
            BlockTop => &[("top blocked", true)],
            UnblockTop => &[("top blocked", false)],
            InsertCopyBeforeWrite => &[("copying", true)],
            RemoveCopyBeforeWrite => &[("copying", false)],
            MarkOverlaysRunning => &[("hidden counts", true), ("active counts", true)],
            MarkOverlaysIdle => &[("hidden counts", false), ("active counts", false)],
            PrepareEmpty => &[("prepared", true)],
            AbandonEmpty => &[("prepared", false)],
            EmptyBuffers => &[("prepared", false)],
            ValidateChain | FlushBuffers | FenceWriters | RecordFailover | StartCommit
            | AwaitCommit | FlushSecondary | RecordDone | SwapInSecondary => &[],
        }
    }

    fn apply(chain: &mut BTreeMap<&'static str, bool>, action: Action, parts: usize) {
        for (fact, value) in effects(action).iter().take(parts) {
            chain.insert(fact, *value);
        }
    }

    //= docs/spec/replication.md#start
    //= type=test
    //# A start that fails anywhere MUST undo everything it did, newest first, and leave a filter
    //# that can be started again.
    #[test]
    fn a_start_that_fails_anywhere_and_half_way_leaves_the_chain_as_it_was() {
        for failed in 0..START.len() {
            for parts in 0..=2 {
                let mut chain = BTreeMap::new();
                for task in &START[..failed] {
                    apply(&mut chain, task.action, usize::MAX);
                }
                apply(&mut chain, START[failed].action, parts);
                for task in START[..=failed].iter().rev() {
                    if let Some(undo) = task.action.undone_by() {
                        apply(&mut chain, undo, usize::MAX);
                    }
                }
                let left: Vec<_> = chain.iter().filter(|(_, value)| **value).collect();
                assert!(left.is_empty(), "{:?} left {left:?}", START[failed].action);
            }
        }
    }

    #[test]
    fn what_can_be_undone_comes_before_what_cannot() {
        for (name, tasks) in LISTS {
            let last_undo = tasks
                .iter()
                .rposition(|task| matches!(task.on_failure, OnFailure::Undo(_)));
            for task in tasks.iter().take(last_undo.unwrap_or(0)) {
                assert!(
                    matches!(task.on_failure, OnFailure::Undo(_)) && task.action != EmptyBuffers,
                    "{name}: {:?} cannot be undone but something after it asks for it",
                    task.action
                );
            }
        }
    }
}
