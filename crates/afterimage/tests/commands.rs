//! The commands around replication: graph changes, exports, jobs, the human monitor.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod common;

use common::colo::{
    SIZE, join, primary, secondary, secondary_over, secondary_with, start, stop_arguments,
};
use common::{Daemon, image, qemu_io, scratch, spawn};
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;

/// The errors of a command: what is asked, and what the refusal names.
#[track_caller]
fn refusals(daemon: &mut Daemon, command: &str, cases: &[(Value, &str)]) {
    for (arguments, words) in cases {
        let (class, said) = daemon.refused(command, arguments.clone());
        assert_eq!(class, "GenericError", "{command} {arguments}");
        assert!(said.contains(words), "{command} {arguments}: {said}");
    }
}

#[test]
fn changes_of_children_that_make_no_sense_are_refused() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    image(&dir.path().join("short.img"), SIZE / 2, 0);
    p.ok(
        "blockdev-add",
        json!({"driver": "file", "node-name": "spare", "filename": "short.img"}),
    );
    refusals(
        &mut p,
        "x-blockdev-change",
        &[
            (
                json!({"parent": "disk"}),
                "Either child or node must be specified",
            ),
            (
                json!({"parent": "disk", "child": "children.1", "node": "spare"}),
                "The parameters child and node are in conflict",
            ),
            (
                json!({"parent": "disk", "child": "children.7"}),
                "Node 'disk' does not have child 'children.7'",
            ),
            (
                json!({"parent": "disk", "node": "nope"}),
                "Node 'nope' not found",
            ),
            (
                json!({"parent": "disk", "node": "colo"}),
                "The node colo already has a parent",
            ),
            (json!({"parent": "local", "node": "spare"}), "local"),
            (json!({"parent": "nope", "node": "spare"}), "nope"),
        ],
    );
    p.ok(
        "x-blockdev-change",
        json!({"parent": "disk", "child": "children.1"}),
    );
    refusals(
        &mut p,
        "x-blockdev-change",
        &[(
            json!({"parent": "disk", "child": "children.0"}),
            "The number of children cannot be lower than the vote threshold 1",
        )],
    );
    qemu_io(&p.uri("disk"), &["write -P 0x44 0 4M", "read -P 0x44 0 4M"]);
}

//= docs/spec/replication.md#permissions
//= type=test
//# Deleting the filter or a node of its chain while something is attached to it MUST be refused.
//= docs/spec/replication.md#permissions
//= type=test
//# A new writer directly on the secondary disk MUST be refused while copy-before-write is in place,
//# with both nodes and the permission in the error.
#[test]
fn what_is_in_use_is_not_deleted_nor_written_past_its_filter() {
    let dir = scratch();
    let mut s = secondary(dir.path(), "s");
    start(&mut s, "secondary");
    let del = |node: &str| json!({"node-name": node});
    refusals(
        &mut s,
        "blockdev-del",
        &[
            (del("nope"), "Failed to find node with node-name='nope'"),
            (del("disk"), "disk"),
            (del("colo"), "Block device colo is in use"),
            (del("active"), "Block device active is in use"),
            (del("hidden"), "Block device hidden is in use"),
            (del("replica"), "Block device replica is in use"),
        ],
    );
    let writer =
        json!({"type": "nbd", "id": "w", "node-name": "replica", "name": "w", "writable": true});
    let (_, said) = s.refused("block-export-add", writer);
    for words in ["replica", "write", "'w'"] {
        assert!(said.contains(words), "{said}");
    }
    qemu_io(&s.uri("replica"), &["write -P 0x22 0 64k"]);
    qemu_io(&s.uri("disk"), &["read -P 0x11 0 4M"]);
}

#[test]
fn the_server_and_its_exports_come_and_go() {
    let dir = scratch();
    image(&dir.path().join("disk.raw"), SIZE, 0x11);
    let mut d = Daemon::start_plain(
        dir.path(),
        "d",
        &["--blockdev", "driver=file,node-name=disk,filename=disk.raw"],
    );
    let add = |id: &str, name: &str| json!({"type": "nbd", "id": id, "node-name": "disk", "name": name, "writable": true});
    refusals(
        &mut d,
        "nbd-server-stop",
        &[(json!({}), "NBD server not running")],
    );
    refusals(
        &mut d,
        "block-export-add",
        &[(add("e", "e"), "NBD server not running")],
    );
    let address = json!({"addr": {"type": "unix", "data": {"path": d.nbd()}}});
    d.ok("nbd-server-start", address.clone());
    refusals(
        &mut d,
        "nbd-server-start",
        &[(address.clone(), "NBD server already running")],
    );
    d.ok(
        "nbd-server-add",
        json!({"device": "disk", "name": "old", "writable": true}),
    );
    d.ok("block-export-add", add("e", "new"));
    refusals(
        &mut d,
        "block-export-add",
        &[
            (add("e", "third"), "Block export id 'e' is already in use"),
            (add("f", "new"), "NBD server already has export named 'new'"),
        ],
    );
    refusals(
        &mut d,
        "block-export-del",
        &[(json!({"id": "x"}), "Export 'x' is not found")],
    );
    qemu_io(&d.uri("old"), &["write -P 0x22 0 64k"]);
    qemu_io(&d.uri("new"), &["read -P 0x22 0 64k"]);
    d.ok("nbd-server-remove", json!({"name": "old"}));
    assert_eq!(d.qmp.wait_event("BLOCK_EXPORT_DELETED")["id"], "old");
    d.ok("nbd-server-stop", json!({}));
    assert_eq!(d.qmp.wait_event("BLOCK_EXPORT_DELETED")["id"], "e");
    assert_eq!(d.ok("query-block-exports", json!({})), json!([]));
    d.ok("nbd-server-start", address);
    d.ok("block-export-add", add("e", "new"));
    qemu_io(&d.uri("new"), &["read -P 0x11 64k 64k"]);
}

#[test]
fn an_export_with_a_client_goes_only_when_it_must() {
    let dir = scratch();
    image(&dir.path().join("disk.raw"), SIZE, 0x11);
    let mut d = Daemon::start(
        dir.path(),
        "d",
        &[
            "--blockdev",
            "driver=file,node-name=disk,filename=disk.raw",
            "--export",
            "type=nbd,id=e,node-name=disk,name=disk,writable=on",
        ],
    );
    let uri = d.uri("disk");
    let script = "h.pread(512, 0)\nprint('in', flush=True)\n\
                  try:\n    while True: h.pread(512, 0)\nexcept nbd.Error: pass\n";
    let mut client = spawn("nbdsh", &["-u", &uri, "-c", script]);
    let said = client.0.as_mut().unwrap().stdout.as_mut().unwrap();
    said.read_exact(&mut [0; 2]).unwrap();
    for mode in [json!({"id": "e"}), json!({"id": "e", "mode": "safe"})] {
        let (_, said) = d.refused("block-export-del", mode);
        assert_eq!(said, "export 'e' still in use");
    }
    d.qmp.events.clear();
    d.ok("block-export-del", json!({"id": "e", "mode": "hard"}));
    assert_eq!(d.qmp.wait_event("BLOCK_EXPORT_DELETED")["id"], "e");
    drop(client);
    d.is_well();
}

#[test]
fn the_human_monitor_reads_and_writes() {
    let dir = scratch();
    let mut s = secondary(dir.path(), "s");
    let mut human = |line: &str| {
        let said = s.ok("human-monitor-command", json!({"command-line": line}));
        said.as_str().unwrap().to_owned()
    };
    assert!(human("qemu-io disk \"read 0 4k\"").contains("Input/output error"));
    assert!(
        human("qemu-io replica \"write -P 0x22 0 64k\"")
            .contains("wrote 65536/65536 bytes at offset 0")
    );
    assert!(
        human("qemu-io replica \"read -P 0x22 0 64k\"")
            .contains("read 65536/65536 bytes at offset 0")
    );
    assert!(
        human("qemu-io replica \"read -P 0x23 0 64k\"").contains("Pattern verification failed")
    );
    assert!(human("qemu-io nope \"read 0 4k\"").contains("nope"));
    assert!(human("frobnicate").contains("frobnicate"));
}

//= docs/spec/replication.md#commit
//= type=test
//# The commit MUST be visible as a job with progress and end with an event.
#[test]
fn the_commit_is_a_job_that_is_seen_and_not_ended_by_hand() {
    let dir = scratch();
    // Held until the image under it is reached for the last chunk.
    let slow = "driver=blkdebug,node-name=replica,image.driver=file,image.filename=s.img,\
                x-ai-delay.0.iotype=write,x-ai-delay.0.sector=4096,x-ai-delay.0.delay-ns=2000000000";
    let mut s = secondary_with(dir.path(), "s", slow);
    let unknown = json!({"device": "nope"});
    let (class, _) = s.refused("block-job-cancel", unknown);
    assert_eq!(class, "DeviceNotActive");
    start(&mut s, "secondary");
    assert_eq!(job_types(&mut s), ["backup"]);
    qemu_io(&s.uri("disk"), &["write -P 0x33 1M 2M"]);
    s.ok("xen-set-replication", stop_arguments("secondary", true));
    let jobs = s.ok("query-block-jobs", json!({}));
    assert_eq!(jobs[0]["type"], "commit");
    assert_eq!(jobs[0]["status"], "running");
    let id = jobs[0]["device"].as_str().unwrap().to_owned();
    let (class, said) = s.refused("block-job-cancel", json!({"device": id}));
    assert_eq!(class, "GenericError");
    assert!(said.contains(&id), "{said}");
    s.wait_for_stage("done");
    s.qmp
        .events
        .retain(|event| event["data"]["type"] == "commit");
    let completed = s.qmp.wait_event("BLOCK_JOB_COMPLETED");
    assert_eq!(completed["device"], id.as_str());
    assert_eq!(completed["offset"], completed["len"]);
    assert_eq!(job_types(&mut s), Vec::<String>::new());
}

fn job_types(daemon: &mut Daemon) -> Vec<String> {
    let jobs = daemon.ok("query-block-jobs", json!({}));
    let jobs = jobs.as_array().unwrap();
    jobs.iter()
        .map(|job| job["type"].as_str().unwrap().to_owned())
        .collect()
}

//= docs/spec/replication.md#start
//= type=test
//# A start MUST make the hidden and the secondary disk writable where they were read-only, and
//# remember that.
#[test]
fn a_read_only_hidden_disk_is_writable_for_as_long_as_replication_runs() {
    let dir = scratch();
    let hidden = "driver=ai-overlay,node-name=hidden,read-only=on,file.driver=file,\
                  file.filename=s.hidden,backing=replica";
    let mut s = secondary_over(dir.path(), hidden);
    assert!(is_read_only(&mut s, "hidden"));
    let export = json!({"type": "nbd", "id": "replica", "node-name": "replica", "writable": true});
    s.ok("block-export-del", json!({"id": "replica"}));
    let enable = json!({"enable": true, "primary": false});
    s.refused("xen-set-replication", enable);
    assert!(is_read_only(&mut s, "hidden"), "after a start that failed");
    s.ok("block-export-add", export);
    start(&mut s, "secondary");
    assert!(!is_read_only(&mut s, "hidden"), "while running");
    qemu_io(&s.uri("replica"), &["write -P 0x22 0 64k"]);
    qemu_io(&s.uri("disk"), &["read -P 0x11 0 64k"]);
    s.ok("xen-set-replication", stop_arguments("secondary", false));
    assert!(is_read_only(&mut s, "hidden"), "after the stop");
    s.quit();
}

fn is_read_only(daemon: &mut Daemon, name: &str) -> bool {
    let nodes = daemon.ok("query-named-block-nodes", json!({"flat": true}));
    let mut nodes = nodes.as_array().unwrap().iter();
    let node = nodes.find(|node| node["node-name"] == name).unwrap();
    node["ro"].as_bool().unwrap()
}

/// A `replication` node with these options over a small image; its error, if it is refused.
fn replication(daemon: &mut Daemon, dir: &Path, options: &Value) -> Result<(), String> {
    image(&dir.join("r.img"), SIZE, 0);
    let mut node = json!({"driver": "replication", "node-name": "r",
        "file": {"driver": "file", "filename": dir.join("r.img")}});
    node.as_object_mut()
        .unwrap()
        .extend(options.as_object().unwrap().clone());
    node.as_object_mut()
        .unwrap()
        .retain(|_, value| !value.is_null());
    match daemon.qmp.execute("blockdev-add", node) {
        Ok(_) => Ok(()),
        Err(error) => Err(error["desc"].as_str().unwrap().to_owned()),
    }
}

//= docs/spec/replication.md#options
//= type=test
//# The driver MUST accept `mode`, `top-id` and our own `x-ai-forward-timeout`, and refuse every
//# other option by name.
//= docs/spec/replication.md#options
//= type=test
//# A node without `mode` MUST be refused with an error that names the missing option.
//= docs/spec/replication.md#options
//= type=test
//# A `mode` other than `primary` or `secondary` MUST be refused with an error that names the value.
//= docs/spec/replication.md#options
//= type=test
//# A node of mode `primary` with a `top-id` MUST be refused.
//= docs/spec/replication.md#options
//= type=test
//# A node of mode `secondary` without a `top-id` MUST be refused with an error that names the
//# missing option.
//= docs/spec/replication.md#options
//= type=test
//# A node without a `file` child, or whose `file` child cannot be opened, MUST be refused with the
//# error of that child before its other options are looked at.
//= docs/spec/replication.md#options
//= type=test
//# A refused node MUST leave nothing behind: no node, no entry among the replication nodes, no error
//# in their status.
#[test]
fn a_replication_node_with_wrong_options_is_refused_and_leaves_nothing() {
    let dir = scratch();
    let mut d = Daemon::start(dir.path(), "d", &[]);
    let absent = json!({"driver": "file", "filename": "/nonexistent/r.img"});
    for (options, words) in [
        (json!({}), "'mode' is missing"),
        (json!({"mode": "tertiary"}), "tertiary"),
        (json!({"mode": "primary", "top-id": "t"}), "top-id"),
        (json!({"mode": "secondary"}), "top-id"),
        (json!({"mode": "primary", "colour": "red"}), "colour"),
        (
            json!({"mode": "primary", "file": null}),
            "'file' is missing",
        ),
        (json!({"mode": "primary", "file": "nobody"}), "nobody"),
        (
            json!({"mode": "secondary", "file": absent}),
            "/nonexistent/r.img",
        ),
    ] {
        let said = replication(&mut d, dir.path(), &options).unwrap_err();
        assert!(said.contains(words), "{options}: {said}");
        assert_eq!(d.ok("query-named-block-nodes", json!({})), json!([]));
        assert_eq!(d.ok("x-ai-query-replication", json!({})), json!([]));
        let status = d.ok("query-xen-replication-status", json!({}));
        assert_eq!(status, json!({"error": false}));
    }
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
//# `mode` and `top-id` MUST be part of the node's description as `query-named-block-nodes` shows it.
//= docs/spec/replication.md#options
//= type=test
//# Opening a node MUST NOT check its chain, lengths or formats: that is the start's business.
//= docs/spec/replication.md#options
//= type=test
//# The driver MUST be called `replication` and count as a filter: it has one filtered child, `file`,
//# and passes its length and block status through.
//= docs/spec/replication.md#close-and-restart
//= type=test
//# A closed filter MUST be unknown to the replication commands.
#[test]
fn a_replication_node_is_opened_before_its_top_and_chain_are_there() {
    let dir = scratch();
    let mut d = Daemon::start(dir.path(), "d", &[]);
    let options = json!({"mode": "secondary", "top-id": "not there"});
    replication(&mut d, dir.path(), &options).unwrap();
    let nodes = d.ok("x-ai-query-replication", json!({}));
    assert_eq!(
        (
            &nodes[0]["node-name"],
            &nodes[0]["stage"],
            &nodes[0]["error"]
        ),
        (&json!("r"), &json!("none"), &Value::Null)
    );
    let nodes = d.ok("query-named-block-nodes", json!({}));
    let nodes = nodes.as_array().unwrap();
    let node = nodes.iter().find(|node| node["node-name"] == "r").unwrap();
    assert_eq!(node["drv"], "replication");
    assert_eq!(node["image"]["virtual-size"], SIZE);
    let described = node["file"].as_str().unwrap().strip_prefix("json:");
    let described: Value = serde_json::from_str(described.unwrap()).unwrap();
    assert_eq!(
        (&described["mode"], &described["top-id"]),
        (&json!("secondary"), &json!("not there"))
    );
    let (_, said) = d.refused(
        "xen-set-replication",
        json!({"enable": true, "primary": false}),
    );
    assert!(said.contains("backing"), "{said}");
    d.ok("blockdev-del", json!({"node-name": "r"}));
    assert_eq!(d.ok("x-ai-query-replication", json!({})), json!([]));
}
