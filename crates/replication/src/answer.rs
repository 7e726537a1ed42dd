//! What a command is told, for every side, stage and command.
//!
//! The stage table decides; this module adds the words. Errors are of class
//! [`CLASS`]; their texts are ours and name the same cause as QEMU's.
//!
//! Source: `docs/spec/replication.md`, section "Commands".

use crate::latch::{Latch, Status};
use crate::refused::Refused;
use crate::stage::{Input, Role, Stage, Transition, step};

/// The QMP class of every error of these commands.
pub const CLASS: &str = "GenericError";

/// A command of a manager to all replication filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// `xen-set-replication` with `enable`.
    Start(Role),
    /// `xen-colo-do-checkpoint`.
    Checkpoint,
    /// `xen-set-replication` without `enable`.
    Stop,
    /// `xen-set-replication` without `enable`, with `failover`.
    Failover,
    /// `query-xen-replication-status`.
    Query,
}

/// The arguments of `xen-set-replication`, as they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetReplication {
    /// Start or stop.
    pub enable: bool,
    /// Which side; only a start looks at it.
    pub primary: bool,
    /// Carry on alone; only a stop may name it.
    pub failover: Option<bool>,
}

/// `failover` was named together with `enable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("argument 'failover' goes with stopping replication only ('enable': false)")]
pub struct FailoverWithEnable;

impl TryFrom<SetReplication> for Command {
    type Error = FailoverWithEnable;

    fn try_from(arguments: SetReplication) -> Result<Command, FailoverWithEnable> {
        match (arguments.enable, arguments.failover) {
            //= docs/spec/replication.md#commands
            //# `failover` together with `enable` MUST be refused: it is for stopping only.
            (true, Some(_)) => Err(FailoverWithEnable),
            (true, None) if arguments.primary => Ok(Command::Start(Role::Primary)),
            (true, None) => Ok(Command::Start(Role::Secondary)),
            (false, Some(true)) => Ok(Command::Failover),
            (false, Some(false) | None) => Ok(Command::Stop),
        }
    }
}

impl Command {
    /// The input the command is to a filter; a query is none.
    pub fn input(self) -> Option<Input> {
        match self {
            Command::Start(role) => Some(Input::Start(role)),
            Command::Checkpoint => Some(Input::Checkpoint),
            Command::Stop => Some(Input::Stop),
            Command::Failover => Some(Input::Failover),
            Command::Query => None,
        }
    }
}

/// What one filter answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Success, and nothing to do.
    Nothing,
    /// Success once this has been carried out.
    Effect(Transition),
    /// An error of class [`CLASS`], in words.
    Error(String),
}

/// A replication filter, as far as commands are concerned.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// Its `node-name`.
    pub node: &'a str,
    /// Its side.
    pub role: Role,
    /// Its stage.
    pub stage: Stage,
    /// Its latched error.
    pub latch: &'a Latch,
}

/// What `filter` answers to `command`.
pub fn answer(filter: Filter<'_>, command: Command) -> Answer {
    let Some(input) = command.input() else {
        return match filter.latch.status(filter.stage) {
            Status::Fine => Answer::Nothing,
            status @ (Status::NotRunning | Status::Failed(_)) => {
                Answer::Error(on_node(filter.node, status))
            }
        };
    };
    match step(filter.role, filter.stage, input) {
        Ok(Transition {
            tasks: [], next, ..
        }) if next == filter.stage => Answer::Nothing,
        Ok(transition) => Answer::Effect(transition),
        Err(refused) => Answer::Error(refusal(filter.node, refused)),
    }
}

/// A refusal in words, with the node it concerns.
pub fn refusal(node: &str, refused: Refused) -> String {
    on_node(node, refused)
}

//= docs/spec/replication.md#commands
//# Errors of these commands MUST be of class `GenericError` and name the replication node.
fn on_node(node: &str, what: impl std::fmt::Display) -> String {
    format!("replication node '{node}': {what}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latch::Failure;
    use block::{ByteRange, Error, Op};
    use expect_test::expect;
    use std::fmt::Write;
    use std::time::Duration;

    const COMMANDS: [Command; 6] = [
        Command::Start(Role::Primary),
        Command::Start(Role::Secondary),
        Command::Checkpoint,
        Command::Stop,
        Command::Failover,
        Command::Query,
    ];

    fn latched() -> Latch {
        let mut latch = Latch::default();
        let error = Error::from_errno(5, "").at("nbd0", Op::Write, ByteRange::between(512, 1024));
        latch.set(Failure::new(&error, "rep0", Duration::ZERO));
        latch
    }

    fn table(role: Role, stages: &[Stage]) -> String {
        let mut table = String::new();
        for &stage in stages {
            let latch = match stage {
                Stage::OutOfSync | Stage::Unprotected | Stage::FailoverFailed => latched(),
                Stage::NotStarted | Stage::Running | Stage::Failover | Stage::Done => {
                    Latch::default()
                }
            };
            for command in COMMANDS {
                let filter = Filter {
                    node: "rep0",
                    role,
                    stage,
                    latch: &latch,
                };
                let answer = match answer(filter, command) {
                    Answer::Nothing => "ok, nothing to do".to_string(),
                    Answer::Effect(transition) => format!("ok -> {:?}", transition.next),
                    Answer::Error(text) => text.replace("replication node 'rep0'", "error"),
                };
                let (stage, command) = (format!("{stage:?}"), format!("{command:?}"));
                writeln!(table, "{stage:14} {command:16} {answer}").unwrap();
            }
        }
        table
    }

    //= docs/spec/replication.md#checkpoint
    //= type=test
    //# A checkpoint of a primary MUST succeed and do nothing, in every stage.
    //= docs/spec/replication.md#start
    //= type=test
    //# A start of a primary MUST need nothing but the right mode and stage.
    #[test]
    fn every_command_to_a_primary_in_every_stage() {
        let stages = [
            Stage::NotStarted,
            Stage::Running,
            Stage::OutOfSync,
            Stage::Done,
        ];
        expect![[r"
            NotStarted     Start(Primary)   ok -> Running
            NotStarted     Start(Secondary) error: this node needs mode 'primary', but mode 'secondary' was asked for
            NotStarted     Checkpoint       ok, nothing to do
            NotStarted     Stop             error: replication is not running
            NotStarted     Failover         error: replication is not running
            NotStarted     Query            error: replication is not running
            Running        Start(Primary)   error: replication runs already, or its failover failed
            Running        Start(Secondary) error: replication runs already, or its failover failed
            Running        Checkpoint       ok, nothing to do
            Running        Stop             ok -> Done
            Running        Failover         ok -> Done
            Running        Query            ok, nothing to do
            OutOfSync      Start(Primary)   error: replication runs already, or its failover failed
            OutOfSync      Start(Secondary) error: replication runs already, or its failover failed
            OutOfSync      Checkpoint       ok, nothing to do
            OutOfSync      Stop             ok -> Done
            OutOfSync      Failover         ok -> Done
            OutOfSync      Query            error: write of 512 bytes at offset 512 on node 'nbd0': I/O error
            Done           Start(Primary)   ok, nothing to do
            Done           Start(Secondary) ok, nothing to do
            Done           Checkpoint       ok, nothing to do
            Done           Stop             ok, nothing to do
            Done           Failover         ok, nothing to do
            Done           Query            ok, nothing to do
        "]].assert_eq(&table(Role::Primary, &stages));
    }

    //= docs/spec/replication.md#checkpoint
    //= type=test
    //# A checkpoint of a filter that is in failover or done MUST succeed and do nothing.
    //= docs/spec/replication.md#stop
    //= type=test
    //# A stop of a filter that is in failover or done MUST succeed and do nothing.
    //= docs/spec/replication.md#failover
    //= type=test
    //# A failover of a filter that is in failover or done MUST succeed and do nothing.
    //= docs/spec/replication.md#failover
    //= type=test
    //# A promoted secondary MUST accept start, checkpoint and stop in any mode as no-ops that
    //# change no data.
    //= docs/spec/replication.md#start
    //= type=test
    //# A start in the other mode MUST be refused with an error that names both modes.
    //= docs/spec/replication.md#start
    //= type=test
    //# A start of a filter that runs, or whose failover failed, MUST be refused.
    //= docs/spec/replication.md#losses
    //= type=test
    //# A secondary that has lost a writer MUST refuse checkpoints, allow failover, and stay so
    //# until stop or failover.
    //= docs/spec/replication.md#checkpoint
    //= type=test
    //# A checkpoint of a secondary that was not started, has lost copy-before-write, or whose
    //# failover failed MUST be refused.
    //= docs/spec/replication.md#failover
    //= type=test
    //# A failover of a filter that was never started MUST be refused, with the error returned.
    //= docs/spec/replication.md#commit
    //= type=test
    //# A failover MUST be accepted again in FAILOVER_FAILED and begin the commit anew.
    //= docs/spec/replication.md#stop
    //= type=test
    //# A stop of a filter that does not run MUST be refused.
    //= docs/spec/replication.md#commit
    //= type=test
    //# Start, stop and checkpoint MUST be refused in FAILOVER_FAILED.
    //= docs/spec/replication.md#errors
    //= type=test
    //# The status of a filter that is in failover or done without a latched error MUST be no error.
    //= docs/spec/replication.md#start
    //= type=test
    //# A start MUST check in this order and return the first error: already ended (success, nothing
    //# done), already running, wrong mode, then the chain.
    #[test]
    fn every_command_to_a_secondary_in_every_stage() {
        let stages = [
            Stage::NotStarted,
            Stage::Running,
            Stage::OutOfSync,
            Stage::Unprotected,
            Stage::Failover,
            Stage::FailoverFailed,
            Stage::Done,
        ];
        expect![[r"
            NotStarted     Start(Primary)   error: this node needs mode 'secondary', but mode 'primary' was asked for
            NotStarted     Start(Secondary) ok -> Running
            NotStarted     Checkpoint       error: copy-before-write is not running, so there is nothing to checkpoint
            NotStarted     Stop             error: replication is not running
            NotStarted     Failover         error: replication is not running
            NotStarted     Query            error: replication is not running
            Running        Start(Primary)   error: replication runs already, or its failover failed
            Running        Start(Secondary) error: replication runs already, or its failover failed
            Running        Checkpoint       ok -> Running
            Running        Stop             ok -> Done
            Running        Failover         ok -> Failover
            Running        Query            ok, nothing to do
            OutOfSync      Start(Primary)   error: replication runs already, or its failover failed
            OutOfSync      Start(Secondary) error: replication runs already, or its failover failed
            OutOfSync      Checkpoint       error: the peer's writes may be incomplete: stop replication or fail over
            OutOfSync      Stop             ok -> Done
            OutOfSync      Failover         ok -> Failover
            OutOfSync      Query            error: write of 512 bytes at offset 512 on node 'nbd0': I/O error
            Unprotected    Start(Primary)   error: replication runs already, or its failover failed
            Unprotected    Start(Secondary) error: replication runs already, or its failover failed
            Unprotected    Checkpoint       error: copy-before-write is not running, so there is nothing to checkpoint
            Unprotected    Stop             ok -> Done
            Unprotected    Failover         ok -> Failover
            Unprotected    Query            error: write of 512 bytes at offset 512 on node 'nbd0': I/O error
            Failover       Start(Primary)   ok, nothing to do
            Failover       Start(Secondary) ok, nothing to do
            Failover       Checkpoint       ok, nothing to do
            Failover       Stop             ok, nothing to do
            Failover       Failover         ok, nothing to do
            Failover       Query            ok, nothing to do
            FailoverFailed Start(Primary)   error: replication runs already, or its failover failed
            FailoverFailed Start(Secondary) error: replication runs already, or its failover failed
            FailoverFailed Checkpoint       error: copy-before-write is not running, so there is nothing to checkpoint
            FailoverFailed Stop             error: replication is not running
            FailoverFailed Failover         ok -> Failover
            FailoverFailed Query            error: write of 512 bytes at offset 512 on node 'nbd0': I/O error
            Done           Start(Primary)   ok, nothing to do
            Done           Start(Secondary) ok, nothing to do
            Done           Checkpoint       ok, nothing to do
            Done           Stop             ok, nothing to do
            Done           Failover         ok, nothing to do
            Done           Query            ok, nothing to do
        "]].assert_eq(&table(Role::Secondary, &stages));
    }

    //= docs/spec/replication.md#commands
    //= type=test
    //# `failover` together with `enable` MUST be refused: it is for stopping only.
    #[test]
    fn the_three_booleans_become_one_command() {
        let command = |enable, primary, failover| {
            Command::try_from(SetReplication {
                enable,
                primary,
                failover,
            })
        };
        assert_eq!(command(true, true, None), Ok(Command::Start(Role::Primary)));
        assert_eq!(
            command(true, false, None),
            Ok(Command::Start(Role::Secondary))
        );
        assert_eq!(command(false, true, None), Ok(Command::Stop));
        assert_eq!(command(false, false, Some(false)), Ok(Command::Stop));
        assert_eq!(command(false, false, Some(true)), Ok(Command::Failover));
        assert_eq!(command(true, false, Some(false)), Err(FailoverWithEnable));
    }
}
