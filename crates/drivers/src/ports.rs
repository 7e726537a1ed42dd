//! The ports: everything drivers and the engine need of the world outside a data thread.
//!
//! ```text
//!            Ports
//!   ┌─────────┼──────────┬──────────┐
//! Runtime   Files      Network    Random
//! spawn     open       connect    identities
//! now       File       listen
//! sleep     ...        Stream
//! ```
//!
//! `drivers::os` implements them with tokio, `io_uring` and the kernel; `sim` with a seeded executor,
//! simulated disks, network and clock. No other code names any of those. A data thread owns its
//! ports; nothing here is `Send`.

use block::{Buffer, ByteRange, Extent};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// The world of one data thread. Cloning shares it.
#[derive(Clone)]
pub struct Ports {
    /// Tasks and time.
    pub runtime: Rc<dyn Runtime>,
    /// Files and block devices.
    pub files: Rc<dyn Files>,
    /// Sockets.
    pub network: Rc<dyn Network>,
    /// Identities nobody can guess (in `sim`: anybody with the seed).
    pub random: Rc<dyn Random>,
}

/// Tasks and time.
pub trait Runtime {
    /// Runs `task` on this thread, interleaved with the others. Dropping the [`Task`] does not end
    /// it; [`Task::abort`] does.
    fn spawn(&self, task: LocalBoxFuture<'static, ()>) -> Task;

    /// Time since an arbitrary start; never goes back.
    fn now(&self) -> Duration;

    /// Resolves when `duration` has passed.
    fn sleep(&self, duration: Duration) -> LocalBoxFuture<'static, ()>;

    /// Wall clock since 1970, for display and event timestamps only.
    fn wall_clock(&self) -> Duration;
}

/// A running task.
pub struct Task {
    abort: Box<dyn Fn()>,
    done: Rc<Cell<bool>>,
}

impl Task {
    /// A handle for a task that `abort` ends, and that sets `done` when it has ended.
    pub fn new(abort: Box<dyn Fn()>, done: Rc<Cell<bool>>) -> Task {
        Task { abort, done }
    }

    /// Ends the task at its next suspension; its futures are dropped.
    pub fn abort(&self) {
        (self.abort)();
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.done.get()
    }
}

/// How file data is written and read (`aio` of the `file` driver).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Aio {
    /// Calls that may block run on a pool of threads; those that cannot, on the data thread.
    #[default]
    Threads,
    /// A ring inside the data thread. `native` is taken as this.
    IoUring,
}

/// Whether an image is locked against other processes (`locking` of the `file` driver).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Locking {
    /// Where the file system has open-file-description locks.
    #[default]
    Auto,
    /// Fail where it has not.
    On,
    /// Never.
    Off,
}

/// How to open a file.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent options of the `file` driver"
)]
pub struct FileOptions {
    /// Path as given by the user.
    pub path: PathBuf,
    /// Whether it may be written.
    pub writable: bool,
    /// Bypass the page cache (`cache.direct`).
    pub direct: bool,
    /// Ignore flushes (`cache.no-flush`): for throw-away data only.
    pub no_flush: bool,
    /// How data is moved.
    pub aio: Aio,
    /// Whether to exclude other processes.
    pub locking: Locking,
    /// Permissions taken on the image and shared with other processes, for locking. As QEMU's, so
    /// that both exclude each other.
    pub shares: Option<block::Shares>,
    /// Pass discards on to the file system (`discard=unmap`).
    pub unmap: bool,
    /// Create it if it is not there (never set by users' options).
    pub create: bool,
}

/// Files and block devices.
pub trait Files {
    /// Opens a file or block device, and locks it as `options` say.
    fn open(&self, options: FileOptions) -> LocalBoxFuture<'_, io::Result<Rc<dyn File>>>;

    /// Removes a file (a socket left behind, a pid file).
    fn remove(&self, path: &Path) -> LocalBoxFuture<'_, io::Result<()>>;

    /// A hint: whether this thread has more to do than the transfer that follows. A long one is then
    /// best left to another thread; otherwise handing it over costs more than it gains.
    fn expect_more(&self, _more: bool) {}
}

/// An open file or block device. All requests may be in flight at once.
///
/// Offsets and lengths are multiples of [`FileInfo::alignment`], except that a write may end at any
/// byte that is, or becomes, the end of the file. Memory may lie anywhere.
///
/// Cancel safety: dropping an answer leaves the operation running; its memory belongs to it until
/// the kernel has answered.
pub trait File {
    /// Length, alignment and identity.
    fn info(&self) -> FileInfo;

    /// Reads up to `length` bytes; shorter only at the end of the file.
    fn read_at(&self, offset: u64, length: usize) -> LocalBoxFuture<'_, io::Result<Bytes>>;

    /// Writes all of `data`; past the end of the file it grows.
    fn write_at(&self, offset: u64, data: Bytes) -> LocalBoxFuture<'_, io::Result<()>>;

    /// Makes a range read as zeroes, as a hole where `may_unmap` and the file system can.
    /// `Unsupported` if only writing would do it.
    fn zero(&self, range: ByteRange, may_unmap: bool) -> LocalBoxFuture<'_, io::Result<()>>;

    /// Makes a hole of a range, whatever `unmap` says. `Unsupported` if the file system cannot.
    fn punch_hole(&self, range: ByteRange) -> LocalBoxFuture<'_, io::Result<()>> {
        self.zero(range, true)
    }

    /// Gives the space of a range back; it reads as zeroes where the file system can do that.
    fn discard(&self, range: ByteRange) -> LocalBoxFuture<'_, io::Result<()>>;

    /// Makes data (and the length) durable.
    fn sync(&self) -> LocalBoxFuture<'_, io::Result<()>>;

    /// Changes the length.
    fn set_length(&self, length: u64) -> LocalBoxFuture<'_, io::Result<()>>;

    /// Data and holes of a range, from its start on; at least one extent.
    fn extents(&self, range: ByteRange) -> LocalBoxFuture<'_, io::Result<Vec<Extent>>>;

    /// Changes the permissions the image is locked with.
    fn relock(&self, shares: block::Shares) -> LocalBoxFuture<'_, io::Result<()>>;

    /// Reopens it writable or not, under the same locks.
    fn set_writable(&self, writable: bool) -> LocalBoxFuture<'_, io::Result<()>>;

    /// Bytes allocated on the medium now, if it can tell.
    fn allocated_bytes(&self) -> Option<u64>;
}

/// What is known of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Length in bytes.
    pub length: u64,
    /// Offsets and lengths must be multiples of this (1 unless direct).
    pub alignment: u64,
    /// Whether it is a block device.
    pub is_device: bool,
}

/// Where a server listens or a client connects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// A unix socket's path.
    Unix(PathBuf),
    /// Host (name or address) and port.
    Inet {
        /// Host name or address.
        host: String,
        /// Port; 0 picks one when listening.
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix socket '{}'", path.display()),
            Address::Inet { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Inet { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

/// Sockets.
pub trait Network {
    /// Connects; bounded by the caller.
    fn connect(&self, address: &Address) -> LocalBoxFuture<'_, io::Result<Rc<dyn Stream>>>;

    /// Listens.
    fn listen(&self, address: &Address) -> LocalBoxFuture<'_, io::Result<Rc<dyn Listener>>>;
}

/// A listening socket; dropping it closes it (and removes a unix socket's file).
pub trait Listener {
    /// The next connection.
    fn accept(&self) -> LocalBoxFuture<'_, io::Result<Rc<dyn Stream>>>;

    /// Where it really listens (the port that was picked).
    fn address(&self) -> Address;
}

/// A connected byte stream; one reader and one writer at a time. Dropping it closes it.
pub trait Stream {
    /// Reads what has arrived, at least one byte, into the spare room of `buffer`, and gives the
    /// buffer back. Nothing added means the peer has closed.
    ///
    /// Cancel safety: dropping the answer loses the buffer and may lose bytes: close afterwards.
    fn read(&self, buffer: Buffer) -> LocalBoxFuture<'_, io::Result<Buffer>>;

    /// Writes all of the parts, in order, in as few calls as it takes.
    fn write(&self, parts: Vec<Bytes>) -> LocalBoxFuture<'_, io::Result<()>>;

    /// Closes both directions: pending reads and writes fail at once.
    fn shutdown(&self);
}

/// Unguessable numbers.
pub trait Random {
    /// Sixteen random bytes.
    fn identity(&self) -> [u8; 16];
}
