//! Jobs, as the block layer's commands and as the newer general ones show them.

use super::block::BlockIoStatus;
use crate::define::{object, words};

words! {
    /// What a job does.
    pub enum JobType {
        /// Commits overlays into their base.
        "commit" => Commit,
        /// Fills an overlay from its backing chain.
        "stream" => Stream,
        /// Copies a disk and then follows it.
        "mirror" => Mirror,
        /// Copies a disk as it was at one moment.
        "backup" => Backup,
    }
}

words! {
    /// Where a job is in its life.
    pub enum JobStatus {
        /// Not yet begun.
        "undefined" => Undefined,
        /// Made, not started.
        "created" => Created,
        /// At work.
        "running" => Running,
        /// Paused.
        "paused" => Paused,
        /// Level with its source, waiting to be completed.
        "ready" => Ready,
        /// Ready and paused.
        "standby" => Standby,
        /// Waiting for others of its transaction.
        "waiting" => Waiting,
        /// Waiting to be finalized.
        "pending" => Pending,
        /// Failed or cancelled, cleaning up.
        "aborting" => Aborting,
        /// Done, waiting to be dismissed.
        "concluded" => Concluded,
        /// Gone.
        "null" => Null,
    }
}

object! {
    /// A job as `query-block-jobs` shows it.
    pub struct BlockJobInfo {
        flat {
            /// Its life.
            lifecycle: BlockJobLifecycle,
        }
        /// What it does.
        "type" => kind: JobType,
        /// Its id.
        "device" => device: String,
        /// Bytes in all.
        "len" => len: u64,
        /// Bytes done.
        "offset" => offset: u64,
        /// Whether a request of it is in flight.
        "busy" => busy: bool,
        /// Whether it is paused.
        "paused" => paused: bool,
        /// Its speed limit in bytes a second; 0: none.
        "speed" => speed: u64,
        /// The state of its input and output.
        "io-status" => io_status: BlockIoStatus,
        /// Whether it may be completed.
        "ready" => ready: bool,
        /// Why it failed.
        "error" => error: Option<String>,
    }
}

object! {
    /// The life of a block job.
    pub struct BlockJobLifecycle {
        /// Where it is.
        "status" => status: JobStatus,
        /// Whether it finalizes by itself.
        "auto-finalize" => auto_finalize: bool,
        /// Whether it is dismissed by itself.
        "auto-dismiss" => auto_dismiss: bool,
    }
}

object! {
    /// A job as `query-jobs` shows it.
    pub struct JobInfo {
        /// Its id.
        "id" => id: String,
        /// What it does.
        "type" => kind: JobType,
        /// Where it is.
        "status" => status: JobStatus,
        /// Work done, in a unit of the job's own.
        "current-progress" => current_progress: u64,
        /// Work in all; it may still grow.
        "total-progress" => total_progress: u64,
        /// Why it failed.
        "error" => error: Option<String>,
    }
}

object! {
    /// Arguments of `block-job-cancel`.
    pub struct BlockJobCancel {
        /// The job's id.
        "device" => device: String,
        /// Whether a ready job is aborted instead of completed; default false.
        "force" => force: Option<bool>,
    }
}

object! {
    /// Arguments of `job-cancel` and `job-dismiss`.
    pub struct JobId {
        /// The job's id.
        "id" => id: String,
    }
}
