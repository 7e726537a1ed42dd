//! A pair whose halves die, hang and come back: the primary's guest must not notice, the secondary
//! must not lie.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod common;

use common::colo::{
    OLD, SIZE, attach, checkpoint, complaint, fail_over, join, primary, secondary,
    secondary_existing, secondary_over, secondary_with_active, start, stop_arguments,
};
use common::{qemu_io, qemu_io_any, scratch, spawn, tool, wait_until};
use serde_json::json;

#[test]
fn a_write_reaches_both_disks_and_the_view_only_at_the_checkpoint() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    qemu_io(
        &p.uri("disk"),
        &["write -P 0x22 64k 4k", "flush", "read -P 0x22 64k 4k"],
    );
    qemu_io(&s.uri("disk"), &["read -P 0x11 64k 4k"]);
    checkpoint(&mut s);
    qemu_io(
        &s.uri("disk"),
        &["read -P 0x22 64k 4k", "read -P 0x11 68k 4k"],
    );
    assert_eq!((complaint(&mut p), complaint(&mut s)), (None, None));
    p.quit();
    s.quit();
    let (a, b) = (dir.path().join("p.img"), dir.path().join("s.img"));
    assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
}

#[test]
fn zeroes_and_discards_travel_as_such() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    qemu_io(&p.uri("disk"), &["write -z 0 1M", "discard 2M 1M"]);
    qemu_io(&s.uri("disk"), &["read -P 0x11 0 4M"]);
    checkpoint(&mut s);
    qemu_io(&s.uri("disk"), &["read -P 0 0 1M", "read -P 0x11 1M 1M"]);
}

#[test]
fn the_primary_goes_on_when_the_secondary_is_killed_under_load() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    let uri = format!("--uri={}", p.uri("disk"));
    let load = spawn(
        "fio",
        &[
            "--name=l",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            "--bs=4k",
            "--iodepth=16",
            "--size=4m",
            "--time_based=1",
            "--runtime=3",
            "--output-format=json",
        ],
    );
    std::thread::sleep(std::time::Duration::from_millis(700));
    s.kill();
    let output = load.finish();
    assert!(output.status.success(), "{}", common::text(&output.stderr));
    assert!(complaint(&mut p).is_some(), "the lost peer must be visible");
    let nodes = p.ok("x-ai-query-replication", json!({}));
    assert_eq!(nodes[0]["error"]["node-name"], "peer");
    p.qmp.wait_event("X_AI_REPLICATION_ERROR");
}

//= docs/spec/replication.md#losses
//= type=test
//# Removing a child MUST NOT wait for its peer.
#[test]
fn a_frozen_secondary_delays_the_primary_no_longer_than_its_bound() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    start(&mut s, "secondary");
    p.ok(
        "blockdev-add",
        json!({
            "driver": "replication", "node-name": "colo", "mode": "primary",
            "x-ai-forward-timeout": 1,
            "file": {"driver": "nbd", "node-name": "peer", "export": "replica",
                     "server": {"type": "unix", "path": s.nbd()}},
        }),
    );
    p.ok(
        "x-blockdev-change",
        json!({"parent": "disk", "node": "colo"}),
    );
    start(&mut p, "primary");
    s.signal("STOP");
    qemu_io(
        &p.uri("disk"),
        &["write -P 0x44 0 64k", "write -P 0x55 64k 64k", "flush"],
    );
    assert!(complaint(&mut p).is_some());
    // Removing the child waits for nobody.
    p.ok(
        "x-blockdev-change",
        json!({"parent": "disk", "child": "children.1"}),
    );
    p.ok("blockdev-del", json!({"node-name": "colo"}));
    qemu_io(
        &p.uri("disk"),
        &["read -P 0x44 0 64k", "read -P 0x55 64k 64k"],
    );
    s.signal("CONT");
}

#[test]
fn nothing_is_forwarded_again_after_a_lost_write_until_the_filter_is_replaced() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    s.kill();
    qemu_io(&p.uri("disk"), &["write -P 0x22 0 4k"]);
    let mut again = secondary(dir.path(), "s");
    start(&mut again, "secondary");
    qemu_io(&p.uri("disk"), &["write -P 0x33 4k 4k", "flush"]);
    checkpoint(&mut again);
    qemu_io(&again.uri("disk"), &["read -P 0x11 0 4M"]);
    assert!(complaint(&mut p).is_some());
    let (_, text) = p.refused(
        "xen-set-replication",
        json!({"enable": true, "primary": true}),
    );
    assert!(text.contains("runs already"), "{text}");
    // Replaced by a new filter, after the images were made equal, it works again.
    p.ok(
        "x-blockdev-change",
        json!({"parent": "disk", "child": "children.1"}),
    );
    p.ok("blockdev-del", json!({"node-name": "colo"}));
    tool(
        "qemu-img",
        &[
            "convert",
            "-n",
            "-f",
            "raw",
            "-O",
            "raw",
            &p.uri("disk"),
            &again.uri("replica"),
        ],
    );
    attach(&mut p, &again);
    start(&mut p, "primary");
    qemu_io(&p.uri("disk"), &["write -P 0x66 8k 4k"]);
    checkpoint(&mut again);
    qemu_io(
        &again.uri("disk"),
        &[
            "read -P 0x22 0 4k",
            "read -P 0x33 4k 4k",
            "read -P 0x66 8k 4k",
        ],
    );
}

#[test]
fn a_child_that_is_removed_in_order_is_no_lost_writer() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    qemu_io(&p.uri("disk"), &["write -P 0x22 0 64k"]);
    p.ok(
        "x-blockdev-change",
        json!({"parent": "disk", "child": "children.1"}),
    );
    p.ok("blockdev-del", json!({"node-name": "colo"}));
    wait_until("the peer's farewell", || {
        let gone = s.qmp.execute("block-export-del", json!({"id": "replica"}));
        gone.is_ok()
    });
    checkpoint(&mut s);
    assert_eq!(complaint(&mut s), None);
    qemu_io(
        &s.uri("disk"),
        &["read -P 0x22 0 64k", "read -P 0x11 64k 64k"],
    );
}

#[test]
fn a_killed_primary_under_load_leaves_a_secondary_that_can_only_be_failed_over() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    qemu_io(&p.uri("disk"), &["write -P 0x22 0 4k"]);
    checkpoint(&mut s);
    qemu_io(&p.uri("disk"), &["write -P 0x33 0 8k"]);
    p.kill();
    wait_until("the lost writer", || complaint(&mut s).is_some());
    let (class, _) = s.refused("xen-colo-do-checkpoint", json!({}));
    assert_eq!(class, "GenericError");
    fail_over(&mut s);
    qemu_io(&s.uri("disk"), &["read -P 0x22 0 4k", "read -P 0x11 4k 4k"]);
    assert_eq!(complaint(&mut s), None);
}

#[test]
fn the_old_primary_can_no_longer_write_after_a_failover() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    s.ok("xen-set-replication", stop_arguments("secondary", true));
    assert_eq!(s.qmp.wait_event("BLOCK_EXPORT_DELETED")["id"], "replica");
    qemu_io(&p.uri("disk"), &["write -P 0x77 0 64k"]);
    s.wait_for_stage("done");
    qemu_io(&s.uri("disk"), &["read -P 0x11 0 4M"]);
    let (_, text) = s.refused(
        "block-export-add",
        json!({
            "type": "nbd", "id": "again", "node-name": "replica", "writable": true,
        }),
    );
    assert!(
        text.contains("ermission") || text.contains("write"),
        "{text}"
    );
}

//= docs/spec/replication.md#stop
//= type=test
//# A stop of a secondary without failover MUST discard both overlays, keep everything the primary
//# sent on the secondary disk, and end in DONE without error.
#[test]
fn stop_without_failover_keeps_all_that_the_peer_sent() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    qemu_io(&p.uri("disk"), &["write -P 0x22 0 1M"]);
    qemu_io(&s.uri("disk"), &["write -P 0x33 2M 1M"]);
    s.ok("xen-set-replication", stop_arguments("secondary", false));
    assert_eq!((s.stage().as_str(), complaint(&mut s)), ("done", None));
    qemu_io(&s.uri("disk"), &["read -P 0x22 0 1M", "read -P 0x11 1M 3M"]);
}

//= docs/spec/replication.md#close-and-restart
//= type=test
//# A secondary that ended uncleanly in RUNNING MUST be found "contents unknown" and refuse to start
//# until its overlays are created anew.
#[test]
fn a_secondary_killed_in_mid_epoch_refuses_to_pretend() {
    let dir = scratch();
    let mut s = secondary(dir.path(), "s");
    start(&mut s, "secondary");
    qemu_io(&s.uri("replica"), &["write -P 0x22 0 64k", "flush"]);
    s.kill();
    let node = "driver=file,node-name=replica,filename=s.img";
    let mut s = secondary_existing(dir.path(), "s", node);
    let (_, text) = s.refused(
        "xen-set-replication",
        json!({"enable": true, "primary": false}),
    );
    assert!(text.contains("unknown"), "{text}");
    s.is_well();
}

//= docs/spec/replication.md#close-and-restart
//= type=test
//# A filter that is opened over overlays recorded in FAILOVER MUST resume the commit and refuse
//# writers of the secondary disk.
#[test]
fn a_commit_that_was_killed_goes_on_after_a_restart() {
    let dir = scratch();
    // The commit never gets past the second MiB.
    let slow = "driver=blkdebug,node-name=replica,image.driver=file,image.filename=s.img,\
                x-ai-delay.0.iotype=write,x-ai-delay.0.sector=2048,\
                x-ai-delay.0.delay-ns=600000000000";
    let mut s = common::colo::secondary_with(dir.path(), "s", slow);
    start(&mut s, "secondary");
    let view = s.uri("disk");
    qemu_io(&s.uri("replica"), &["write -P 0x22 0 1M"]);
    qemu_io(&view, &["write -P 0x33 1M 2M"]);
    s.ok("xen-set-replication", stop_arguments("secondary", true));
    qemu_io(&view, &["write -P 0x44 3M 64k", "flush"]);
    assert_eq!(s.stage(), "failover");
    s.kill();
    let node = "driver=file,node-name=replica,filename=s.img";
    let mut s = secondary_existing(dir.path(), "s", node);
    s.wait_for_stage("done");
    qemu_io(
        &s.uri("disk"),
        &[
            "read -P 0x11 0 1M",
            "read -P 0x33 1M 2M",
            "read -P 0x44 3M 64k",
            "read -P 0x11 3136k 960k",
        ],
    );
}

#[test]
fn a_failed_commit_keeps_the_view_and_can_be_tried_again() {
    let dir = scratch();
    let broken = "driver=blkdebug,node-name=replica,image.driver=file,image.filename=s.img,\
                  inject-error.0.event=pwritev,inject-error.0.iotype=write,\
                  inject-error.0.sector=4096,inject-error.0.once=on,inject-error.0.errno=5";
    let mut s = common::colo::secondary_with(dir.path(), "s", broken);
    start(&mut s, "secondary");
    let view = s.uri("disk");
    qemu_io(&view, &["write -P 0x33 2M 1M"]);
    s.ok("xen-set-replication", stop_arguments("secondary", true));
    s.wait_for_stage("failover-failed");
    assert!(complaint(&mut s).is_some());
    let nodes = s.ok("x-ai-query-replication", json!({}));
    assert_eq!(nodes[0]["error"]["errno"], 5);
    qemu_io(
        &view,
        &[
            "read -P 0x33 2M 1M",
            "write -P 0x44 2M 4k",
            "write -P 0x55 0 4k",
        ],
    );
    fail_over(&mut s);
    assert_eq!(complaint(&mut s), None);
    qemu_io(
        &view,
        &[
            "read -P 0x44 2M 4k",
            "read -P 0x33 2052k 4k",
            "read -P 0x55 0 4k",
        ],
    );
    assert_eq!((OLD, SIZE), (0x11, 4 << 20));
}

//= docs/spec/replication.md#copy-before-write
//= type=test
//# A copy that fails MUST fail the peer's write with the same error number, leave the secondary disk
//# as it was, and leave the block to be saved again.
//= docs/spec/replication.md#copy-before-write
//= type=test
//# A failed copy MUST be latched in the secondary's status and reported by an event.
#[test]
fn a_full_hidden_disk_refuses_the_peers_write_and_says_so() {
    let dir = scratch();
    let mut s = secondary_over(
        dir.path(),
        "driver=ai-overlay,node-name=hidden,backing=replica,file.driver=blkdebug,file.node-name=ramdisk,\
         file.image.driver=file,file.image.filename=s.hidden,\
         file.inject-error.0.event=write_aio,file.inject-error.0.iotype=write,\
         file.inject-error.0.sector=4224,file.inject-error.0.errno=28,\
         file.inject-error.0.once=on",
    );
    start(&mut s, "secondary");
    let (replica, view) = (s.uri("replica"), s.uri("disk"));
    qemu_io(&replica, &["write -P 0x22 0 64k"]);
    let out = qemu_io_any(&replica, &["write -P 0x33 2M 64k"]);
    assert!(out.contains("No space left on device"), "{out}");
    qemu_io(&replica, &["read -P 0x22 0 64k", "read -P 0x11 64k 4032k"]);
    qemu_io(&view, &["read -P 0x11 0 4M"]);
    s.qmp.wait_event("X_AI_REPLICATION_ERROR");
    let nodes = s.ok("x-ai-query-replication", json!({}));
    assert_eq!(nodes[0]["error"]["errno"], 28, "{nodes}");
    assert_eq!(nodes[0]["error"]["node-name"], "ramdisk", "{nodes}");
    assert!(complaint(&mut s).is_some());
    // There is space again.
    qemu_io(&replica, &["write -P 0x44 2M 64k"]);
    qemu_io(&view, &["read -P 0x11 0 4M"]);
    checkpoint(&mut s);
    qemu_io(
        &view,
        &[
            "read -P 0x22 0 64k",
            "read -P 0x44 2M 64k",
            "read -P 0x11 2112k 1984k",
        ],
    );
    assert!(complaint(&mut s).is_some(), "a checkpoint clears nothing");
    fail_over(&mut s);
    assert_eq!(complaint(&mut s), None);
}

//= docs/spec/replication.md#errors
//= type=test
//# Lost forwards, failed copies, failed writes to the active disk, failed flushes, failed checkpoints
//# and failed commits MUST all reach the status and an event.
#[test]
fn a_failed_write_or_flush_of_the_guest_reaches_the_guest_and_the_status() {
    // The data at 2 MiB; the two places of the map, which a flush writes.
    for (sectors, command) in [([4224, 4225], "write -P 0x33 2M 64k"), ([16, 24], "flush")] {
        let dir = scratch();
        let rule = |(index, sector): (usize, &u32)| {
            let rule = format!("file.inject-error.{index}");
            format!(",{rule}.event=none,{rule}.iotype=write,{rule}.sector={sector},{rule}.errno=28")
        };
        let faults: String = sectors.iter().enumerate().map(rule).collect();
        let mut s = secondary_with_active(
            dir.path(),
            &format!(
                "driver=ai-overlay,node-name=active,backing=hidden,file.driver=blkdebug,\
                 file.node-name=ramdisk,file.image.driver=file,file.image.filename=s.active{faults}"
            ),
        );
        start(&mut s, "secondary");
        let view = s.uri("disk");
        let out = qemu_io_any(&view, &["write -P 0x22 0 64k", command]);
        assert!(out.contains("No space left on device"), "{command}: {out}");
        let error = s.qmp.wait_event("X_AI_REPLICATION_ERROR")["error"].take();
        assert_eq!(
            (&error["node-name"], &error["errno"]),
            (&json!("ramdisk"), &json!(28))
        );
        assert!(complaint(&mut s).is_some(), "{command}");
    }
}

#[test]
fn a_secondary_that_hangs_holds_the_guest_up_no_longer_than_the_default_bound() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    s.signal("STOP");
    // It ends by the bound, or never: nothing is measured.
    qemu_io(
        &p.uri("disk"),
        &["write -P 0x44 0 64k", "flush", "read -P 0x44 0 64k"],
    );
    let nodes = p.ok("x-ai-query-replication", json!({}));
    assert_eq!(nodes[0]["error"]["errno"], 110, "{nodes}");
    s.signal("CONT");
    wait_until("the secondary's complaint", || complaint(&mut s).is_some());
    s.refused("xen-colo-do-checkpoint", json!({}));
    fail_over(&mut s);
    qemu_io(&s.uri("disk"), &["read -P 0x11 0 4M"]);
}

//= docs/spec/replication.md#after-a-failed-failover
//= type=test
//# The first run that fails MUST end the write with its error; runs before it stay written.
#[test]
fn after_a_failed_failover_the_first_run_that_fails_ends_the_write() {
    let dir = scratch();
    // The commit fails at 2 MiB, a write to the disk itself at 3.5 MiB.
    let broken = "driver=blkdebug,node-name=replica,image.driver=file,image.filename=s.img,\
                  inject-error.0.event=pwritev,inject-error.0.iotype=write,\
                  inject-error.0.sector=4096,inject-error.0.errno=5,\
                  inject-error.1.event=pwritev,inject-error.1.iotype=write,\
                  inject-error.1.sector=7168,inject-error.1.errno=28";
    let mut s = common::colo::secondary_with(dir.path(), "s", broken);
    start(&mut s, "secondary");
    let view = s.uri("disk");
    qemu_io(&view, &["write -P 0x33 2M 1M"]);
    s.ok("xen-set-replication", stop_arguments("secondary", true));
    s.wait_for_stage("failover-failed");
    let out = qemu_io_any(&view, &["write -P 0x44 1M 3M"]);
    assert!(out.contains("No space left on device"), "{out}");
    qemu_io(
        &view,
        &[
            "read -P 0x11 0 1M",
            "read -P 0x44 1M 2M",
            "read -P 0x11 3M 1M",
        ],
    );
}

#[test]
fn checkpoints_under_full_load_from_both_sides_succeed() {
    let dir = scratch();
    let (mut s, mut p) = (secondary(dir.path(), "s"), primary(dir.path(), "p"));
    join(&mut p, &mut s);
    let loads: Vec<_> = [p.uri("disk"), s.uri("disk")]
        .iter()
        .map(|uri| {
            spawn(
                "fio",
                &[
                    "--name=l",
                    "--ioengine=nbd",
                    &format!("--uri={uri}"),
                    "--rw=randwrite",
                    "--bs=4k",
                    "--iodepth=16",
                    "--size=4m",
                    "--time_based=1",
                    "--runtime=3",
                ],
            )
        })
        .collect();
    std::thread::sleep(std::time::Duration::from_millis(500));
    for _ in 0..100 {
        checkpoint(&mut s);
    }
    for load in loads {
        let output = load.finish();
        assert!(output.status.success(), "{}", common::text(&output.stderr));
    }
    checkpoint(&mut s);
    tool(
        "qemu-img",
        &[
            "compare",
            "-f",
            "raw",
            "-F",
            "raw",
            &p.uri("disk"),
            &s.uri("disk"),
        ],
    );
    assert_eq!((complaint(&mut p), complaint(&mut s)), (None, None));
    let out = qemu_io_any(&s.uri("disk"), &["read 0 4M"]);
    assert!(out.contains("read 4194304/4194304"), "{out}");
}
