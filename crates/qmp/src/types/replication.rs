//! The replication filter, and the commands that drive it.

use super::blockdev::BlockdevRef;
use super::job::JobType;
use super::monitor::Timestamp;
use crate::Error;
use crate::define::{alternate, object, words};

object! {
    //= docs/spec/replication.md#options
    //# The driver MUST accept `mode`, `top-id` and our own `x-ai-forward-timeout`, and refuse every
    //# other option by name.
    //= docs/spec/replication.md#options
    //# A node without `mode` MUST be refused with an error that names the missing option.
    //= docs/spec/replication.md#options
    //# A `mode` other than `primary` or `secondary` MUST be refused with an error that names the
    //# value.
    /// Options of `replication`.
    pub struct ReplicationOptions {
        /// The child: on the primary the link to the secondary, on the secondary the active disk.
        "file" => file: BlockdevRef,
        /// The side of the pair.
        "mode" => mode: ReplicationMode,
        /// On the secondary, the node that its guest uses.
        "top-id" => top_id: Option<String>,
        /// On the primary, how long a write may take to be forwarded, in seconds; default
        /// 5; 0: any time.
        "x-ai-forward-timeout" => forward_timeout: Option<u32>,
    }
}

words! {
    /// The side of a pair.
    pub enum ReplicationMode {
        /// Runs the guest and forwards its writes.
        "primary" => Primary,
        /// Keeps the disk to fail over to.
        "secondary" => Secondary,
    }
}

/// A mode with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplicationRole {
    /// Runs the guest and forwards its writes.
    Primary,
    /// Keeps the disk to fail over to.
    Secondary {
        /// The node that the secondary's guest uses.
        top_id: String,
    },
}

impl ReplicationOptions {
    /// The role that the options describe, once the child has been opened (R2).
    ///
    /// # Errors
    ///
    /// A primary was given `top-id` (R6), or a secondary was not (R7).
    pub fn role(&self) -> Result<ReplicationRole, Error> {
        match (self.mode, &self.top_id) {
            (ReplicationMode::Primary, None) => Ok(ReplicationRole::Primary),
            //= docs/spec/replication.md#options
            //# A node of mode `primary` with a `top-id` MUST be refused.
            (ReplicationMode::Primary, Some(_)) => Err(Error::generic(
                "The primary side does not support option top-id",
            )),
            (ReplicationMode::Secondary, Some(top_id)) => Ok(ReplicationRole::Secondary {
                top_id: top_id.clone(),
            }),
            //= docs/spec/replication.md#options
            //# A node of mode `secondary` without a `top-id` MUST be refused with an error that
            //# names the missing option.
            (ReplicationMode::Secondary, None) => Err(Error::generic("Missing the option top-id")),
        }
    }
}

object! {
    /// Arguments of `xen-set-replication`.
    pub struct XenSetReplication {
        /// Start or stop.
        "enable" => enable: bool,
        /// The side to start.
        "primary" => primary: bool,
        /// Whether stopping is a failover; default false.
        "failover" => failover: Option<bool>,
    }
}

/// What `xen-set-replication` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicationRequest {
    /// Start all nodes of this mode.
    Start(ReplicationMode),
    /// Stop all nodes; the secondary's buffers are dropped.
    Stop,
    /// Stop all nodes; the secondary's buffers become its disk.
    Failover,
}

impl XenSetReplication {
    /// The one request that the three booleans spell.
    ///
    /// # Errors
    ///
    /// `failover` was given with `enable`.
    pub fn request(&self) -> Result<ReplicationRequest, Error> {
        match (self.enable, self.primary, self.failover) {
            (true, _, Some(_)) => Err(Error::generic(
                "Parameter 'failover' is only for stopping replication",
            )),
            (true, true, None) => Ok(ReplicationRequest::Start(ReplicationMode::Primary)),
            (true, false, None) => Ok(ReplicationRequest::Start(ReplicationMode::Secondary)),
            (false, _, Some(true)) => Ok(ReplicationRequest::Failover),
            (false, _, None | Some(false)) => Ok(ReplicationRequest::Stop),
        }
    }
}

object! {
    /// What `query-xen-replication-status` returns.
    pub struct ReplicationStatus {
        /// Whether any node has an error.
        "error" => error: bool,
        /// The error.
        "desc" => desc: Option<String>,
    }
}

words! {
    /// The stage of a replication node.
    pub enum ReplicationStage {
        /// Not started.
        "none" => None,
        /// Replicating.
        "running" => Running,
        /// The survivor carries on; its buffers are being committed.
        "failover" => Failover,
        /// The commit failed.
        "failover-failed" => FailoverFailed,
        /// Finished.
        "done" => Done,
    }
}

object! {
    /// A replication node as `x-ai-query-replication` shows it.
    pub struct ReplicationInfo {
        /// The node.
        "node-name" => node_name: String,
        /// Its side of the pair.
        "mode" => mode: ReplicationMode,
        /// Its stage.
        "stage" => stage: ReplicationStage,
        /// Bytes held by the active disk.
        "active-bytes" => active_bytes: u64,
        /// Bytes held by the hidden disk.
        "hidden-bytes" => hidden_bytes: u64,
        /// The latched error.
        "error" => error: LatchedErrorOrNull,
        /// The job at work inside.
        "job" => job: JobProgressOrNull,
    }
}

object! {
    /// An error that stays until the next start.
    pub struct LatchedError {
        /// The disk that failed.
        "node-name" => node_name: String,
        /// What was asked of it.
        "operation" => operation: String,
        /// Where, in bytes.
        "offset" => offset: u64,
        /// The error's number.
        "errno" => errno: i64,
        /// The error's text.
        "message" => message: String,
        /// When.
        "time" => time: Timestamp,
    }
}

object! {
    /// How far a job inside a node is.
    pub struct JobProgress {
        /// Its type.
        "type" => kind: JobType,
        /// Bytes done.
        "offset" => offset: u64,
        /// Bytes in all.
        "len" => len: u64,
    }
}

alternate! {
    /// An error or `null`.
    pub enum LatchedErrorOrNull {
        /// There is one.
        Error(LatchedError),
        /// There is none.
        Null(()),
    }
}

alternate! {
    /// A job's progress or `null`.
    pub enum JobProgressOrNull {
        /// There is a job.
        Job(JobProgress),
        /// There is none.
        Null(()),
    }
}

impl From<Option<LatchedError>> for LatchedErrorOrNull {
    fn from(error: Option<LatchedError>) -> Self {
        error.map_or(Self::Null(()), Self::Error)
    }
}

impl From<Option<JobProgress>> for JobProgressOrNull {
    fn from(job: Option<JobProgress>) -> Self {
        job.map_or(Self::Null(()), Self::Job)
    }
}
