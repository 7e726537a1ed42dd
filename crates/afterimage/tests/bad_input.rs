//! Mistakes and malice: each gets an error that names the thing, and disturbs nobody else.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod common;

use common::colo::{SIZE, secondary};
use common::{Daemon, Running, image, qemu_io, run, scratch, spawn, text, tool, wait_until};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs `afterimage daemon` with flags that must be refused; returns exit code and stderr.
#[track_caller]
fn refused_flags(dir: &Path, flags: &[&str]) -> (i32, String) {
    let child = Command::new(env!("CARGO_BIN_EXE_afterimage"))
        .arg("daemon")
        .args(flags)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut daemon = Running(Some(child));
    let mut ended = None;
    wait_until(&format!("the refusal of {flags:?}"), || {
        ended = daemon.0.as_mut().unwrap().try_wait().unwrap();
        ended.is_some()
    });
    let code = ended.unwrap().code().expect("an exit code, not a signal");
    assert_ne!(code, 0, "accepted: {flags:?}");
    (code, text(&daemon.finish().stderr))
}

#[track_caller]
fn contains(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "{said:?} does not say {word:?}");
    }
}

fn plain(dir: &Path) -> Daemon {
    image(&dir.join("disk.raw"), SIZE, 0);
    Daemon::start(
        dir,
        "d",
        &[
            "--blockdev",
            "driver=file,node-name=disk,filename=disk.raw",
            "--export",
            "type=nbd,id=e,node-name=disk,name=disk,writable=on",
        ],
    )
}

#[test]
fn flags_that_make_no_sense_are_refused_by_name() {
    let dir = scratch();
    image(&dir.path().join("disk.raw"), SIZE, 0);
    let cases: &[(&[&str], &[&str])] = &[
        (&["--frobnicate"], &["--frobnicate"]),
        (
            &[
                "--blockdev",
                "driver=file,node-name=d,filename=disk.raw,colour=red",
            ],
            &["colour"],
        ),
        (&["--blockdev", "driver=flie,node-name=d"], &["flie"]),
        (&["--blockdev", "node-name=d"], &["driver"]),
        (
            &["--blockdev", "driver=file,node-name=d,filename=absent.raw"],
            &["absent.raw"],
        ),
        (
            &["--blockdev", "driver=file,node-name=1 2,filename=disk.raw"],
            &["1 2"],
        ),
        (&["--blockdev", "{\"driver\": \"file\", "], &["JSON"]),
        (
            &["--blockdev", "driver=raw,node-name=r,file=nobody"],
            &["nobody"],
        ),
        (&["--export", "type=nbd,id=e,node-name=nobody"], &["nobody"]),
        (
            &[
                "--chardev",
                "socket,id=c,path=q,server=on,wait=off",
                "--monitor",
                "chardev=x",
            ],
            &["x"],
        ),
        (
            &[
                "--nbd-server",
                "addr.type=unix,addr.path=/nonexistent/dir/sock",
            ],
            &["/nonexistent/dir/sock"],
        ),
    ];
    for (flags, words) in cases {
        let (_, said) = refused_flags(dir.path(), flags);
        contains(&said, words);
    }
}

/// Flags that serve `disk.raw` for writing at a socket of its own.
fn second(dir: &Path) -> Vec<String> {
    let socket = dir.join("second.nbd");
    [
        "--blockdev",
        "driver=file,node-name=d,filename=disk.raw",
        "--nbd-server",
        &format!("addr.type=unix,addr.path={}", socket.display()),
        "--export",
        "type=nbd,id=e,node-name=d,writable=on",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[track_caller]
fn second_writer_is_refused(dir: &Path) {
    let flags = second(dir);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (_, said) = refused_flags(dir, &flags);
    contains(&said, &["disk.raw", "in use", "write"]);
}

#[test]
fn an_image_in_use_is_refused_both_ways() {
    let dir = scratch();
    let daemon = plain(dir.path());
    second_writer_is_refused(dir.path());
    let path = dir.path().join("disk.raw");
    let output = run(
        "qemu-io",
        &["-f", "raw", "-c", "write 0 512", path.to_str().unwrap()],
    );
    contains(&text(&output.stderr), &["lock"]);
    daemon.quit();
    tool(
        "qemu-io",
        &["-f", "raw", "-c", "write 0 512", path.to_str().unwrap()],
    );
}

#[test]
fn an_image_that_another_holds_is_refused() {
    let dir = scratch();
    image(&dir.path().join("disk.raw"), SIZE, 0);
    let (socket, path) = (dir.path().join("q.sock"), dir.path().join("disk.raw"));
    let _other = spawn(
        "qemu-nbd",
        &[
            "-f",
            "raw",
            "-k",
            socket.to_str().unwrap(),
            "-t",
            path.to_str().unwrap(),
        ],
    );
    wait_until("qemu-nbd", || UnixStream::connect(&socket).is_ok());
    second_writer_is_refused(dir.path());
}

#[test]
fn read_only_files_are_served_read_only_or_refused() {
    let dir = scratch();
    image(&dir.path().join("disk.raw"), SIZE, 0);
    let mut daemon = Daemon::start(
        dir.path(),
        "d",
        &[
            "--blockdev",
            "driver=file,node-name=disk,filename=disk.raw,read-only=on",
        ],
    );
    let writable = json!({"type": "nbd", "id": "e", "node-name": "disk", "writable": true});
    let (_, said) = daemon.refused("block-export-add", writable);
    contains(&said, &["read-only"]);
    daemon.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "e", "node-name": "disk"}),
    );
    tool("nbdinfo", &[&daemon.uri("disk")]);
}

#[test]
fn ports_and_sockets_in_use_or_too_long_are_named() {
    let dir = scratch();
    let daemon = plain(dir.path());
    let nbd = format!("addr.type=unix,addr.path={}", daemon.nbd().display());
    let (_, said) = refused_flags(dir.path(), &["--nbd-server", &nbd]);
    contains(&said, &[daemon.nbd().to_str().unwrap(), "listens there"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let inet = format!("addr.type=inet,addr.host=127.0.0.1,addr.port={port}");
    let (_, said) = refused_flags(dir.path(), &["--nbd-server", &inet]);
    contains(&said, &[&port.to_string(), "listens there"]);
    let long = format!(
        "addr.type=unix,addr.path={}/{}",
        dir.path().display(),
        "x".repeat(120)
    );
    let (_, said) = refused_flags(dir.path(), &["--nbd-server", &long]);
    contains(&said, &["xxx", "choose a shorter one"]);
    tool("nbdinfo", &[&daemon.uri("disk")]);
}

#[test]
fn chains_that_cannot_replicate_are_refused_and_can_be_mended() {
    let dir = scratch();
    let start = json!({"enable": true, "primary": false});
    let mut daemon = secondary(dir.path(), "s");
    // Nobody exports the secondary disk.
    daemon.ok("block-export-del", json!({"id": "replica", "mode": "hard"}));
    daemon.qmp.wait_event("BLOCK_EXPORT_DELETED");
    let (_, said) = daemon.refused("xen-set-replication", start.clone());
    contains(&said, &["replica"]);
    daemon.ok("block-export-add", json!({
        "type": "nbd", "id": "replica", "node-name": "replica", "name": "replica", "writable": true,
    }));
    // The wrong mode, and stop before start.
    daemon.refused(
        "xen-set-replication",
        json!({"enable": true, "primary": true}),
    );
    daemon.refused(
        "xen-set-replication",
        json!({"enable": false, "primary": false}),
    );
    daemon.refused(
        "xen-set-replication",
        json!({"enable": true, "primary": false, "failover": true}),
    );
    daemon.refused("xen-colo-do-checkpoint", json!({}));
    daemon.ok("xen-set-replication", start.clone());
    let (_, said) = daemon.refused("xen-set-replication", start);
    contains(&said, &["runs already"]);
    let (_, said) = daemon.refused("blockdev-del", json!({"node-name": "colo"}));
    contains(&said, &["colo"]);
}

#[test]
fn a_top_that_is_no_root_is_refused_twice_and_then_mended() {
    let dir = scratch();
    for name in ["s.hidden", "s.active"] {
        image(&dir.path().join(name), 0, 0);
    }
    image(&dir.path().join("s.img"), SIZE, 0x11);
    let mut daemon = Daemon::start(
        dir.path(),
        "s",
        &[
            "--blockdev",
            "driver=file,node-name=replica,filename=s.img",
            "--blockdev",
            "driver=ai-overlay,node-name=hidden,file.driver=file,file.filename=s.hidden,backing=replica",
            "--blockdev",
            "driver=ai-overlay,node-name=active,file.driver=file,file.filename=s.active,backing=hidden",
            "--blockdev",
            "driver=replication,node-name=colo,mode=secondary,top-id=disk,file=active",
            "--export",
            "type=nbd,id=replica,node-name=replica,writable=on",
        ],
    );
    let start = json!({"enable": true, "primary": false});
    for _ in 0..2 {
        let (_, said) = daemon.refused("xen-set-replication", start.clone());
        contains(&said, &["top"]);
    }
    daemon.ok(
        "blockdev-add",
        json!({
            "driver": "quorum", "node-name": "disk", "vote-threshold": 1, "read-pattern": "fifo",
            "children": ["colo"],
        }),
    );
    daemon.ok("xen-set-replication", start);
    assert_eq!(daemon.stage(), "running");
}

#[test]
fn an_overlay_without_backing_or_over_a_foreign_file_is_refused() {
    let dir = scratch();
    let mut daemon = plain(dir.path());
    let add = |backing: Value, file: &str| {
        let mut options = json!({"driver": "ai-overlay", "node-name": "o",
            "file": {"driver": "file", "filename": dir.path().join(file)}});
        if !backing.is_null() {
            options["backing"] = backing;
        }
        options
    };
    image(&dir.path().join("empty"), 0, 0);
    std::fs::write(dir.path().join("foreign"), vec![0x42; 1 << 20]).unwrap();
    let (_, said) = daemon.refused("blockdev-add", add(Value::Null, "empty"));
    contains(&said, &["backing"]);
    let (_, said) = daemon.refused("blockdev-add", add(json!("disk"), "foreign"));
    contains(&said, &["o"]);
    assert_eq!(
        std::fs::read(dir.path().join("foreign")).unwrap(),
        vec![0x42; 1 << 20]
    );
    assert_eq!(
        std::fs::metadata(dir.path().join("empty")).unwrap().len(),
        0
    );
}

#[test]
fn malformed_json_gets_an_error_and_the_session_goes_on() {
    let dir = scratch();
    let mut daemon = plain(dir.path());
    for line in [
        "{\"execute\": }\n",
        "[1, 2]\n",
        "{\"execute\": \"quit\", \"argumenst\": {}}\n",
        "nonsense\n",
        "{\"execute\": 5}\n",
        "{\"execute\": \"no-such-command\"}\n",
        "{\"execute\": \"blockdev-del\"}\n",
    ] {
        daemon.qmp.send(line);
        let answer = daemon.qmp.receive();
        assert!(answer.get("error").is_some(), "{line}: {answer}");
        // What is left of a broken line may give more errors; the next command is answered.
        daemon
            .qmp
            .send("\n{\"execute\": \"query-version\", \"id\": 7}\n");
        while daemon.qmp.receive().get("id") != Some(&json!(7)) {}
    }
    daemon.qmp.send("{\"execute\": \"query-ver");
    std::thread::sleep(Duration::from_millis(50));
    daemon.qmp.send("sion\"}{\"execute\": \"query-version\"}");
    assert!(daemon.qmp.receive().get("return").is_some());
    assert!(daemon.qmp.receive().get("return").is_some());
}

#[test]
fn truncated_garbled_and_silent_clients_cost_nobody_anything() {
    let dir = scratch();
    let mut daemon = plain(dir.path());
    let mut silent = Vec::new();
    for garbage in [
        &b""[..],
        b"\0\0\0\x03",
        b"\0\0\0\x01IHAVEOPT\0\0",
        &[0xff; 4096],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = UnixStream::connect(daemon.nbd()).unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        // It may close on us while we write.
        let _ = stream.write_all(garbage);
        silent.push(stream);
    }
    qemu_io(
        &daemon.uri("disk"),
        &["write -P 1 0 64k", "read -P 1 0 64k"],
    );
    daemon.is_well();
    drop(silent);
    qemu_io(&daemon.uri("disk"), &["read -P 1 0 64k"]);
    daemon.quit();
}

#[test]
fn a_client_that_never_reads_stalls_only_itself() {
    let dir = scratch();
    let mut daemon = plain(dir.path());
    let script = r"
import socket, struct, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.recv(18)
s.sendall(struct.pack('>I', 3))
name = b'disk'
s.sendall(b'IHAVEOPT' + struct.pack('>II', 7, 4 + len(name) + 2) + struct.pack('>I', len(name)) + name + b'\0\0')
s.recv(4096)
s.setblocking(False)
try:
    for cookie in range(100000):
        s.send(struct.pack('>IHHQQI', 0x25609513, 0, 0, cookie, 0, 1 << 20))
except BlockingIOError:
    pass
print('stalled', flush=True)
sys.stdin.read()
";
    let mut stalled = Command::new("python3")
        .args(["-c", script, daemon.nbd().to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 7];
    stalled
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    qemu_io(
        &daemon.uri("disk"),
        &["write -P 1 0 1M", "read -P 1 0 1M", "flush"],
    );
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.process.id())).unwrap();
    let resident = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kib: u64 = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 300 << 10, "{kib} KiB for one stalled client");
    daemon.is_well();
    stalled.kill().unwrap();
    stalled.wait().unwrap();
    daemon.quit();
}
