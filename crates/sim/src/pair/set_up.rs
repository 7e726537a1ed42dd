//! The daemons' command lines, as commands, and the clients of their exports.

use super::Top;
use crate::monitor::Monitor;
use block::{Node, NodeOptions};
use drivers::nbd::{Nbd, Options};
use drivers::ports::{Address, Ports};
use engine::Engine;
use serde_json::{Value, json};
use std::rc::Rc;
use std::time::Duration;

/// Where every daemon serves its exports.
const PORT: u16 = 10809;
/// How long the primary waits for the secondary, in seconds.
pub(super) const FORWARD_SECONDS: u64 = 1;
const ADD: &str = "blockdev-add";

/// Starts a daemon by commands.
async fn start(ports: &Ports, commands: Vec<(&str, Value)>) -> Result<Monitor, String> {
    let engine = Engine::new(ports.clone(), engine::Options::default());
    let monitor = Monitor::new(engine, ports.runtime.clone());
    for (name, mut arguments) in commands {
        if let (ADD, Some(options)) = (name, arguments.as_object_mut()) {
            options.insert("discard".to_owned(), "unmap".into());
        }
        let result = monitor.execute(name, &arguments).await;
        result.map_err(|error| format!("{name} {arguments}: {error}"))?;
    }
    Ok(monitor)
}

/// Starts the secondary's daemon: exports `disk` and `view`.
pub(super) async fn secondary(ports: &Ports, top: Top) -> Result<Monitor, String> {
    let top_id = match top {
        Top::Plain => "filter",
        Top::Quorum => "top",
    };
    let mut commands = vec![
        file("disk", "disk"),
        file("hidden-file", "hidden"),
        file("active-file", "active"),
        overlay("hidden", "hidden-file", "disk"),
        overlay("active", "active-file", "hidden"),
        server(),
        export("disk", "disk"),
        (
            ADD,
            json!({
                "driver": "replication", "node-name": "filter", "mode": "secondary",
                "top-id": top_id, "file": "active"
            }),
        ),
    ];
    if top == Top::Quorum {
        commands.push(quorum("top", &["filter"]));
    }
    commands.push(export("view", top_id));
    start(ports, commands).await
}

/// Starts the primary's daemon: export `root`.
pub(super) async fn primary(ports: &Ports) -> Result<Monitor, String> {
    let link = json!({
        "driver": "nbd", "node-name": "link", "export": "disk",
        "server": {"type": "inet", "host": "secondary", "port": PORT.to_string()}
    });
    let forward = json!({
        "driver": "replication", "node-name": "forward", "mode": "primary", "file": "link",
        "x-ai-forward-timeout": FORWARD_SECONDS
    });
    let commands = vec![
        file("local", "local"),
        (ADD, link),
        (ADD, forward),
        quorum("root", &["local", "forward"]),
        server(),
        export("root", "root"),
    ];
    start(ports, commands).await
}

fn file(name: &str, path: &str) -> (&'static str, Value) {
    let options = json!({
        "driver": "file", "node-name": name, "filename": path
    });
    (ADD, options)
}

fn overlay(name: &str, file: &str, backing: &str) -> (&'static str, Value) {
    let options = json!({
        "driver": "ai-overlay", "node-name": name, "file": file, "backing": backing
    });
    (ADD, options)
}

fn quorum(name: &str, children: &[&str]) -> (&'static str, Value) {
    let options = json!({
        "driver": "quorum", "node-name": name, "vote-threshold": 1, "read-pattern": "fifo",
        "children": children
    });
    (ADD, options)
}

fn server() -> (&'static str, Value) {
    let address = json!({"host": "0.0.0.0", "port": PORT.to_string()});
    let arguments = json!({"addr": {"type": "inet", "data": address}});
    ("nbd-server-start", arguments)
}

fn export(id: &str, node: &str) -> (&'static str, Value) {
    let options = json!({
        "type": "nbd", "id": id, "node-name": node, "name": id, "writable": true
    });
    ("block-export-add", options)
}

/// A client of an export of `host`.
pub(super) async fn client(ports: &Ports, host: &str, export: &str) -> Result<Rc<Node>, String> {
    let server = Address::Inet {
        host: host.to_owned(),
        port: PORT,
    };
    let options = Options {
        server,
        export: export.to_owned(),
        reconnect_delay: Duration::ZERO,
        open_timeout: Duration::from_secs(1),
        read_only: false,
        auto_read_only: false,
    };
    let driver = Nbd::open(ports, options).await;
    let driver = driver.map_err(|error| error.to_string())?;
    Ok(Node::new(export, Box::new(driver), NodeOptions::default()))
}
