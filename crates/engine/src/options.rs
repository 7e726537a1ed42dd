//! Every bound of the engine in one place, with its default.

use std::time::Duration;

/// Bounds of one data thread.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most nodes in the graph.
    pub nodes: usize,
    /// Most exports.
    pub exports: usize,
    /// How deep options of a node may describe children inside children.
    pub depth: usize,
    /// How long a drained section waits for requests in flight. Past it the change is refused with
    /// an error that names who is busy.
    pub drain: Duration,
    /// How long closing a node or an export may take before a command stops waiting for it.
    pub close: Duration,
    /// What one NBD client may make the server hold or wait for.
    pub nbd: nbd::server::Limits,
    /// Most NBD connections where the user gives no number.
    pub connections: usize,
    /// Most NBD connections in any case; past it clients wait to be accepted.
    pub connections_most: usize,
    /// Most events kept for a subscriber that does not read; past it the oldest are dropped.
    pub events: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            nodes: 1024,
            exports: 1024,
            depth: 32,
            drain: Duration::from_secs(5),
            close: Duration::from_secs(5),
            nbd: nbd::server::Limits::default(),
            connections: 100,
            connections_most: 4096,
            events: 1024,
        }
    }
}
