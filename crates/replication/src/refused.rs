//! Why an input was not accepted, in words that an operator can act on.
//!
//! Texts are ours; each names the same cause as QEMU's.

use crate::stage::{Input, Role, Stage};

/// The input is not accepted; nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Refused {
    /// The side that refused.
    pub role: Role,
    /// The stage it stays in.
    pub stage: Stage,
    /// What it was asked.
    pub input: Input,
    /// Why not.
    pub cause: Cause,
}

/// Why an input was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// Start: replication runs, or its failover failed.
    #[error("replication runs already, or its failover failed")]
    AlreadyStarted,
    /// Start: the other side was asked for.
    #[error("this node needs mode '{own}', but mode '{asked}' was asked for")]
    WrongMode {
        /// The node's own side.
        own: Role,
        /// The side that was asked for.
        asked: Role,
    },
    /// Stop or failover: there is nothing to end.
    #[error("replication is not running")]
    NotRunning,
    /// Checkpoint: copy-before-write is not there, so there is no old view to give up.
    #[error("copy-before-write is not running, so there is nothing to checkpoint")]
    NoCopyBeforeWrite,
    /// Checkpoint: writes of the peer are missing, or may be.
    #[error("the peer's writes may be incomplete: stop replication or fail over")]
    OutOfSync,
    /// The report makes no sense here: a mistake of ours, not of a user.
    #[error("unexpected report to the replication stage")]
    Unexpected,
}
