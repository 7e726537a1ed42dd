//! A replication filter as a node among others: known, described, protected, heard, closed.

use crate::stages;
use crate::support::{Daemon, Dir, LENGTH, run};
use block::{Permissions, Shares};
use expect_test::expect;
use serde_json::{Value, json};
use std::fmt::Write;

/// The overlay's pages of the map, which only a flush writes, as faults of `blkdebug`.
fn map() -> Value {
    let page = |sector: u32| json!({ "event": "none", "iotype": "write", "sector": sector });
    json!([page(16), page(24)])
}

/// A secondary, the file of whose overlay `which` meets `faults`; not started.
async fn faulty(dir: &Dir, which: &str, faults: impl Fn(&str) -> Value) -> Daemon {
    let daemon = dir.daemon();
    daemon.secondary(0x11).await;
    // Its files get their contents before the faults begin.
    daemon.start(false).await.unwrap();
    daemon.stop(false).await.unwrap();
    let top = json!({ "node-name": "top" });
    daemon.ok("blockdev-del", top).await;
    let file = |overlay: &str| {
        let file = dir.file(&format!("{overlay}.ovl"));
        let image = json!({ "driver": "file", "filename": file });
        if overlay == which {
            let faults = faults(&file);
            json!({ "driver": "blkdebug", "inject-error": faults, "image": image })
        } else {
            image
        }
    };
    let rep = daemon.filter("", &file("hid"), &file("act"));
    let top = json!({
        "driver": "quorum", "node-name": "top", "vote-threshold": 1, "read-pattern": "fifo",
        "children": [rep],
    });
    daemon.ok("blockdev-add", top).await;
    daemon.events();
    daemon
}

/// The last sector of an overlay's file, which holds the last sector of the disk.
fn last(file: &str) -> Value {
    let sector = std::fs::metadata(file).unwrap().len() / 512 - 1;
    json!([{ "event": "none", "iotype": "write", "errno": 28, "sector": sector }])
}

/// `sec`, exported as `sec0`.
async fn disk(daemon: &Daemon, read_only: bool) {
    let image = daemon.image("sec.raw", 0x11);
    let options = json!({
        "driver": "file", "node-name": "sec", "filename": image, "read-only": read_only,
    });
    daemon.ok("blockdev-add", options).await;
    daemon.serve("s").await;
    daemon.export("sec0", "sec", !read_only).await;
}

//= docs/spec/replication.md#options
//= type=test
//# `top-id` MUST be kept as it was written and looked up at start only: the node it names need not
//# exist before.
//= docs/spec/replication.md#options
//= type=test
//# A node that was opened MUST be known to all replication commands at once, in stage NONE and
//# without error.
//= docs/spec/replication.md#options
//= type=test
//# `mode` and `top-id` MUST be part of the node's description as `query-named-block-nodes` shows
//# it.
//= docs/spec/replication.md#close-and-restart
//= type=test
//# A closed filter MUST be unknown to the replication commands.
#[test]
fn a_filter_is_known_and_described_from_its_opening_to_its_close() {
    run(async |dir| {
        let daemon = dir.daemon();
        disk(&daemon, false).await;
        let file = |name| json!({ "driver": "file", "filename": daemon.empty(name) });
        let rep = daemon.filter("", &file("hid.ovl"), &file("act.ovl"));
        daemon.ok("blockdev-add", rep).await;
        let filters = daemon.ok("x-ai-query-replication", json!({})).await;
        let shown = |name: &str| filters[0][name].clone();
        assert_eq!(
            (shown("node-name"), shown("stage"), shown("error")),
            (json!("rep"), json!("none"), Value::Null)
        );
        let nodes = daemon.ok("query-named-block-nodes", json!({})).await;
        let mut nodes = nodes.as_array().unwrap().iter();
        let node = nodes.find(|node| node["node-name"] == "rep").unwrap();
        let described = node["file"].as_str().unwrap();
        let described: Value = serde_json::from_str(&described["json:".len()..]).unwrap();
        assert_eq!(
            (&described["mode"], &described["top-id"]),
            (&json!("secondary"), &json!("top"))
        );
        let error = daemon.start(false).await.unwrap_err();
        assert_eq!(error, "node 'rep': No top_bs or it is invalid");
        let top = json!({
            "driver": "quorum", "node-name": "top", "vote-threshold": 1, "children": ["rep"],
        });
        daemon.ok("blockdev-add", top).await;
        daemon.start(false).await.unwrap();
        daemon.stop(false).await.unwrap();
        for node in ["top", "rep"] {
            daemon
                .ok("blockdev-del", json!({ "node-name": node }))
                .await;
        }
        let filters = daemon.ok("x-ai-query-replication", json!({})).await;
        assert_eq!(filters, json!([]));
        assert_eq!(daemon.status().await, json!({ "error": false }));
        daemon.stop(true).await.unwrap();
    });
}

//= docs/spec/replication.md#start
//= type=test
//# A start MUST be refused unless the active, hidden and secondary disk have the same length in
//# bytes.
#[test]
fn a_start_over_a_disk_of_another_length_is_refused() {
    run(async |dir| {
        let daemon = dir.daemon();
        disk(&daemon, false).await;
        daemon.chain("").await;
        let any = Shares {
            used: Permissions::NONE,
            shared: Permissions::ALL,
        };
        let user = daemon.engine.attach("user", "sec", any).await.unwrap();
        let sec = user.child().node().unwrap();
        let resize = sec.driver().capabilities().resize.unwrap();
        resize.resize(LENGTH / 2).await.unwrap();
        let error = daemon.start(false).await.unwrap_err();
        expect!["node 'rep': Active disk, hidden disk, secondary disk's length are not the same"]
            .assert_eq(&error);
        resize.resize(LENGTH).await.unwrap();
        daemon.start(false).await.unwrap();
    });
}

//= docs/spec/replication.md#start
//= type=test
//# A start MUST be refused if the active or the hidden disk cannot be emptied.
#[test]
fn a_start_over_an_overlay_that_cannot_be_emptied_is_refused() {
    run(async |dir| {
        let daemon = faulty(&dir, "act", |_| map()).await;
        let before = daemon.engine.dump();
        assert_eq!(daemon.io("act", "write -q 0 64k").await, "");
        assert!(daemon.io("act", "flush").await.contains("failed"));
        let error = daemon.start(false).await.unwrap_err();
        expect!["node 'rep': make-empty of 4194304 bytes at offset 0 on node 'act': node is poisoned by an earlier failed flush"].assert_eq(&error);
        assert_eq!(daemon.engine.dump(), before);
    });
}

/// Whether hidden and the secondary disk are read-only.
async fn read_only(daemon: &Daemon) -> [bool; 2] {
    let nodes = daemon.ok("query-named-block-nodes", json!({})).await;
    let nodes = nodes.as_array().unwrap();
    ["hid", "sec"].map(|name| {
        let node = nodes.iter().find(|node| node["node-name"] == name);
        node.unwrap()["ro"].as_bool().unwrap()
    })
}

//= docs/spec/replication.md#start
//= type=test
//# A start MUST make the hidden and the secondary disk writable where they were read-only, and
//# remember that.
#[test]
fn a_start_makes_disks_writable_and_a_stop_makes_them_read_only_again() {
    run(async |dir| {
        let daemon = dir.daemon();
        disk(&daemon, true).await;
        daemon.chain("").await;
        assert_eq!(read_only(&daemon).await, [true, true]);
        daemon.start(false).await.unwrap();
        assert_eq!(read_only(&daemon).await, [false, false]);
        daemon.stop(false).await.unwrap();
        assert_eq!(read_only(&daemon).await, [true, true]);
    });
}

//= docs/spec/replication.md#permissions
//= type=test
//# Resizing the active, hidden or secondary disk MUST be refused while replication runs.
#[test]
fn nobody_resizes_a_disk_of_a_running_pair() {
    run(async |dir| {
        let daemon = dir.daemon();
        daemon.secondary(0x11).await;
        daemon.start(false).await.unwrap();
        let resizing = Shares {
            used: Permissions::RESIZE,
            shared: Permissions::ALL,
        };
        let mut said = String::new();
        for node in ["act", "hid", "sec"] {
            let refused = daemon.engine.attach("user", node, resizing).await;
            writeln!(said, "{}", refused.unwrap_err().desc()).unwrap();
        }
        expect![[r"
            Permission conflict on node 'act': permissions 'resize' are both required by user (uses node 'act' as 'root' child) and unshared by node 'rep' (uses node 'act' as 'file' child)
            Permission conflict on node 'hid': permissions 'resize' are both required by user (uses node 'hid' as 'root' child) and unshared by node 'rep' (uses node 'hid' as 'hidden disk' child)
            Permission conflict on node 'sec': permissions 'resize' are both required by user (uses node 'sec' as 'root' child) and unshared by node '#block003' (uses node 'sec' as 'file' child)
        "]].assert_eq(&said);
    });
}

//= docs/spec/replication.md#commands
//= type=test
//# Errors of these commands MUST be of class `GenericError` and name the replication node.
#[test]
fn refusals_are_generic_errors_that_name_the_filter() {
    run(async |dir| {
        let daemon = dir.daemon();
        disk(&daemon, false).await;
        daemon.chain("").await;
        let set = |enable: bool, primary: bool, failover: bool| {
            let mut arguments = json!({ "enable": enable, "primary": primary });
            if failover {
                arguments["failover"] = true.into();
            }
            ("xen-set-replication", arguments)
        };
        let checkpoint = || ("xen-colo-do-checkpoint", json!({}));
        let before = [
            set(true, true, false),
            set(false, false, false),
            set(false, false, true),
            checkpoint(),
        ];
        let other = json!({ "driver": "raw", "node-name": "above", "file": "top" });
        daemon.ok("blockdev-add", other).await;
        let after = [set(true, false, false)];
        for (command, arguments) in before.into_iter().chain(after) {
            let reply = daemon.reply(command, arguments).await;
            let error = &reply["error"];
            assert_eq!(error["class"], "GenericError", "{reply}");
            assert!(
                error["desc"].as_str().unwrap().contains("node 'rep'"),
                "{reply}"
            );
        }
    });
}

/// What the status says, and how often an event did.
async fn told(daemon: &Daemon) -> String {
    let events = daemon.events();
    let events = events
        .iter()
        .filter(|e| e.starts_with("X_AI_REPLICATION_ERROR"));
    let status = daemon.status().await;
    assert_eq!(status["error"], json!(true));
    format!("{}, {}", events.count(), status["desc"].as_str().unwrap())
}

//= docs/spec/replication.md#errors
//= type=test
//# Lost forwards, failed copies, failed writes to the active disk, failed flushes, failed
//# checkpoints and failed commits MUST all reach the status and an event.
#[test]
fn whatever_goes_wrong_reaches_the_status_and_an_event() {
    let mut said = String::new();
    for case in ["forward", "copy", "write", "flush", "checkpoint", "commit"] {
        run(async |dir| {
            let daemon = match case {
                "forward" => stages::primary(&dir, "running, out of sync").await,
                "commit" => stages::secondary(&dir, "failover-failed").await,
                "copy" => faulty(&dir, "hid", last).await,
                "write" => faulty(&dir, "act", last).await,
                "flush" => faulty(&dir, "act", |_| map()).await,
                _ => faulty(&dir, "hid", |_| map()).await,
            };
            if !["forward", "commit"].contains(&case) {
                daemon.start(false).await.unwrap();
            }
            match case {
                "copy" => drop(daemon.io("sec0", "write -q 3M 1M").await),
                "write" => drop(daemon.io("top", "write -q 3M 1M").await),
                "flush" => {
                    daemon.write("top", 0x33, (0, 1)).await;
                    daemon.io("top", "flush").await;
                }
                "checkpoint" => {
                    daemon.write("sec0", 0x22, (0, 1)).await;
                    daemon.io("hid", "flush").await;
                    daemon.checkpoint().await.unwrap_err();
                }
                _ => {}
            }
            writeln!(said, "{case}: {}", told(&daemon).await).unwrap();
        });
    }
    expect![[r"
        forward: 1, I/O error occurred: write of 1048576 bytes at offset 1048576 on node '#block000': I/O error: injected by blkdebug
        copy: 1, I/O error occurred: write of 1048576 bytes at offset 3211264 on node '#block005': no space left on device: injected by blkdebug
        write: 1, I/O error occurred: write of 1048576 bytes at offset 3211264 on node '#block004': no space left on device: injected by blkdebug
        flush: 1, I/O error occurred: write of 4096 bytes at offset 12288 on node '#block004': I/O error: injected by blkdebug
        checkpoint: 1, I/O error occurred: make-empty of 4194304 bytes at offset 0 on node 'hid': node is poisoned by an earlier failed flush
        commit: 1, I/O error occurred: flush of 4194304 bytes at offset 0 on node 'sec': I/O error: injected by blkdebug
    "]].assert_eq(&said);
}
