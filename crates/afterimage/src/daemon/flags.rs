//! The flags of `qemu-storage-daemon`, turned into what they ask for, before anything is done.

use super::StartError;
use crate::cli::DaemonArgs;
use engine::qmp::types::{ChardevBackend, MonitorOptions, NbdServerOptions, SocketAddress};
use engine::qmp::{Command, Error, flags};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the flags ask for. Nodes come first, then the server, then the exports, each kind in the
/// order given: a line that works for the storage daemon works here.
pub(super) struct Plan {
    /// Each with the flag it came from.
    pub(super) blockdevs: Vec<(String, Command)>,
    /// At most one.
    pub(super) nbd_server: Option<(String, NbdServerOptions)>,
    /// Each with the flag it came from.
    pub(super) exports: Vec<(String, Command)>,
    /// Sockets that speak QMP.
    pub(super) monitors: Vec<PathBuf>,
}

impl Plan {
    /// Reads all flags; nothing is opened yet.
    ///
    /// # Errors
    ///
    /// The first flag that makes no sense, by its name and text.
    pub(super) fn new(args: &DaemonArgs) -> Result<Plan, StartError> {
        let blockdevs = read(&args.blockdev, "--blockdev", flags::blockdev)?;
        let exports = read(&args.export, "--export", flags::export)?;
        for (flag, object) in read(&args.object, "--object", flags::object)? {
            // The type says which objects there are; none of them needs setting up yet.
            tracing::info!(
                flag,
                ?object,
                "accepted, and without effect in this version"
            );
        }
        Ok(Plan {
            blockdevs: commands(blockdevs, |options| Command::BlockdevAdd(Box::new(options))),
            nbd_server: only(read(&args.nbd_server, "--nbd-server", flags::nbd_server)?)?,
            exports: commands(exports, Command::BlockExportAdd),
            monitors: monitors(args)?,
        })
    }
}

fn read<T>(
    texts: &[String],
    name: &str,
    parse: fn(&str) -> Result<T, Error>,
) -> Result<Vec<(String, T)>, StartError> {
    let parse = |text: &String| {
        let flag = format!("{name} {text}");
        match parse(text) {
            Ok(options) => Ok((flag, options)),
            Err(error) => Err(StartError::Usage(format!("{flag}: {error}"))),
        }
    };
    texts.iter().map(parse).collect()
}

fn commands<T>(options: Vec<(String, T)>, command: fn(T) -> Command) -> Vec<(String, Command)> {
    options
        .into_iter()
        .map(|(flag, options)| (flag, command(options)))
        .collect()
}

fn only<T>(mut given: Vec<(String, T)>) -> Result<Option<(String, T)>, StartError> {
    let last = given.pop();
    match given.pop() {
        None => Ok(last),
        Some((flag, _)) => Err(StartError::Usage(format!(
            "{flag}: a daemon has one NBD server"
        ))),
    }
}

/// The socket paths of the monitors, found through their chardevs.
fn monitors(args: &DaemonArgs) -> Result<Vec<PathBuf>, StartError> {
    let mut paths = BTreeMap::new();
    for (flag, chardev) in read(&args.chardev, "--chardev", flags::chardev)? {
        let ChardevBackend::Socket(socket) = chardev.backend;
        let address = socket.listen_address();
        let address = address.map_err(|error| StartError::Usage(format!("{flag}: {error}")))?;
        let SocketAddress::Unix(unix) = address else {
            let message = format!("{flag}: a monitor listens on a unix socket: give path=");
            return Err(StartError::Usage(message));
        };
        if paths
            .insert(chardev.id.clone(), PathBuf::from(unix.path))
            .is_some()
        {
            let message = format!("{flag}: there is a chardev '{}' already", chardev.id);
            return Err(StartError::Usage(message));
        }
    }
    let find = |(flag, monitor): (String, MonitorOptions)| {
        let missing = || StartError::Usage(format!("{flag}: no chardev '{}'", monitor.chardev));
        paths.remove(&monitor.chardev).ok_or_else(missing)
    };
    read(&args.monitor, "--monitor", flags::monitor)?
        .into_iter()
        .map(find)
        .collect()
}
