//! The protocol seen from outside, as one client that asks one thing sees it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod arguments;
mod schema;

use qmp::{Command, Session};
use serde_json::{Value, json};

/// What a negotiated session makes of a message: a command, or a reply.
fn converse(message: &Value) -> Result<Command, Value> {
    let mut session = Session::new();
    session.handle_bytes(br#"{"execute":"qmp_capabilities"}"#);
    assert_eq!(session.poll_command(), None);
    session.poll_transmit().unwrap();
    session.handle_bytes(message.to_string().as_bytes());
    match session.poll_command() {
        Some(command) => Ok(command),
        None => Err(serde_json::from_slice(&session.poll_transmit().unwrap()).unwrap()),
    }
}

/// The command `name` with `arguments`, or why it was refused.
fn command(name: &str, arguments: &Value) -> Result<Command, String> {
    let parsed = converse(&json!({"execute": name, "arguments": arguments}));
    parsed.map_err(|reply| reply["error"]["desc"].as_str().unwrap().to_owned())
}
