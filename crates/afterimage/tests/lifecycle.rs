//! A daemon's beginning and end: background, pid file, sockets, signals.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod common;

use common::colo::{SIZE, complaint, join, primary, secondary, secondary_existing, start};
use common::{Daemon, Qmp, image, qemu_io, run, scratch, text, tool, wait_until};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Output};

fn daemon(dir: &Path, flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afterimage"))
        .arg("daemon")
        .args(flags)
        .current_dir(dir)
        .output()
        .unwrap()
}

/// A process that is not our child, by its id. Killed if the test fails.
struct Background(String);

impl Drop for Background {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new("kill").args(["-s", "KILL", &self.0]).status();
        }
    }
}

#[test]
fn a_daemon_in_the_background_is_up_when_its_parent_returns() {
    let dir = scratch();
    image(&dir.path().join("disk.raw"), SIZE, 0x11);
    let flags = [
        "--daemonize",
        "--pidfile",
        "d.pid",
        "--control",
        "d.qmp",
        "--blockdev",
        "driver=file,node-name=disk,filename=disk.raw",
        "--nbd-server",
        "addr.type=unix,addr.path=d.nbd",
        "--export",
        "type=nbd,id=e,node-name=disk,writable=on",
    ];
    let output = daemon(dir.path(), &flags);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let pid = std::fs::read_to_string(dir.path().join("d.pid")).unwrap();
    let background = Background(pid.trim().to_owned());
    assert!(Path::new("/proc").join(&background.0).exists());
    let socket = dir.path().join("d.nbd");
    let uri = format!("nbd+unix:///disk?socket={}", socket.display());
    qemu_io(&uri, &["read -P 0x11 0 4M"]);
    // Whoever comes second is told so, and the first goes on.
    let output = daemon(dir.path(), &["--daemonize", "--pidfile", "d.pid"]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("d.pid"), "{output:?}");
    let mut qmp = Qmp::connect(&dir.path().join("d.qmp")).unwrap();
    qmp.execute("quit", json!({})).unwrap();
    wait_until("the end of the daemon", || {
        !dir.path().join("d.pid").exists()
    });
    assert!(!socket.exists());
}

#[test]
fn a_daemon_that_cannot_start_in_the_background_says_so_and_fails() {
    let dir = scratch();
    let flags = ["--blockdev", "driver=file,node-name=d,filename=absent.raw"];
    let output = daemon(dir.path(), &[&["--daemonize"], &flags[..]].concat());
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("absent.raw"), "{output:?}");
}

#[test]
fn a_socket_left_by_a_killed_daemon_is_replaced_and_a_live_one_is_not() {
    let dir = scratch();
    let mut killed = Daemon::start(dir.path(), "d", &[]);
    killed.kill();
    assert!(killed.nbd().exists());
    let mut alive = Daemon::start(dir.path(), "d", &[]);
    let nbd = format!("addr.type=unix,addr.path={}", alive.nbd().display());
    let output = daemon(
        dir.path(),
        &["--nbd-server", &nbd, "--control", "other.qmp"],
    );
    assert_ne!(output.status.code(), Some(0));
    let output = daemon(dir.path(), &["--control", "d.qmp"]);
    assert_ne!(output.status.code(), Some(0));
    assert!(text(&output.stderr).contains("d.qmp"));
    alive.is_well();
    alive.quit();
}

//= docs/spec/replication.md#close-and-restart
//= type=test
//# Closing a running filter MUST stop it as a stop without failover does.
#[test]
fn sigterm_ends_a_running_secondary_in_order_and_its_image_stands_alone() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    qemu_io(&p.uri("disk"), &["write -P 0x22 0 1M"]);
    qemu_io(&s.uri("disk"), &["write -P 0x33 2M 1M"]);
    p.signal("TERM");
    p.ends_well();
    s.signal("TERM");
    s.ends_well();
    let image = dir.path().join("s.img");
    let commands = ["read -P 0x22 0 1M", "read -P 0x11 1M 3M"];
    qemu_io(image.to_str().unwrap(), &commands);
    assert_eq!(
        std::fs::read(dir.path().join("p.img")).unwrap(),
        std::fs::read(image).unwrap()
    );
    // The overlays are clean: the same files serve again.
    let node = "driver=file,node-name=replica,filename=s.img";
    let mut s = secondary_existing(dir.path(), "s", node);
    start(&mut s, "secondary");
    qemu_io(&s.uri("disk"), &commands);
    s.quit();
}

//= docs/spec/replication.md#close-and-restart
//= type=test
//# Closing a secondary that has lost a writer or its protection MUST keep the overlays' contents and
//# make them durable.
#[test]
fn sigterm_to_a_secondary_that_lost_its_writer_keeps_the_only_copy_of_the_checkpoint() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    qemu_io(&p.uri("disk"), &["write -P 0x22 0 1M"]);
    qemu_io(&s.uri("disk"), &["write -P 0x33 2M 1M"]);
    p.kill();
    wait_until("the lost writer", || complaint(&mut s).is_some());
    s.signal("TERM");
    s.ends_well();
    let node = "driver=file,node-name=replica,filename=s.img";
    let mut s = secondary_existing(dir.path(), "s", node);
    s.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "look", "node-name": "active", "name": "look"}),
    );
    let commands = [
        "-r",
        "-f",
        "raw",
        "-c",
        "read -P 0x11 0 2M",
        "-c",
        "read -P 0x33 2M 1M",
        "-c",
        "read -P 0x11 3M 1M",
        &s.uri("look"),
    ];
    let out = tool("qemu-io", &commands);
    assert!(!out.contains("failed"), "{out}");
}

#[test]
fn sigterm_and_sigint_end_a_daemon_with_clients_connected() {
    for signal in ["TERM", "INT"] {
        let dir = scratch();
        image(&dir.path().join("disk.raw"), SIZE, 0);
        let mut daemon = Daemon::start(
            dir.path(),
            "d",
            &[
                "--blockdev",
                "driver=file,node-name=disk,filename=disk.raw",
                "--export",
                "type=nbd,id=e,node-name=disk,name=disk,writable=on",
            ],
        );
        let script = format!(
            "h.pwrite(b'x' * 4096, 0)\nimport os\nos.kill({}, getattr(__import__('signal'), 'SIG{signal}'))\n\
             try:\n    while True: h.pread(512, 0)\nexcept nbd.Error: pass\n",
            daemon.process.id()
        );
        let output = run("nbdsh", &["-u", &daemon.uri("disk"), "-c", &script]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        daemon.ends_well();
        let bytes = std::fs::read(dir.path().join("disk.raw")).unwrap();
        assert_eq!(bytes[..4096], [b'x'; 4096]);
    }
}

//= docs/spec/replication.md#commands
//= type=test
//# Changes of stage MUST be reported by an event that names the node.
#[test]
fn every_monitor_hears_every_event() {
    let dir = scratch();
    let mut s = secondary(dir.path(), "s");
    let mut other = Qmp::connect(&dir.path().join("s.qmp")).unwrap();
    start(&mut s, "secondary");
    s.ok("block-export-del", json!({"id": "disk"}));
    for qmp in [&mut s.qmp, &mut other] {
        let change = qmp.wait_event("X_AI_STAGE_CHANGE");
        assert_eq!(
            (&change["node-name"], &change["to"]),
            (&json!("colo"), &json!("running"))
        );
        assert_eq!(qmp.wait_event("BLOCK_EXPORT_DELETED")["id"], "disk");
    }
    s.ok("quit", json!({}));
    for qmp in [&mut s.qmp, &mut other] {
        assert_eq!(qmp.wait_event("SHUTDOWN")["reason"], "host-qmp-quit");
    }
    s.ends_well();
}
