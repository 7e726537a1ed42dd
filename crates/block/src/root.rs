//! Where requests enter the graph: an export, a job, a command. QEMU calls it a `BlockBackend`.
//!
//! Every request passes the root's [`Gate`]; holding the gates of all roots above a node and
//! waiting until they are drained is a drained section. Nothing else can start a request.

use crate::gate::Gate;
use crate::permissions::{ChildRole, Shares};
use crate::{ByteRange, Child, Error, Extent, Node, WriteFlags, ZeroFlags};
use bytes::Bytes;
use std::cell::Cell;
use std::fmt;
use std::rc::Rc;

/// A user of a node from outside the graph.
pub struct Root {
    child: Rc<Child>,
    gate: Gate,
    shares: Cell<Shares>,
}

impl Root {
    /// A user called `name` of `node`, with what it uses and lets others use.
    pub fn new(name: impl Into<String>, node: Rc<Node>, shares: Shares) -> Rc<Root> {
        let child = Child::new(name, ChildRole::Filtered, node);
        Rc::new(Root {
            child,
            gate: Gate::new(),
            shares: Cell::new(shares),
        })
    }

    /// The edge to the node.
    pub fn child(&self) -> &Rc<Child> {
        &self.child
    }

    /// Admission of its requests.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// What it uses of the node and lets others use.
    pub fn shares(&self) -> Shares {
        self.shares.get()
    }

    /// Changes that. Only the graph does this.
    pub fn set_shares(&self, shares: Shares) {
        self.shares.set(shares);
    }

    /// Length of the node in bytes.
    pub fn length(&self) -> u64 {
        self.child.length()
    }

    /// Reads; see [`Node::read`]. Waits while the gate is held.
    ///
    /// # Errors
    ///
    /// As [`Child::read`].
    pub async fn read(&self, range: ByteRange) -> Result<Bytes, Error> {
        let _inside = self.gate.enter().await;
        self.child.read(range).await
    }

    /// Writes; see [`Node::write`]. Waits while the gate is held.
    ///
    /// # Errors
    ///
    /// As [`Child::write`].
    pub async fn write(&self, offset: u64, data: Bytes, flags: WriteFlags) -> Result<(), Error> {
        let _inside = self.gate.enter().await;
        self.child.write(offset, data, flags).await
    }

    /// Writes zeroes; see [`Node::write_zeroes`]. Waits while the gate is held.
    ///
    /// # Errors
    ///
    /// As [`Child::write_zeroes`].
    pub async fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Result<(), Error> {
        let _inside = self.gate.enter().await;
        self.child.write_zeroes(range, flags).await
    }

    /// Discards; see [`Node::discard`]. Waits while the gate is held.
    ///
    /// # Errors
    ///
    /// As [`Child::discard`].
    pub async fn discard(&self, range: ByteRange) -> Result<(), Error> {
        let _inside = self.gate.enter().await;
        self.child.discard(range).await
    }

    /// Flushes; see [`Node::flush`]. Waits while the gate is held.
    ///
    /// # Errors
    ///
    /// As [`Child::flush`].
    pub async fn flush(&self) -> Result<(), Error> {
        let _inside = self.gate.enter().await;
        self.child.flush().await
    }

    /// Asks for the allocation; see [`Node::block_status`]. Waits while the gate is held.
    ///
    /// # Errors
    ///
    /// As [`Child::block_status`].
    pub async fn block_status(&self, range: ByteRange) -> Result<Vec<Extent>, Error> {
        let _inside = self.gate.enter().await;
        self.child.block_status(range).await
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.child)
    }
}
