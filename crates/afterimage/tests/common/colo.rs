//! A COLO pair over the command line and QMP, as a manager would build it.

use super::{Daemon, image};
use serde_json::{Value, json};
use std::path::Path;

/// Bytes of the disk in these tests.
pub const SIZE: u64 = 4 << 20;
/// What both disks hold before the start.
pub const OLD: u8 = 0x11;

/// The secondary: `replica` (exported to the peer) under hidden and active overlays, the filter
/// `colo`, the quorum `disk` (exported as the view). `below` wraps the image's file node.
pub fn secondary_with(dir: &Path, name: &str, replica: &str) -> Daemon {
    image(&dir.join(format!("{name}.img")), SIZE, OLD);
    for overlay in ["hidden", "active"] {
        image(&dir.join(format!("{name}.{overlay}")), 0, 0);
    }
    secondary_existing(dir, name, replica)
}

/// A secondary called `s` over plain files, with a hidden disk of these options. Its file is an
/// empty overlay already: only a `file` node can be made one.
pub fn secondary_over(dir: &Path, hidden: &str) -> Daemon {
    secondary(dir, "s").quit();
    let replica = "driver=file,node-name=replica,filename=s.img";
    let active =
        "driver=ai-overlay,node-name=active,file.driver=file,file.filename=s.active,backing=hidden";
    chain(dir, "s", [replica, hidden, active])
}

/// As [`secondary_over`], with an active disk of these options.
pub fn secondary_with_active(dir: &Path, active: &str) -> Daemon {
    secondary(dir, "s").quit();
    let replica = "driver=file,node-name=replica,filename=s.img";
    let hidden = "driver=ai-overlay,node-name=hidden,file.driver=file,file.filename=s.hidden,\
                  backing=replica";
    chain(dir, "s", [replica, hidden, active])
}

/// As [`secondary_with`], over files that are there already.
pub fn secondary_existing(dir: &Path, name: &str, replica: &str) -> Daemon {
    let overlay = |layer: &str, backing: &str| {
        format!(
            "driver=ai-overlay,node-name={layer},file.driver=file,file.filename={name}.{layer},backing={backing}"
        )
    };
    let (hidden, active) = (overlay("hidden", "replica"), overlay("active", "hidden"));
    chain(dir, name, [replica, &hidden, &active])
}

/// A secondary made of these nodes, bottom up.
fn chain(dir: &Path, name: &str, [replica, hidden, active]: [&str; 3]) -> Daemon {
    Daemon::start(
        dir,
        name,
        &[
            "--blockdev",
            replica,
            "--blockdev",
            hidden,
            "--blockdev",
            active,
            "--blockdev",
            "driver=replication,node-name=colo,mode=secondary,top-id=disk,file=active",
            "--blockdev",
            "driver=quorum,node-name=disk,read-pattern=fifo,vote-threshold=1,children.0=colo",
            "--export",
            "type=nbd,id=replica,node-name=replica,writable=on",
            "--export",
            "type=nbd,id=disk,node-name=disk,writable=on",
        ],
    )
}

/// A secondary over a plain file.
pub fn secondary(dir: &Path, name: &str) -> Daemon {
    secondary_with(
        dir,
        name,
        &format!("driver=file,node-name=replica,filename={name}.img"),
    )
}

/// The primary: `local` under the quorum `disk`.
pub fn primary(dir: &Path, name: &str) -> Daemon {
    image(&dir.join(format!("{name}.img")), SIZE, OLD);
    Daemon::start(
        dir,
        name,
        &[
            "--blockdev",
            &format!("driver=file,node-name=local,filename={name}.img"),
            "--blockdev",
            "driver=quorum,node-name=disk,read-pattern=fifo,vote-threshold=1,children.0=local",
            "--export",
            "type=nbd,id=disk,node-name=disk,writable=on",
        ],
    )
}

/// Starts replication from `primary` to `secondary`, the secondary first.
pub fn join(primary: &mut Daemon, secondary: &mut Daemon) {
    start(secondary, "secondary");
    attach(primary, secondary);
    start(primary, "primary");
}

/// Gives the primary's quorum a forwarding child.
pub fn attach(primary: &mut Daemon, secondary: &Daemon) {
    primary.ok(
        "blockdev-add",
        json!({
            "driver": "replication", "node-name": "colo", "mode": "primary",
            "file": {"driver": "nbd", "node-name": "peer", "export": "replica",
                     "server": {"type": "unix", "path": secondary.nbd()}},
        }),
    );
    primary.ok(
        "x-blockdev-change",
        json!({"parent": "disk", "node": "colo"}),
    );
}

/// `xen-set-replication` enable.
#[track_caller]
pub fn start(daemon: &mut Daemon, mode: &str) {
    daemon.ok(
        "xen-set-replication",
        json!({"enable": true, "primary": mode == "primary"}),
    );
}

/// The arguments that stop, or fail over.
pub fn stop_arguments(mode: &str, failover: bool) -> Value {
    json!({"enable": false, "primary": mode == "primary", "failover": failover})
}

/// Fails over and waits for the end of the commit.
#[track_caller]
pub fn fail_over(daemon: &mut Daemon) {
    daemon.ok("xen-set-replication", stop_arguments("secondary", true));
    daemon.wait_for_stage("done");
}

/// A checkpoint.
#[track_caller]
pub fn checkpoint(daemon: &mut Daemon) {
    daemon.ok("xen-colo-do-checkpoint", json!({}));
}

/// `query-xen-replication-status`: `None`, or what it complains of.
pub fn complaint(daemon: &mut Daemon) -> Option<String> {
    let status = daemon.ok("query-xen-replication-status", json!({}));
    status["error"]
        .as_bool()
        .unwrap()
        .then(|| status["desc"].as_str().unwrap().to_owned())
}
