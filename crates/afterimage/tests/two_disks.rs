//! Two disks of one machine: started, checkpointed and stopped together or not at all.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod common;

use common::colo::{OLD, SIZE, complaint, stop_arguments};
use common::{Daemon, image, qemu_io, run, scratch, wait_until};
use serde_json::{Value, json};
use std::path::Path;

/// A secondary with the disks `a` and `b`, each with a filter, `a-colo` and `b-colo`, that is its
/// own top, and the exports `a`, `b` of the views and `a-disk`, `b-disk` for the peer.
fn secondary(dir: &Path) -> Daemon {
    let mut flags = Vec::new();
    for disk in ["a", "b"] {
        image(&dir.join(format!("{disk}.img")), SIZE, OLD);
        for layer in ["hidden", "active"] {
            image(&dir.join(format!("{disk}.{layer}")), 0, 0);
        }
        for node in [
            format!("driver=file,node-name={disk}-disk,filename={disk}.img"),
            overlay(disk, "hidden", "disk"),
            overlay(disk, "active", "hidden"),
            format!(
                "driver=replication,node-name={disk}-colo,mode=secondary,top-id={disk}-colo,\
                 file={disk}-active"
            ),
        ] {
            flags.extend(["--blockdev".to_owned(), node]);
        }
        for export in [
            format!("type=nbd,id={disk}-disk,node-name={disk}-disk,writable=on"),
            format!("type=nbd,id={disk},node-name={disk}-colo,name={disk},writable=on"),
        ] {
            flags.extend(["--export".to_owned(), export]);
        }
    }
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    Daemon::start(dir, "s", &flags)
}

fn overlay(disk: &str, layer: &str, backing: &str) -> String {
    format!(
        "driver=ai-overlay,node-name={disk}-{layer},file.driver=file,\
         file.filename={disk}.{layer},backing={disk}-{backing}"
    )
}

fn stages(daemon: &mut Daemon) -> Vec<String> {
    let nodes = daemon.ok("x-ai-query-replication", json!({}));
    let mut stages: Vec<String> = nodes
        .as_array()
        .unwrap()
        .iter()
        .map(|node| {
            let text = |key: &str| node[key].as_str().unwrap();
            format!("{} {}", text("node-name"), text("stage"))
        })
        .collect();
    stages.sort();
    stages
}

fn enable() -> Value {
    json!({"enable": true, "primary": false})
}

/// A client of `export` that writes and is gone without a farewell.
fn lose_a_writer(daemon: &mut Daemon, export: &str) {
    let script = "h.pwrite(b'Z' * 512, 0)\nimport os\nos._exit(0)\n";
    let output = run("nbdsh", &["-u", &daemon.uri(export), "-c", script]);
    assert!(output.status.success());
    wait_until("the lost writer", || complaint(daemon).is_some());
}

//= docs/spec/replication.md#several-disks
//= type=test
//# A start, checkpoint or stop that one disk refuses MUST change nothing on any disk.
#[test]
fn a_start_that_one_disk_refuses_starts_none() {
    for broken in ["a-disk", "b-disk"] {
        let dir = scratch();
        let mut s = secondary(dir.path());
        s.ok("block-export-del", json!({"id": broken}));
        let (_, said) = s.refused("xen-set-replication", enable());
        assert!(said.contains(broken), "{said}");
        assert_eq!(stages(&mut s), ["a-colo none", "b-colo none"]);
        // Nothing is left behind: writers of the disks are no copies' business, and it can be mended.
        for disk in ["a-disk", "b-disk"] {
            if disk != broken {
                qemu_io(&s.uri(disk), &["write -P 0x77 0 64k"]);
            }
        }
        s.ok(
            "block-export-add",
            json!({"type": "nbd", "id": broken, "node-name": broken, "writable": true}),
        );
        s.ok("xen-set-replication", enable());
        assert_eq!(stages(&mut s), ["a-colo running", "b-colo running"]);
        s.quit();
    }
}

//= docs/spec/replication.md#several-disks
//= type=test
//# A start, checkpoint or stop that one disk refuses MUST change nothing on any disk.
#[test]
fn a_checkpoint_that_one_disk_refuses_moves_no_view() {
    for broken in ["a", "b"] {
        let dir = scratch();
        let mut s = secondary(dir.path());
        s.ok("xen-set-replication", enable());
        for disk in ["a-disk", "b-disk"] {
            qemu_io(&s.uri(disk), &["write -P 0x22 64k 64k"]);
        }
        lose_a_writer(&mut s, &format!("{broken}-disk"));
        let (_, said) = s.refused("xen-colo-do-checkpoint", json!({}));
        assert!(said.contains(&format!("{broken}-colo")), "{said}");
        for view in ["a", "b"] {
            qemu_io(&s.uri(view), &["read -P 0x11 0 4M"]);
        }
    }
}

#[test]
fn a_checkpoint_moves_both_views() {
    let dir = scratch();
    let mut s = secondary(dir.path());
    s.ok("xen-set-replication", enable());
    qemu_io(&s.uri("a-disk"), &["write -P 0x22 0 64k"]);
    qemu_io(&s.uri("b-disk"), &["write -P 0x33 0 64k"]);
    qemu_io(&s.uri("a"), &["read -P 0x11 0 4M"]);
    qemu_io(&s.uri("b"), &["read -P 0x11 0 4M"]);
    s.ok("xen-colo-do-checkpoint", json!({}));
    qemu_io(&s.uri("a"), &["read -P 0x22 0 64k", "read -P 0x11 64k 64k"]);
    qemu_io(&s.uri("b"), &["read -P 0x33 0 64k", "read -P 0x11 64k 64k"]);
}

//= docs/spec/replication.md#several-disks
//= type=test
//# A failover MUST proceed on every disk that can, and return the errors of all others.
#[test]
fn a_failover_proceeds_where_it_can_and_returns_every_other_error() {
    let dir = scratch();
    let mut s = secondary(dir.path());
    s.ok("xen-set-replication", enable());
    qemu_io(&s.uri("a-disk"), &["write -P 0x22 0 64k"]);
    // Two disks that come too late: they were never started.
    for disk in ["c", "d"] {
        image(&dir.path().join(format!("{disk}.img")), SIZE, 0);
        s.ok(
            "blockdev-add",
            json!({"driver": "replication", "node-name": format!("{disk}-colo"), "mode": "secondary",
                   "top-id": "t", "file": {"driver": "file", "filename": format!("{disk}.img")}}),
        );
    }
    let (_, said) = s.refused("xen-set-replication", stop_arguments("secondary", true));
    for late in ["c-colo", "d-colo"] {
        assert!(said.contains(late), "{said}");
    }
    assert!(
        !said.contains("a-colo") && !said.contains("b-colo"),
        "{said}"
    );
    wait_until("both commits", || {
        stages(&mut s) == ["a-colo done", "b-colo done", "c-colo none", "d-colo none"]
    });
    for view in ["a", "b"] {
        qemu_io(&s.uri(view), &["read -P 0x11 0 4M", "write -P 0x44 0 64k"]);
    }
}
