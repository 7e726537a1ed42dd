//! The commands: one table that drives parsing, `query-commands` and `query-qmp-schema`.

use crate::Error;
use crate::check::{Dialect, decode};
use crate::shape::{Describe, ShapeOf};
use crate::types::{
    BlockDeviceInfo, BlockExportDel, BlockExportInfo, BlockExportOptions, BlockInfo,
    BlockJobCancel, BlockJobInfo, BlockdevChange, BlockdevDel, BlockdevOptions, CommandInfo,
    HumanMonitorCommand, JobId, JobInfo, NbdServerAdd, NbdServerRemove, NbdServerStart, Nothing,
    QmpCapabilities, QueryNamedBlockNodes, ReplicationInfo, ReplicationStatus, SchemaInfo,
    VersionInfo, XenSetReplication,
};
use serde_json::Value;

/// A row of the table.
pub(crate) struct CommandSpec {
    /// The command's name.
    pub(crate) name: &'static str,
    /// The shape of its arguments.
    pub(crate) arguments: ShapeOf,
    /// The shape of its return.
    pub(crate) returns: ShapeOf,
    /// What is special about it.
    pub(crate) features: &'static [&'static str],
    /// Reads its arguments.
    pub(crate) parse: fn(Value) -> Result<Parsed, Error>,
}

/// A command that has been read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Parsed {
    /// One that the session answers.
    Protocol(ProtocolCommand),
    /// One that its user answers.
    Command(Command),
}

macro_rules! commands {
    (
        protocol { $($protocol:tt)* }
        command { $($command:tt)* }
    ) => {
        commands! {
            @enum
            /// The commands of the protocol itself; the session answers them.
            pub(crate) enum ProtocolCommand { $($protocol)* }
        }
        commands! {
            @enum
            /// The commands that act on the daemon. What each returns is in the table.
            pub enum Command { $($command)* }
        }

        /// All commands.
        pub(crate) const COMMANDS: &[&[CommandSpec]] = &[
            commands!(@table Protocol ProtocolCommand $($protocol)*),
            commands!(@table Command Command $($command)*),
        ];
    };
    (@enum $(#[$meta:meta])* $vis:vis enum $enum:ident {$(
        $(#[$variant_meta:meta])* $name:literal => $variant:ident $(($arguments:ty))?
            -> $returns:ty $([$($feature:literal),*])?;
    )*}) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        $vis enum $enum {
            $($(#[$variant_meta])* $variant $(($arguments))?,)*
        }
    };
    (@table $parsed:ident $enum:ident $(
        $(#[$variant_meta:meta])* $name:literal => $variant:ident $(($arguments:ty))?
            -> $returns:ty $([$($feature:literal),*])?;
    )*) => {
        &[$(CommandSpec {
            name: $name,
            arguments: <commands!(@arguments $($arguments)?) as Describe>::shape,
            returns: <$returns as Describe>::shape,
            features: &[$($($feature),*)?],
            parse: commands!(@parse $parsed $enum $variant $($arguments)?),
        },)*]
    };
    (@arguments) => { Nothing };
    (@arguments $arguments:ty) => { $arguments };
    (@parse $parsed:ident $enum:ident $variant:ident) => {
        |value| {
            let Nothing {} = decode(value, Dialect::Json)?;
            Ok(Parsed::$parsed($enum::$variant))
        }
    };
    (@parse $parsed:ident $enum:ident $variant:ident $arguments:ty) => {
        |value| {
            let arguments: $arguments = decode(value, Dialect::Json)?;
            Ok(Parsed::$parsed($enum::$variant(arguments)))
        }
    };
}

commands! {
    protocol {
        /// Ends capabilities negotiation.
        "qmp_capabilities" => QmpCapabilities(QmpCapabilities) -> Nothing;
        /// Tells the version.
        "query-version" => QueryVersion -> VersionInfo;
        /// Lists the commands.
        "query-commands" => QueryCommands -> Vec<CommandInfo>;
        /// Describes all commands, events and types.
        "query-qmp-schema" => QueryQmpSchema -> Vec<SchemaInfo>;
    }
    command {
        /// Ends the daemon in order.
        "quit" => Quit -> Nothing;
        /// Creates a node.
        "blockdev-add" => BlockdevAdd(Box<BlockdevOptions>) -> Nothing;
        /// Removes a node.
        "blockdev-del" => BlockdevDel(BlockdevDel) -> Nothing;
        /// Adds a child to a node or removes one.
        "x-blockdev-change" => BlockdevChange(BlockdevChange) -> Nothing ["unstable"];
        /// Lists the nodes.
        "query-named-block-nodes" => QueryNamedBlockNodes(QueryNamedBlockNodes)
            -> Vec<BlockDeviceInfo>;
        /// Lists guest devices: none.
        "query-block" => QueryBlock -> Vec<BlockInfo>;
        /// Starts the NBD server.
        "nbd-server-start" => NbdServerStart(NbdServerStart) -> Nothing;
        /// Adds an NBD export, the old way.
        "nbd-server-add" => NbdServerAdd(NbdServerAdd) -> Nothing ["deprecated"];
        /// Removes an NBD export, the old way.
        "nbd-server-remove" => NbdServerRemove(NbdServerRemove) -> Nothing ["deprecated"];
        /// Stops the NBD server and removes its exports.
        "nbd-server-stop" => NbdServerStop -> Nothing;
        /// Adds an export.
        "block-export-add" => BlockExportAdd(BlockExportOptions) -> Nothing;
        /// Removes an export.
        "block-export-del" => BlockExportDel(BlockExportDel) -> Nothing;
        /// Lists the exports.
        "query-block-exports" => QueryBlockExports -> Vec<BlockExportInfo>;
        /// Starts or stops all replication nodes.
        "xen-set-replication" => XenSetReplication(XenSetReplication) -> Nothing;
        /// Makes a checkpoint of all replication nodes.
        "xen-colo-do-checkpoint" => XenColoDoCheckpoint -> Nothing;
        /// Tells whether any replication node has an error.
        "query-xen-replication-status" => QueryXenReplicationStatus -> ReplicationStatus;
        /// Lists the replication nodes.
        "x-ai-query-replication" => QueryReplication -> Vec<ReplicationInfo> ["unstable"];
        /// Lists the block jobs.
        "query-block-jobs" => QueryBlockJobs -> Vec<BlockJobInfo>;
        /// Cancels a block job.
        "block-job-cancel" => BlockJobCancel(BlockJobCancel) -> Nothing;
        /// Lists the jobs.
        "query-jobs" => QueryJobs -> Vec<JobInfo>;
        /// Cancels a job.
        "job-cancel" => JobCancel(JobId) -> Nothing;
        /// Forgets a concluded job.
        "job-dismiss" => JobDismiss(JobId) -> Nothing;
        /// Runs a line of the human monitor; see [`crate::hmp`].
        "human-monitor-command" => HumanMonitorCommand(HumanMonitorCommand) -> String;
    }
}

/// All commands, in the order of the table.
pub(crate) fn specs() -> impl Iterator<Item = &'static CommandSpec> {
    COMMANDS.iter().copied().flatten()
}

/// Reads command `name` with `arguments`, an object.
pub(crate) fn parse(name: &str, arguments: Value) -> Result<Parsed, Error> {
    let spec = specs().find(|spec| spec.name == name);
    let spec = spec.ok_or_else(|| Error::command_not_found(name))?;
    (spec.parse)(arguments)
}
