//! A disk of the demo, reached as any client reaches it: over NBD, with this project's own client.

use super::ledger::{BLOCK, stamp};
use bytes::Bytes;
use engine::block::{Buffer, ByteRange, Permissions, Root, Shares, WriteFlags};
use engine::ports::Ports;
use engine::qmp::{Command, flags};
use engine::{Engine, Options};
use serde_json::json;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// The export of both daemons that a guest uses.
const EXPORT: &str = "disk";

/// An open connection to the export `disk` of one daemon.
pub(super) struct Disk {
    root: Rc<Root>,
    ports: Ports,
}

impl Disk {
    /// Connects to the server at `socket`, runs `body` with the disk, and disconnects in order.
    pub(super) fn with<T>(
        socket: &Path,
        body: impl AsyncFnOnce(Disk) -> Result<T, String>,
    ) -> Result<T, String> {
        let run = engine::os::run(async |ports| {
            let engine = Engine::new(ports.clone(), Options::default());
            let node = json!({"driver": "nbd", "node-name": "far", "export": EXPORT,
                "server": {"type": "unix", "path": socket}});
            let said = |error: engine::qmp::Error| error.to_string();
            let node = flags::blockdev(&node.to_string()).map_err(said)?;
            engine
                .execute(Command::BlockdevAdd(Box::new(node)))
                .await
                .map_err(said)?;
            let shares = Shares {
                used: Permissions::CONSISTENT_READ | Permissions::WRITE,
                shared: Permissions::ALL,
            };
            let root = engine.attach("demo", "far", shares).await.map_err(said)?;
            let result = body(Disk {
                root: Rc::clone(&root),
                ports,
            })
            .await;
            let _ = engine.detach(&root).await;
            // The server may be gone already; that is what the demo is about.
            let _ = engine
                .shut_down(engine::qmp::event::ShutdownCause::HostQmpQuit)
                .await;
            result
        });
        run.map_err(|error| format!("no event loop: {error}"))?
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.root.length()
    }

    /// Reads up to `length` bytes at `offset`.
    pub(super) async fn read(&self, offset: u64, length: usize) -> Result<Bytes, String> {
        let end = offset.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        let range = ByteRange::between(offset, end.min(self.length()));
        self.root
            .read(range)
            .await
            .map_err(|error| error.to_string())
    }

    /// Writes one block.
    pub(super) async fn write_block(&self, block: usize, data: Bytes) -> Result<(), String> {
        let offset = u64::try_from(block.saturating_mul(BLOCK)).unwrap_or(u64::MAX);
        let written = self.root.write(offset, data, WriteFlags::default()).await;
        written.map_err(|error| error.to_string())
    }

    /// Waits.
    pub(super) async fn sleep(&self, duration: Duration) {
        self.ports.runtime.sleep(duration).await;
    }
}

/// The contents of one version of a block.
pub(super) fn stamped(block: usize, version: u64) -> Bytes {
    let mut buffer = Buffer::with_capacity(BLOCK);
    stamp(block, version, buffer.spare_mut());
    buffer.advance(BLOCK);
    buffer.freeze()
}
