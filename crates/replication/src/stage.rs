//! The stage of one replication filter: which inputs it accepts and what it then asks for.
//!
//! ```text
//! secondary
//!                Start                      Stop
//!  NotStarted ──────────▶ Running ─────────────────────────────────▶ Done
//!      │                  │  │ ▲ Checkpoint                       ▲ ▲
//!      │       WriterLost │  └─┘                                  │ │
//!      │                  ▼                 Stop                  │ │
//!      │   OutOfSync, Unprotected ────────────────────────────────┘ │
//!      │                  │  ▲ FenceFailed                          │
//!      │ Resume  Failover ▼  │ (from Running too)                   │
//!      └───────────────▶ Failover ──────────────────────────────────┘
//!                         │   ▲                  CommitDone
//!            CommitFailed ▼   │ Failover
//!                      FailoverFailed
//!
//! primary
//!                Start              Stop, Failover
//!  NotStarted ──────────▶ Running ─────────────────▶ Done
//!                            │                        ▲
//!                ForwardLost └──────▶ OutOfSync ──────┘
//! ```
//!
//! Stage contract: the actions of a [`Transition`] are carried out in order while the filter stays
//! in its old stage; when all of them have succeeded it enters `next`. So a stage is never
//! reported before what it promises is true. Only what needs the new stage (the commit) is started
//! after it. What a failed action leads to stands with the action.
//!
//! Source: `docs/spec/replication.md`, section "Stages".

use crate::action::{self, Task};
use crate::refused::{Cause, Refused};
use std::fmt;

/// The side of the pair a filter serves; the option is spelled `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Forwards the guest's writes to the peer.
    Primary,
    /// Keeps both sides' writes apart so that the last checkpoint stays recoverable.
    Secondary,
}

/// How far replication has come. A filter begins in [`Stage::NotStarted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No replication yet: requests fail.
    NotStarted,
    /// Writes are replicated; checkpoints are accepted.
    Running,
    /// Running, but a write is missing or may be: the primary sends nothing any more, the
    /// secondary takes no checkpoint.
    OutOfSync,
    /// Running, but copy-before-write is gone: the secondary refuses the peer's writes as well.
    Unprotected,
    /// The secondary serves its guest and commits its buffers into the secondary disk.
    Failover,
    /// As [`Stage::Failover`], but the commit failed; failover may be asked for again.
    FailoverFailed,
    /// Replication has ended and cannot be started again on this filter.
    Done,
}

/// Something that happened to a filter: a command from above or a report from below.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// Begin replicating, as the given side.
    Start(Role),
    /// Both sides agree: forget what was kept since the last checkpoint.
    Checkpoint,
    /// End replication; the secondary disk keeps everything the primary sent.
    Stop,
    /// The peer is lost: carry on alone from what the guest sees.
    Failover,
    /// A start failed and has been undone.
    StartFailed,
    /// A checkpoint failed; what could be undone has been.
    CheckpointFailed,
    /// A stop failed before anything was taken apart.
    StopFailed,
    /// A failover could not get rid of the peer's writers, be recorded or take copy-before-write out.
    FenceFailed,
    /// The commit has copied everything.
    CommitDone,
    /// Failover was not recorded, the commit could not start, or it failed.
    CommitFailed,
    /// A writer of the secondary disk went away uncleanly or with requests in flight.
    WriterLost,
    /// Copy-before-write has ended without being asked to.
    ProtectionLost,
    /// The primary could not send a write, a zero, a discard or a flush, or not in time.
    ForwardLost,
    /// The filter was opened over overlays that are recorded as in failover.
    Resume,
    /// The filter is about to be closed.
    Close,
}

/// What happens to the latched error when a transition is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorChange {
    /// Nothing.
    Keep,
    /// It is cleared.
    Clear,
    /// The error that led here is latched, unless one is latched already.
    Latch,
}

/// The result of accepting an [`Input`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// What to do, in order.
    pub tasks: &'static [Task],
    /// The stage to enter when all of it has succeeded.
    pub next: Stage,
    /// What then happens to the latched error.
    pub error: ErrorChange,
    /// What to do once the stage is entered.
    pub then: &'static [Task],
}

/// Decides what `input` does to a filter of the given `role` in the given `stage`.
///
/// # Errors
///
/// [`Refused`] if the table has no row for it; the filter stays as it is.
pub fn step(role: Role, stage: Stage, input: Input) -> Result<Transition, Refused> {
    let row = match role {
        Role::Primary => primary(stage, input),
        Role::Secondary => secondary(stage, input),
    };
    row.map_err(|cause| Refused {
        role,
        stage,
        input,
        cause,
    })
}

//= docs/spec/replication.md#checkpoint
//# A checkpoint of a primary MUST succeed and do nothing, in every stage.
//= docs/spec/replication.md#start
//# A start of a primary MUST need nothing but the right mode and stage.
//= docs/spec/replication.md#stop
//# A stop of a primary, with or without failover, MUST end in DONE, clear the latched error and
//# detach nothing.
//= docs/spec/replication.md#losses
//# After the first request that could not be forwarded a primary MUST send nothing more, until it
//# is replaced by a new filter node.
fn primary(stage: Stage, input: Input) -> Result<Transition, Cause> {
    use ErrorChange::{Clear, Keep, Latch};
    use Input as I;
    use Stage as S;

    let row = match (stage, input) {
        // After promotion or stop a late command is harmless, whatever mode it names.
        (S::Done, I::Start(_) | I::Stop | I::Failover) => to(stage, Keep),
        (S::NotStarted, I::Start(Role::Primary)) => to(S::Running, Clear),
        (S::NotStarted, I::Start(asked)) => return wrong_mode(Role::Primary, asked),
        (_, I::Start(_)) => return Err(Cause::AlreadyStarted),

        // A primary keeps nothing back: its checkpoint succeeds in every stage.
        (_, I::Checkpoint) => to(stage, Keep),

        (S::Running | S::OutOfSync, I::Stop | I::Failover) => to(S::Done, Clear),
        (_, I::Stop | I::Failover) => return Err(Cause::NotRunning),

        (S::Running, I::ForwardLost) => to(S::OutOfSync, Latch),
        // Answers of requests that were on their way when the first one was lost.
        (_, I::ForwardLost) => to(stage, Keep),

        (S::Running | S::OutOfSync, I::Close) => to(S::Done, Clear),
        (_, I::Close) => to(stage, Keep),

        // Reports of what only a secondary has; a primary's commands have no action to fail.
        (_, I::StartFailed | I::CheckpointFailed | I::StopFailed | I::FenceFailed) => {
            return Err(Cause::Unexpected);
        }
        (_, I::CommitDone | I::CommitFailed | I::WriterLost | I::ProtectionLost | I::Resume) => {
            return Err(Cause::Unexpected);
        }
    };
    Ok(row)
}

fn secondary(stage: Stage, input: Input) -> Result<Transition, Cause> {
    use Input as I;

    match input {
        I::Start(_) | I::Checkpoint | I::Stop | I::Failover => command(stage, input),
        I::Resume | I::Close => opened_or_closed(stage, input),
        I::StartFailed
        | I::CheckpointFailed
        | I::StopFailed
        | I::FenceFailed
        | I::CommitDone
        | I::CommitFailed
        | I::WriterLost
        | I::ProtectionLost
        | I::ForwardLost => report(stage, input),
    }
}

/// A secondary is told to do something.
//= docs/spec/replication.md#checkpoint
//# A checkpoint of a filter that is in failover or done MUST succeed and do nothing.
//= docs/spec/replication.md#stop
//# A stop of a filter that is in failover or done MUST succeed and do nothing.
//= docs/spec/replication.md#failover
//# A failover of a filter that is in failover or done MUST succeed and do nothing.
//= docs/spec/replication.md#failover
//# A promoted secondary MUST accept start, checkpoint and stop in any mode as no-ops that change no
//# data.
//= docs/spec/replication.md#start
//# A start that succeeds MUST clear the latched error.
//= docs/spec/replication.md#start
//# A start in the other mode MUST be refused with an error that names both modes.
//= docs/spec/replication.md#start
//# A start of a filter that runs, or whose failover failed, MUST be refused.
//= docs/spec/replication.md#checkpoint
//# A checkpoint MUST NOT clear the latched error.
//= docs/spec/replication.md#losses
//# A secondary that has lost a writer MUST refuse checkpoints, allow failover, and stay so until
//# stop or failover.
//= docs/spec/replication.md#checkpoint
//# A checkpoint of a secondary that was not started, has lost copy-before-write, or whose failover
//# failed MUST be refused.
//= docs/spec/replication.md#failover
//# A failover of a filter that was never started MUST be refused, with the error returned.
//= docs/spec/replication.md#failover
//# A failover that begins MUST clear the latched error: a healthy failover is never reported as
//# one.
//= docs/spec/replication.md#errors
//# The latched error MUST be cleared by a start, a stop, a failover and a commit that ends well
//= docs/spec/replication.md#failover
//# A failover MUST enter FAILOVER, start the commit and return; the commit goes on in the
//# background.
//= docs/spec/replication.md#commit
//# A failover MUST be accepted again in FAILOVER_FAILED and begin the commit anew.
//= docs/spec/replication.md#stop
//# A stop of a filter that does not run MUST be refused.
//= docs/spec/replication.md#commit
//# Start, stop and checkpoint MUST be refused in FAILOVER_FAILED.
fn command(stage: Stage, input: Input) -> Result<Transition, Cause> {
    use ErrorChange::{Clear, Keep};
    use Input as I;
    use Stage as S;

    let row = match (stage, input) {
        //= docs/spec/replication.md#failover
        //# A promoted secondary MUST be able to serve as a primary in the same process: a start in
        //# mode `primary` starts only the new filter.
        // After promotion a late command is harmless: the manager may not know yet.
        (S::Failover | S::Done, _) => to(stage, Keep),

        //= docs/spec/replication.md#start
        //# A start MUST check in this order and return the first error: already ended (success,
        //# nothing done), already running, wrong mode, then the chain.
        (S::NotStarted, I::Start(Role::Secondary)) => run(action::START, S::Running, Clear),
        (S::NotStarted, I::Start(asked)) => return wrong_mode(Role::Secondary, asked),
        (_, I::Start(_)) => return Err(Cause::AlreadyStarted),

        (S::Running, I::Checkpoint) => run(action::CHECKPOINT, S::Running, Keep),
        (S::OutOfSync, I::Checkpoint) => return Err(Cause::OutOfSync),
        (_, I::Checkpoint) => return Err(Cause::NoCopyBeforeWrite),

        (S::Running | S::OutOfSync | S::Unprotected, I::Stop) => run(action::STOP, S::Done, Clear),
        (S::NotStarted, I::Failover) => return Err(Cause::NotRunning),
        // The loss of the peer is what a failover answers: from here on it is no error any more.
        // Copying is idempotent, so a commit that failed is simply begun again.
        (_, I::Failover) => commit(action::FAILOVER, Clear),
        (_, _) => return Err(Cause::NotRunning),
    };
    Ok(row)
}

/// A secondary's node comes up over old overlays, or goes away.
//= docs/spec/replication.md#close-and-restart
//# Closing a running filter MUST stop it as a stop without failover does.
fn opened_or_closed(stage: Stage, input: Input) -> Result<Transition, Cause> {
    use ErrorChange::{Clear, Keep};
    use Stage as S;

    let row = match (stage, input) {
        (S::NotStarted, Input::Resume) => commit(action::RESUME, Keep),
        (_, Input::Resume) => return Err(Cause::Unexpected),
        (S::Running, _) => run(action::STOP, S::Done, Clear),
        // The overlays hold the only copy of the last checkpoint: keep them.
        (S::OutOfSync | S::Unprotected, _) => run(action::CLOSE_KEEPING, stage, Keep),
        (S::Failover, _) => run(action::CLOSE_IN_FAILOVER, stage, Keep),
        (S::FailoverFailed, _) => run(action::CLOSE_KEEPING, stage, Keep),
        (S::NotStarted | S::Done, _) => to(stage, Keep),
    };
    Ok(row)
}

/// A secondary is told what has happened.
//= docs/spec/replication.md#checkpoint
//# A checkpoint that fails MUST leave the stage as it was.
//= docs/spec/replication.md#failover
//# A failover that cannot get rid of a writer in time, be recorded or take copy-before-write out MUST
//# return an error, leave the guest its view, and refuse checkpoints from then on.
//= docs/spec/replication.md#commit
//# A commit that fails MUST end in FAILOVER_FAILED with the error latched, the chain in place and
//# what the guest sees unchanged.
//= docs/spec/replication.md#losses
//# A writer of the secondary disk that goes away without a clean disconnect, or with requests in
//# flight, MUST be latched in the secondary's status.
fn report(stage: Stage, input: Input) -> Result<Transition, Cause> {
    use ErrorChange::{Clear, Keep, Latch};
    use Input as I;
    use Stage as S;

    let row = match (stage, input) {
        (S::NotStarted, I::StartFailed) => to(stage, Keep),
        (S::Running, I::CheckpointFailed) => to(stage, Latch),
        (S::Running | S::OutOfSync | S::Unprotected, I::StopFailed) => to(stage, Latch),

        // Some writers are gone for good and some are not: no checkpoint can be true any more.
        (S::Running | S::OutOfSync, I::FenceFailed) => to(S::OutOfSync, Latch),
        (S::Unprotected | S::FailoverFailed, I::FenceFailed) => to(stage, Latch),

        (S::Failover, I::CommitDone) => run(action::FINISH, S::Done, Clear),
        (S::Done, I::CommitDone | I::CommitFailed) => return Err(Cause::Unexpected),
        (_, I::CommitFailed) => run(action::RECORD_AGAIN, S::FailoverFailed, Latch),

        (S::Running, I::WriterLost) => to(S::OutOfSync, Latch),
        // Before a start nothing is promised; after it is broken, nothing breaks any more.
        (_, I::WriterLost) => to(stage, Keep),
        (S::Running | S::OutOfSync, I::ProtectionLost) => to(S::Unprotected, Latch),
        (_, I::ProtectionLost) => to(stage, Keep),
        (_, _) => return Err(Cause::Unexpected),
    };
    Ok(row)
}

const fn run(tasks: &'static [Task], next: Stage, error: ErrorChange) -> Transition {
    Transition {
        tasks,
        next,
        error,
        then: &[],
    }
}

/// A row that ends in failover and then commits.
const fn commit(tasks: &'static [Task], error: ErrorChange) -> Transition {
    Transition {
        then: action::COMMIT,
        ..run(tasks, Stage::Failover, error)
    }
}

const fn to(next: Stage, error: ErrorChange) -> Transition {
    run(&[], next, error)
}

fn wrong_mode(own: Role, asked: Role) -> Result<Transition, Cause> {
    Err(Cause::WrongMode { own, asked })
}

impl Stage {
    /// The stage's name in `x-ai-query-replication`.
    ///
    /// A pair that is out of sync or unprotected still runs; its error says what is wrong.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Stage::NotStarted => "none",
            Stage::Running | Stage::OutOfSync | Stage::Unprotected => "running",
            Stage::Failover => "failover",
            Stage::FailoverFailed => "failover-failed",
            Stage::Done => "done",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Secondary => "secondary",
        })
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::collections::BTreeSet;
    use std::fmt::Write;

    /// Every row is listed; a reader can check the table against the specification without
    /// reading `step`, and no edit can change it unnoticed.
    //= docs/spec/replication.md#stop
    //= type=test
    //# A stop of a primary, with or without failover, MUST end in DONE, clear the latched error and
    //# detach nothing.
    #[test]
    fn the_whole_table_of_a_primary() {
        let table = rows(Role::Primary, &COMMANDS) + &rows(Role::Primary, &REPORTS);
        expect![[r"
            NotStarted     + Start(Primary)   -> Running Clear
            NotStarted     + Start(Secondary) refused: WrongMode { own: Primary, asked: Secondary }
            NotStarted     + Checkpoint       -> NotStarted Keep
            NotStarted     + Stop             refused: NotRunning
            NotStarted     + Failover         refused: NotRunning
            Running        + Start(Primary)   refused: AlreadyStarted
            Running        + Start(Secondary) refused: AlreadyStarted
            Running        + Checkpoint       -> Running Keep
            Running        + Stop             -> Done Clear
            Running        + Failover         -> Done Clear
            OutOfSync      + Start(Primary)   refused: AlreadyStarted
            OutOfSync      + Start(Secondary) refused: AlreadyStarted
            OutOfSync      + Checkpoint       -> OutOfSync Keep
            OutOfSync      + Stop             -> Done Clear
            OutOfSync      + Failover         -> Done Clear
            Done           + Start(Primary)   -> Done Keep
            Done           + Start(Secondary) -> Done Keep
            Done           + Checkpoint       -> Done Keep
            Done           + Stop             -> Done Keep
            Done           + Failover         -> Done Keep
            NotStarted     + ForwardLost      -> NotStarted Keep
            NotStarted     + Close            -> NotStarted Keep
            Running        + ForwardLost      -> OutOfSync Latch
            Running        + Close            -> Done Clear
            OutOfSync      + ForwardLost      -> OutOfSync Keep
            OutOfSync      + Close            -> Done Clear
            Done           + ForwardLost      -> Done Keep
            Done           + Close            -> Done Keep
        "]]
        .assert_eq(&table);
    }

    //= docs/spec/replication.md#start
    //= type=test
    //# A start that succeeds MUST clear the latched error.
    //= docs/spec/replication.md#checkpoint
    //= type=test
    //# A checkpoint MUST NOT clear the latched error.
    //= docs/spec/replication.md#failover
    //= type=test
    //# A failover that begins MUST clear the latched error: a healthy failover is never reported as
    //# one.
    //= docs/spec/replication.md#errors
    //= type=test
    //# The latched error MUST be cleared by a start, a stop, a failover and a commit that ends well
    //= docs/spec/replication.md#failover
    //= type=test
    //# A failover MUST enter FAILOVER, start the commit and return; the commit goes on in the
    //# background.
    #[test]
    fn what_a_secondary_is_told_to_do() {
        let table = rows(Role::Secondary, &COMMANDS);
        expect![[r"
            NotStarted     + Start(Primary)   refused: WrongMode { own: Secondary, asked: Primary }
            NotStarted     + Start(Secondary) -> Running Clear START
            NotStarted     + Checkpoint       refused: NoCopyBeforeWrite
            NotStarted     + Stop             refused: NotRunning
            NotStarted     + Failover         refused: NotRunning
            Running        + Start(Primary)   refused: AlreadyStarted
            Running        + Start(Secondary) refused: AlreadyStarted
            Running        + Checkpoint       -> Running Keep CHECKPOINT
            Running        + Stop             -> Done Clear STOP
            Running        + Failover         -> Failover Clear FAILOVER then COMMIT
            OutOfSync      + Start(Primary)   refused: AlreadyStarted
            OutOfSync      + Start(Secondary) refused: AlreadyStarted
            OutOfSync      + Checkpoint       refused: OutOfSync
            OutOfSync      + Stop             -> Done Clear STOP
            OutOfSync      + Failover         -> Failover Clear FAILOVER then COMMIT
            Unprotected    + Start(Primary)   refused: AlreadyStarted
            Unprotected    + Start(Secondary) refused: AlreadyStarted
            Unprotected    + Checkpoint       refused: NoCopyBeforeWrite
            Unprotected    + Stop             -> Done Clear STOP
            Unprotected    + Failover         -> Failover Clear FAILOVER then COMMIT
            Failover       + Start(Primary)   -> Failover Keep
            Failover       + Start(Secondary) -> Failover Keep
            Failover       + Checkpoint       -> Failover Keep
            Failover       + Stop             -> Failover Keep
            Failover       + Failover         -> Failover Keep
            FailoverFailed + Start(Primary)   refused: AlreadyStarted
            FailoverFailed + Start(Secondary) refused: AlreadyStarted
            FailoverFailed + Checkpoint       refused: NoCopyBeforeWrite
            FailoverFailed + Stop             refused: NotRunning
            FailoverFailed + Failover         -> Failover Clear FAILOVER then COMMIT
            Done           + Start(Primary)   -> Done Keep
            Done           + Start(Secondary) -> Done Keep
            Done           + Checkpoint       -> Done Keep
            Done           + Stop             -> Done Keep
            Done           + Failover         -> Done Keep
        "]]
        .assert_eq(&table);
    }

    //= docs/spec/replication.md#close-and-restart
    //= type=test
    //# Closing a running filter MUST stop it as a stop without failover does.
    //= docs/spec/replication.md#checkpoint
    //= type=test
    //# A checkpoint that fails MUST leave the stage as it was.
    //= docs/spec/replication.md#failover
    //= type=test
    //# A failover that cannot get rid of a writer in time, be recorded or take copy-before-write out
    //# MUST return an error, leave the guest its view, and refuse checkpoints from then on.
    //= docs/spec/replication.md#losses
    //= type=test
    //# A writer of the secondary disk that goes away without a clean disconnect, or with requests
    //# in flight, MUST be latched in the secondary's status.
    //= docs/spec/replication.md#errors
    //= type=test
    //# The latched error MUST be cleared by a start, a stop, a failover and a commit that ends well
    #[test]
    fn what_a_secondary_is_told_has_happened() {
        let table = rows(Role::Secondary, &REPORTS);
        expect![[r"
            NotStarted     + StartFailed      -> NotStarted Keep
            NotStarted     + CommitFailed     -> FailoverFailed Latch RECORD_AGAIN
            NotStarted     + WriterLost       -> NotStarted Keep
            NotStarted     + ProtectionLost   -> NotStarted Keep
            NotStarted     + Resume           -> Failover Keep RESUME then COMMIT
            NotStarted     + Close            -> NotStarted Keep
            Running        + CheckpointFailed -> Running Latch
            Running        + StopFailed       -> Running Latch
            Running        + FenceFailed      -> OutOfSync Latch
            Running        + CommitFailed     -> FailoverFailed Latch RECORD_AGAIN
            Running        + WriterLost       -> OutOfSync Latch
            Running        + ProtectionLost   -> Unprotected Latch
            Running        + Close            -> Done Clear STOP
            OutOfSync      + StopFailed       -> OutOfSync Latch
            OutOfSync      + FenceFailed      -> OutOfSync Latch
            OutOfSync      + CommitFailed     -> FailoverFailed Latch RECORD_AGAIN
            OutOfSync      + WriterLost       -> OutOfSync Keep
            OutOfSync      + ProtectionLost   -> Unprotected Latch
            OutOfSync      + Close            -> OutOfSync Keep CLOSE_KEEPING
            Unprotected    + StopFailed       -> Unprotected Latch
            Unprotected    + FenceFailed      -> Unprotected Latch
            Unprotected    + CommitFailed     -> FailoverFailed Latch RECORD_AGAIN
            Unprotected    + WriterLost       -> Unprotected Keep
            Unprotected    + ProtectionLost   -> Unprotected Keep
            Unprotected    + Close            -> Unprotected Keep CLOSE_KEEPING
            Failover       + CommitDone       -> Done Clear FINISH
            Failover       + CommitFailed     -> FailoverFailed Latch RECORD_AGAIN
            Failover       + WriterLost       -> Failover Keep
            Failover       + ProtectionLost   -> Failover Keep
            Failover       + Close            -> Failover Keep CLOSE_IN_FAILOVER
            FailoverFailed + FenceFailed      -> FailoverFailed Latch
            FailoverFailed + CommitFailed     -> FailoverFailed Latch RECORD_AGAIN
            FailoverFailed + WriterLost       -> FailoverFailed Keep
            FailoverFailed + ProtectionLost   -> FailoverFailed Keep
            FailoverFailed + Close            -> FailoverFailed Keep CLOSE_KEEPING
            Done           + WriterLost       -> Done Keep
            Done           + ProtectionLost   -> Done Keep
            Done           + Close            -> Done Keep
        "]]
        .assert_eq(&table);
    }

    fn rows(role: Role, inputs: &[Input]) -> String {
        let mut table = String::new();
        for stage in reachable(role) {
            for &input in inputs {
                let row = match step(role, stage, input) {
                    Ok(Transition {
                        tasks,
                        next,
                        error,
                        then,
                    }) => {
                        let (list, then) = (list_name(tasks), list_name(then));
                        format!("-> {next:?} {error:?} {list} {then}")
                    }
                    Err(Refused {
                        cause: Cause::Unexpected,
                        ..
                    }) => continue,
                    Err(Refused { cause, .. }) => format!("refused: {cause:?}"),
                };
                let (stage, input) = (format!("{stage:?}"), format!("{input:?}"));
                writeln!(table, "{stage:14} + {input:16} {}", row.trim_end()).unwrap();
            }
        }
        table
    }

    /// The stages a filter can ever be in, in the order of the enum.
    fn reachable(role: Role) -> BTreeSet<Stage> {
        let mut found = BTreeSet::from([Stage::NotStarted]);
        loop {
            let next = found
                .iter()
                .flat_map(|&stage| {
                    COMMANDS
                        .map(|c| step(role, stage, c))
                        .into_iter()
                        .chain(REPORTS.map(|r| step(role, stage, r)))
                })
                .filter_map(|row| row.ok().map(|row| row.next))
                .collect::<BTreeSet<_>>();
            if next.is_subset(&found) {
                return found;
            }
            found.extend(next);
        }
    }

    fn list_name(tasks: &[Task]) -> &'static str {
        match tasks {
            [] => "",
            t if t == action::START => "START",
            t if t == action::CHECKPOINT => "CHECKPOINT",
            t if t == action::STOP => "STOP",
            t if t == action::FAILOVER => "FAILOVER",
            t if t == action::COMMIT => "then COMMIT",
            t if t == action::FINISH => "FINISH",
            t if t == action::RECORD_AGAIN => "RECORD_AGAIN",
            t if t == action::RESUME => "RESUME",
            t if t == action::CLOSE_KEEPING => "CLOSE_KEEPING",
            t if t == action::CLOSE_IN_FAILOVER => "CLOSE_IN_FAILOVER",
            _ => "a list without a name",
        }
    }

    const COMMANDS: [Input; 5] = [
        Input::Start(Role::Primary),
        Input::Start(Role::Secondary),
        Input::Checkpoint,
        Input::Stop,
        Input::Failover,
    ];

    const REPORTS: [Input; 11] = [
        Input::StartFailed,
        Input::CheckpointFailed,
        Input::StopFailed,
        Input::FenceFailed,
        Input::CommitDone,
        Input::CommitFailed,
        Input::WriterLost,
        Input::ProtectionLost,
        Input::ForwardLost,
        Input::Resume,
        Input::Close,
    ];
}
