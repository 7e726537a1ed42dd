//! What a server session tells its caller.

use crate::check::modifies;
use crate::wire::{
    BlockSizes, CommandCode, CommandFlags, ContextSet, Cookie, ExportName, Malformed,
    TransmissionFlags,
};
use block::ByteRange;
use bytes::Bytes;
use std::fmt;

/// Something the client wants, or the end.
#[derive(Debug)]
pub enum Event {
    /// Name the exports: [`Session::exports_listed`](super::Session::exports_listed).
    ListExports,
    /// Describe this export: [`Session::export_found`](super::Session::export_found) or
    /// [`export_refused`](super::Session::export_refused). Nothing stays open.
    DescribeExport(ExportName),
    /// Open this export and answer in the same way. Once found, it is in use until
    /// [`Event::Closed`].
    OpenExport(ExportName),
    /// Carry this out and reply.
    Request(Request),
    /// The connection is over. No event follows; what [`poll_transmit`] still gives may be
    /// written, then the socket is closed.
    ///
    /// [`poll_transmit`]: super::Session::poll_transmit
    Closed(Closed),
}

/// What the server tells a client about an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// The export's own name, which may differ from the one asked for.
    pub name: ExportName,
    /// Text for people; may be empty.
    pub description: String,
    /// Size in bytes.
    pub size: u64,
    /// What it can do. `HAS_FLAGS` and `SEND_DF` are the session's affair.
    pub flags: TransmissionFlags,
    /// Size constraints, which the session enforces.
    pub block_sizes: BlockSizes,
    /// The metadata contexts a client may select.
    pub contexts: ContextSet,
}

/// A request that has passed every check the protocol asks for: its range lies inside the export
/// and is aligned, its flags are known, the export can do it.
#[derive(Debug)]
pub struct Request {
    /// To be given back with the reply.
    pub ticket: Ticket,
    /// What to do.
    pub command: Command,
}

/// What to do. No range is empty.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Read.
    Read {
        /// What to read.
        range: ByteRange,
    },
    /// Write.
    Write {
        /// Where to.
        range: ByteRange,
        /// As many bytes as the range has.
        data: Bytes,
        /// Reply only when it is durable.
        fua: bool,
    },
    /// Make every write that has been answered durable.
    Flush,
    /// Say that the contents are no longer needed.
    Trim {
        /// Of this range.
        range: ByteRange,
        /// Reply only when it is durable.
        fua: bool,
    },
    /// Make a range read as zeroes.
    WriteZeroes {
        /// This one.
        range: ByteRange,
        /// Keep it allocated.
        no_hole: bool,
        /// Fail with [`Errno::NotSup`](crate::Errno::NotSup) rather than write zeroes slowly.
        fast_zero: bool,
        /// Reply only when it is durable.
        fua: bool,
    },
    /// Prepare for reading.
    Cache {
        /// This range.
        range: ByteRange,
    },
    /// Say what the parts of a range are.
    BlockStatus {
        /// This one.
        range: ByteRange,
        /// The client will use the first extent of each context only.
        req_one: bool,
        /// What is asked for; not empty.
        contexts: ContextSet,
    },
}

/// The right to answer one request, once. Dropping it leaves the client waiting for ever and the
/// request counted against the connection's bounds.
#[must_use = "a request that is not answered hangs its client"]
pub struct Ticket {
    pub(super) cookie: Cookie,
    pub(super) offset: u64,
    pub(super) length: u32,
    pub(super) code: CommandCode,
    pub(super) flags: CommandFlags,
}

impl Ticket {
    /// The client's name for the request: for logs, it need not be unique.
    pub fn cookie(&self) -> Cookie {
        self.cookie
    }

    /// Payload bytes that this request makes the server hold.
    pub(super) fn payload(&self) -> u32 {
        let carried = matches!(self.code, CommandCode::Read | CommandCode::Write);
        if carried { self.length } else { 0 }
    }

    /// Whether it changes the export's contents.
    pub(super) fn modifies(&self) -> bool {
        modifies(self.code)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.cookie)
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Who ended it, and why.
    pub reason: CloseReason,
    /// What was in flight at the moment the client left.
    pub unanswered: Unanswered,
}

impl Closed {
    /// Whether the client took its leave and knows the outcome of all it asked for.
    pub fn is_clean(&self) -> bool {
        let polite = match self.reason {
            CloseReason::Aborted | CloseReason::Disconnected => true,
            CloseReason::ExportRefused
            | CloseReason::EndOfStream
            | CloseReason::HandshakeTimeout
            | CloseReason::Violation(_) => false,
        };
        polite && self.unanswered == Unanswered::default()
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client sent `NBD_OPT_ABORT`.
    Aborted,
    /// The client sent `NBD_CMD_DISC`.
    Disconnected,
    /// `NBD_OPT_EXPORT_NAME` asked for an export it cannot have; there is no other answer.
    ExportRefused,
    /// The stream ended without a farewell.
    EndOfStream,
    /// The handshake took longer than its bound.
    HandshakeTimeout,
    /// The client broke the protocol beyond repair.
    Violation(Malformed),
}

/// Requests whose replies had not been handed to the transport.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unanswered {
    /// All of them.
    pub requests: u32,
    /// Those that change contents.
    pub writes: u32,
}
