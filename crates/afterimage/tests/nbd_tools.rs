//! The tools of others against our exports: qemu-io, qemu-img, libnbd's, fio.
//!
//! Goal: every client that speaks NBD finds a disk it can use, and all its bytes.
//! Method: a daemon with one raw image, one tool a test, the image compared at the end.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod common;

use common::{Daemon, image, qemu_io, qemu_io_any, scratch, tool};
use serde_json::json;
use std::path::Path;

const MIB: u64 = 1 << 20;

fn serve(dir: &Path, size: u64) -> Daemon {
    image(&dir.join("disk.raw"), size, 0);
    serve_existing(dir)
}

fn serve_existing(dir: &Path) -> Daemon {
    Daemon::start(
        dir,
        "d",
        &[
            "--blockdev",
            "driver=file,node-name=disk,filename=disk.raw,discard=unmap",
            "--export",
            "type=nbd,id=e,node-name=disk,name=disk,writable=on",
        ],
    )
}

#[test]
fn qemu_io_reads_back_what_it_wrote_zeroed_and_discarded() {
    let dir = scratch();
    let daemon = serve(dir.path(), 16 * MIB);
    qemu_io(
        &daemon.uri("disk"),
        &[
            "write -P 0x11 0 1M",
            "write -P 0x22 4097 333",
            "write -z 8192 4096",
            "write -z -u 512k 64k",
            "discard 768k 64k",
            "write -f -P 0x33 2M 64k",
            "flush",
            "read -P 0x11 0 4097",
            "read -P 0x22 4097 333",
            "read -P 0x11 4430 3762",
            "read -P 0 8192 4096",
            "read -P 0x11 12288 4096",
            "read -P 0 512k 64k",
            "read -P 0x33 2M 64k",
            "read -P 0 2162688 1M",
        ],
    );
    daemon.quit();
    let bytes = std::fs::read(dir.path().join("disk.raw")).unwrap();
    assert_eq!(bytes[4097..4430], [0x22; 333]);
    assert_eq!(bytes[4096], 0x11);
}

#[test]
fn qemu_img_copies_an_image_in_and_out_without_a_changed_byte() {
    let dir = scratch();
    let source = dir.path().join("source.raw");
    let bytes: Vec<u8> = (0..8 * MIB)
        .map(|i| u8::try_from((i * i / 4096 + i) % 251).unwrap())
        .collect();
    std::fs::write(&source, &bytes).unwrap();
    let daemon = serve(dir.path(), 8 * MIB);
    let (source, uri) = (source.to_str().unwrap(), daemon.uri("disk"));
    tool(
        "qemu-img",
        &["convert", "-n", "-f", "raw", "-O", "raw", source, &uri],
    );
    tool(
        "qemu-img",
        &["compare", "-f", "raw", "-F", "raw", source, &uri],
    );
    let copy = dir.path().join("copy.raw");
    tool(
        "qemu-img",
        &[
            "convert",
            "-f",
            "raw",
            "-O",
            "raw",
            &uri,
            copy.to_str().unwrap(),
        ],
    );
    assert_eq!(std::fs::read(copy).unwrap(), bytes);
}

#[test]
fn qemu_img_sees_size_and_holes() {
    let dir = scratch();
    let daemon = serve(dir.path(), 16 * MIB);
    qemu_io(&daemon.uri("disk"), &["write -P 1 4M 1M", "flush"]);
    let info = tool("qemu-img", &["info", "--output=json", &daemon.uri("disk")]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["virtual-size"], 16 * MIB);
    let map = tool(
        "qemu-img",
        &["map", "--output=json", "-f", "raw", &daemon.uri("disk")],
    );
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let seen: Vec<_> = map
        .as_array()
        .unwrap()
        .iter()
        .map(|extent| {
            (
                extent["start"].as_u64().unwrap(),
                extent["data"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(seen, [(0, false), (4 * MIB, true), (5 * MIB, false)]);
}

#[test]
fn qemu_img_bench_runs_at_depth() {
    let dir = scratch();
    let daemon = serve(dir.path(), 64 * MIB);
    for kind in [&[][..], &["-w"], &["-w", "--flush-interval=100"]] {
        let uri = daemon.uri("disk");
        let mut arguments = vec!["bench", "-f", "raw", "-c", "2000", "-d", "32", "-s", "4096"];
        arguments.extend(kind);
        arguments.push(&uri);
        assert!(tool("qemu-img", &arguments).contains("Run completed"));
    }
}

#[test]
fn nbdinfo_reads_the_exports_and_their_limits() {
    let dir = scratch();
    let mut daemon = serve(dir.path(), 16 * MIB);
    daemon.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "ro", "node-name": "disk", "name": "look"}),
    );
    let info = tool("nbdinfo", &["--json", &daemon.uri("disk")]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    let export = &info["exports"][0];
    assert_eq!(info["protocol"], "newstyle-fixed");
    assert_eq!(export["export-size"], 16 * MIB);
    assert_eq!(export["is_read_only"], false);
    for can in [
        "can_flush",
        "can_fua",
        "can_trim",
        "can_zero",
        "can_df",
        "can_multi_conn",
    ] {
        assert_eq!(export[can], true, "{can}");
    }
    assert_eq!(export["block_size_maximum"], 32 * MIB);
    let list = tool("nbdinfo", &["--list", "--json", &daemon.uri("")]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let names: Vec<_> = list["exports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|export| {
            (
                export["export-name"].as_str().unwrap(),
                export["is_read_only"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(names, [("disk", false), ("look", true)]);
}

#[test]
fn nbdcopy_copies_both_ways() {
    let dir = scratch();
    let source = dir.path().join("source.raw");
    let bytes: Vec<u8> = (0..4 * MIB)
        .map(|i| u8::try_from(i / 4096 % 255).unwrap())
        .collect();
    std::fs::write(&source, &bytes).unwrap();
    let daemon = serve(dir.path(), 4 * MIB);
    tool(
        "nbdcopy",
        &["--flush", source.to_str().unwrap(), &daemon.uri("disk")],
    );
    let copy = dir.path().join("copy.raw");
    tool("nbdcopy", &[&daemon.uri("disk"), copy.to_str().unwrap()]);
    assert_eq!(std::fs::read(copy).unwrap(), bytes);
}

#[test]
fn nbdsh_gets_the_errors_the_protocol_names() {
    let dir = scratch();
    let mut daemon = serve(dir.path(), MIB);
    daemon.ok(
        "block-export-add",
        json!({"type": "nbd", "id": "ro", "node-name": "disk", "name": "look"}),
    );
    let script = r"
import errno
def fails(number, call, *args, **kw):
    try:
        call(*args, **kw)
    except nbd.Error as e:
        assert e.errnum == number, (e.errnum, number, str(e))
        return
    raise AssertionError('succeeded')
h.set_strict_mode(0)
fails(errno.EINVAL, h.pread, 512, h.get_size())
fails(errno.ENOSPC, h.pwrite, bytearray(512), h.get_size() - 256)
fails(errno.EINVAL, h.trim, 4096, h.get_size())
h.pwrite(b'x' * 700, 100, nbd.CMD_FLAG_FUA)
assert h.pread(700, 100) == b'x' * 700
h.zero(100, 300, nbd.CMD_FLAG_NO_HOLE)
assert h.pread(100, 300) == bytearray(100)
h.flush()
";
    tool("nbdsh", &["-u", &daemon.uri("disk"), "-c", script]);
    let read_only = r"
import errno
h.set_strict_mode(0)
try:
    h.pwrite(bytearray(512), 0)
    raise AssertionError('succeeded')
except nbd.Error as e:
    assert e.errnum == errno.EPERM, str(e)
assert h.is_read_only()
";
    tool("nbdsh", &["-u", &daemon.uri("look"), "-c", read_only]);
    daemon.is_well();
}

#[test]
fn fio_verifies_every_block_it_wrote_at_depth_over_several_connections() {
    let dir = scratch();
    let daemon = serve(dir.path(), 64 * MIB);
    let uri = format!("--uri={}", daemon.uri("disk"));
    tool(
        "fio",
        &[
            "--name=v",
            "--ioengine=nbd",
            &uri,
            "--rw=randwrite",
            "--bs=4k",
            "--iodepth=32",
            "--size=16m",
            "--offset_increment=16m",
            "--numjobs=4",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--do_verify=1",
            "--verify_state_save=0",
        ],
    );
}

#[test]
fn requests_beyond_the_end_or_of_a_strange_size_leave_the_rest_alone() {
    let dir = scratch();
    let mut daemon = serve(dir.path(), MIB + 513);
    let out = qemu_io_any(
        &daemon.uri("disk"),
        &["write -P 7 0 512", "read 2M 512", "read -P 7 0 512"],
    );
    assert!(out.contains("read 512/512 bytes at offset 0"), "{out}");
    qemu_io(
        &daemon.uri("disk"),
        &["write -P 9 1048576 513", "read -P 9 1048576 513"],
    );
    daemon.is_well();
    daemon.quit();
    assert_eq!(
        std::fs::metadata(dir.path().join("disk.raw"))
            .unwrap()
            .len(),
        MIB + 513
    );
}
