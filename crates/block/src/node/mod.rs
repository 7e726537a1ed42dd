//! A node: a driver with a name, and the rules every request passes before the driver sees it.
//!
//! ```text
//! request ─▶ bounds ─▶ read-only? ─▶ detect zeroes ─▶ align (read-modify-write) ─▶ cut ─▶ driver
//!                                                                                   └▶ flush (FUA)
//! ```
//!
//! Clients may send any byte range. Where the driver wants aligned requests, a write that is
//! not aligned is completed with what the disk holds; it excludes overlapping writes meanwhile, so
//! no neighbour's bytes are put back.

mod rules;

use crate::range_lock::RangeLock;
use crate::{ByteRange, Driver, Error, ErrorKind, Extent, Limits, Op, WriteFlags, ZeroFlags};
use bytes::Bytes;
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

/// What a node does with written data that is all zeroes (`detect-zeroes`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectZeroes {
    /// Write it as it is.
    #[default]
    Off,
    /// Turn it into a write-zeroes request.
    On,
    /// As `On`, and the range may become a hole.
    Unmap,
}

/// Properties of a node that do not depend on its driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeOptions {
    /// Refuse everything that would change the contents.
    pub read_only: bool,
    /// What to do with zeroes in written data.
    pub detect_zeroes: DetectZeroes,
    /// Succeed at discards without doing anything, and keep zeroed ranges allocated (`discard` is
    /// `ignore`).
    pub ignore_discards: bool,
}

/// A named node of the graph.
pub struct Node {
    name: String,
    driver: Box<dyn Driver>,
    detect_zeroes: DetectZeroes,
    ignore_discards: bool,
    read_only: Cell<bool>,
    /// Orders read-modify-write against the writes it overlaps.
    writes: RangeLock,
}

impl Node {
    /// A node called `name` (its `node-name`).
    pub fn new(name: impl Into<String>, driver: Box<dyn Driver>, options: NodeOptions) -> Rc<Node> {
        Rc::new(Node {
            name: name.into(),
            driver,
            detect_zeroes: options.detect_zeroes,
            ignore_discards: options.ignore_discards,
            read_only: Cell::new(options.read_only),
            writes: RangeLock::new(),
        })
    }

    /// Its `node-name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its driver.
    pub fn driver(&self) -> &dyn Driver {
        &*self.driver
    }

    /// Length, alignment and other bounds.
    pub fn limits(&self) -> Limits {
        self.driver.limits()
    }

    /// Length in bytes.
    pub fn length(&self) -> u64 {
        self.driver.limits().length
    }

    /// Whether it refuses everything that would change its contents.
    pub fn is_read_only(&self) -> bool {
        self.read_only.get()
    }

    /// Changes that (a reopen; R36, R63).
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.set(read_only);
    }

    /// What it does with zeroes in written data.
    pub fn detect_zeroes(&self) -> DetectZeroes {
        self.detect_zeroes
    }

    /// Reads `range`; the answer has exactly its length.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] past the end; else what the driver says. Errors name the
    /// deepest node that failed.
    pub async fn read(&self, range: ByteRange) -> Result<Bytes, Error> {
        let result = self.read_aligned(range).await;
        result.map_err(|error| error.at(&self.name, Op::Read, range))
    }

    /// Writes `data` at `offset`; with [`WriteFlags::fua`] it is durable when this returns.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] past the end, [`ErrorKind::NotPermitted`] on a read-only node;
    /// else what the driver says. After an error the range holds old data, new data or both.
    pub async fn write(&self, offset: u64, data: Bytes, flags: WriteFlags) -> Result<(), Error> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let Some(range) = ByteRange::new(offset, length) else {
            return Err(ErrorKind::InvalidRequest.into());
        };
        let result = self.write_detecting(range, data, flags).await;
        result.map_err(|error| error.at(&self.name, Op::Write, range))
    }

    /// Makes `range` read as zeroes.
    ///
    /// # Errors
    ///
    /// As [`Node::write`]; [`ErrorKind::Unsupported`] if a fast zero was asked for and there is none.
    pub async fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Result<(), Error> {
        let result = self.write_zeroes_aligned(range, flags).await;
        result.map_err(|error| error.at(&self.name, Op::WriteZeroes, range))
    }

    /// Gives the space of `range` back, as far as whole aligned blocks of it can be.
    ///
    /// # Errors
    ///
    /// As [`Node::write`]; a driver that cannot discard succeeds without doing anything.
    pub async fn discard(&self, range: ByteRange) -> Result<(), Error> {
        let result = self.discard_aligned(range).await;
        result.map_err(|error| error.at(&self.name, Op::Discard, range))
    }

    /// Makes all writes answered before this call durable.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Poisoned`] if this or an earlier flush failed: what is on the medium is
    /// unknown until the node is reopened. A read-only node has nothing to flush.
    pub async fn flush(&self) -> Result<(), Error> {
        let result = self.driver.flush().await;
        let whole = ByteRange::between(0, self.length());
        result.map_err(|error| error.at(&self.name, Op::Flush, whole))
    }

    /// The allocation of `range`, from its start on: at least one extent, the last one cut at
    /// the end of the range.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] past the end; else what the driver says.
    pub async fn block_status(&self, range: ByteRange) -> Result<Vec<Extent>, Error> {
        let result = self.block_status_aligned(range).await;
        result.map_err(|error| error.at(&self.name, Op::BlockStatus, range))
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.driver.name())
    }
}
