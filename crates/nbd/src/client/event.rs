//! What a client session tells its caller.

use crate::Errno;
use crate::wire::{
    BlockSizes, ContextExtents, ContextSet, Cookie, Malformed, RepError, TransmissionFlags,
};
use bytes::Bytes;
use std::fmt;

/// Something the server has said, or the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The handshake is done; requests are taken.
    Ready(ExportInfo),
    /// A request has ended.
    Completed(Completion),
    /// The connection is over and no request is left. No event follows; what [`poll_transmit`]
    /// still gives may be written, then the socket is closed.
    ///
    /// [`poll_transmit`]: super::Session::poll_transmit
    Closed(CloseReason),
}

/// The export as the server describes it, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    /// Size in bytes; fits in an `i64` and is a multiple of the minimum block size.
    pub size: u64,
    /// What it can do; flags that need something that was not negotiated are cleared.
    pub flags: TransmissionFlags,
    /// Size constraints: the server's and our own bound. If the server names none: 512 bytes
    /// where the size allows it.
    pub block_sizes: BlockSizes,
    /// Whether replies are structured.
    pub structured: bool,
    /// The metadata contexts that were selected.
    pub contexts: ContextSet,
}

/// The end of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The name it got when it was taken.
    pub cookie: Cookie,
    /// How it ended.
    pub result: Result<Reply, Failure>,
}

/// What a request returns.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done,
    /// All the data of a read.
    Data(Bytes),
    /// For each selected context at least one extent; none beyond the range asked about.
    BlockStatus(Vec<ContextExtents>),
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reply::Done => f.write_str("Done"),
            Reply::Data(data) if data.len() > 64 => write!(f, "Data({} bytes)", data.len()),
            Reply::Data(data) => write!(f, "Data({data:?})"),
            Reply::BlockStatus(contexts) => write!(f, "{contexts:?}"),
        }
    }
}

/// Why a request that was taken has not been done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The server refused it, or failed at it.
    #[error("the NBD server answered {0}{separator}{1}", separator = if .1.is_empty() { "" } else { ": " })]
    Answered(Errno, String),
    /// The connection ended first: whether it was done is unknown.
    #[error("the connection to the NBD server was lost: {0}")]
    Lost(CloseReason),
}

impl From<Failure> for block::Error {
    fn from(failure: Failure) -> block::Error {
        let message = failure.to_string();
        match failure {
            Failure::Answered(errno, _) => errno.into_block_error(message),
            Failure::Lost(_) => block::Error::with_message(block::ErrorKind::Io, message),
        }
    }
}

/// Why the connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// We left.
    #[error("disconnected")]
    Disconnected,
    /// The server said that it is shutting down; everything in flight was answered.
    #[error("the server is shutting down")]
    ServerShutdown,
    /// The server does not give us the export.
    #[error("the server refused the export ({0:?}){separator}{1}", separator = if .1.is_empty() { "" } else { ": " })]
    Refused(RepError, String),
    /// The stream ended.
    #[error("the server closed the connection")]
    EndOfStream,
    /// The handshake took longer than its bound.
    #[error("the handshake took too long")]
    HandshakeTimeout,
    /// The server broke the protocol.
    #[error("protocol violation: {0}")]
    Violation(Malformed),
}

/// Why a request was not even sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A bound is reached: try again after a completion.
    #[error("too many requests are in flight")]
    Busy,
    /// The handshake is not done.
    #[error("the handshake is not done")]
    NotReady,
    /// The connection is over or about to be.
    #[error("the connection is closed")]
    Closed,
    /// The server would refuse it, with this error; the text names the rule.
    #[error("{1}")]
    Rule(Errno, &'static str),
}

impl Refused {
    pub(super) const PAST_THE_END: Refused = Refused::Rule(Errno::Inval, "past the end");
    pub(super) const TOO_LONG: Refused =
        Refused::Rule(Errno::Overflow, "longer than the protocol allows");
}

impl From<Refused> for block::Error {
    fn from(refused: Refused) -> block::Error {
        let message = refused.to_string();
        match refused {
            Refused::Rule(errno, _) => errno.into_block_error(message),
            Refused::Busy | Refused::NotReady | Refused::Closed => {
                block::Error::with_message(block::ErrorKind::Io, message)
            }
        }
    }
}
