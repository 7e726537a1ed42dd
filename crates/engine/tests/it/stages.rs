//! Every stage × mode × request and command (R18, R19, R27 to R30, R47 to R49, R58 to R60, R78 to
//! R80): the whole table as one golden text a mode.

use crate::support::{Daemon, Dir, run};
use expect_test::expect;
use serde_json::json;
use std::fmt::Write;

/// What is tried in every stage, each time on a daemon of its own.
const TRIES: [&str; 9] = [
    "read",
    "write",
    "flush",
    "checkpoint",
    "start primary",
    "start secondary",
    "stop",
    "failover",
    "query",
];

async fn attempt(daemon: &Daemon, device: &str, what: &str) -> String {
    let answer = match what {
        "read" => return said(&daemon.io(device, "read -q 0 64k").await),
        "write" => return said(&daemon.io(device, "write -q 0 64k").await),
        "flush" => return said(&daemon.io(device, "flush").await),
        "query" => {
            let status = daemon.status().await;
            let desc = status["desc"].as_str().unwrap_or("no error");
            return desc.to_owned();
        }
        "checkpoint" => daemon.checkpoint().await,
        "start primary" => daemon.start(true).await,
        "start secondary" => daemon.start(false).await,
        "stop" => daemon.stop(false).await,
        _ => daemon.stop(true).await,
    };
    let stage = daemon.stage("rep").await;
    match answer {
        Ok(_) => format!("ok -> {stage}"),
        Err(error) => format!("{error} -> {stage}"),
    }
}

fn said(text: &str) -> String {
    if text.is_empty() {
        "ok".to_owned()
    } else {
        text.trim().to_owned()
    }
}

pub(crate) async fn primary(dir: &Dir, stage: &str) -> Daemon {
    let daemon = dir.daemon();
    let disk = daemon.image("disk.raw", 0);
    let faults = json!([{ "event": "none", "iotype": "write", "sector": 2048 }]);
    let options = json!({
        "driver": "replication", "node-name": "rep", "mode": "primary",
        "file": {
            "driver": "blkdebug", "inject-error": faults,
            "image": { "driver": "file", "filename": disk },
        },
    });
    daemon.ok("blockdev-add", options).await;
    if stage != "none" {
        daemon.start(true).await.unwrap();
    }
    if stage == "running, out of sync" {
        daemon.write("rep", 0x22, (1, 2)).await;
    }
    if stage == "done" {
        daemon.stop(false).await.unwrap();
    }
    daemon
}

/// The commit ends with a flush of the secondary disk: it is delayed to stay in FAILOVER, and fails
/// to get to the stage after that.
pub(crate) async fn secondary(dir: &Dir, stage: &str) -> Daemon {
    let daemon = dir.daemon();
    let rules = match stage {
        "failover" => json!({
            "x-ai-delay": [{ "iotype": "flush", "delay-ns": 3_600_000_000_000_u64 }],
        }),
        "failover-failed" => json!({
            "inject-error": [{ "event": "none", "iotype": "flush", "once": true }],
        }),
        _ => json!({}),
    };
    daemon.secondary_with(0x11, rules).await;
    if stage != "none" {
        daemon.start(false).await.unwrap();
        daemon.write("top", 0x33, (0, 1)).await;
    }
    match stage {
        "failover" => drop(daemon.stop(true).await.unwrap()),
        "failover-failed" => {
            daemon.stop(true).await.unwrap();
            daemon.until("rep", "failover-failed").await;
        }
        "done, stopped" => drop(daemon.stop(false).await.unwrap()),
        "done, promoted" => {
            daemon.stop(true).await.unwrap();
            daemon.until("rep", "done").await;
        }
        _ => {}
    }
    daemon
}

//= docs/spec/replication.md#commands
//= type=test
//# `query-xen-replication-status` MUST answer with `error` true and a description if any
//# replication node has an error, and with `error` false otherwise.
#[test]
fn every_stage_of_a_primary() {
    let mut table = String::new();
    for stage in ["none", "running", "running, out of sync", "done"] {
        writeln!(table, "{stage}").unwrap();
        for what in TRIES {
            run(async |dir| {
                let daemon = primary(&dir, stage).await;
                let answer = attempt(&daemon, "rep", what).await;
                writeln!(table, "  {what}: {answer}").unwrap();
            });
        }
    }
    expect![[r"
        none
          read: read failed: Input/output error (read of 65536 bytes at offset 0 on node 'rep': I/O error: replication has not been started)
          write: write failed: Input/output error (write of 65536 bytes at offset 0 on node 'rep': I/O error: replication has not been started)
          flush: ok
          checkpoint: ok -> none
          start primary: ok -> running
          start secondary: replication node 'rep': this node needs mode 'primary', but mode 'secondary' was asked for -> none
          stop: replication node 'rep': replication is not running -> none
          failover: replication node 'rep': replication is not running -> none
          query: Block replication is not running on node 'rep'
        running
          read: read failed: Input/output error (read of 65536 bytes at offset 0 on node 'rep': I/O error: a primary's replication node is only written to)
          write: ok
          flush: ok
          checkpoint: ok -> running
          start primary: replication node 'rep': replication runs already, or its failover failed -> running
          start secondary: replication node 'rep': replication runs already, or its failover failed -> running
          stop: ok -> done
          failover: ok -> done
          query: no error
        running, out of sync
          read: read failed: Input/output error (read of 65536 bytes at offset 0 on node 'rep': I/O error: a primary's replication node is only written to)
          write: ok
          flush: ok
          checkpoint: ok -> running
          start primary: replication node 'rep': replication runs already, or its failover failed -> running
          start secondary: replication node 'rep': replication runs already, or its failover failed -> running
          stop: ok -> done
          failover: ok -> done
          query: I/O error occurred: write of 1048576 bytes at offset 1048576 on node '#block000': I/O error: injected by blkdebug
        done
          read: read failed: Input/output error (read of 65536 bytes at offset 0 on node 'rep': I/O error: replication has ended)
          write: write failed: Input/output error (write of 65536 bytes at offset 0 on node 'rep': I/O error: replication has ended)
          flush: ok
          checkpoint: ok -> done
          start primary: ok -> done
          start secondary: ok -> done
          stop: ok -> done
          failover: ok -> done
          query: no error
    "]].assert_eq(&table);
}

/// What every request and command leads to in each of `stages`.
fn secondary_table(stages: &[&str]) -> String {
    let mut table = String::new();
    for stage in stages {
        writeln!(table, "{stage}").unwrap();
        for what in TRIES {
            // The flush that keeps it in this stage would wait as well.
            if (*stage, what) == ("failover", "flush") {
                continue;
            }
            run(async |dir| {
                let daemon = secondary(&dir, stage).await;
                let answer = attempt(&daemon, "top", what).await;
                writeln!(table, "  {what}: {answer}").unwrap();
            });
        }
    }
    table
}

#[test]
fn every_stage_of_a_secondary_before_a_failover() {
    expect![[r"
        none
          read: read failed: Input/output error (read of 65536 bytes at offset 0 on node 'rep': I/O error: replication has not been started)
          write: write failed: Input/output error (write of 65536 bytes at offset 0 on node 'rep': I/O error: replication has not been started)
          flush: ok
          checkpoint: replication node 'rep': copy-before-write is not running, so there is nothing to checkpoint -> none
          start primary: replication node 'rep': this node needs mode 'secondary', but mode 'primary' was asked for -> none
          start secondary: ok -> running
          stop: replication node 'rep': replication is not running -> none
          failover: replication node 'rep': replication is not running -> none
          query: Block replication is not running on node 'rep'
        running
          read: ok
          write: ok
          flush: ok
          checkpoint: ok -> running
          start primary: replication node 'rep': replication runs already, or its failover failed -> running
          start secondary: replication node 'rep': replication runs already, or its failover failed -> running
          stop: ok -> done
          failover: ok -> failover
          query: no error
        done, stopped
          read: ok
          write: ok
          flush: ok
          checkpoint: ok -> done
          start primary: ok -> done
          start secondary: ok -> done
          stop: ok -> done
          failover: ok -> done
          query: no error
    "]]
    .assert_eq(&secondary_table(&["none", "running", "done, stopped"]));
}

//= docs/spec/replication.md#commands
//= type=test
//# `query-xen-replication-status` MUST answer with `error` true and a description if any
//# replication node has an error, and with `error` false otherwise.
#[test]
fn every_stage_of_a_secondary_from_a_failover_on() {
    expect![[r"
        failover
          read: ok
          write: ok
          checkpoint: ok -> failover
          start primary: ok -> failover
          start secondary: ok -> failover
          stop: ok -> failover
          failover: ok -> failover
          query: no error
        failover-failed
          read: ok
          write: ok
          flush: ok
          checkpoint: replication node 'rep': copy-before-write is not running, so there is nothing to checkpoint -> failover-failed
          start primary: replication node 'rep': replication runs already, or its failover failed -> failover-failed
          start secondary: replication node 'rep': replication runs already, or its failover failed -> failover-failed
          stop: replication node 'rep': replication is not running -> failover-failed
          failover: ok -> failover
          query: I/O error occurred: flush of 4194304 bytes at offset 0 on node 'sec': I/O error: injected by blkdebug
        done, promoted
          read: ok
          write: ok
          flush: ok
          checkpoint: ok -> done
          start primary: ok -> done
          start secondary: ok -> done
          stop: ok -> done
          failover: ok -> done
          query: no error
    "]]
    .assert_eq(&secondary_table(&["failover", "failover-failed", "done, promoted"]));
}
