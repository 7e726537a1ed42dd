//! Our NBD client against the servers of others, good and bad.
//!
//! Method: a daemon exports an `nbd` node over another server's export; `qemu-io` reads and writes
//! through both.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod common;

use common::{Daemon, Running, image, qemu_io, qemu_io_any, scratch, spawn, wait_until};
use serde_json::json;
use std::os::unix::net::UnixStream;
use std::path::Path;

const MIB: u64 = 1 << 20;

fn through(dir: &Path, options: &str) -> Daemon {
    Daemon::start(
        dir,
        "d",
        &[
            "--blockdev",
            &format!(
                "driver=nbd,node-name=far,server.type=unix,server.path={}/far.sock{options}",
                dir.display()
            ),
            "--export",
            "type=nbd,id=e,node-name=far,name=disk,writable=on",
        ],
    )
}

fn nbdkit(dir: &Path, arguments: &[&str]) -> Running {
    let socket = dir.join("far.sock");
    let mut all = vec!["-f", "-U", socket.to_str().unwrap()];
    all.extend(arguments);
    let server = spawn("nbdkit", &all);
    wait_until("nbdkit", || UnixStream::connect(&socket).is_ok());
    server
}

fn exercise(daemon: &Daemon) {
    qemu_io(
        &daemon.uri("disk"),
        &[
            "write -P 0x11 0 1M",
            "write -P 0x22 1000 3000",
            "write -z 64k 64k",
            "discard 256k 64k",
            "write -f -P 0x33 2M 4k",
            "flush",
            "read -P 0x11 0 1000",
            "read -P 0x22 1000 3000",
            "read -P 0x11 4000 61536",
            "read -P 0 64k 64k",
            "read -P 0x33 2M 4k",
        ],
    );
}

#[test]
fn qemu_nbd_serves_us() {
    let dir = scratch();
    image(&dir.path().join("far.raw"), 16 * MIB, 0);
    let (socket, path) = (dir.path().join("far.sock"), dir.path().join("far.raw"));
    let _server = spawn(
        "qemu-nbd",
        &[
            "-f",
            "raw",
            "-t",
            "-e",
            "8",
            "-k",
            socket.to_str().unwrap(),
            path.to_str().unwrap(),
        ],
    );
    wait_until("qemu-nbd", || UnixStream::connect(&socket).is_ok());
    exercise(&through(dir.path(), ""));
}

#[test]
fn nbdkit_serves_us_with_and_without_structured_replies() {
    for flags in [&["memory", "16M"][..], &["--no-sr", "memory", "16M"]] {
        let dir = scratch();
        let _server = nbdkit(dir.path(), flags);
        exercise(&through(dir.path(), ""));
    }
}

#[test]
fn a_delay_of_the_server_delays_and_loses_nothing() {
    let dir = scratch();
    let _server = nbdkit(
        dir.path(),
        &[
            "--filter=delay",
            "memory",
            "16M",
            "rdelay=20ms",
            "wdelay=20ms",
        ],
    );
    exercise(&through(dir.path(), ""));
}

#[test]
fn errors_of_the_server_arrive_as_they_are() {
    let dir = scratch();
    let flag = dir.path().join("fail");
    let file = format!("error-file={}", flag.display());
    let _server = nbdkit(
        dir.path(),
        &[
            "--filter=error",
            "memory",
            "16M",
            "error=ENOSPC",
            "error-pwrite-rate=100%",
            &file,
        ],
    );
    let mut daemon = through(dir.path(), "");
    qemu_io(&daemon.uri("disk"), &["write -P 1 0 4k"]);
    std::fs::write(&flag, "").unwrap();
    let out = qemu_io_any(&daemon.uri("disk"), &["write -P 2 0 4k"]);
    assert!(out.contains("No space left on device"), "{out}");
    std::fs::remove_file(&flag).unwrap();
    qemu_io(&daemon.uri("disk"), &["read -P 1 0 4k"]);
    daemon.is_well();
}

#[test]
fn a_server_that_goes_away_and_comes_back_fails_requests_in_between() {
    let dir = scratch();
    image(&dir.path().join("far.raw"), 16 * MIB, 0);
    let arguments = ["file", "far.raw"];
    let path = dir.path().join("far.raw");
    let arguments = [arguments[0], path.to_str().unwrap()];
    let server = nbdkit(dir.path(), &arguments);
    let daemon = through(dir.path(), "");
    qemu_io(&daemon.uri("disk"), &["write -P 1 0 4k"]);
    drop(server);
    let out = qemu_io_any(&daemon.uri("disk"), &["write -P 2 0 4k"]);
    assert!(out.contains("error"), "{out}");
    std::fs::remove_file(dir.path().join("far.sock")).unwrap();
    let _server = nbdkit(dir.path(), &arguments);
    wait_until("the connection", || {
        qemu_io_any(&daemon.uri("disk"), &["read -P 1 0 4k"]).contains("read 4096/4096")
    });
}

#[test]
fn with_a_reconnect_delay_requests_wait_for_the_server() {
    let dir = scratch();
    image(&dir.path().join("far.raw"), 16 * MIB, 0);
    let path = dir.path().join("far.raw");
    let arguments = ["file", path.to_str().unwrap()];
    let server = nbdkit(dir.path(), &arguments);
    let daemon = through(dir.path(), ",reconnect-delay=30");
    qemu_io(&daemon.uri("disk"), &["write -P 1 0 4k"]);
    drop(server);
    std::fs::remove_file(dir.path().join("far.sock")).unwrap();
    let uri = daemon.uri("disk");
    let waiting = std::thread::spawn(move || qemu_io(&uri, &["write -P 2 0 4k", "read -P 2 0 4k"]));
    std::thread::sleep(std::time::Duration::from_millis(300));
    let _server = nbdkit(dir.path(), &arguments);
    waiting.join().unwrap();
}

#[test]
fn with_an_open_timeout_the_server_may_come_later() {
    let dir = scratch();
    let path = dir.path().to_owned();
    let daemon = std::thread::spawn(move || through(&path, ",open-timeout=30"));
    std::thread::sleep(std::time::Duration::from_millis(500));
    let _server = nbdkit(dir.path(), &["memory", "16M"]);
    exercise(&daemon.join().unwrap());
}

#[test]
fn a_missing_server_or_export_is_named() {
    let dir = scratch();
    image(&dir.path().join("disk.raw"), MIB, 0);
    let mut daemon = Daemon::start(
        dir.path(),
        "d",
        &["--blockdev", "driver=file,node-name=disk,filename=disk.raw"],
    );
    let add = |path: &Path, export: &str| {
        json!({"driver": "nbd", "node-name": "far", "export": export,
               "server": {"type": "unix", "path": path}})
    };
    let absent = dir.path().join("absent.sock");
    let (_, said) = daemon.refused("blockdev-add", add(&absent, ""));
    assert!(said.contains("absent.sock"), "{said}");
    let (_, said) = daemon.refused("blockdev-add", add(&daemon.nbd(), "nothing"));
    assert!(said.contains("nothing"), "{said}");
}

#[test]
fn a_malicious_server_is_refused_and_harms_nothing() {
    let script = include_str!("common/evil_server.py");
    for evil in [
        "garbage",
        "negative-size",
        "huge-block",
        "endless-info",
        "truncated",
        "bad-reply-cookie",
        "reply-outside",
        "short-coverage",
        "overlap",
        "simple-when-structured",
        "silent",
    ] {
        let dir = scratch();
        let socket = dir.path().join("far.sock");
        let server = spawn("python3", &["-c", script, socket.to_str().unwrap(), evil]);
        wait_until("the malicious server", || socket.exists());
        image(&dir.path().join("disk.raw"), MIB, 7);
        let mut daemon = Daemon::start(
            dir.path(),
            "d",
            &[
                "--blockdev",
                "driver=file,node-name=disk,filename=disk.raw",
                "--export",
                "type=nbd,id=good,node-name=disk,name=good,writable=on",
            ],
        );
        let added = daemon.qmp.execute(
            "blockdev-add",
            json!({
                "driver": "nbd", "node-name": "far", "server": {"type": "unix", "path": socket},
            }),
        );
        if added.is_ok() {
            daemon.ok(
                "block-export-add",
                json!({"type": "nbd", "id": "e", "node-name": "far", "name": "disk"}),
            );
            let out = qemu_io_any(&daemon.uri("disk"), &["read -P 0 0 64k"]);
            assert!(!out.contains("read 65536/65536"), "{evil}: {out}");
        }
        qemu_io(&daemon.uri("good"), &["read -P 7 0 1M"]);
        daemon.is_well();
        drop(server);
    }
}
