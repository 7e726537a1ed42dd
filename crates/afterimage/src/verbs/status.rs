//! `afterimage status`: what the daemon replicates, as a short tree or as JSON.

use crate::cli::{Exit, StatusArgs};
use crate::qmp_client::{QmpClient, QmpFailure};
use crate::verbs::{TIMEOUT, connect, report};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// How often `--watch` asks.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// Runs the verb.
#[expect(clippy::print_stdout, reason = "the verb's own output")]
pub(crate) fn run(args: &StatusArgs, control: Option<&Path>, as_json: bool) -> Exit {
    let mut client = match connect(control) {
        Ok(client) => client,
        Err(failure) => return report(&failure, as_json),
    };
    let mut shown = String::new();
    loop {
        let text = match query(&mut client) {
            Ok(status) if as_json => format!("{status}\n"),
            Ok(status) => tree(&status, args.verbose),
            Err(failure) => return report(&failure, as_json),
        };
        if text != shown {
            print!("{text}");
            shown = text;
        }
        if !args.watch {
            return Exit::Ok;
        }
        std::thread::sleep(WATCH_EVERY);
    }
}

/// The status object of the interface: groups (none in this version) and replication nodes.
fn query(client: &mut QmpClient) -> Result<Value, QmpFailure> {
    let nodes = client.execute("x-ai-query-replication", &json!({}), TIMEOUT)?;
    Ok(json!({ "groups": [], "nodes": nodes }))
}

/// A two-space tree, a node a line, its trouble and its job beneath.
fn tree(status: &Value, verbose: bool) -> String {
    let nodes = status
        .get("nodes")
        .and_then(Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    if nodes.is_empty() {
        return "no replication nodes\n".to_owned();
    }
    nodes.iter().map(|node| branch(node, verbose)).collect()
}

fn branch(node: &Value, verbose: bool) -> String {
    let text = |key: &str| node.get(key).and_then(Value::as_str).unwrap_or("?");
    let number = |key: &str| node.get(key).and_then(Value::as_u64).unwrap_or(0);
    let failed = node.get("error").is_some_and(|error| !error.is_null());
    let verdict = if failed { "error" } else { "ok" };
    let (name, mode, stage) = (text("node-name"), text("mode"), text("stage"));
    let mut lines = format!("{name} mode:{mode} stage:{stage} {verdict}\n");
    if mode == "secondary" && (verbose || stage != "done") {
        let (active, hidden) = (bytes(number("active-bytes")), bytes(number("hidden-bytes")));
        let _ = writeln!(lines, "  active:{active} hidden:{hidden}");
    }
    if let Some(job) = node.get("job").filter(|job| !job.is_null()) {
        let part = |key: &str| job.get(key).and_then(Value::as_u64).unwrap_or(0);
        let kind = job.get("type").and_then(Value::as_str).unwrap_or("?");
        let (done, all) = (bytes(part("offset")), bytes(part("len")));
        let _ = writeln!(lines, "  job:{kind} done:{done}/{all}");
    }
    if let Some(error) = node.get("error").filter(|error| !error.is_null()) {
        let part = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or("?");
        let offset = error.get("offset").and_then(Value::as_u64).unwrap_or(0);
        let (disk, operation, message) = (part("node-name"), part("operation"), part("message"));
        let _ = writeln!(
            lines,
            "  error:{operation} disk:{disk} offset:{offset} {message}"
        );
    }
    lines
}

/// `3.1MiB`: a size as a person reads it.
fn bytes(count: u64) -> String {
    let mut unit = 1u64;
    for name in ["B", "KiB", "MiB", "GiB"] {
        if count < unit.saturating_mul(1024) {
            return scaled(count, unit, name);
        }
        unit = unit.saturating_mul(1024);
    }
    scaled(count, unit, "TiB")
}

fn scaled(count: u64, unit: u64, name: &str) -> String {
    let tenths = count.saturating_mul(10).checked_div(unit).unwrap_or(0);
    match (tenths / 10, tenths % 10) {
        (whole, 0) => format!("{whole}{name}"),
        (whole, tenth) => format!("{whole}.{tenth}{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_tree_shows_stage_buffers_job_and_error() {
        let status = json!({"groups": [], "nodes": [
            {"node-name": "rep0", "mode": "secondary", "stage": "failover",
             "active-bytes": 3_251_200, "hidden-bytes": 0,
             "job": {"type": "commit", "offset": 1024, "len": 4096},
             "error": null},
            {"node-name": "fwd0", "mode": "primary", "stage": "running",
             "active-bytes": 0, "hidden-bytes": 0, "job": null,
             "error": {"node-name": "nbd0", "operation": "write", "offset": 8192, "errno": 5,
                       "message": "connection lost", "time": 0}},
        ]});
        expect![[r"
            rep0 mode:secondary stage:failover ok
              active:3.1MiB hidden:0B
              job:commit done:1KiB/4KiB
            fwd0 mode:primary stage:running error
              error:write disk:nbd0 offset:8192 connection lost
        "]]
        .assert_eq(&tree(&status, false));
    }

    #[test]
    fn a_daemon_without_replication_says_so() {
        assert_eq!(tree(&json!({"nodes": []}), false), "no replication nodes\n");
    }
}
