//! A daemon in the test's own process, on the host's ports: commands as JSON, requests as `qemu-io`.

use drivers::os;
use engine::{Engine, Options, Subscription};
use qmp::{Error, Session};
use serde_json::{Value, json};
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// Length of the disks, unless a test needs another.
pub(crate) const LENGTH: u64 = 4 << 20;

/// A daemon with a directory of its own.
pub(crate) struct Daemon {
    pub(crate) engine: Engine,
    pub(crate) ports: drivers::ports::Ports,
    events: Subscription,
    dir: PathBuf,
}

/// Runs a test with a directory that goes afterwards.
pub(crate) fn run<F, Fut>(test: F)
where
    F: FnOnce(Dir) -> Fut,
    Fut: Future<Output = ()>,
{
    let dir = Dir::new();
    os::run(|_| test(dir)).unwrap();
}

/// Runs one life of a process on a directory that outlives it: at its end everything it had open is
/// dropped as it is, as by kill -9.
pub(crate) fn life(dir: &Dir, test: impl AsyncFnOnce(&Dir)) {
    os::run(|_| test(dir)).unwrap();
}

/// A directory for a test's files.
pub(crate) struct Dir(TempDir);

impl Dir {
    /// A daemon that keeps its files here.
    pub(crate) fn daemon(&self) -> Daemon {
        self.daemon_with(Options::default())
    }

    pub(crate) fn daemon_with(&self, options: Options) -> Daemon {
        let ports = os::ports();
        let engine = Engine::new(ports.clone(), options);
        Daemon {
            events: engine.subscribe(),
            engine,
            ports,
            dir: self.0.path().to_owned(),
        }
    }

    pub(crate) fn new() -> Dir {
        Dir(tempfile::tempdir().unwrap())
    }

    /// The path of a file as text.
    pub(crate) fn file(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

impl Daemon {
    /// The reply to a command that arrives on the wire from a client of its own.
    pub(crate) async fn reply(&self, command: &str, arguments: Value) -> Value {
        let line = json!({ "execute": command, "arguments": arguments }).to_string();
        let mut session = Session::new();
        session.handle_bytes(b"{'execute':'qmp_capabilities'}");
        assert_eq!(session.poll_command(), None);
        session.poll_transmit();
        session.handle_bytes(line.as_bytes());
        if let Some(command) = session.poll_command() {
            session.reply(self.engine.execute(command).await);
        }
        let reply = session.poll_transmit().unwrap();
        serde_json::from_slice(&reply).unwrap()
    }

    /// Carries out a command.
    ///
    /// # Errors
    ///
    /// The description of the error.
    pub(crate) async fn qmp(&self, command: &str, arguments: Value) -> Result<Value, String> {
        let reply = self.reply(command, arguments).await;
        match reply.get("return") {
            Some(value) => Ok(value.clone()),
            None => Err(reply["error"]["desc"].as_str().unwrap().to_owned()),
        }
    }

    /// A command that has to succeed.
    pub(crate) async fn ok(&self, command: &str, arguments: Value) -> Value {
        let result = self.qmp(command, arguments.clone()).await;
        result.unwrap_or_else(|error| panic!("{command} {arguments}: {error}"))
    }

    /// A command that has to fail.
    pub(crate) async fn err(&self, command: &str, arguments: Value) -> String {
        match self.qmp(command, arguments.clone()).await {
            Ok(value) => panic!("{command} {arguments} returned {value}"),
            Err(error) => error,
        }
    }

    /// `qemu-io` on a node or export.
    pub(crate) async fn io(&self, device: &str, command: &str) -> String {
        let line = format!("qemu-io {device} \"{command}\"");
        let said = self.ok("human-monitor-command", json!({ "command-line": line }));
        said.await.as_str().unwrap().to_owned()
    }

    /// Writes `pattern` to `[start, end)` MiB; it has to succeed.
    pub(crate) async fn write(&self, device: &str, pattern: u8, (start, end): (u64, u64)) {
        let (offset, length) = (start << 20, (end - start) << 20);
        let command = format!("write -q -P {pattern} {offset} {length}");
        assert_eq!(
            self.io(device, &command).await,
            "",
            "write {pattern:#x} to {device}"
        );
    }

    /// Checks that `[start, end)` MiB reads as `pattern`, every byte of it.
    pub(crate) async fn expect(&self, device: &str, pattern: u8, (start, end): (u64, u64)) {
        let (offset, length) = (start << 20, (end - start) << 20);
        let command = format!("read -q -P {pattern} {offset} {length}");
        let said = self.io(device, &command).await;
        assert_eq!(said, "", "{device} should read {pattern:#x} at {start} MiB");
    }

    /// The first byte of each MiB of a node, as two hexadecimal digits each.
    pub(crate) async fn view(&self, device: &str) -> String {
        let mut view = Vec::new();
        for mib in 0..(LENGTH >> 20) {
            let mut found = "??".to_owned();
            for pattern in [0, 0x11, 0x22, 0x33, 0x44, 0x55] {
                let command = format!("read -q -P {pattern} {} 1M", mib << 20);
                if self.io(device, &command).await.is_empty() {
                    found = format!("{pattern:02x}");
                }
            }
            view.push(found);
        }
        view.join(" ")
    }

    /// A file of the directory, filled with `pattern`.
    pub(crate) fn image(&self, name: &str, pattern: u8) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, vec![pattern; usize::try_from(LENGTH).unwrap()]).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// An empty file of the directory.
    pub(crate) fn empty(&self, name: &str) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, []).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The NBD server on a socket of the directory; returns its path.
    pub(crate) async fn serve(&self, name: &str) -> String {
        let path = self.dir.join(name).to_str().unwrap().to_owned();
        let addr = json!({ "type": "unix", "data": { "path": path } });
        self.ok("nbd-server-start", json!({ "addr": addr })).await;
        path
    }

    pub(crate) async fn export(&self, id: &str, node: &str, writable: bool) {
        let arguments = json!({
            "type": "nbd", "id": id, "node-name": node, "name": id, "writable": writable,
        });
        self.ok("block-export-add", arguments).await;
    }

    /// The secondary of the peer's tests: `sec` (exported as `sec0`), `hid`, `act`, `rep`, and a
    /// quorum `top` over it.
    pub(crate) async fn secondary(&self, pattern: u8) {
        self.secondary_with(pattern, json!({})).await;
    }

    /// The same; the secondary disk meets the faults of `blkdebug` rules.
    pub(crate) async fn secondary_with(&self, pattern: u8, rules: Value) {
        self.serve("secondary.sock").await;
        self.disk("", pattern, rules).await;
    }

    /// A secondary's disk with its chain, all names with `suffix`: `sec`, its export, `hid`, `act`,
    /// `rep`, `top`.
    pub(crate) async fn disk(&self, suffix: &str, pattern: u8, rules: Value) {
        let name = format!("sec{suffix}");
        let image = self.image(&format!("{name}.raw"), pattern);
        let mut sec = rules;
        sec["driver"] = "blkdebug".into();
        sec["node-name"] = json!(name);
        sec["image"] = json!({ "driver": "file", "filename": image });
        self.ok("blockdev-add", sec).await;
        self.export(&format!("sec0{suffix}"), &name, true).await;
        self.chain(suffix).await;
    }

    /// Overlays and filter over a disk; their files may be there from an earlier life.
    pub(crate) async fn chain(&self, suffix: &str) {
        let hidden = self.dir.join(format!("hid{suffix}.ovl"));
        let hidden = json!({ "driver": "file", "filename": hidden });
        self.chain_with(suffix, hidden).await;
    }

    /// The same with a node of its own for hidden's file.
    pub(crate) async fn chain_with(&self, suffix: &str, hidden: Value) {
        let active = self.dir.join(format!("act{suffix}.ovl"));
        let active = json!({ "driver": "file", "filename": active });
        let top = json!({
            "driver": "quorum", "node-name": format!("top{suffix}"), "vote-threshold": 1,
            "read-pattern": "fifo", "children": [self.filter(suffix, &hidden, &active)],
        });
        self.ok("blockdev-add", top).await;
    }

    /// The filter over overlays in the files described.
    pub(crate) fn filter(&self, suffix: &str, hidden: &Value, active: &Value) -> Value {
        let name = |what: &str| format!("{what}{suffix}");
        for overlay in ["act", "hid"] {
            let file = format!("{overlay}{suffix}.ovl");
            if !self.dir.join(&file).exists() {
                self.empty(&file);
            }
        }
        let hidden = json!({
            "driver": "ai-overlay", "node-name": name("hid"), "backing": name("sec"),
            "file": hidden,
        });
        let active = json!({
            "driver": "ai-overlay", "node-name": name("act"), "backing": hidden, "file": active,
        });
        json!({
            "driver": "replication", "node-name": name("rep"), "mode": "secondary",
            "top-id": name("top"), "file": active,
        })
    }

    pub(crate) async fn start(&self, primary: bool) -> Result<Value, String> {
        let arguments = json!({ "enable": true, "primary": primary });
        self.qmp("xen-set-replication", arguments).await
    }

    pub(crate) async fn stop(&self, failover: bool) -> Result<Value, String> {
        let arguments = json!({ "enable": false, "primary": false, "failover": failover });
        self.qmp("xen-set-replication", arguments).await
    }

    pub(crate) async fn checkpoint(&self) -> Result<Value, String> {
        self.qmp("xen-colo-do-checkpoint", json!({})).await
    }

    pub(crate) async fn status(&self) -> Value {
        self.ok("query-xen-replication-status", json!({})).await
    }

    /// The stage of a replication node.
    pub(crate) async fn stage(&self, node: &str) -> String {
        let infos = self.ok("x-ai-query-replication", json!({})).await;
        let infos = infos.as_array().unwrap().clone();
        let info = infos.iter().find(|info| info["node-name"] == node).unwrap();
        info["stage"].as_str().unwrap().to_owned()
    }

    /// Waits until a replication node is in `stage`.
    pub(crate) async fn until(&self, node: &str, stage: &str) {
        for _ in 0..1000 {
            if self.stage(node).await == stage {
                return;
            }
            self.ports.runtime.sleep(Duration::from_millis(5)).await;
        }
        panic!("{node} is {} and never was {stage}", self.stage(node).await);
    }

    /// The events since the last call, one line each.
    pub(crate) fn events(&self) -> Vec<String> {
        std::iter::from_fn(|| self.events.try_next())
            .map(|(_, event)| {
                let event = serde_json::to_value(&event).unwrap();
                format!("{} {}", event["event"].as_str().unwrap(), event["data"])
            })
            .collect()
    }

    pub(crate) async fn end(&self) -> Result<(), Error> {
        let cause = qmp::event::ShutdownCause::HostQmpQuit;
        self.engine.shut_down(cause).await
    }
}
