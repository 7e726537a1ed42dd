//! The events: one table that drives sending and `query-qmp-schema`.

use crate::define::{object, words};
use crate::shape::{Describe, ShapeOf};
use crate::types::{JobStatus, JobType, LatchedError, ReplicationMode, ReplicationStage};
use serde::Serialize;

/// A row of the table.
pub(crate) struct EventSpec {
    /// The event's name.
    pub(crate) name: &'static str,
    /// The shape of its data.
    pub(crate) data: ShapeOf,
}

macro_rules! events {
    ($($(#[$meta:meta])* $name:literal => $variant:ident($data:ty);)*) => {
        /// Something that happened.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(tag = "event", content = "data")]
        pub enum Event {
            $($(#[$meta])* #[serde(rename = $name)] $variant($data),)*
        }

        impl Event {
            /// The event's name.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)*
                }
            }
        }

        /// All events.
        pub(crate) const EVENTS: &[EventSpec] = &[
            $(EventSpec { name: $name, data: <$data as Describe>::shape },)*
        ];
    };
}

events! {
    /// A child of a quorum failed or disagreed.
    "QUORUM_REPORT_BAD" => QuorumReportBad(QuorumReportBad);
    /// Too few children of a quorum succeeded or agreed.
    "QUORUM_FAILURE" => QuorumFailure(QuorumFailure);
    /// A client's request failed.
    "BLOCK_IO_ERROR" => BlockIoError(BlockIoError);
    /// A block job is done, or failed.
    "BLOCK_JOB_COMPLETED" => BlockJobCompleted(BlockJobCompleted);
    /// A block job was cancelled.
    "BLOCK_JOB_CANCELLED" => BlockJobCancelled(BlockJobProgress);
    /// A request of a block job failed.
    "BLOCK_JOB_ERROR" => BlockJobError(BlockJobError);
    /// A block job is level with its source.
    "BLOCK_JOB_READY" => BlockJobReady(BlockJobProgress);
    /// A block job waits to be finalized.
    "BLOCK_JOB_PENDING" => BlockJobPending(BlockJobPending);
    /// A job is elsewhere in its life.
    "JOB_STATUS_CHANGE" => JobStatusChange(JobStatusChange);
    /// An export is gone.
    "BLOCK_EXPORT_DELETED" => BlockExportDeleted(BlockExportDeleted);
    /// The daemon ends.
    "SHUTDOWN" => Shutdown(Shutdown);
    /// A replication node is in another stage.
    "X_AI_STAGE_CHANGE" => StageChange(StageChange);
    /// A replication node has latched an error.
    "X_AI_REPLICATION_ERROR" => ReplicationError(ReplicationError);
}

object! {
    /// Data of `QUORUM_REPORT_BAD`.
    pub struct QuorumReportBad {
        /// What was asked of the child.
        "type" => kind: QuorumOpType,
        /// What it answered, if it failed.
        "error" => error: Option<String>,
        /// The child's node.
        "node-name" => node_name: String,
        /// Where, in sectors of 512 bytes.
        "sector-num" => sector_num: u64,
        /// How much, in sectors of 512 bytes.
        "sectors-count" => sectors_count: u64,
    }
}

words! {
    /// What was asked of a child of a quorum.
    pub enum QuorumOpType {
        /// Read.
        "read" => Read,
        /// Write.
        "write" => Write,
        /// Flush.
        "flush" => Flush,
    }
}

object! {
    /// Data of `QUORUM_FAILURE`.
    pub struct QuorumFailure {
        /// The quorum's node.
        "reference" => reference: String,
        /// Where, in sectors of 512 bytes.
        "sector-num" => sector_num: u64,
        /// How much, in sectors of 512 bytes.
        "sectors-count" => sectors_count: u64,
    }
}

object! {
    /// Data of `BLOCK_IO_ERROR`.
    pub struct BlockIoError {
        /// The device in the machine: none.
        "qom-path" => qom_path: String,
        /// The export.
        "device" => device: String,
        /// The node.
        "node-name" => node_name: Option<String>,
        /// What was asked of it.
        "operation" => operation: IoOperationType,
        /// What was done about it.
        "action" => action: BlockErrorAction,
        /// Whether there was no space.
        "nospace" => nospace: Option<bool>,
        /// The error's text.
        "reason" => reason: String,
    }
}

words! {
    /// A direction.
    pub enum IoOperationType {
        /// Read.
        "read" => Read,
        /// Write.
        "write" => Write,
    }
}

words! {
    /// What was done about an error.
    pub enum BlockErrorAction {
        /// Nothing.
        "ignore" => Ignore,
        /// The guest or the job was told.
        "report" => Report,
        /// The guest or the job was stopped.
        "stop" => Stop,
    }
}

object! {
    /// Data of `BLOCK_JOB_COMPLETED`.
    pub struct BlockJobCompleted {
        flat {
            /// How far the job came.
            progress: BlockJobProgress,
        }
        /// Why it failed.
        "error" => error: Option<String>,
    }
}

object! {
    /// Data of `BLOCK_JOB_READY` and `BLOCK_JOB_CANCELLED`.
    pub struct BlockJobProgress {
        /// What the job does.
        "type" => kind: JobType,
        /// Its id.
        "device" => device: String,
        /// Bytes in all.
        "len" => len: u64,
        /// Bytes done.
        "offset" => offset: u64,
        /// Its speed limit in bytes a second; 0: none.
        "speed" => speed: u64,
    }
}

object! {
    /// Data of `BLOCK_JOB_ERROR`.
    pub struct BlockJobError {
        /// The job's id.
        "device" => device: String,
        /// What failed.
        "operation" => operation: IoOperationType,
        /// What was done about it.
        "action" => action: BlockErrorAction,
    }
}

object! {
    /// Data of `BLOCK_JOB_PENDING`.
    pub struct BlockJobPending {
        /// What the job does.
        "type" => kind: JobType,
        /// Its id.
        "id" => id: String,
    }
}

object! {
    /// Data of `JOB_STATUS_CHANGE`.
    pub struct JobStatusChange {
        /// The job's id.
        "id" => id: String,
        /// Where it is now.
        "status" => status: JobStatus,
    }
}

object! {
    /// Data of `BLOCK_EXPORT_DELETED`.
    pub struct BlockExportDeleted {
        /// The export's id.
        "id" => id: String,
    }
}

object! {
    /// Data of `SHUTDOWN`.
    pub struct Shutdown {
        /// Whether the guest asked for it: never.
        "guest" => guest: bool,
        /// Who asked for it.
        "reason" => reason: ShutdownCause,
    }
}

words! {
    /// Who asked the daemon to end.
    pub enum ShutdownCause {
        /// The command `quit`.
        "host-qmp-quit" => HostQmpQuit,
        /// A signal.
        "host-signal" => HostSignal,
        /// An error that the daemon cannot go on after.
        "host-error" => HostError,
    }
}

object! {
    /// Data of `X_AI_STAGE_CHANGE`.
    pub struct StageChange {
        /// The replication node.
        "node-name" => node_name: String,
        /// Its side of the pair.
        "mode" => mode: ReplicationMode,
        /// The stage before.
        "from" => from: ReplicationStage,
        /// The stage now.
        "to" => to: ReplicationStage,
    }
}

object! {
    /// Data of `X_AI_REPLICATION_ERROR`.
    pub struct ReplicationError {
        /// The replication node.
        "node-name" => node_name: String,
        /// Its side of the pair.
        "mode" => mode: ReplicationMode,
        /// The error.
        "error" => error: LatchedError,
    }
}
