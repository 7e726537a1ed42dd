//! How far long reads run ahead of the sending of what they read.
//!
//! ```text
//! requests ──▶ line ──▶ reading ──▶ replies ──▶ sending ──▶ socket
//!                       └────── less than MOST bytes ─────┘
//! ```
//!
//! A client may ask for many megabytes at once. Were they all read at once, each would have left the
//! processor's cache by the time it is sent. Only long reads stand in line: whatever was asked for
//! after them goes on, so that a client that does not read its replies still gets its writes done.
//!
//! Bound: the session's; a request in line counts as taken.

use nbd::server::{Command, Request};
use std::collections::VecDeque;

/// A read longer than this is a long one, in bytes.
pub(super) const LONG: u64 = 256 << 10;
/// No long read begins while this much is being read or waits to be sent, in bytes.
const MOST: u64 = 4 << 20;

/// The long reads of a connection.
#[derive(Default)]
pub(super) struct Ahead {
    line: VecDeque<Request>,
    /// Bytes of long reads that have begun and not ended.
    reading: u64,
    /// Bytes in the write under way.
    sending: u64,
}

impl Ahead {
    /// Gives the request back if it may begin now, and puts it in line if not. `unsent` bytes of
    /// replies wait to be sent.
    pub(super) fn admit(&mut self, request: Request, unsent: usize) -> Option<Request> {
        let waits = !self.line.is_empty() || !self.has_room(unsent);
        if waits && long_read(&request.command) > 0 {
            self.line.push_back(request);
            return None;
        }
        Some(request)
    }

    /// The next in line, if it may begin now.
    pub(super) fn next(&mut self, unsent: usize) -> Option<Request> {
        if self.line.is_empty() || !self.has_room(unsent) {
            return None;
        }
        self.line.pop_front()
    }

    /// A long read of so many bytes has begun, and will take a while.
    pub(super) fn begun(&mut self, bytes: u64) {
        self.reading = self.reading.saturating_add(bytes);
    }

    /// It has ended.
    pub(super) fn ended(&mut self, bytes: u64) {
        self.reading = self.reading.saturating_sub(bytes);
    }

    /// So many bytes are being written to the socket now.
    pub(super) fn sending(&mut self, bytes: usize) {
        self.sending = to_u64(bytes);
    }

    /// The client has gone: what is in line need not begin.
    pub(super) fn clear(&mut self) {
        self.line.clear();
    }

    fn has_room(&self, unsent: usize) -> bool {
        let ahead = self.reading.saturating_add(self.sending);
        ahead.saturating_add(to_u64(unsent)) < MOST
    }
}

/// Bytes that a long read moves; 0 for everything else.
pub(super) fn long_read(command: &Command) -> u64 {
    match command {
        Command::Read { range } if range.length() > LONG => range.length(),
        Command::Read { .. }
        | Command::Write { .. }
        | Command::Flush
        | Command::Trim { .. }
        | Command::WriteZeroes { .. }
        | Command::Cache { .. }
        | Command::BlockStatus { .. } => 0,
    }
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
