//! A primary and a secondary, joined by NBD: quorum, replication filter and client on one side, the
//! exported disk with overlays on the other.

use crate::support::{Daemon, Dir, life, run};
use engine::Options;
use futures_util::future::{Either, join, select};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::pin::pin;
use std::time::Duration;

/// The secondary's daemon, started, and the primary's, started and attached.
async fn pair(dir: &Dir) -> (Daemon, Daemon) {
    pair_with(dir, json!({})).await
}

/// The same; the secondary disk meets the faults of `blkdebug` rules.
async fn pair_with(dir: &Dir, rules: Value) -> (Daemon, Daemon) {
    let secondary = dir.daemon();
    secondary.secondary_with(0x11, rules).await;
    secondary.start(false).await.unwrap();
    let primary = dir.daemon();
    let disk = primary.image("primary.raw", 0x11);
    let quorum = json!({
        "driver": "quorum", "node-name": "colo", "vote-threshold": 1, "read-pattern": "fifo",
        "children": [{ "driver": "file", "filename": disk, "node-name": "local" }],
    });
    primary.ok("blockdev-add", quorum).await;
    let filter = json!({
        "driver": "replication", "node-name": "rp", "mode": "primary",
        "x-ai-forward-timeout": 5,
        "file": {
            "driver": "nbd", "export": "sec0",
            "server": { "type": "unix", "path": dir.file("secondary.sock") },
        },
    });
    primary.ok("blockdev-add", filter).await;
    let change = json!({ "parent": "colo", "node": "rp" });
    primary.ok("x-blockdev-change", change).await;
    primary.start(true).await.unwrap();
    (primary, secondary)
}

#[test]
fn a_checkpoint_moves_the_view_to_the_primarys_contents() {
    run(async |dir| {
        let (primary, secondary) = pair(&dir).await;
        primary.write("colo", 0x22, (0, 2)).await;
        assert_eq!(secondary.view("top").await, "11 11 11 11");
        assert_eq!(secondary.view("sec0").await, "22 22 11 11");
        secondary.write("top", 0x33, (1, 3)).await;
        assert_eq!(secondary.view("top").await, "11 33 33 11");
        primary.checkpoint().await.unwrap();
        secondary.checkpoint().await.unwrap();
        assert_eq!(secondary.view("top").await, "22 22 11 11");
        primary.write("colo", 0x44, (0, 1)).await;
        assert_eq!(secondary.view("top").await, "22 22 11 11");
        assert_eq!(primary.view("colo").await, "44 22 11 11");
    });
}

//= docs/spec/replication.md#failover
//= type=test
//# After failover the guest MUST read what the last checkpoint held, overlaid with its own writes
//# since, and nothing the primary wrote after that checkpoint.
#[test]
fn a_failover_rolls_the_primary_back_and_keeps_the_guests_own_writes() {
    run(async |dir| {
        let (primary, secondary) = pair(&dir).await;
        primary.write("colo", 0x22, (0, 2)).await;
        secondary.checkpoint().await.unwrap();
        primary.write("colo", 0x44, (0, 4)).await;
        secondary.write("top", 0x33, (3, 4)).await;
        secondary.stop(true).await.unwrap();
        assert_eq!(secondary.view("top").await, "22 22 11 33");
        secondary.write("top", 0x55, (2, 3)).await;
        secondary.until("rep", "done").await;
        assert_eq!(secondary.view("top").await, "22 22 55 33");
        assert_eq!(secondary.view("sec").await, "22 22 55 33");
    });
}

#[test]
fn a_fenced_primary_goes_on_alone_and_says_that_it_is() {
    run(async |dir| {
        let (primary, secondary) = pair(&dir).await;
        secondary.stop(true).await.unwrap();
        primary.write("colo", 0x44, (0, 4)).await;
        assert_eq!(primary.view("colo").await, "44 44 44 44");
        assert_eq!(secondary.view("top").await, "11 11 11 11");
        assert_eq!(primary.status().await["error"], json!(true));
        let events = primary.events();
        let reported = |event: &String| event.starts_with("X_AI_REPLICATION_ERROR");
        assert_eq!(
            events.iter().filter(|e| reported(e)).count(),
            1,
            "{events:?}"
        );
    });
}

#[test]
fn a_lost_writer_ends_checkpoints_but_not_failover() {
    run(async |dir| {
        let (primary, secondary) = pair(&dir).await;
        primary.write("colo", 0x22, (0, 1)).await;
        secondary.checkpoint().await.unwrap();
        secondary.ok("nbd-server-stop", json!({})).await;
        let error = secondary.checkpoint().await.unwrap_err();
        assert!(error.contains("may be incomplete"), "{error}");
        let status = secondary.status().await;
        assert!(
            status["desc"].as_str().unwrap().contains("sec0"),
            "{status}"
        );
        secondary.stop(true).await.unwrap();
        secondary.until("rep", "done").await;
        assert_eq!(secondary.view("top").await, "22 11 11 11");
        assert_eq!(secondary.status().await, json!({ "error": false }));
    });
}

//= docs/spec/replication.md#close-and-restart
//= type=test
//# Closing a secondary that has lost a writer or its protection MUST keep the overlays' contents
//# and make them durable.
#[test]
fn closing_after_a_lost_writer_keeps_what_the_guest_saw() {
    let dir = Dir::new();
    life(&dir, async |dir| {
        let (primary, secondary) = pair(dir).await;
        primary.write("colo", 0x22, (0, 1)).await;
        secondary.checkpoint().await.unwrap();
        primary.write("colo", 0x44, (1, 2)).await;
        secondary.write("top", 0x33, (2, 3)).await;
        secondary.ok("nbd-server-stop", json!({})).await;
        assert_eq!(secondary.view("top").await, "22 11 33 11");
        secondary.end().await.unwrap();
    });
    life(&dir, async |dir| {
        let daemon = dir.daemon();
        let sec = json!({ "driver": "file", "node-name": "sec", "filename": dir.file("sec.raw") });
        daemon.ok("blockdev-add", sec).await;
        daemon.chain("").await;
        assert_eq!(daemon.view("act").await, "22 11 33 11");
        assert_eq!(daemon.view("sec").await, "22 44 11 11");
    });
}

#[test]
fn a_writer_that_takes_its_leave_is_not_lost() {
    run(async |dir| {
        let (primary, secondary) = pair(&dir).await;
        primary.write("colo", 0x22, (0, 1)).await;
        let change = json!({ "parent": "colo", "child": "children.1" });
        primary.stop(false).await.unwrap();
        primary.ok("x-blockdev-change", change).await;
        primary
            .ok("blockdev-del", json!({ "node-name": "rp" }))
            .await;
        secondary.checkpoint().await.unwrap();
        assert_eq!(secondary.view("top").await, "22 11 11 11");
    });
}

//= docs/spec/replication.md#failover
//= type=test
//# A promoted secondary MUST be able to serve as a primary in the same process: a start in mode
//# `primary` starts only the new filter.
#[test]
fn a_promoted_secondary_becomes_the_primary_of_a_new_pair() {
    run(async |dir| {
        let (primary, secondary) = pair(&dir).await;
        drop(primary);
        secondary.stop(true).await.unwrap();
        secondary.until("rep", "done").await;
        let peer = dir.daemon();
        let image = peer.image("new.raw", 0x11);
        let options = json!({ "driver": "file", "node-name": "new", "filename": image });
        peer.ok("blockdev-add", options).await;
        let socket = peer.serve("new.sock").await;
        peer.export("new", "new", true).await;
        let filter = json!({
            "driver": "replication", "node-name": "rp2", "mode": "primary",
            "file": {
                "driver": "nbd", "export": "new",
                "server": { "type": "unix", "path": socket },
            },
        });
        secondary.ok("blockdev-add", filter).await;
        let change = json!({ "parent": "top", "node": "rp2" });
        secondary.ok("x-blockdev-change", change).await;
        let error = secondary.start(false).await.unwrap_err();
        assert!(error.contains("'rp2'"), "{error}");
        secondary.start(true).await.unwrap();
        assert_eq!(secondary.stage("rep").await, "done");
        assert_eq!(secondary.stage("rp2").await, "running");
        secondary.write("top", 0x22, (0, 1)).await;
        assert_eq!(peer.view("new").await, "22 11 11 11");
    });
}

#[test]
fn an_orderly_end_of_the_secondary_keeps_all_that_was_sent() {
    run(async |dir| {
        let (primary, secondary) = pair(&dir).await;
        primary.write("colo", 0x22, (0, 2)).await;
        secondary.write("top", 0x33, (0, 1)).await;
        secondary.end().await.unwrap();
        primary.write("colo", 0x44, (3, 4)).await;
        let image = std::fs::read(dir.file("sec.raw")).unwrap();
        let (sent, rest) = image.split_at(2 << 20);
        assert!(sent.iter().all(|byte| *byte == 0x22));
        assert!(rest.iter().all(|byte| *byte == 0x11));
    });
}

//= docs/spec/replication.md#losses
//= type=test
//# Removing a child MUST NOT wait for its peer.
#[test]
fn a_child_whose_peer_hangs_is_removed_at_once() {
    run(async |dir| {
        let slow =
            json!({ "x-ai-delay": [{ "iotype": "write", "delay-ns": 3_600_000_000_000_u64 }] });
        let (primary, _secondary) = pair_with(&dir, slow).await;
        let change = json!({ "parent": "colo", "child": "children.1" });
        let write = primary.io("colo", "write -q -P 0x22 0 1M");
        let remove = primary.qmp("x-blockdev-change", change);
        let (said, removed) = join(write, remove).await;
        assert_eq!((said.as_str(), removed), ("", Ok(json!({}))));
        assert_eq!(primary.view("colo").await, "22 11 11 11");
    });
}

//= docs/spec/replication.md#commands
//= type=test
//# Errors of these commands MUST be of class `GenericError` and name the replication node.
#[test]
fn a_checkpoint_that_cannot_drain_gives_up_and_names_who_is_busy() {
    run(async |dir| {
        let slow =
            json!({ "x-ai-delay": [{ "iotype": "write", "delay-ns": 3_600_000_000_000_u64 }] });
        let options = Options {
            drain: Duration::from_millis(30),
            ..Options::default()
        };
        let secondary = dir.daemon_with(options);
        secondary.secondary_with(0x11, slow).await;
        secondary.start(false).await.unwrap();
        let write = pin!(secondary.io("sec0", "write -q -P 0x22 0 1M"));
        let checkpoint = pin!(secondary.checkpoint());
        let Either::Right((checkpoint, _)) = select(write, checkpoint).await else {
            panic!("the write ended first");
        };
        let error = checkpoint.unwrap_err();
        assert!(
            error.starts_with("node 'rep': ") && error.contains("qemu-io has 1 requests in flight"),
            "{error}"
        );
        assert_eq!(secondary.stage("rep").await, "running");
    });
}

#[test]
fn a_request_that_comes_while_a_checkpoint_drains_waits_for_its_end() {
    run(async |dir| {
        let slow =
            json!({ "x-ai-delay": [{ "iotype": "write", "delay-ns": 3_600_000_000_000_u64 }] });
        let options = Options {
            drain: Duration::from_millis(30),
            ..Options::default()
        };
        let secondary = dir.daemon_with(options);
        secondary.secondary_with(0x11, slow).await;
        secondary.start(false).await.unwrap();
        let order = RefCell::new(Vec::new());
        let write = pin!(secondary.io("sec0", "write -q -P 0x22 0 1M"));
        let checkpoint = async {
            let refused = secondary.checkpoint().await.is_err();
            order.borrow_mut().push(("checkpoint refused", refused));
        };
        let read = async {
            let read = secondary
                .io("top", "read -q -P 0x11 3M 1M")
                .await
                .is_empty();
            order.borrow_mut().push(("read", read));
        };
        let others = pin!(join(checkpoint, read));
        let Either::Right(_) = select(write, others).await else {
            panic!("the write ended first");
        };
        assert_eq!(order.take(), [("checkpoint refused", true), ("read", true)]);
    });
}

//= docs/spec/replication.md#checkpoint
//= type=test
//# A checkpoint MUST hold new requests to all exports of all disks, drain what is in flight, reads
//# of the view included, switch all disks, and only then let requests in.
/// A writer goes through the disk again and again, each time with the next byte; whatever a
/// checkpoint catches is a beginning of one pass over the pass before.
#[test]
fn checkpoints_under_load_show_one_instant() {
    run(async |dir| {
        let (primary, secondary) = pair(&dir).await;
        let load = async {
            for pass in 0x21..0x29_u8 {
                for block in 0..64 {
                    let at = block * 65536;
                    let command = format!("write -q -P {pass} {at} 65536");
                    assert_eq!(primary.io("colo", &command).await, "");
                }
            }
        };
        let checkpoints = async {
            for _ in 0..20 {
                secondary.checkpoint().await.unwrap();
                let view = blocks(&secondary).await;
                let first = view[0];
                let newer = view.iter().take_while(|byte| **byte == first).count();
                let older = if first == 0x21 { 0x11 } else { first - 1 };
                let rest = &view[newer..];
                assert!(rest.iter().all(|byte| *byte == older), "{view:x?}");
            }
        };
        join(load, checkpoints).await;
        secondary.checkpoint().await.unwrap();
        assert_eq!(blocks(&secondary).await, [0x28; 64]);
    });
}

/// The first byte of each 64 KiB of the view; the rest of the block has to be the same.
async fn blocks(secondary: &Daemon) -> Vec<u8> {
    let mut view = Vec::new();
    for block in 0..64 {
        let at = block * 65536;
        let candidates = (0x21..0x29_u8).chain([0x11]);
        let mut found = None;
        for byte in candidates {
            let command = format!("read -q -P {byte} {at} 65536");
            if secondary.io("top", &command).await.is_empty() {
                found = Some(byte);
                break;
            }
        }
        view.push(found.expect("a block holds one write"));
    }
    view
}
