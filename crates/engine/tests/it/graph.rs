//! `blockdev-add`, `blockdev-del`, `x-blockdev-change` and what the graph looks like afterwards.

use crate::support::{Daemon, Dir, run};
use expect_test::expect;
use serde_json::{Value, json};

fn null(name: &str) -> Value {
    json!({ "driver": "null-co", "node-name": name, "size": 1_048_576 })
}

/// `quorum` with one inline child and one by reference.
async fn quorum(dir: &Dir) -> Daemon {
    let daemon = dir.daemon();
    daemon.ok("blockdev-add", null("a")).await;
    let options = json!({
        "driver": "quorum", "node-name": "q", "vote-threshold": 1,
        "children": ["a", { "driver": "null-co", "size": 1_048_576 }],
    });
    daemon.ok("blockdev-add", options).await;
    daemon
}

#[test]
fn a_node_comes_and_goes_with_what_is_described_inside_it() {
    run(async |dir| {
        let daemon = quorum(&dir).await;
        expect![[r"
            (unused)
              -: q (quorum)
                children.0 [----]: a (null-co)
                children.1 [----]: #block000 (null-co)
        "]]
        .assert_eq(&daemon.engine.dump());
        daemon.ok("blockdev-del", json!({ "node-name": "q" })).await;
        expect![[r"
            (unused)
              -: a (null-co)
        "]]
        .assert_eq(&daemon.engine.dump());
    });
}

//= docs/spec/replication.md#options
//= type=test
//# A refused node MUST leave nothing behind: no node, no entry among the replication nodes, no
//# error in their status.
//= docs/spec/replication.md#options
//= type=test
//# A node without a `file` child, or whose `file` child cannot be opened, MUST be refused with the
//# error of that child before its other options are looked at.
#[test]
fn what_cannot_be_added_leaves_nothing_behind() {
    run(async |dir| {
        let daemon = dir.daemon();
        daemon.ok("blockdev-add", null("a")).await;
        let image = daemon.image("a.raw", 0);
        let file = json!({ "driver": "file", "filename": image, "node-name": "inner" });
        let cases = [
            json!({ "driver": "null-co" }),
            json!({ "driver": "null-co", "node-name": "0a" }),
            json!({ "driver": "null-co", "node-name": "a" }),
            json!({ "driver": "raw", "node-name": "r", "file": "nope" }),
            json!({ "driver": "raw", "node-name": "inner", "file": file }),
            json!({ "driver": "raw", "node-name": "r", "file": file, "size": 9_000_000 }),
            json!({ "driver": "file", "node-name": "f", "filename": "/nonexistent/disk" }),
            json!({ "driver": "file", "node-name": "f", "filename": "/proc/self/mem" }),
            json!({ "driver": "quorum", "node-name": "q", "vote-threshold": 2, "children": [file] }),
            json!({ "driver": "replication", "node-name": "r", "mode": "secondary", "file": "a" }),
            json!({ "driver": "replication", "node-name": "r", "mode": "primary", "top-id": "a",
                "file": "a" }),
            json!({ "driver": "replication", "node-name": "r", "mode": "primary", "top-id": "a",
                "file": "nope" }),
        ];
        let mut said = String::new();
        for options in cases {
            said += &daemon.err("blockdev-add", options).await;
            said += "\n";
        }
        expect![[r"
            'node-name' must be specified for the root node
            Invalid node-name: '0a' (a letter, then letters, digits, '-', '.' or '_', 31 bytes at most)
            Duplicate nodes with node-name='a'
            Cannot find device='nope' nor node-name='nope'
            Duplicate nodes with node-name='inner'
            Could not open node 'r': offset 0 and size 9000000 reach past the end of the child, which has 4194304 bytes
            Could not open node 'f': I/O error: cannot open '/nonexistent/disk': no such file or directory
            Could not open node 'f': cannot open '/proc/self/mem': invalid argument
            Could not open node 'q': threshold may not exceed children count
            Missing the option top-id
            The primary side does not support option top-id
            Cannot find device='nope' nor node-name='nope'
        "]].assert_eq(&said);
        assert_eq!(daemon.engine.dump(), "(unused)\n  -: a (null-co)\n");
        let filters = daemon.ok("x-ai-query-replication", json!({})).await;
        assert_eq!(filters, json!([]));
        assert_eq!(daemon.status().await, json!({ "error": false }));
    });
}

#[test]
fn what_is_in_use_cannot_be_deleted() {
    run(async |dir| {
        let daemon = quorum(&dir).await;
        let error = daemon
            .err("blockdev-del", json!({ "node-name": "a" }))
            .await;
        assert_eq!(error, "Block device a is in use by node 'q'");
        let error = daemon
            .err("blockdev-del", json!({ "node-name": "b" }))
            .await;
        assert_eq!(error, "Failed to find node with node-name='b'");
    });
}

#[test]
fn children_are_added_and_removed_at_run_time() {
    run(async |dir| {
        let daemon = quorum(&dir).await;
        daemon.ok("blockdev-add", null("b")).await;
        let change = |child: Value| daemon.qmp("x-blockdev-change", child);
        change(json!({ "parent": "q", "node": "b" })).await.unwrap();
        change(json!({ "parent": "q", "child": "children.2" }))
            .await
            .unwrap();
        change(json!({ "parent": "q", "child": "children.1" }))
            .await
            .unwrap();
        let mut said = String::new();
        for arguments in [
            json!({ "parent": "q" }),
            json!({ "parent": "q", "child": "children.0", "node": "b" }),
            json!({ "parent": "q", "child": "children.7" }),
            json!({ "parent": "q", "child": "children.0" }),
            json!({ "parent": "q", "node": "nope" }),
            json!({ "parent": "q", "node": "a" }),
            json!({ "parent": "b", "node": "a" }),
            json!({ "parent": "nope", "node": "b" }),
        ] {
            said += &change(arguments).await.unwrap_err();
            said += "\n";
        }
        expect![[r"
            Either child or node must be specified
            The parameters child and node are in conflict
            Node 'q' does not have child 'children.7'
            The number of children cannot be lower than the vote threshold 1
            Node 'nope' not found
            The node a already has a parent
            The node a already has a parent
            Cannot find device='nope' nor node-name='nope'
        "]]
        .assert_eq(&said);
        expect![[r"
            (unused)
              -: q (quorum)
                children.0 [----]: a (null-co)
            (unused)
              -: b (null-co)
        "]]
        .assert_eq(&daemon.engine.dump());
    });
}

#[test]
fn a_read_only_node_takes_no_writes_and_no_writable_export() {
    run(async |dir| {
        let daemon = dir.daemon();
        let image = daemon.image("a.raw", 0x11);
        let options = json!({
            "driver": "raw", "node-name": "r", "read-only": true,
            "file": { "driver": "file", "filename": image },
        });
        daemon.ok("blockdev-add", options).await;
        daemon.serve("s").await;
        let export = json!({ "type": "nbd", "id": "e", "node-name": "r", "writable": true });
        let error = daemon.err("block-export-add", export).await;
        assert_eq!(error, "Cannot export read-only node as writable");
        let said = daemon.io("r", "write 0 512").await;
        assert!(said.contains("read-only"), "{said}");
        daemon.expect("r", 0x11, (0, 4)).await;
    });
}

#[test]
fn an_image_that_another_daemon_writes_cannot_be_written() {
    run(async |dir| {
        let (one, other) = (dir.daemon(), dir.daemon());
        let image = one.image("a.raw", 0);
        let options = json!({ "driver": "file", "node-name": "f", "filename": image });
        for daemon in [&one, &other] {
            daemon.ok("blockdev-add", options.clone()).await;
        }
        one.serve("one").await;
        one.export("e", "f", true).await;
        let said = other.io("f", "write 0 512").await;
        assert!(said.contains("is in use"), "{said}");
        one.ok("nbd-server-stop", json!({})).await;
        assert_eq!(other.io("f", "write -q 0 512").await, "");
    });
}

#[test]
fn nodes_are_listed_newest_first() {
    run(async |dir| {
        let daemon = dir.daemon();
        let image = daemon.image("a.raw", 0);
        let options = json!({
            "driver": "raw", "node-name": "r", "detect-zeroes": "on",
            "file": { "driver": "file", "node-name": "f", "filename": image },
        });
        daemon.ok("blockdev-add", options).await;
        let nodes = daemon.ok("query-named-block-nodes", json!({})).await;
        let nodes = nodes.as_array().unwrap();
        let facts: Vec<_> = nodes
            .iter()
            .map(|node| (&node["node-name"], &node["drv"], &node["detect_zeroes"]))
            .collect();
        assert_eq!(
            facts,
            [
                (&json!("r"), &json!("raw"), &json!("on")),
                (&json!("f"), &json!("file"), &json!("off")),
            ]
        );
        assert!(nodes.iter().all(|node| node["file"] == json!(image)));
        assert_eq!(daemon.ok("query-block", json!({})).await, json!([]));
    });
}

#[test]
fn a_node_that_waits_for_its_server_does_not_keep_the_daemon_from_ending() {
    run(async |dir| {
        let daemon = dir.daemon();
        let options = json!({
            "driver": "raw", "node-name": "r",
            "file": {
                "driver": "nbd", "open-timeout": 100_000,
                "server": { "type": "unix", "path": dir.file("nobody.sock") },
            },
        });
        let add = daemon.err("blockdev-add", options);
        let (error, ended) = futures_util::future::join(add, daemon.end()).await;
        assert_eq!(error, "the daemon is shutting down");
        ended.unwrap();
    });
}
