//! The one error type of the block layer.
//!
//! ```text
//! Error
//!  ├── kind     what the caller can do about it; small, `Copy`, matched on
//!  ├── errno    the number a QEMU user expects: what NBD and QMP report
//!  ├── context  node, operation, range; only ever printed (invariant I11)
//!  └── message  what the layer below said; only ever printed
//! ```

use crate::ByteRange;
use std::fmt;
use std::rc::Rc;

/// A failed request. Match on [`Error::kind`]; print the rest.
///
/// Cloning is cheap: one failure may answer several waiters and stay latched besides.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{context}{kind}{message}", context = Context(self), message = Message(self))]
pub struct Error {
    kind: ErrorKind,
    detail: Option<Rc<Detail>>,
}

/// Where a request failed, and what the layer below said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Detail {
    node: String,
    op: Option<Op>,
    range: Option<ByteRange>,
    errno: Option<i32>,
    message: String,
}

/// What the caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request breaks a rule (alignment, bounds): fix the caller.
    InvalidRequest,
    /// The node is read-only, or the caller lacks the permission.
    NotPermitted,
    /// The node cannot do this at all (for example a fast zero): use another request.
    Unsupported,
    /// The medium or the connection failed: report it, or retry elsewhere.
    Io,
    /// No space left on the medium: stop the guest or grow the disk.
    NoSpace,
    /// An earlier flush failed, so what is on the medium is unknown: reopen the node.
    Poisoned,
    /// The request took longer than its bound.
    TimedOut,
    /// The node is being drained or closed: not an error of the guest.
    ShuttingDown,
}

/// The kind of request, as named in the block layer's specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// Open the node.
    Open,
    /// Read data.
    Read,
    /// Write data.
    Write,
    /// Make a range read as zeroes.
    WriteZeroes,
    /// Say that a range's contents are no longer needed.
    Discard,
    /// Make earlier writes durable.
    Flush,
    /// Ask which parts of a range are allocated.
    BlockStatus,
    /// Save old data before it is overwritten.
    CopyBeforeWrite,
    /// Drop all that an overlay holds.
    MakeEmpty,
    /// Copy an overlay's data into its backing disk.
    Commit,
    /// Change the length.
    Resize,
}

impl Error {
    /// An error of the given kind, without context.
    pub fn new(kind: ErrorKind) -> Error {
        Error { kind, detail: None }
    }

    /// An error of the given kind with an explanation: lower case, no full stop.
    pub fn with_message(kind: ErrorKind, message: impl Into<String>) -> Error {
        let detail = Detail {
            message: message.into(),
            ..Detail::default()
        };
        Error {
            kind,
            detail: Some(Rc::new(detail)),
        }
    }

    /// The error for an operating system's error number, with what it said.
    pub fn from_errno(errno: i32, message: impl Into<String>) -> Error {
        let detail = Detail {
            errno: Some(errno),
            message: message.into(),
            ..Detail::default()
        };
        Error {
            kind: ErrorKind::from_errno(errno),
            detail: Some(Rc::new(detail)),
        }
    }

    /// Adds node, operation and range, unless a layer below has named them already.
    #[must_use]
    pub fn at(self, node: &str, op: Op, range: ByteRange) -> Error {
        let mut detail = self.detail.as_deref().cloned().unwrap_or_default();
        if detail.op.is_none() {
            node.clone_into(&mut detail.node);
            detail.op = Some(op);
            detail.range = Some(range);
        }
        Error {
            kind: self.kind,
            detail: Some(Rc::new(detail)),
        }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operating system's error number; derived from the kind where no call returned one.
    pub fn errno(&self) -> i32 {
        self.detail
            .as_ref()
            .and_then(|d| d.errno)
            .unwrap_or_else(|| self.kind.errno())
    }

    /// The node that failed, by its `node-name`, if a layer has named it.
    pub fn node(&self) -> Option<&str> {
        self.detail
            .as_ref()
            .filter(|d| d.op.is_some())
            .map(|d| d.node.as_str())
    }

    /// The operation that failed, if a layer has named it.
    pub fn op(&self) -> Option<Op> {
        self.detail.as_ref().and_then(|d| d.op)
    }

    /// The range of the failed request, if a layer has named it.
    pub fn range(&self) -> Option<ByteRange> {
        self.detail.as_ref().and_then(|d| d.range)
    }

    /// What the layer that failed said, without the context; empty if it said nothing.
    pub fn message(&self) -> &str {
        self.detail.as_ref().map_or("", |d| d.message.as_str())
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Error {
        Error::new(kind)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// `write of 512 bytes at offset 0 on node 'disk': `, or nothing.
struct Context<'a>(&'a Error);

impl fmt::Display for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(op), Some(range)) = (self.0.op(), self.0.range()) else {
            return Ok(());
        };
        write!(
            f,
            "{op} of {range} on node '{}': ",
            self.0.node().unwrap_or("")
        )
    }
}

/// `: what the layer below said`, or nothing.
struct Message<'a>(&'a Error);

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.message() {
            "" => Ok(()),
            message => write!(f, ": {message}"),
        }
    }
}

/// Linux error numbers the block layer speaks of.
mod errno {
    pub(super) const EPERM: i32 = 1;
    pub(super) const EIO: i32 = 5;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const EFBIG: i32 = 27;
    pub(super) const ENOSPC: i32 = 28;
    pub(super) const EROFS: i32 = 30;
    pub(super) const EACCES: i32 = 13;
    pub(super) const EDQUOT: i32 = 122;
    pub(super) const ENOTSUP: i32 = 95;
    pub(super) const ESHUTDOWN: i32 = 108;
    pub(super) const ETIMEDOUT: i32 = 110;
}

impl ErrorKind {
    /// The kind that an operating system's error number stands for.
    pub fn from_errno(number: i32) -> ErrorKind {
        match number {
            errno::EINVAL | errno::EFBIG => ErrorKind::InvalidRequest,
            errno::EPERM | errno::EACCES | errno::EROFS => ErrorKind::NotPermitted,
            errno::ENOSPC | errno::EDQUOT => ErrorKind::NoSpace,
            errno::ENOTSUP => ErrorKind::Unsupported,
            errno::ETIMEDOUT => ErrorKind::TimedOut,
            errno::ESHUTDOWN => ErrorKind::ShuttingDown,
            _ => ErrorKind::Io,
        }
    }

    /// The operating system's error number that says this best.
    pub fn errno(self) -> i32 {
        match self {
            ErrorKind::InvalidRequest => errno::EINVAL,
            ErrorKind::NotPermitted => errno::EPERM,
            ErrorKind::Unsupported => errno::ENOTSUP,
            ErrorKind::Io | ErrorKind::Poisoned => errno::EIO,
            ErrorKind::NoSpace => errno::ENOSPC,
            ErrorKind::TimedOut => errno::ETIMEDOUT,
            ErrorKind::ShuttingDown => errno::ESHUTDOWN,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::InvalidRequest => "invalid request",
            ErrorKind::NotPermitted => "not permitted",
            ErrorKind::Unsupported => "not supported",
            ErrorKind::Io => "I/O error",
            ErrorKind::NoSpace => "no space left on device",
            ErrorKind::Poisoned => "node is poisoned by an earlier failed flush",
            ErrorKind::TimedOut => "timed out",
            ErrorKind::ShuttingDown => "node is shutting down",
        })
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Open => "open",
            Op::Read => "read",
            Op::Write => "write",
            Op::WriteZeroes => "write-zeroes",
            Op::Discard => "discard",
            Op::Flush => "flush",
            Op::BlockStatus => "block-status",
            Op::CopyBeforeWrite => "copy-before-write",
            Op::MakeEmpty => "make-empty",
            Op::Commit => "commit",
            Op::Resize => "resize",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_deepest_node_that_failed() {
        let range = ByteRange::between(512, 1024);
        let error = Error::from_errno(28, "write returned ENOSPC").at("hidden0", Op::Write, range);
        let error = error.at("colo0", Op::CopyBeforeWrite, ByteRange::between(0, 65536));
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(
            error.to_string(),
            "write of 512 bytes at offset 512 on node 'hidden0': no space left on device: \
             write returned ENOSPC"
        );
    }

    #[test]
    fn an_error_without_context_prints_its_kind() {
        assert_eq!(
            Error::new(ErrorKind::Poisoned).to_string(),
            "node is poisoned by an earlier failed flush"
        );
        assert_eq!(Error::new(ErrorKind::Poisoned).errno(), 5);
    }
}
