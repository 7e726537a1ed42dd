//! A replicating pair, ours or QEMU's, built by the same commands.
//!
//! ```text
//! client ─▶ export `disk` ─▶ quorum ─┬▶ local image
//!                                    └▶ replication ─▶ nbd ══▶ export `parent` ─▶ secondary disk
//!                                                                                  │ copy before write
//!                                     quorum ─▶ replication ─▶ active ─▶ hidden ◀──┘
//! ```
//!
//! Only two things differ between the two: the command line that opens a monitor, and the driver
//! of the overlays.

use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Bench;
use super::client::{Address, Client};
use super::process::{Process, Software};
use super::qmp::Qmp;
use super::scratch::Scratch;
use crate::shell;

/// The half that has the replica.
pub(crate) struct Secondary {
    pub(crate) process: Process,
    pub(crate) monitor: Qmp,
    port: u16,
}

impl Secondary {
    /// Starts the half over `disk`; its export is not replicating yet and takes writes as they are.
    pub(crate) fn start(
        bench: &Bench,
        software: Software,
        scratch: &Scratch,
        disk: &Path,
    ) -> Result<Self> {
        let (process, mut monitor) = start(bench, software, scratch, "secondary")?;
        let port = free_port()?;
        node(&mut monitor, &raw("parent", disk))?;
        let mut backing = "parent";
        for name in ["hidden", "active"] {
            let file = scratch.file(&format!("{name}.overlay"));
            let driver = create_overlay(software, &file, bench.disk_bytes)?;
            let file = json!({"driver": "file", "filename": file});
            let overlay =
                json!({"driver": driver, "node-name": name, "file": file, "backing": backing});
            node(&mut monitor, &overlay)?;
            backing = name;
        }
        let filter = json!({"driver": "replication", "node-name": "filter", "mode": "secondary", "top-id": "view", "file": "active"});
        node(&mut monitor, &filter)?;
        node(&mut monitor, &quorum("view", "filter"))?;
        let address =
            json!({"type": "inet", "data": {"host": "127.0.0.1", "port": port.to_string()}});
        monitor.execute("nbd-server-start", &json!({"addr": address}))?;
        export(&mut monitor, "parent")?;
        Ok(Self {
            process,
            monitor,
            port,
        })
    }

    /// From here on, what the export overwrites is copied first.
    pub(crate) fn replicate(&mut self) -> Result<()> {
        self.monitor.execute(
            "xen-set-replication",
            &json!({"enable": true, "primary": false}),
        )?;
        Ok(())
    }

    pub(crate) fn checkpoint(&mut self) -> Result<()> {
        self.monitor.execute("xen-colo-do-checkpoint", &json!({}))?;
        Ok(())
    }

    /// A client in the place of the primary.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::connect(&Address::Loopback(self.port), "parent")
    }
}

/// The half that has the guest.
pub(crate) struct Primary {
    process: Process,
    socket: Address,
}

impl Primary {
    /// Starts the half over `disk` and attaches it to `secondary`, which replicates already.
    pub(crate) fn start(
        bench: &Bench,
        software: Software,
        scratch: &Scratch,
        disk: &Path,
        secondary: &Secondary,
    ) -> Result<Self> {
        let (process, mut monitor) = start(bench, software, scratch, "primary")?;
        let socket = scratch.socket("disk.sock");
        node(&mut monitor, &raw("local", disk))?;
        node(&mut monitor, &quorum("disk", "local"))?;
        let address = json!({"type": "unix", "data": {"path": socket}});
        monitor.execute("nbd-server-start", &json!({"addr": address}))?;
        export(&mut monitor, "disk")?;
        let server =
            json!({"type": "inet", "host": "127.0.0.1", "port": secondary.port.to_string()});
        let peer = json!({"driver": "nbd", "server": server, "export": "parent"});
        let filter = json!({"driver": "replication", "node-name": "filter", "mode": "primary", "file": peer});
        node(&mut monitor, &filter)?;
        monitor.execute(
            "x-blockdev-change",
            &json!({"parent": "disk", "node": "filter"}),
        )?;
        monitor.execute(
            "xen-set-replication",
            &json!({"enable": true, "primary": true}),
        )?;
        Ok(Self {
            process,
            socket: Address::Unix(socket),
        })
    }

    /// The guest's client.
    pub(crate) fn client(&self) -> Result<Client> {
        Client::connect(&self.socket, "disk")
    }

    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        self.process.cpu_time()
    }
}

fn start(
    bench: &Bench,
    software: Software,
    scratch: &Scratch,
    name: &str,
) -> Result<(Process, Qmp)> {
    let socket = scratch.socket(&format!("{name}.qmp"));
    let command = software
        .monitored(bench, &socket)
        .with_context(|| format!("{} cannot replicate", software.name()))?;
    let process = Process::start(command, &socket)?;
    let monitor = Qmp::connect(&socket)?;
    Ok((process, monitor))
}

fn node(monitor: &mut Qmp, options: &Value) -> Result<()> {
    monitor.execute("blockdev-add", options).map(drop)
}

fn raw(name: &str, file: &Path) -> Value {
    json!({"driver": "raw", "node-name": name, "file": {"driver": "file", "filename": file}})
}

fn quorum(name: &str, child: &str) -> Value {
    json!({"driver": "quorum", "node-name": name, "vote-threshold": 1, "read-pattern": "fifo", "children": [child]})
}

fn export(monitor: &mut Qmp, node: &str) -> Result<()> {
    let export =
        json!({"type": "nbd", "id": node, "node-name": node, "name": node, "writable": true});
    monitor.execute("block-export-add", &export).map(drop)
}

/// Makes the file of an overlay; returns the driver it is for.
fn create_overlay(software: Software, file: &Path, bytes: u64) -> Result<&'static str> {
    if software == Software::Afterimage {
        File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
        return Ok("ai-overlay");
    }
    let mut create = shell::tool("qemu-img", &["create", "-q", "-f", "qcow2"]);
    shell::capture(create.arg(file).arg(bytes.to_string()))?;
    Ok("qcow2")
}

/// A port nobody listens at; the one who asked for it listens next.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
