//! Every stage, both modes, every request and command: the whole table from outside (R18, R19).
//!
//! Method: for each cell a fresh daemon is brought into the stage, one thing is asked of it, and what
//! it answers is written into the table; the table is compared as a whole.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod common;

use common::colo::{SIZE, fail_over, secondary, secondary_with, start, stop_arguments};
use common::{Daemon, image, qemu_io, qemu_io_any, scratch, wait_until};
use expect_test::expect;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

const ASKED: [&str; 9] = [
    "read",
    "write",
    "start",
    "start other",
    "checkpoint",
    "stop",
    "failover",
    "status",
    "query",
];

//= docs/spec/replication.md#commands
//= type=test
//# Errors of these commands MUST be of class `GenericError` and name the replication node.
//= docs/spec/replication.md#commands
//= type=test
//# `query-xen-replication-status` MUST answer with `error` true and a description if any
//# replication node has an error, and with `error` false otherwise.
#[test]
fn the_table_of_a_secondary() {
    let mut table = String::new();
    for stage in ["none", "running", "failover", "failover-failed", "done"] {
        for asked in ASKED {
            let dir = scratch();
            let mut daemon = secondary_in(dir.path(), stage);
            row(&mut table, &mut daemon, "secondary", (stage, asked));
        }
    }
    expect![[r#"
        none            read        -> none                      read failed: Input/output error
        none            write       -> none                      write failed: Input/output error
        none            start       -> running                   {}
        none            start other -> none                      GenericError: replication node 'colo': this node needs mode 'secondary', but mode 'primary' was asked for
        none            checkpoint  -> none                      GenericError: replication node 'colo': copy-before-write is not running, so there is nothing to checkpoint
        none            stop        -> none                      GenericError: replication node 'colo': replication is not running
        none            failover    -> none                      GenericError: replication node 'colo': replication is not running
        none            status      -> none                      {"desc":"Block replication is not running on node 'colo'","error":true}
        none            query       -> none                      mode "secondary" error false
        running         read        -> running                   read 4096/4096 bytes
        running         write       -> running                   wrote 4096/4096 bytes
        running         start       -> running                   GenericError: replication node 'colo': replication runs already, or its failover failed
        running         start other -> running                   GenericError: replication node 'colo': replication runs already, or its failover failed
        running         checkpoint  -> running                   {}
        running         stop        -> done                      {}
        running         failover    -> failover, done            {}
        running         status      -> running                   {"error":false}
        running         query       -> running                   mode "secondary" error false
        failover        read        -> failover, done            read 4096/4096 bytes
        failover        write       -> failover, done            wrote 4096/4096 bytes
        failover        start       -> failover, done            {}
        failover        start other -> failover, done            {}
        failover        checkpoint  -> failover, done            {}
        failover        stop        -> failover, done            {}
        failover        failover    -> failover, done            {}
        failover        status      -> failover, done            {"error":false}
        failover        query       -> failover, done            mode "secondary" error false
        failover-failed read        -> failover-failed           read 4096/4096 bytes
        failover-failed write       -> failover-failed           wrote 4096/4096 bytes
        failover-failed start       -> failover-failed           GenericError: replication node 'colo': replication runs already, or its failover failed
        failover-failed start other -> failover-failed           GenericError: replication node 'colo': replication runs already, or its failover failed
        failover-failed checkpoint  -> failover-failed           GenericError: replication node 'colo': copy-before-write is not running, so there is nothing to checkpoint
        failover-failed stop        -> failover-failed           GenericError: replication node 'colo': replication is not running
        failover-failed failover    -> failover, failover-failed {}
        failover-failed status      -> failover-failed           {"desc":"I/O error occurred: write of 65536 bytes at offset 0 on node 'replica': I/O error: injected by blkdebug","error":true}
        failover-failed query       -> failover-failed           mode "secondary" error true
        done            read        -> done                      read 4096/4096 bytes
        done            write       -> done                      wrote 4096/4096 bytes
        done            start       -> done                      {}
        done            start other -> done                      {}
        done            checkpoint  -> done                      {}
        done            stop        -> done                      {}
        done            failover    -> done                      {}
        done            status      -> done                      {"error":false}
        done            query       -> done                      mode "secondary" error false
    "#]].assert_eq(&table);
}

#[test]
fn the_table_of_a_primary() {
    let mut table = String::new();
    for stage in ["none", "running", "done"] {
        for asked in ASKED {
            let dir = scratch();
            let mut daemon = primary_in(dir.path(), stage);
            row(&mut table, &mut daemon, "primary", (stage, asked));
        }
    }
    expect![[r#"
        none            read        -> none                      read failed: Input/output error
        none            write       -> none                      write failed: Input/output error
        none            start       -> running                   {}
        none            start other -> none                      GenericError: replication node 'disk': this node needs mode 'primary', but mode 'secondary' was asked for
        none            checkpoint  -> none                      {}
        none            stop        -> none                      GenericError: replication node 'disk': replication is not running
        none            failover    -> none                      GenericError: replication node 'disk': replication is not running
        none            status      -> none                      {"desc":"Block replication is not running on node 'disk'","error":true}
        none            query       -> none                      mode "primary" error false
        running         read        -> running                   read failed: Input/output error
        running         write       -> running                   wrote 4096/4096 bytes
        running         start       -> running                   GenericError: replication node 'disk': replication runs already, or its failover failed
        running         start other -> running                   GenericError: replication node 'disk': replication runs already, or its failover failed
        running         checkpoint  -> running                   {}
        running         stop        -> done                      {}
        running         failover    -> done                      {}
        running         status      -> running                   {"error":false}
        running         query       -> running                   mode "primary" error false
        done            read        -> done                      read failed: Input/output error
        done            write       -> done                      write failed: Input/output error
        done            start       -> done                      {}
        done            start other -> done                      {}
        done            checkpoint  -> done                      {}
        done            stop        -> done                      {}
        done            failover    -> done                      {}
        done            status      -> done                      {"error":false}
        done            query       -> done                      mode "primary" error false
    "#]].assert_eq(&table);
}

fn row(table: &mut String, daemon: &mut Daemon, mode: &str, (stage, asked): (&str, &str)) {
    let answer = ask(daemon, mode, asked);
    let begins = asked == "failover" && answer == "{}" && mode == "secondary" && stage != "done";
    // A commit may end at any time; what matters is that it does, whatever was asked meanwhile.
    let after = if begins || stage == "failover" {
        wait_until("the end of the commit", || daemon.stage() != "failover");
        format!("failover, {}", daemon.stage())
    } else {
        daemon.stage()
    };
    writeln!(table, "{stage:15} {asked:11} -> {after:25} {answer}").unwrap();
}

fn ask(daemon: &mut Daemon, mode: &str, asked: &str) -> String {
    let other = if mode == "primary" {
        "secondary"
    } else {
        "primary"
    };
    let start = |mode: &str| json!({"enable": true, "primary": mode == "primary"});
    match asked {
        "read" => request(daemon, "read 1M 4k"),
        "write" => request(daemon, "write 1M 4k"),
        "start" => command(daemon, "xen-set-replication", start(mode)),
        "start other" => command(daemon, "xen-set-replication", start(other)),
        "checkpoint" => command(daemon, "xen-colo-do-checkpoint", json!({})),
        "stop" => command(daemon, "xen-set-replication", stop_arguments(mode, false)),
        "failover" => command(daemon, "xen-set-replication", stop_arguments(mode, true)),
        "status" => command(daemon, "query-xen-replication-status", json!({})),
        "query" => {
            let nodes = daemon.ok("x-ai-query-replication", json!({}));
            format!(
                "mode {} error {}",
                nodes[0]["mode"],
                !nodes[0]["error"].is_null()
            )
        }
        _ => unreachable!("{asked}"),
    }
}

fn request(daemon: &Daemon, line: &str) -> String {
    let out = qemu_io_any(&daemon.uri("disk"), &[line]);
    let told = out
        .lines()
        .find(|line| line.contains("4096/4096") || line.contains("failed"));
    told.map_or(out.clone(), |line| line.replace(" at offset 1048576", ""))
}

fn command(daemon: &mut Daemon, name: &str, arguments: Value) -> String {
    match daemon.qmp.execute(name, arguments) {
        Ok(value) => value.to_string(),
        Err(error) => format!(
            "{}: {}",
            error["class"].as_str().unwrap(),
            error["desc"].as_str().unwrap()
        ),
    }
}

fn primary_in(dir: &Path, stage: &str) -> Daemon {
    image(&dir.join("p.img"), SIZE, 0x11);
    let mut daemon = Daemon::start(
        dir,
        "p",
        &[
            "--blockdev",
            "driver=replication,node-name=disk,mode=primary,file.driver=file,file.filename=p.img",
            "--export",
            "type=nbd,id=disk,node-name=disk,writable=on",
        ],
    );
    if stage != "none" {
        start(&mut daemon, "primary");
    }
    if stage == "done" {
        daemon.ok("xen-set-replication", stop_arguments("primary", false));
    }
    assert_eq!(daemon.stage(), stage);
    daemon
}

fn secondary_in(dir: &Path, stage: &str) -> Daemon {
    let node = "node-name=replica,image.driver=file,image.filename=s.img";
    let mut daemon = match stage {
        "failover" => secondary_with(
            dir,
            "s",
            &format!(
                "driver=blkdebug,{node},x-ai-delay.0.iotype=write,x-ai-delay.0.delay-ns=500000000"
            ),
        ),
        "failover-failed" => secondary_with(
            dir,
            "s",
            &format!(
                "driver=blkdebug,{node},inject-error.0.event=pwritev,inject-error.0.iotype=write,\
             inject-error.0.sector=0,inject-error.0.errno=5"
            ),
        ),
        _ => secondary(dir, "s"),
    };
    if stage == "none" {
        return daemon;
    }
    start(&mut daemon, "secondary");
    qemu_io(&daemon.uri("disk"), &["write -P 0x33 0 64k"]);
    match stage {
        "running" => {}
        "done" => fail_over(&mut daemon),
        _ => {
            daemon.ok("xen-set-replication", stop_arguments("secondary", true));
            daemon.wait_for_stage(stage);
        }
    }
    daemon
}
