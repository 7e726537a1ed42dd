//! An edge of the graph: a parent's handle on the node below.
//!
//! The parent keeps the handle; the graph moves its target (in a drained section) and says what it
//! permits. A parent never learns that its child was replaced.

use crate::permissions::{ChildRole, Permissions};
use crate::{ByteRange, Error, ErrorKind, Extent, Node, WriteFlags, ZeroFlags};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

/// An edge from a parent to a node.
pub struct Child {
    name: String,
    role: ChildRole,
    target: RefCell<Option<Rc<Node>>>,
    granted: Cell<Permissions>,
}

impl Child {
    /// An edge to `target` that permits nothing yet.
    pub fn new(name: impl Into<String>, role: ChildRole, target: Rc<Node>) -> Rc<Child> {
        Rc::new(Child {
            name: name.into(),
            role,
            target: RefCell::new(Some(target)),
            granted: Cell::new(Permissions::NONE),
        })
    }

    /// An edge that permits everything: for tests, and for graphs built by hand.
    pub fn unrestricted(name: impl Into<String>, role: ChildRole, target: Rc<Node>) -> Rc<Child> {
        let child = Child::new(name, role, target);
        child.granted.set(Permissions::ALL);
        child
    }

    /// What the parent calls it: `file`, `backing`, `children.0`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is to the parent.
    pub fn role(&self) -> ChildRole {
        self.role
    }

    /// The node below.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ShuttingDown`] if the edge was cut.
    pub fn node(&self) -> Result<Rc<Node>, Error> {
        let target = self.target.borrow().clone();
        target.ok_or_else(|| {
            let message = format!("child '{}' is detached", self.name);
            Error::with_message(ErrorKind::ShuttingDown, message)
        })
    }

    /// Moves the edge to another node, or cuts it. Only the graph does this, in a drained section.
    pub fn set_target(&self, target: Option<Rc<Node>>) {
        self.target.replace(target);
    }

    /// What the edge permits.
    pub fn granted(&self) -> Permissions {
        self.granted.get()
    }

    /// Changes what the edge permits. Only the graph does this.
    pub fn grant(&self, permissions: Permissions) {
        self.granted.set(permissions);
    }

    /// Length of the node below in bytes; 0 if the edge was cut.
    pub fn length(&self) -> u64 {
        self.target
            .borrow()
            .as_ref()
            .map_or(0, |node| node.length())
    }

    /// Reads; see [`Node::read`].
    ///
    /// # Errors
    ///
    /// As [`Node::read`].
    pub async fn read(&self, range: ByteRange) -> Result<Bytes, Error> {
        self.node()?.read(range).await
    }

    /// Writes; see [`Node::write`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotPermitted`] if the edge does not permit writing; else as [`Node::write`].
    pub async fn write(&self, offset: u64, data: Bytes, flags: WriteFlags) -> Result<(), Error> {
        self.writable_node()?.write(offset, data, flags).await
    }

    /// Writes zeroes; see [`Node::write_zeroes`].
    ///
    /// # Errors
    ///
    /// As [`Child::write`].
    pub async fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Result<(), Error> {
        self.writable_node()?.write_zeroes(range, flags).await
    }

    /// Discards; see [`Node::discard`].
    ///
    /// # Errors
    ///
    /// As [`Child::write`].
    pub async fn discard(&self, range: ByteRange) -> Result<(), Error> {
        self.writable_node()?.discard(range).await
    }

    /// Flushes; see [`Node::flush`].
    ///
    /// # Errors
    ///
    /// As [`Node::flush`].
    pub async fn flush(&self) -> Result<(), Error> {
        self.node()?.flush().await
    }

    /// Asks for the allocation; see [`Node::block_status`].
    ///
    /// # Errors
    ///
    /// As [`Node::block_status`].
    pub async fn block_status(&self, range: ByteRange) -> Result<Vec<Extent>, Error> {
        self.node()?.block_status(range).await
    }

    fn writable_node(&self) -> Result<Rc<Node>, Error> {
        let granted = self.granted.get();
        if (granted & (Permissions::WRITE | Permissions::WRITE_UNCHANGED)).is_none() {
            let message = format!(
                "child '{}' is attached without permission to write",
                self.name
            );
            return Err(Error::with_message(ErrorKind::NotPermitted, message));
        }
        self.node()
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.borrow();
        let target = target.as_ref().map_or("-", |node| node.name());
        write!(f, "{} -> {target} ({:?})", self.name, self.granted.get())
    }
}
