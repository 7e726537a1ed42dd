//! Failover, its commit, its failure, and what a crash leaves.

use crate::support::{Daemon, Dir, life, run};
use serde_json::json;

async fn failed_over(dir: &Dir, rules: serde_json::Value) -> Daemon {
    let daemon = dir.daemon();
    daemon.secondary_with(0x11, rules).await;
    daemon.start(false).await.unwrap();
    daemon.write("sec0", 0x22, (0, 2)).await;
    daemon.write("top", 0x33, (1, 3)).await;
    daemon.stop(true).await.unwrap();
    daemon
}

/// The commit's last flush waits for an hour.
fn slow() -> serde_json::Value {
    json!({ "x-ai-delay": [{ "iotype": "flush", "delay-ns": 3_600_000_000_000_u64 }] })
}

//= docs/spec/replication.md#commit
//= type=test
//# The commit MUST be visible as a job with progress and end with an event.
//= docs/spec/replication.md#commands
//= type=test
//# Changes of stage MUST be reported by an event that names the node.
//= docs/spec/replication.md#commit
//= type=test
//# A commit that ends well MUST replace active by the secondary disk for everyone above, detach the
//# extra children, and end in DONE without error.
#[test]
fn the_commit_is_a_job_with_events() {
    run(async |dir| {
        let daemon = dir.daemon();
        daemon.secondary(0x11).await;
        daemon.start(false).await.unwrap();
        let jobs = daemon.ok("query-block-jobs", json!({})).await;
        assert_eq!(jobs[0]["type"], json!("backup"));
        daemon.write("top", 0x33, (0, 2)).await;
        daemon.events();
        daemon.stop(true).await.unwrap();
        daemon.until("rep", "done").await;
        let mut events: Vec<String> = daemon.events();
        events.retain(|event| !event.contains("\"status\":\"created\""));
        expect_test::expect![[r##"
            BLOCK_EXPORT_DELETED {"id":"sec0"}
            JOB_STATUS_CHANGE {"id":"#backup-rep","status":"aborting"}
            JOB_STATUS_CHANGE {"id":"#backup-rep","status":"concluded"}
            BLOCK_JOB_CANCELLED {"device":"#backup-rep","len":4194304,"offset":0,"speed":0,"type":"backup"}
            JOB_STATUS_CHANGE {"id":"#backup-rep","status":"null"}
            X_AI_STAGE_CHANGE {"from":"running","mode":"secondary","node-name":"rep","to":"failover"}
            JOB_STATUS_CHANGE {"id":"#commit-rep","status":"running"}
            X_AI_STAGE_CHANGE {"from":"failover","mode":"secondary","node-name":"rep","to":"done"}
            JOB_STATUS_CHANGE {"id":"#commit-rep","status":"waiting"}
            JOB_STATUS_CHANGE {"id":"#commit-rep","status":"pending"}
            JOB_STATUS_CHANGE {"id":"#commit-rep","status":"concluded"}
            BLOCK_JOB_COMPLETED {"device":"#commit-rep","len":2097152,"offset":2097152,"speed":0,"type":"commit"}
            JOB_STATUS_CHANGE {"id":"#commit-rep","status":"null"}"##]].assert_eq(&events.join("\n"));
        assert_eq!(daemon.ok("query-block-jobs", json!({})).await, json!([]));
        assert_eq!(daemon.status().await, json!({ "error": false }));
        expect_test::expect![[r"
            (unused)
              -: top (quorum)
                children.0 [----]: rep (replication)
                  file [rw--]: sec (blkdebug)
                    image [rw--]: #block000 (file)
        "]]
        .assert_eq(&daemon.engine.dump());
    });
}

#[test]
fn the_guest_reads_and_writes_while_the_commit_runs() {
    run(async |dir| {
        let daemon = failed_over(&dir, slow()).await;
        assert_eq!(daemon.stage("rep").await, "failover");
        assert_eq!(daemon.view("top").await, "11 33 33 11");
        daemon.write("top", 0x44, (2, 4)).await;
        assert_eq!(daemon.view("top").await, "11 33 44 44");
        let jobs = daemon.ok("query-jobs", json!({})).await;
        assert_eq!(jobs[0]["type"], json!("commit"));
        let id = jobs[0]["id"].as_str().unwrap();
        let error = daemon
            .err("block-job-cancel", json!({ "device": id }))
            .await;
        assert!(error.contains("belongs to node 'rep'"), "{error}");
    });
}

#[test]
fn after_a_failover_nobody_writes_past_the_filter() {
    run(async |dir| {
        let daemon = failed_over(&dir, slow()).await;
        let add = |writable: bool| json!({ "type": "nbd", "id": "again", "node-name": "sec", "writable": writable });
        let error = daemon.err("block-export-add", add(true)).await;
        assert!(error.contains("takes no writers"), "{error}");
        daemon.ok("block-export-add", add(false)).await;
        daemon.export("view", "top", true).await;
    });
}

#[test]
fn a_failed_commit_is_told_and_can_be_retried() {
    run(async |dir| {
        let once = json!([{ "event": "none", "iotype": "flush", "once": true }]);
        let daemon = failed_over(&dir, json!({ "inject-error": once })).await;
        daemon.until("rep", "failover-failed").await;
        let status = daemon.status().await;
        assert!(
            status["desc"].as_str().unwrap().contains("flush"),
            "{status}"
        );
        assert_eq!(daemon.view("top").await, "11 33 33 11");
        daemon.write("top", 0x44, (2, 4)).await;
        assert_eq!(daemon.view("top").await, "11 33 44 44");
        daemon.stop(true).await.unwrap();
        daemon.until("rep", "done").await;
        assert_eq!(daemon.view("top").await, "11 33 44 44");
        assert_eq!(daemon.view("sec").await, "11 33 44 44");
        assert_eq!(daemon.status().await, json!({ "error": false }));
    });
}

/// The disk and its overlays in a new process.
async fn reborn(dir: &Dir) -> Daemon {
    let daemon = dir.daemon();
    let sec = json!({ "driver": "file", "node-name": "sec", "filename": dir.file("sec.raw") });
    daemon.ok("blockdev-add", sec).await;
    daemon.serve("again.sock").await;
    daemon.export("sec0", "sec", true).await;
    daemon.chain("").await;
    daemon
}

//= docs/spec/replication.md#close-and-restart
//= type=test
//# A filter that is opened over overlays recorded in FAILOVER MUST resume the commit and refuse
//# writers of the secondary disk.
#[test]
fn a_commit_that_a_crash_interrupted_is_resumed() {
    let dir = Dir::new();
    life(&dir, async |dir| {
        let daemon = failed_over(dir, slow()).await;
        daemon.write("top", 0x44, (2, 4)).await;
        assert_eq!(daemon.view("top").await, "11 33 44 44");
    });
    life(&dir, async |dir| {
        let daemon = reborn(dir).await;
        let error = daemon
            .err("block-export-del", json!({ "id": "sec0" }))
            .await;
        assert_eq!(error, "Export 'sec0' is not found", "it was fenced");
        let writer = json!({ "type": "nbd", "id": "w", "node-name": "sec", "writable": true });
        let error = daemon.err("block-export-add", writer).await;
        assert!(error.contains("takes no writers"), "{error}");
        daemon.until("rep", "done").await;
        // 0x44 was not flushed: it may be there or not, but the same everywhere.
        let view = daemon.view("top").await;
        assert!(
            ["11 33 44 44", "11 33 33 11"].contains(&view.as_str()),
            "{view}"
        );
        assert_eq!(daemon.view("sec").await, view);
    });
}

//= docs/spec/replication.md#start
//= type=test
//# A start MUST be refused if an overlay is marked "contents unknown".
//= docs/spec/replication.md#close-and-restart
//= type=test
//# A secondary that ended uncleanly in RUNNING MUST be found "contents unknown" and refuse to start
//# until its overlays are created anew.
#[test]
fn overlays_of_an_unclean_end_are_refused() {
    let dir = Dir::new();
    life(&dir, async |dir| {
        let daemon = dir.daemon();
        daemon.secondary(0x11).await;
        daemon.start(false).await.unwrap();
        daemon.write("top", 0x33, (0, 1)).await;
    });
    life(&dir, async |dir| {
        let daemon = reborn(dir).await;
        let error = daemon.start(false).await.unwrap_err();
        assert!(error.contains("contents are unknown"), "{error}");
        let top = json!({ "node-name": "top" });
        daemon.ok("blockdev-del", top).await;
        daemon.empty("act.ovl");
        daemon.empty("hid.ovl");
        daemon.chain("").await;
        daemon.start(false).await.unwrap();
    });
}

#[test]
fn an_orderly_end_stops_replication_and_leaves_clean_overlays() {
    let dir = Dir::new();
    life(&dir, async |dir| {
        let daemon = dir.daemon();
        daemon.secondary(0x11).await;
        daemon.start(false).await.unwrap();
        daemon.write("sec0", 0x22, (0, 1)).await;
        daemon.write("top", 0x33, (1, 2)).await;
        daemon.end().await.unwrap();
    });
    life(&dir, async |dir| {
        let daemon = reborn(dir).await;
        daemon.start(false).await.unwrap();
        assert_eq!(daemon.view("top").await, "22 11 11 11");
    });
}

//= docs/spec/replication.md#close-and-restart
//= type=test
//# Closing in FAILOVER MUST wait for the commit, bounded, or leave it such that it can be resumed.
#[test]
fn an_orderly_end_in_failover_finishes_the_commit() {
    let dir = Dir::new();
    life(&dir, async |dir| {
        let daemon = failed_over(dir, json!({})).await;
        daemon.end().await.unwrap();
    });
    life(&dir, async |dir| {
        let daemon = dir.daemon();
        let sec = json!({ "driver": "file", "node-name": "sec", "filename": dir.file("sec.raw") });
        daemon.ok("blockdev-add", sec).await;
        assert_eq!(daemon.view("sec").await, "11 33 33 11");
    });
}
