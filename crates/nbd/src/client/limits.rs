//! What is asked of a server, and the bounds of one connection.

use crate::wire::{ContextSet, ExportName};
use std::time::Duration;

/// What is asked of the server.
#[derive(Clone, Debug)]
pub struct Options {
    /// The export to use.
    pub export: ExportName,
    /// The metadata contexts to select; those the server lacks are done without.
    pub contexts: ContextSet,
    /// What one server may make the client hold or wait for.
    pub limits: Limits,
}

/// What one server may make the client hold or wait for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time from the start of the connection to the end of the handshake.
    pub handshake: Duration,
    /// Most option replies in one handshake.
    pub replies: u32,
    /// Longest data of an option reply, in bytes.
    pub reply: u32,
    /// Longest payload of a request, in bytes, whatever the server allows.
    pub payload: u32,
    /// Most requests in flight.
    pub requests: usize,
    /// Most payload bytes of those requests; never less than one payload.
    pub bytes: u64,
    /// Most extents kept of a block status reply, for each metadata context.
    pub extents: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            handshake: Duration::from_secs(10),
            replies: 256,
            reply: 64 << 10,
            payload: 32 << 20,
            requests: 256,
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
            extents: self.extents.max(1),
            ..self
        }
    }
}
