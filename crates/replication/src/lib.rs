//! COLO block replication as pure decisions: roles, stages, groups, commit and write split.
//!
//! ```text
//! command ─▶ group (several disks, all or nothing) ─▶ stage (one disk's table) ─▶ actions
//! request ─▶ io (which way it goes) ─▶ split, commit (how)
//! failure ─▶ latch (what status says) ─▶ answer (what a command is told)
//! ```
//!
//! Nothing here performs I/O, reads a clock or waits. `drivers` and `engine` carry out what is
//! decided here and report back. Source: `docs/spec/replication.md`.

#![forbid(unsafe_code)]

mod stage;

mod action;
mod answer;
pub mod commit;
mod group;
mod io;
mod latch;
mod refused;
mod split;

pub use action::{
    Action, CHECKPOINT, CLOSE_IN_FAILOVER, CLOSE_KEEPING, COMMIT, FAILOVER, FINISH, OnFailure,
    RECORD_AGAIN, RESUME, START, STOP, Task,
};
pub use answer::{
    Answer, CLASS, Command, FailoverWithEnable, Filter, SetReplication, answer, refusal,
};
pub use commit::Commit;
pub use group::{Member, Operation, Step, Trouble};
pub use io::{OnLoss, Path, PeerPath, Request, path, peer_path};
pub use latch::{Failure, Latch, Status};
pub use refused::{Cause, Refused};
pub use split::{NoAnswer, Run, Split, Target};
pub use stage::{ErrorChange, Input, Role, Stage, Transition, step};
