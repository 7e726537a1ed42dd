//! The demo's two daemons: real processes, real image files, one COLO graph each.
//!
//! ```text
//! primary:   export disk ─▶ quorum ─▶ file primary.img
//!                                └──▶ replication (primary) ─▶ nbd ═══╗
//! secondary: export disk ─▶ quorum ─▶ replication ─▶ active ─▶ hidden ─▶ file secondary.img
//!                                                          export replica ═▶┘
//! ```

use crate::qmp_client::{QmpClient, QmpFailure};
use serde_json::{Value, json};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bound on every command of the demo.
const COMMAND: Duration = Duration::from_secs(30);
/// Bound on a daemon's start.
const START: Duration = Duration::from_secs(20);

/// A running daemon and the QMP session to it. Killed when dropped.
pub(super) struct Daemon {
    process: Child,
    qmp: QmpClient,
    /// Its NBD socket.
    pub(super) nbd: PathBuf,
}

/// Why the demo cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum PairError {
    /// A file or a process.
    #[error("{0}: {1}")]
    System(String, io::Error),
    /// A daemon said no, or nothing.
    #[error("{0}: {1}")]
    Command(String, QmpFailure),
    /// A daemon ended, or did not come up.
    #[error("{0}")]
    Gone(String),
}

impl Daemon {
    /// Runs a QMP command.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value, PairError> {
        let answer = self.qmp.execute(command, arguments, COMMAND);
        answer.map_err(|failure| PairError::Command(command.to_owned(), failure))
    }

    /// Ends the process as a power cut would end it: `kill -9`.
    pub(super) fn kill(&mut self) -> Result<(), PairError> {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        ended
            .map(drop)
            .map_err(|error| PairError::System("kill".to_owned(), error))
    }

    /// Asks it to shut down in order and waits until it has.
    pub(super) fn quit(&mut self) -> Result<(), PairError> {
        self.execute("quit", &json!({}))?;
        let deadline = Instant::now() + COMMAND;
        while Instant::now() < deadline {
            match self.process.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => {
                    return Err(PairError::Gone(format!("the daemon ended with {status}")));
                }
                Err(error) => return Err(PairError::System("wait".to_owned(), error)),
            }
        }
        Err(PairError::Gone(format!(
            "the daemon did not end within {COMMAND:?}"
        )))
    }

    /// The stage of its replication node.
    pub(super) fn stage(&mut self) -> Result<String, PairError> {
        let nodes = self.execute("x-ai-query-replication", &json!({}))?;
        let stage = nodes.pointer("/0/stage").and_then(Value::as_str);
        Ok(stage.unwrap_or("none").to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already; there is nobody left to tell if this fails.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Creates an empty (sparse) image. A file that is there already is somebody's, and stays.
pub(super) fn create_image(path: &Path, size: u64) -> Result<(), PairError> {
    let created = File::create_new(path).and_then(|file| file.set_len(size));
    created.map_err(|error| PairError::System(format!("cannot create {}", path.display()), error))
}

/// Starts the secondary: the chain, the export for the peer, the export of the view.
pub(super) fn start_secondary(dir: &Path) -> Result<Daemon, PairError> {
    let file = |name: &str| json!({"driver": "file", "filename": dir.join(name)});
    let image =
        json!({"driver": "file", "node-name": "replica", "filename": dir.join("secondary.img")});
    let hidden = json!({"driver": "ai-overlay", "node-name": "hidden",
        "file": file("hidden.ai"), "backing": "replica"});
    let active = json!({"driver": "ai-overlay", "node-name": "active",
        "file": file("active.ai"), "backing": "hidden"});
    let filter = json!({"driver": "replication", "node-name": "colo", "mode": "secondary",
        "top-id": "disk", "file": "active"});
    let top = json!({"driver": "quorum", "node-name": "disk", "read-pattern": "fifo",
        "vote-threshold": 1, "children": ["colo"]});
    spawn(
        dir,
        "secondary",
        &[image, hidden, active, filter, top],
        &["replica", "disk"],
    )
}

/// Starts the primary: a quorum that will get the secondary as its second child.
pub(super) fn start_primary(dir: &Path) -> Result<Daemon, PairError> {
    let image =
        json!({"driver": "file", "node-name": "local", "filename": dir.join("primary.img")});
    let top = json!({"driver": "quorum", "node-name": "disk", "read-pattern": "fifo",
        "vote-threshold": 1, "children": ["local"]});
    spawn(dir, "primary", &[image, top], &["disk"])
}

/// Joins the two: secondary first, so that nothing is forwarded before it is protected.
pub(super) fn connect(primary: &mut Daemon, secondary: &mut Daemon) -> Result<(), PairError> {
    secondary.execute(
        "xen-set-replication",
        &json!({"enable": true, "primary": false}),
    )?;
    let server = json!({"type": "unix", "path": secondary.nbd});
    let peer = json!({"driver": "nbd", "node-name": "peer", "server": server, "export": "replica"});
    let filter =
        json!({"driver": "replication", "node-name": "colo", "mode": "primary", "file": peer});
    primary.execute("blockdev-add", &filter)?;
    primary.execute(
        "x-blockdev-change",
        &json!({"parent": "disk", "node": "colo"}),
    )?;
    primary.execute(
        "xen-set-replication",
        &json!({"enable": true, "primary": true}),
    )?;
    Ok(())
}

fn spawn(dir: &Path, name: &str, nodes: &[Value], exports: &[&str]) -> Result<Daemon, PairError> {
    let system = |what: &str, error| PairError::System(format!("cannot {what} the {name}"), error);
    let (qmp, nbd) = (
        dir.join(format!("{name}.qmp")),
        dir.join(format!("{name}.nbd")),
    );
    let log =
        File::create(dir.join(format!("{name}.log"))).map_err(|e| system("write a log for", e))?;
    let program = std::env::current_exe().map_err(|e| system("find the program for", e))?;
    let mut command = Command::new(program);
    command
        .arg("daemon")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    for node in nodes {
        command.arg("--blockdev").arg(node.to_string());
    }
    let server = json!({"addr": {"type": "unix", "path": nbd}});
    command.arg("--nbd-server").arg(server.to_string());
    for node in exports {
        let export =
            json!({"type": "nbd", "id": node, "node-name": node, "name": node, "writable": true});
        command.arg("--export").arg(export.to_string());
    }
    command.arg("--control").arg(&qmp);
    let process = command.spawn().map_err(|e| system("start", e))?;
    let (process, qmp) = wait_until_up(process, &qmp, &dir.join(format!("{name}.log")))?;
    Ok(Daemon { process, qmp, nbd })
}

/// Connects as soon as the control socket is there.
fn wait_until_up(
    mut process: Child,
    qmp: &Path,
    log: &Path,
) -> Result<(Child, QmpClient), PairError> {
    let deadline = Instant::now() + START;
    loop {
        if let Ok(client) = QmpClient::connect(qmp, COMMAND) {
            return Ok((process, client));
        }
        let ended = process.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > deadline {
            let _ = process.kill();
            let _ = process.wait();
            let said = std::fs::read_to_string(log).unwrap_or_default();
            return Err(PairError::Gone(format!(
                "a daemon did not come up: {}",
                said.trim()
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
