//! The commands, one file a family.

pub(crate) mod export;
mod graph;
mod hmp;
mod query;
mod replication;

use crate::Engine;
use qmp::types::{BlockInfo, Nothing};
use qmp::{Command, Error};
use serde::Serialize;
use serde_json::Value;

/// Carries `command` out.
pub(crate) async fn execute(engine: &Engine, command: Command) -> Result<Value, Error> {
    let parts = &*engine.parts;
    match command {
        Command::Quit => {
            parts.pass.take();
            nothing()
        }
        Command::QueryBlock => value(&Vec::<BlockInfo>::new()),
        Command::QueryNamedBlockNodes(arguments) => value(&query::nodes(parts, &arguments)),
        Command::QueryBlockExports => value(&export::list(&parts.exports)),
        Command::QueryXenReplicationStatus => value(&parts.group.status()),
        Command::QueryReplication => value(&parts.group.infos()),
        Command::QueryBlockJobs => value(&parts.jobs.block_infos()),
        Command::QueryJobs => value(&parts.jobs.infos()),
        Command::BlockJobCancel(job) => Err(parts.jobs.refuse_control(&job.device)),
        Command::JobCancel(job) | Command::JobDismiss(job) => {
            Err(parts.jobs.refuse_control(&job.id))
        }
        Command::HumanMonitorCommand(command) => {
            value(&hmp::run(parts, &command.command_line).await)
        }
        change @ (Command::BlockdevAdd(_)
        | Command::BlockdevDel(_)
        | Command::BlockdevChange(_)
        | Command::NbdServerStart(_)
        | Command::NbdServerAdd(_)
        | Command::NbdServerRemove(_)
        | Command::NbdServerStop
        | Command::BlockExportAdd(_)
        | Command::BlockExportDel(_)
        | Command::XenSetReplication(_)
        | Command::XenColoDoCheckpoint) => {
            let _turn = parts.turns.take().await;
            execute_change(engine, change).await
        }
    }
}

/// Commands that change something; the caller has its turn.
pub(crate) async fn execute_change(engine: &Engine, command: Command) -> Result<Value, Error> {
    let parts = &*engine.parts;
    match command {
        Command::BlockdevAdd(options) => graph::add(parts, &options).await?,
        Command::BlockdevDel(arguments) => graph::delete(parts, &arguments).await?,
        Command::BlockdevChange(arguments) => graph::change(parts, &arguments).await?,
        Command::NbdServerStart(start) => {
            export::start_server(&parts.exports, start.into()).await?;
        }
        Command::NbdServerAdd(arguments) => export::server_add(parts, arguments).await?,
        Command::NbdServerRemove(arguments) => {
            export::remove(&parts.exports, &arguments.name, arguments.mode).await?;
        }
        Command::NbdServerStop => parts.exports.stop_server().await?,
        Command::BlockExportAdd(options) => export::add(&parts.exports, options).await?,
        Command::BlockExportDel(arguments) => {
            export::remove(&parts.exports, &arguments.id, arguments.mode).await?;
        }
        Command::XenSetReplication(arguments) => {
            replication::set(&parts.group, &arguments).await?;
        }
        Command::XenColoDoCheckpoint => replication::checkpoint(&parts.group).await?,
        // Queries do not take a turn.
        Command::Quit
        | Command::QueryBlock
        | Command::QueryNamedBlockNodes(_)
        | Command::QueryBlockExports
        | Command::QueryXenReplicationStatus
        | Command::QueryReplication
        | Command::QueryBlockJobs
        | Command::QueryJobs
        | Command::BlockJobCancel(_)
        | Command::JobCancel(_)
        | Command::JobDismiss(_)
        | Command::HumanMonitorCommand(_) => {}
    }
    nothing()
}

fn nothing() -> Result<Value, Error> {
    value(&Nothing {})
}

fn value(answer: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(answer).map_err(|error| Error::generic(error.to_string()))
}
