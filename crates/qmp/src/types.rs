//! The types that cross the wire: arguments, returns, event data.
//!
//! Names and members are QEMU's. What afterimage does not offer is not declared, so it is refused by
//! name and absent from `query-qmp-schema`. Ours carry the prefix `x-ai-`.

mod blkdebug;
mod block;
mod blockdev;
mod export;
mod flags;
mod job;
mod monitor;
mod replication;
mod schema;
mod socket;

pub use blkdebug::{
    BlkdebugDelayRule, BlkdebugErrorRule, BlkdebugEvent, BlkdebugIoType, BlkdebugLoseFlushRule,
    BlkdebugOptions, BlkdebugStateRule, BlkdebugTornRule,
};
pub use block::{
    BlockDeviceInfo, BlockInfo, BlockIoStatus, BlockThrottleInfo, BlockdevCacheInfo,
    BlockdevChange, ChildChange, ImageInfo, QueryNamedBlockNodes,
};
pub use blockdev::{
    AiOverlayOptions, AioBackend, BlockdevCache, BlockdevCommon, BlockdevDel, BlockdevDriver,
    BlockdevOptions, BlockdevRef, CopyBeforeWriteOptions, DetectZeroes, Discard, FileOptions,
    Locking, NbdOptions, NullOptions, OnCbwError, QuorumOptions, QuorumReadPattern, RawOptions,
};
pub use export::{
    BlockExportCommon, BlockExportDel, BlockExportInfo, BlockExportKind, BlockExportOptions,
    BlockExportRemoveMode, BlockExportType, NbdExportOptions, NbdServerAdd, NbdServerOptions,
    NbdServerRemove, NbdServerStart,
};
pub use flags::{
    ChardevBackend, ChardevOptions, ChardevSocket, IothreadOptions, MonitorMode, MonitorOptions,
    ObjectKind, ObjectOptions,
};
pub use job::{
    BlockJobCancel, BlockJobInfo, BlockJobLifecycle, JobId, JobInfo, JobStatus, JobType,
};
pub use monitor::{
    Capability, CommandInfo, HumanMonitorCommand, Nothing, QmpCapabilities, Timestamp, VersionInfo,
    VersionTriple,
};
pub use replication::{
    JobProgress, JobProgressOrNull, LatchedError, LatchedErrorOrNull, ReplicationInfo,
    ReplicationMode, ReplicationOptions, ReplicationRequest, ReplicationRole, ReplicationStage,
    ReplicationStatus, XenSetReplication,
};
pub use schema::{
    SchemaAlternate, SchemaAlternateMember, SchemaArray, SchemaBuiltin, SchemaCommand, SchemaEnum,
    SchemaEnumMember, SchemaEvent, SchemaInfo, SchemaKind, SchemaMember, SchemaObject,
    SchemaVariant,
};
pub use socket::{
    InetSocketAddress, InetSocketAddressData, SocketAddress, SocketAddressLegacy,
    UnixSocketAddress, UnixSocketAddressData,
};
