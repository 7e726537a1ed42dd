//! The cases by which QEMU tests its own driver, from outside, with exact expectations.
//!
//! Goal: whoever relies on those thirteen cases can rely on us.
//! Method: one daemon a test, the disk read and written over NBD, commands over QMP. Where the
//! original compares with "not greater", here bytes must be equal: after a failover the
//! disk holds the checkpoint's contents and the view guest's own writes, nothing of the peer's.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod common;

use common::colo::{SIZE, checkpoint, complaint, fail_over, secondary, start, stop_arguments};
use common::{Daemon, image, qemu_io, qemu_io_any, scratch};
use serde_json::json;
use std::path::Path;

const HALF: u64 = SIZE / 2;

/// A primary's filter over a local file, without a quorum, as the original has it.
fn primary(dir: &Path) -> Daemon {
    image(&dir.join("p.img"), SIZE, 0x11);
    Daemon::start(
        dir,
        "p",
        &[
            "--blockdev",
            "driver=replication,node-name=disk,mode=primary,file.driver=file,file.filename=p.img",
            "--export",
            "type=nbd,id=disk,node-name=disk,writable=on",
        ],
    )
}

#[track_caller]
fn fails(daemon: &Daemon, export: &str, command: &str) {
    let out = qemu_io_any(&daemon.uri(export), &[command]);
    assert!(out.contains("Input/output error"), "{command}: {out}");
}

#[test]
fn primary_read_before_start_fails() {
    let dir = scratch();
    fails(&primary(dir.path()), "disk", "read 0 4M");
}

#[test]
fn primary_write_before_start_fails() {
    let dir = scratch();
    let daemon = primary(dir.path());
    fails(&daemon, "disk", "write 0 4M");
    assert_eq!(
        std::fs::read(dir.path().join("p.img")).unwrap(),
        vec![0x11; 4 << 20]
    );
}

#[test]
fn primary_start_lets_writes_pass_and_reads_fail() {
    let dir = scratch();
    let mut daemon = primary(dir.path());
    start(&mut daemon, "primary");
    fails(&daemon, "disk", "read 0 4M");
    qemu_io(&daemon.uri("disk"), &["write -P 0x22 0 4M"]);
    assert_eq!(
        std::fs::read(dir.path().join("p.img")).unwrap(),
        vec![0x22; 4 << 20]
    );
}

#[test]
fn primary_stop_with_failover_succeeds() {
    let dir = scratch();
    let mut daemon = primary(dir.path());
    start(&mut daemon, "primary");
    daemon.ok("xen-set-replication", stop_arguments("primary", true));
    assert_eq!(daemon.stage(), "done");
}

#[test]
fn primary_checkpoint_succeeds() {
    let dir = scratch();
    let mut daemon = primary(dir.path());
    start(&mut daemon, "primary");
    checkpoint(&mut daemon);
}

#[test]
fn primary_has_no_error_after_start() {
    let dir = scratch();
    let mut daemon = primary(dir.path());
    start(&mut daemon, "primary");
    assert_eq!(complaint(&mut daemon), None);
}

#[test]
fn secondary_read_before_start_fails() {
    let dir = scratch();
    fails(&secondary(dir.path(), "s"), "disk", "read 0 4M");
}

#[test]
fn secondary_write_before_start_fails() {
    let dir = scratch();
    fails(&secondary(dir.path(), "s"), "disk", "write 0 4M");
}

/// Starts; the peer writes the upper half, the view's guest the lower.
#[track_caller]
fn started_and_written(dir: &Path) -> Daemon {
    let mut daemon = secondary(dir, "s");
    start(&mut daemon, "secondary");
    let (view, replica) = (daemon.uri("disk"), daemon.uri("replica"));
    qemu_io(&view, &["read -P 0x11 0 4M"]);
    qemu_io(&replica, &[&format!("write -P 0x22 {HALF} {HALF}")]);
    qemu_io(&view, &[&format!("read -P 0x11 {HALF} {HALF}")]);
    qemu_io(
        &view,
        &[
            &format!("write -P 0x33 0 {HALF}"),
            &format!("read -P 0x33 0 {HALF}"),
        ],
    );
    daemon
}

/// The view guest's half, and the other as it was at the last checkpoint.
fn after_failover() -> Vec<u8> {
    let half = usize::try_from(HALF).unwrap();
    [vec![0x33; half], vec![0x11; half]].concat()
}

#[test]
fn secondary_start_keeps_the_view_apart_from_the_peers_writes() {
    let dir = scratch();
    let mut daemon = started_and_written(dir.path());
    fail_over(&mut daemon);
}

#[test]
fn secondary_stop_with_failover_keeps_the_view_and_rolls_the_peer_back() {
    let dir = scratch();
    let mut daemon = started_and_written(dir.path());
    fail_over(&mut daemon);
    qemu_io(
        &daemon.uri("disk"),
        &[
            &format!("read -P 0x33 0 {HALF}"),
            &format!("read -P 0x11 {HALF} {HALF}"),
        ],
    );
    daemon.quit();
    assert_eq!(
        std::fs::read(dir.path().join("s.img")).unwrap(),
        after_failover()
    );
}

#[test]
fn secondary_accepts_the_commands_of_a_primary_after_failover() {
    let dir = scratch();
    let mut daemon = started_and_written(dir.path());
    fail_over(&mut daemon);
    start(&mut daemon, "primary");
    checkpoint(&mut daemon);
    daemon.ok("xen-set-replication", stop_arguments("primary", true));
    daemon.quit();
    assert_eq!(
        std::fs::read(dir.path().join("s.img")).unwrap(),
        after_failover()
    );
}

#[test]
fn secondary_checkpoint_shows_what_the_peer_wrote() {
    let dir = scratch();
    let mut daemon = secondary(dir.path(), "s");
    start(&mut daemon, "secondary");
    let upper = format!("{HALF} {HALF}");
    qemu_io(&daemon.uri("replica"), &[&format!("write -P 0x22 {upper}")]);
    qemu_io(&daemon.uri("disk"), &[&format!("read -P 0x11 {upper}")]);
    checkpoint(&mut daemon);
    qemu_io(&daemon.uri("disk"), &[&format!("read -P 0x22 {upper}")]);
    daemon.ok("xen-set-replication", stop_arguments("secondary", true));
}

#[test]
fn secondary_has_no_error_after_start_nor_during_a_healthy_failover() {
    let dir = scratch();
    let mut daemon = secondary(dir.path(), "s");
    start(&mut daemon, "secondary");
    assert_eq!(complaint(&mut daemon), None);
    daemon.ok("xen-set-replication", stop_arguments("secondary", true));
    assert_eq!(complaint(&mut daemon), None);
    daemon.wait_for_stage("done");
    assert_eq!(complaint(&mut daemon), None);
    assert_eq!(daemon.ok("query-block-jobs", json!({})), json!([]));
}
