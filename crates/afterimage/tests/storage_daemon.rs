//! One command line for two programs: `qemu-storage-daemon` and ours.
//!
//! Goal: flags written for the one run unchanged on the other, on the same image.
//! Method: both programs take turns; each must find what the other wrote, and answer alike.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod common;

use common::{Qmp, Running, image, qemu_io, scratch, tool, wait_until};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};

/// The flags, all of them shared ones, keyval and JSON.
const FLAGS: [&str; 16] = [
    "--object",
    "iothread,id=thread",
    "--blockdev",
    "driver=file,node-name=protocol,filename=disk.raw,discard=unmap,cache.direct=off",
    "--blockdev",
    r#"{"driver": "raw", "node-name": "disk", "file": "protocol", "discard": "unmap"}"#,
    "--nbd-server",
    "addr.type=unix,addr.path=d.nbd,max-connections=8",
    "--export",
    "type=nbd,id=e,node-name=disk,name=disk,writable=on",
    "--chardev",
    "socket,id=c,path=d.qmp,server=on,wait=off",
    "--monitor",
    "chardev=c",
    "--pidfile",
    "d.pid",
];

/// What a program answered to the same questions.
#[derive(Debug, PartialEq)]
struct Answers {
    exports: Value,
    nodes: Vec<String>,
    size: Value,
    refusal: Value,
}

fn ask(dir: &Path, program: &str, arguments: &[&str], commands: &[&str]) -> Answers {
    let child = Command::new(program)
        .args(arguments)
        .args(FLAGS)
        .current_dir(dir)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let id = child.id();
    let mut running = Running(Some(child));
    let mut monitor = None;
    wait_until("the monitor", || {
        monitor = Qmp::connect(&dir.join("d.qmp"));
        monitor.is_some()
    });
    let mut qmp = monitor.unwrap();
    let pid = std::fs::read_to_string(dir.join("d.pid")).unwrap();
    assert_eq!(pid.trim(), id.to_string());
    let socket = dir.join("d.nbd");
    let uri = format!("nbd+unix:///disk?socket={}", socket.display());
    qemu_io(&uri, commands);
    let info: Value = serde_json::from_str(&tool("nbdinfo", &["--json", &uri])).unwrap();
    let nodes = qmp.execute("query-named-block-nodes", json!({})).unwrap();
    let nodes = nodes.as_array().unwrap();
    let mut nodes: Vec<String> = nodes
        .iter()
        .map(|node| format!("{} {}", node["drv"], node["node-name"]))
        .collect();
    nodes.sort();
    let mut refusal = qmp
        .execute("blockdev-del", json!({"node-name": "disk"}))
        .unwrap_err();
    let answers = Answers {
        exports: qmp.execute("query-block-exports", json!({})).unwrap(),
        nodes,
        size: info["exports"][0]["export-size"].clone(),
        refusal: refusal["class"].take(),
    };
    qmp.execute("quit", json!({})).unwrap();
    let status = running.0.take().unwrap().wait().unwrap();
    assert!(status.success(), "{program}: {status}");
    assert!(!dir.join("d.pid").exists(), "{program} left its pid file");
    answers
}

#[test]
fn the_same_flags_serve_the_same_bytes() {
    let dir = scratch();
    image(&dir.path().join("disk.raw"), 8 << 20, 0x11);
    let ours = env!("CARGO_BIN_EXE_afterimage");
    let theirs = "qemu-storage-daemon";
    let first = ask(
        dir.path(),
        theirs,
        &[],
        &["read -P 0x11 0 8M", "write -P 0x22 1M 64k", "discard 2M 1M"],
    );
    let second = ask(
        dir.path(),
        ours,
        &["daemon"],
        &[
            "read -P 0x22 1M 64k",
            "read -P 0 2M 1M",
            "write -P 0x33 1090048 512",
            "write -z 3M 1M",
        ],
    );
    assert_eq!(first, second);
    ask(
        dir.path(),
        theirs,
        &[],
        &[
            "read -P 0x22 1M 40k",
            "read -P 0x22 1089536 512",
            "read -P 0x33 1090048 512",
            "read -P 0 3M 1M",
            "read -P 0x11 4M 4M",
        ],
    );
}
