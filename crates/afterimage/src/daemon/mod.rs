//! `afterimage daemon`: serve disks until told to stop.
//!
//! ```text
//! control thread                                  data thread
//! signals, monitors, control socket               engine: nodes, exports, jobs
//!    │  command, where to send its answer ──────────▶ execute
//!    │ ◀────────────────────────────────── answer, events
//! ```
//!
//! The control thread never waits for a disk, the data thread never for a manager: what goes between
//! them goes through bounded mailboxes.

mod background;
mod data;
mod flags;
mod monitor;
mod pidfile;
mod sockets;

use crate::cli::{DaemonArgs, Exit};
use crate::verbs::control_path;
use data::Handle;
use engine::ports::Ports;
use engine::qmp::event::ShutdownCause;
use engine::qmp::{Command, Error};
use flags::Plan;
use std::path::{Path, PathBuf};

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// A flag makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A flag asks for something that was refused.
    #[error("{0}")]
    Refused(String),
    /// The system said no.
    #[error("{0}")]
    System(String),
}

impl StartError {
    fn exit(&self) -> Exit {
        match self {
            StartError::Usage(_) => Exit::Usage,
            StartError::Refused(_) => Exit::Failed,
            StartError::System(_) => Exit::System,
        }
    }
}

/// Runs the daemon to its end.
#[expect(clippy::print_stderr, reason = "where a start that failed is reported")]
pub(crate) fn run(args: &DaemonArgs, control: Option<&Path>) -> Exit {
    let result = Plan::new(args).and_then(|plan| {
        if args.daemonize && !background::is_background() {
            return background::start();
        }
        let _pidfile = args
            .pidfile
            .as_deref()
            .map(pidfile::Pidfile::create)
            .transpose()?;
        serve(plan, control_socket(args, control))
    });
    match result {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("afterimage: {error}");
            error.exit()
        }
    }
}

/// Where the control socket goes: a daemon that is driven through monitors alone opens none.
fn control_socket(args: &DaemonArgs, control: Option<&Path>) -> Option<PathBuf> {
    let asked_for = control.is_some() || std::env::var_os("AFTERIMAGE_CONTROL").is_some();
    let bare = args.monitor.is_empty() && args.blockdev.is_empty() && args.export.is_empty();
    (asked_for || bare).then(|| control_path(control))
}

/// Starts the data thread, carries out the flags, opens the monitors and waits for the end.
fn serve(plan: Plan, control: Option<PathBuf>) -> Result<(), StartError> {
    let (handle, thread) = data::start()?;
    let served = engine::os::run(async |ports| serve_control(&ports, plan, control, handle).await);
    let served = served.map_err(|error| StartError::System(format!("no event loop: {error}")));
    let joined = thread
        .join()
        .map_err(|error| StartError::System(error.to_string()));
    served.and_then(|served| served).and(joined)
}

async fn serve_control(
    ports: &Ports,
    plan: Plan,
    control: Option<PathBuf>,
    handle: Handle,
) -> Result<(), StartError> {
    let started = set_up(ports, plan, control, &handle).await;
    let cause = if started.is_ok() {
        background::ready();
        handle.until_asked_to_end().await
    } else {
        ShutdownCause::HostError
    };
    handle.shut_down(ports, cause).await;
    started.map(drop)
}

fn refused(flag: &str, error: &Error) -> StartError {
    StartError::Refused(format!("{flag}: {error}"))
}

/// Whether a replication node completes a failover that an earlier process began.
async fn failover_is_under_way(handle: &Handle) -> bool {
    let nodes = handle
        .execute(Command::QueryReplication)
        .await
        .unwrap_or_default();
    let mut nodes = nodes.as_array().into_iter().flatten();
    nodes.any(|node| node.get("stage").is_some_and(|stage| stage == "failover"))
}

/// Carries the flags out, one after the other; the sockets come last, so that whoever reaches one
/// finds everything there.
async fn set_up(
    ports: &Ports,
    plan: Plan,
    control: Option<PathBuf>,
    handle: &Handle,
) -> Result<Vec<sockets::Socket>, StartError> {
    for (flag, command) in plan.blockdevs {
        handle
            .execute(command)
            .await
            .map_err(|error| refused(&flag, &error))?;
    }
    if let Some((flag, options)) = plan.nbd_server {
        handle
            .start_nbd_server(options)
            .await
            .map_err(|error| refused(&flag, &error))?;
    }
    for (flag, command) in plan.exports {
        let answer = handle.execute(command).await;
        let Err(error) = answer else { continue };
        // After a failover was cut short, its commit goes on and keeps the old primary out. That
        // is no reason to leave the survivor's guest without its disk.
        if !failover_is_under_way(handle).await {
            return Err(refused(&flag, &error));
        }
        tracing::warn!(flag, %error, "left out while a failover is being completed");
    }
    let mut open = Vec::new();
    for path in plan.monitors.into_iter().chain(control) {
        open.push(sockets::Socket::open(ports, &path, handle.clone()).await?);
    }
    Ok(open)
}
