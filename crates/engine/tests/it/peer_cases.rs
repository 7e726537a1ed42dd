//! The peer's own thirteen cases of block replication, with equality where it compares with "not
//! greater": after a failover the upper half is the checkpoint's, not the primary's.

use crate::support::{Daemon, Dir, run};
use serde_json::json;

/// The whole disk, and its halves, in MiB.
const WHOLE: (u64, u64) = (0, 4);
const LOWER: (u64, u64) = (0, 2);
const UPPER: (u64, u64) = (2, 4);

async fn primary(dir: &Dir) -> Daemon {
    let daemon = dir.daemon();
    let disk = daemon.image("disk.raw", 0);
    let options = json!({
        "driver": "replication", "node-name": "rep", "mode": "primary",
        "file": { "driver": "file", "filename": disk, "node-name": "disk" },
    });
    daemon.ok("blockdev-add", options).await;
    daemon
}

async fn secondary(dir: &Dir) -> Daemon {
    let daemon = dir.daemon();
    daemon.secondary(0x11).await;
    daemon
}

/// A started secondary: the primary wrote 0x22 to the upper half, the guest 0x33 to the lower.
async fn replicating(dir: &Dir) -> Daemon {
    let daemon = secondary(dir).await;
    daemon.start(false).await.unwrap();
    daemon.expect("top", 0x11, WHOLE).await;
    daemon.write("sec0", 0x22, UPPER).await;
    daemon.expect("top", 0x11, UPPER).await;
    daemon.write("top", 0x33, LOWER).await;
    daemon.expect("top", 0x33, LOWER).await;
    daemon
}

/// A request that fails, with the error that a guest sees.
async fn fails(daemon: &Daemon, device: &str, command: &str) {
    let said = daemon.io(device, command).await;
    assert!(said.contains("failed: Input/output error"), "{said}");
}

#[test]
fn primary_read() {
    run(async |dir| {
        let daemon = primary(&dir).await;
        fails(&daemon, "rep", "read 0 4M").await;
    });
}

#[test]
fn primary_write() {
    run(async |dir| {
        let daemon = primary(&dir).await;
        fails(&daemon, "rep", "write 0 4M").await;
        daemon.expect("disk", 0, WHOLE).await;
    });
}

#[test]
fn primary_start() {
    run(async |dir| {
        let daemon = primary(&dir).await;
        daemon.start(true).await.unwrap();
        fails(&daemon, "rep", "read 0 4M").await;
        daemon.write("rep", 0x22, WHOLE).await;
        daemon.expect("disk", 0x22, WHOLE).await;
    });
}

#[test]
fn primary_stop() {
    run(async |dir| {
        let daemon = primary(&dir).await;
        daemon.start(true).await.unwrap();
        daemon.stop(true).await.unwrap();
        assert_eq!(daemon.stage("rep").await, "done");
    });
}

#[test]
fn primary_do_checkpoint() {
    run(async |dir| {
        let daemon = primary(&dir).await;
        daemon.start(true).await.unwrap();
        daemon.checkpoint().await.unwrap();
        assert_eq!(daemon.stage("rep").await, "running");
    });
}

#[test]
fn primary_get_error_all() {
    run(async |dir| {
        let daemon = primary(&dir).await;
        daemon.start(true).await.unwrap();
        assert_eq!(daemon.status().await, json!({ "error": false }));
    });
}

#[test]
fn secondary_read() {
    run(async |dir| {
        let daemon = secondary(&dir).await;
        fails(&daemon, "top", "read 0 4M").await;
    });
}

#[test]
fn secondary_write() {
    run(async |dir| {
        let daemon = secondary(&dir).await;
        fails(&daemon, "top", "write 0 4M").await;
        daemon.expect("sec0", 0x11, WHOLE).await;
    });
}

#[test]
fn secondary_start() {
    run(async |dir| {
        let daemon = replicating(&dir).await;
        daemon.expect("sec0", 0x22, UPPER).await;
        daemon.expect("sec0", 0x11, LOWER).await;
        daemon.stop(true).await.unwrap();
    });
}

#[test]
fn secondary_stop() {
    run(async |dir| {
        let daemon = replicating(&dir).await;
        daemon.stop(true).await.unwrap();
        daemon.expect("top", 0x33, LOWER).await;
        daemon.expect("top", 0x11, UPPER).await;
        daemon.until("rep", "done").await;
        for device in ["top", "sec"] {
            daemon.expect(device, 0x33, LOWER).await;
            daemon.expect(device, 0x11, UPPER).await;
        }
    });
}

#[test]
fn secondary_continuous_replication() {
    run(async |dir| {
        let daemon = replicating(&dir).await;
        daemon.stop(true).await.unwrap();
        daemon.start(true).await.unwrap();
        daemon.checkpoint().await.unwrap();
        daemon.stop(true).await.unwrap();
        daemon.expect("top", 0x33, LOWER).await;
        daemon.expect("top", 0x11, UPPER).await;
    });
}

#[test]
fn secondary_do_checkpoint() {
    run(async |dir| {
        let daemon = secondary(&dir).await;
        daemon.start(false).await.unwrap();
        daemon.write("sec0", 0x22, UPPER).await;
        daemon.expect("top", 0x11, UPPER).await;
        daemon.checkpoint().await.unwrap();
        daemon.expect("top", 0x22, UPPER).await;
        daemon.expect("top", 0x11, LOWER).await;
        daemon.stop(true).await.unwrap();
        daemon.expect("top", 0x22, UPPER).await;
    });
}

#[test]
fn secondary_get_error_all() {
    run(async |dir| {
        let daemon = secondary(&dir).await;
        daemon.start(false).await.unwrap();
        assert_eq!(daemon.status().await, json!({ "error": false }));
        daemon.stop(true).await.unwrap();
    });
}
