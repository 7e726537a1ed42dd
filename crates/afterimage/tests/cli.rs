//! The verbs as a user types them: help, exit codes, the demo's verdict.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod common;

use common::colo::{secondary, start};
use common::{scratch, text};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn afterimage(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_afterimage"))
        .args(arguments)
        .env_remove("AFTERIMAGE_CONTROL")
        .env("XDG_RUNTIME_DIR", "/nonexistent")
        .output()
        .unwrap()
}

#[test]
fn every_level_has_help_with_examples() {
    for verb in [&[][..], &["demo"], &["daemon"], &["status"], &["qmp"]] {
        let output = afterimage(&[verb, &["--help"]].concat());
        assert!(output.status.success());
        assert!(text(&output.stdout).contains("Examples:"), "{verb:?}");
    }
}

#[test]
fn the_version_is_our_own() {
    let said = text(&afterimage(&["--version"]).stdout);
    assert_eq!(said, format!("afterimage {}\n", env!("CARGO_PKG_VERSION")));
    let said = text(&afterimage(&["daemon", "--version"]).stdout);
    assert_eq!(said, format!("afterimage {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn usage_mistakes_exit_2_and_an_absent_daemon_exits_20() {
    assert_eq!(afterimage(&["frobnicate"]).status.code(), Some(2));
    assert_eq!(afterimage(&["demo", "--size", "7"]).status.code(), Some(2));
    assert_eq!(
        afterimage(&["qmp", "query-version", "x"]).status.code(),
        Some(2)
    );
    let output = afterimage(&["--control", "/nonexistent/c.sock", "--json", "status"]);
    assert_eq!(output.status.code(), Some(20));
    let error: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(error["error"]["code"], 20);
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("/nonexistent/c.sock")
    );
}

#[test]
fn status_and_qmp_ask_the_daemon_they_are_pointed_at() {
    let dir = scratch();
    let mut daemon = secondary(dir.path(), "s");
    start(&mut daemon, "secondary");
    let control = dir.path().join("s.qmp");
    let control = control.to_str().unwrap();
    let status = text(&afterimage(&["status", "--control", control]).stdout);
    assert!(
        status.starts_with("colo mode:secondary stage:running ok\n"),
        "{status}"
    );
    let status: Value =
        serde_json::from_slice(&afterimage(&["--control", control, "--json", "status"]).stdout)
            .unwrap();
    assert_eq!(status["nodes"][0]["stage"], "running");
    assert_eq!(status["groups"], serde_json::json!([]));
    let exports = afterimage(&["--control", control, "qmp", "query-block-exports"]);
    let exports: Value = serde_json::from_slice(&exports.stdout).unwrap();
    assert_eq!(exports.as_array().unwrap().len(), 2);
    let output = afterimage(&[
        "--control",
        control,
        "qmp",
        "blockdev-del",
        "node-name=absent",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("absent"));
}

#[test]
fn the_demo_verifies_every_byte_and_says_so_in_json() {
    let dir = scratch();
    let place = dir.path().join("demo");
    let output = afterimage(&[
        "demo",
        "--json",
        "--size",
        "64M",
        "--seconds",
        "3",
        "--dir",
        path(&place),
    ]);
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["ok"], true);
    assert_eq!(outcome["verified_bytes"], 64 << 20);
    assert!(outcome["rpo_ms"].is_number() && outcome["rto_ms"].is_number());
    // What is there stays there.
    let output = afterimage(&[
        "demo",
        "--json",
        "--size",
        "64M",
        "--seconds",
        "1",
        "--dir",
        path(&place),
    ]);
    assert_eq!(output.status.code(), Some(20));
    assert!(text(&output.stderr).contains("primary.img"));
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
