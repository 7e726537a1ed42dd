//! The bounds of one connection.

use std::time::Duration;

/// What one client may make the server hold or wait for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time from the start of the connection to the end of the handshake.
    pub handshake: Duration,
    /// Longest data of an option, in bytes.
    pub option: u32,
    /// Longest payload of a request or a reply, in bytes; announced to clients that ask.
    pub payload: u32,
    /// Most requests between arrival and the taking of their reply.
    pub requests: u32,
    /// Most payload bytes of those requests; never less than one payload.
    pub bytes: u64,
    /// Most extents in one block status reply, for each metadata context.
    pub extents: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            handshake: Duration::from_secs(10),
            option: 64 << 10,
            payload: 32 << 20,
            requests: 128,
            bytes: 64 << 20,
            extents: 1 << 16,
        }
    }
}

impl Limits {
    /// These limits, such that one request always fits.
    pub(super) fn sane(self) -> Limits {
        Limits {
            requests: self.requests.max(1),
            bytes: self.bytes.max(u64::from(self.payload)),
            // More than 2^20 in one chunk should not be sent (NBD protocol, "Structured reply
            // types").
            extents: self.extents.clamp(1, 1 << 20),
            ..self
        }
    }
}
