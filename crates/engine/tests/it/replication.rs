//! Start, checkpoint and stop: what they check, what they undo, several disks at once.

use crate::support::{Daemon, Dir, run};
use expect_test::expect;
use serde_json::json;
use std::fmt::Write;

/// Adds a second secondary filter whose start fails for the reason given.
async fn broken(daemon: &Daemon, options: serde_json::Value) -> String {
    daemon.ok("blockdev-add", options).await;
    daemon.start(false).await.unwrap_err()
}

//= docs/spec/replication.md#options
//= type=test
//# Opening a node MUST NOT check its chain, lengths or formats: that is the start's business.
//= docs/spec/replication.md#start
//= type=test
//# A start MUST check in this order and return the first error: already ended (success, nothing
//# done), already running, wrong mode, then the chain.
//= docs/spec/replication.md#start
//= type=test
//# A start MUST be refused if the active disk has no backing disk.
//= docs/spec/replication.md#start
//= type=test
//# A start MUST be refused if the hidden disk has no backing disk.
//= docs/spec/replication.md#start
//= type=test
//# A start MUST be refused if nobody has the secondary disk in use, that is, if no export of it
//# exists.
//= docs/spec/replication.md#start
//= type=test
//# A start MUST be refused unless `top-id` names an existing node without parents other than
//# exports, with the filter in its tree.
#[test]
fn a_start_checks_the_chain() {
    let filter = |top: &str, file: serde_json::Value| {
        json!({
            "driver": "replication", "node-name": "bad", "mode": "secondary", "top-id": top,
            "file": file,
        })
    };
    let overlay = |file: &str, backing: serde_json::Value| {
        json!({
            "driver": "ai-overlay", "backing": backing,
            "file": { "driver": "file", "filename": file },
        })
    };
    let mut said = String::new();
    for case in [
        "no backing",
        "one backing",
        "no export",
        "no top",
        "other top",
    ] {
        run(async |dir| {
            let daemon = dir.daemon();
            let image = daemon.image("disk.raw", 0x11);
            let disk = json!({ "driver": "file", "node-name": "disk", "filename": image });
            daemon.ok("blockdev-add", disk).await;
            let (one, two) = (daemon.empty("one.ovl"), daemon.empty("two.ovl"));
            let chain = overlay(&one, overlay(&two, json!("disk")));
            let options = match case {
                "no backing" => filter("bad", json!("disk")),
                "one backing" => filter("bad", overlay(&one, json!("disk"))),
                "no top" => filter("nope", chain),
                "other top" => {
                    let other = json!({ "driver": "null-co", "node-name": "other" });
                    daemon.ok("blockdev-add", other).await;
                    filter("other", chain)
                }
                _ => filter("bad", chain),
            };
            if case != "no export" {
                daemon.serve("s").await;
                daemon.export("e", "disk", true).await;
            }
            writeln!(said, "{case}: {}", broken(&daemon, options).await).unwrap();
            let error = daemon.start(true).await.unwrap_err();
            assert!(error.contains("needs mode 'secondary'"), "{error}");
        });
    }
    expect![[r"
        no backing: node 'bad': Active disk doesn't have backing file
        one backing: node 'bad': Hidden disk doesn't have backing file
        no export: node 'bad': The secondary disk doesn't have block backend: export node 'disk' first
        no top: node 'bad': No top_bs or it is invalid
        other top: node 'bad': No top_bs or it is invalid
    "]]
    .assert_eq(&said);
}

#[test]
fn a_failed_start_is_undone_and_can_be_retried() {
    run(async |dir| {
        let daemon = dir.daemon();
        daemon.secondary(0x11).await;
        let above = json!({ "driver": "raw", "node-name": "above", "file": "top" });
        daemon.ok("blockdev-add", above).await;
        let before = daemon.engine.dump();
        for _ in 0..2 {
            let error = daemon.start(false).await.unwrap_err();
            assert!(error.contains("No top_bs or it is invalid"), "{error}");
            assert_eq!(daemon.engine.dump(), before);
        }
        daemon
            .ok("blockdev-del", json!({ "node-name": "above" }))
            .await;
        daemon.start(false).await.unwrap();
        daemon.write("sec0", 0x22, (0, 1)).await;
        assert_eq!(daemon.view("top").await, "11 11 11 11");
    });
}

//= docs/spec/replication.md#permissions
//= type=test
//# A new writer directly on the secondary disk MUST be refused while copy-before-write is in place,
//# with both nodes and the permission in the error.
//= docs/spec/replication.md#permissions
//= type=test
//# Deleting the filter or a node of its chain while something is attached to it MUST be refused.
//= docs/spec/replication.md#start
//= type=test
//# A start MUST attach the hidden and the secondary disk to the filter as children called `hidden
//# disk` and `secondary disk`.
//= docs/spec/replication.md#start
//= type=test
//# While replication runs, operations on the top node other than I/O, new exports and changes of
//# its children MUST be refused with the reason.
#[test]
fn while_running_the_chain_is_protected() {
    run(async |dir| {
        let daemon = dir.daemon();
        daemon.secondary(0x11).await;
        daemon.start(false).await.unwrap();
        let mut said = String::new();
        for node in ["top", "sec", "hid", "act", "rep"] {
            let arguments = json!({ "node-name": node });
            said += &daemon.err("blockdev-del", arguments).await;
            said += "\n";
        }
        let export = json!({ "type": "nbd", "id": "x", "node-name": "sec", "writable": true });
        said += &daemon.err("block-export-add", export).await;
        expect![[r"
            Node 'top' is busy: Block device is in use by internal backup job
            Block device sec is in use by node 'hid'
            Block device hid is in use by node 'act'
            Block device act is in use by node 'rep'
            Block device rep is in use by node 'top'
            Permission conflict on node 'sec': permissions 'write' are both required by block export 'x' (uses node 'sec' as 'root' child) and unshared by node '#block003' (uses node 'sec' as 'file' child)"]].assert_eq(&said);
        expect![[r"
            block export 'sec0' [rw--]
              root: #block003 (copy-before-write)
                file [rw--]: sec (blkdebug)
                  image [rw--]: #block000 (file)
                target [-w--]: hid (ai-overlay)
                  file [rw-z]: #block002 (file)
                  backing [r---]: sec (blkdebug)
                    image [rw--]: #block000 (file)
            (unused)
              -: top (quorum)
                children.0 [----]: rep (replication)
                  file [rw--]: act (ai-overlay)
                    file [rw-z]: #block001 (file)
                    backing [r---]: hid (ai-overlay)
                      file [rw-z]: #block002 (file)
                      backing [r---]: sec (blkdebug)
                        image [rw--]: #block000 (file)
                  hidden disk [-w--]: hid (ai-overlay)
                    file [rw-z]: #block002 (file)
                    backing [r---]: sec (blkdebug)
                      image [rw--]: #block000 (file)
                  secondary disk [-w--]: #block003 (copy-before-write)
                    file [rw--]: sec (blkdebug)
                      image [rw--]: #block000 (file)
                    target [-w--]: hid (ai-overlay)
                      file [rw-z]: #block002 (file)
                      backing [r---]: sec (blkdebug)
                        image [rw--]: #block000 (file)
        "]]
        .assert_eq(&daemon.engine.dump());
    });
}

//= docs/spec/replication.md#stop
//= type=test
//# A stop of a secondary without failover MUST discard both overlays, keep everything the primary
//# sent on the secondary disk, and end in DONE without error.
#[test]
fn a_stop_empties_the_buffers_and_restores_the_chain() {
    run(async |dir| {
        let daemon = dir.daemon();
        daemon.secondary(0x11).await;
        let before = daemon.engine.dump();
        daemon.start(false).await.unwrap();
        daemon.write("sec0", 0x22, (0, 2)).await;
        daemon.write("top", 0x33, (1, 3)).await;
        daemon.stop(false).await.unwrap();
        assert_eq!(daemon.engine.dump(), before);
        assert_eq!(daemon.view("top").await, "22 22 11 11");
        assert_eq!(daemon.view("sec").await, "22 22 11 11");
        assert_eq!(daemon.status().await, json!({ "error": false }));
    });
}

#[test]
fn zeroes_and_discards_of_the_primary_are_undone_too() {
    run(async |dir| {
        let daemon = dir.daemon();
        daemon.secondary(0x11).await;
        daemon.start(false).await.unwrap();
        assert_eq!(daemon.io("sec0", "write -q -z -u 0 1M").await, "");
        assert_eq!(daemon.io("sec0", "discard -q 1M 1M").await, "");
        assert_eq!(daemon.io("sec0", "write -q -P 0x22 2097664 4k").await, "");
        assert_eq!(daemon.view("top").await, "11 11 11 11");
        daemon.stop(true).await.unwrap();
        daemon.until("rep", "done").await;
        assert_eq!(daemon.view("sec").await, "11 11 11 11");
    });
}

//= docs/spec/replication.md#copy-before-write
//= type=test
//# Data that the secondary's guest wrote MUST keep covering what the peer writes to the same place,
//# until the next checkpoint.
#[test]
fn a_guests_write_is_kept_over_the_primarys() {
    run(async |dir| {
        let daemon = dir.daemon();
        daemon.secondary(0x11).await;
        daemon.start(false).await.unwrap();
        daemon.write("top", 0x33, (0, 2)).await;
        daemon.write("sec0", 0x22, (1, 3)).await;
        assert_eq!(daemon.view("top").await, "33 33 11 11");
        daemon.stop(true).await.unwrap();
        daemon.until("rep", "done").await;
        assert_eq!(daemon.view("top").await, "33 33 11 11");
    });
}

#[test]
fn a_copy_that_fails_fails_the_write_and_is_reported() {
    run(async |dir| {
        let daemon = dir.daemon();
        daemon.secondary(0x11).await;
        daemon.start(false).await.unwrap();
        daemon.stop(false).await.unwrap();
        daemon
            .ok("blockdev-del", json!({ "node-name": "top" }))
            .await;
        // The last sector of hidden's file holds the last sector of the disk.
        let length = std::fs::metadata(dir.file("hid.ovl")).unwrap().len();
        let fault = json!({
            "event": "none", "iotype": "write", "once": true, "errno": 28,
            "sector": length / 512 - 1,
        });
        let faulty = json!({
            "driver": "blkdebug", "inject-error": [fault],
            "image": { "driver": "file", "filename": dir.file("hid.ovl") },
        });
        daemon.chain_with("", faulty).await;
        daemon.start(false).await.unwrap();
        let said = daemon.io("sec0", "write -P 0x22 3M 1M").await;
        assert!(said.contains("No space left on device"), "{said}");
        assert_eq!(daemon.view("sec0").await, "11 11 11 11");
        let status = daemon.status().await;
        assert!(
            status["desc"].as_str().unwrap().contains("no space left"),
            "{status}"
        );
        daemon.events();
        daemon.write("sec0", 0x22, (3, 4)).await;
        assert_eq!(daemon.view("top").await, "11 11 11 11");
        daemon.checkpoint().await.unwrap();
        assert_eq!(daemon.view("top").await, "11 11 11 22");
    });
}

/// Two disks of one machine.
async fn two(dir: &Dir) -> Daemon {
    let daemon = dir.daemon();
    daemon.secondary(0x11).await;
    daemon.disk("2", 0x22, json!({})).await;
    daemon
}

#[test]
fn two_disks_start_together_or_not_at_all() {
    run(async |dir| {
        let daemon = two(&dir).await;
        let above = json!({ "driver": "raw", "node-name": "above", "file": "top" });
        daemon.ok("blockdev-add", above).await;
        let before = daemon.engine.dump();
        let error = daemon.start(false).await.unwrap_err();
        assert_eq!(error, "node 'rep': No top_bs or it is invalid");
        assert_eq!(daemon.engine.dump(), before);
        assert_eq!(daemon.stage("rep2").await, "none");
        daemon
            .ok("blockdev-del", json!({ "node-name": "above" }))
            .await;
        daemon.start(false).await.unwrap();
        assert_eq!(daemon.stage("rep2").await, "running");
    });
}

#[test]
fn two_disks_take_one_checkpoint_and_fail_over_together() {
    run(async |dir| {
        let daemon = two(&dir).await;
        daemon.start(false).await.unwrap();
        daemon.write("sec0", 0x33, (0, 1)).await;
        daemon.write("sec02", 0x44, (0, 1)).await;
        daemon.checkpoint().await.unwrap();
        daemon.write("sec0", 0x55, (1, 2)).await;
        daemon.write("sec02", 0x55, (1, 2)).await;
        daemon.stop(true).await.unwrap();
        assert_eq!(daemon.view("top").await, "33 11 11 11");
        assert_eq!(daemon.view("top2").await, "44 22 22 22");
        for node in ["rep", "rep2"] {
            daemon.until(node, "done").await;
        }
        assert_eq!(daemon.view("sec").await, "33 11 11 11");
        assert_eq!(daemon.view("sec2").await, "44 22 22 22");
    });
}

//= docs/spec/replication.md#commands
//= type=test
//# `query-xen-replication-status` MUST answer with `error` true and a description if any
//# replication node has an error, and with `error` false otherwise.
#[test]
fn a_failover_goes_on_where_one_disk_cannot_and_says_which() {
    run(async |dir| {
        let daemon = dir.daemon();
        daemon.secondary(0x11).await;
        daemon.start(false).await.unwrap();
        assert_eq!(daemon.status().await, json!({ "error": false }));
        daemon.disk("2", 0x22, json!({})).await;
        let status = daemon.status().await;
        assert_eq!(status["error"], json!(true));
        assert!(
            status["desc"].as_str().unwrap().contains("'rep2'"),
            "{status}"
        );
        let error = daemon.stop(true).await.unwrap_err();
        assert_eq!(error, "replication node 'rep2': replication is not running");
        daemon.until("rep", "done").await;
        assert_eq!(daemon.stage("rep2").await, "none");
    });
}

/// The map's pages, which only a flush writes, cannot be written: hidden is poisoned by its first
/// flush with anything in it.
#[test]
fn a_checkpoint_that_one_overlay_cannot_take_empties_none() {
    run(async |dir| {
        let daemon = dir.daemon();
        daemon.secondary(0x11).await;
        daemon.start(false).await.unwrap();
        daemon.stop(false).await.unwrap();
        daemon
            .ok("blockdev-del", json!({ "node-name": "top" }))
            .await;
        let map = |sector: u32| json!({ "event": "none", "iotype": "write", "sector": sector });
        let faulty = json!({
            "driver": "blkdebug", "inject-error": [map(16), map(24)],
            "image": { "driver": "file", "filename": dir.file("hid.ovl") },
        });
        daemon.chain_with("", faulty).await;
        daemon.disk("2", 0x22, json!({})).await;
        daemon.start(false).await.unwrap();
        for disk in ["", "2"] {
            daemon.write(&format!("sec0{disk}"), 0x44, (0, 1)).await;
            daemon.write(&format!("top{disk}"), 0x33, (1, 2)).await;
        }
        assert!(daemon.io("hid", "flush").await.contains("failed"));
        let error = daemon.checkpoint().await.unwrap_err();
        assert!(
            error.contains("make-empty") && error.contains("'hid'"),
            "{error}"
        );
        assert_eq!(daemon.view("top").await, "11 33 11 11");
        assert_eq!(daemon.view("top2").await, "22 33 22 22");
        assert_eq!(daemon.stage("rep").await, "running");
        assert_eq!(daemon.status().await["error"], json!(true));
    });
}
