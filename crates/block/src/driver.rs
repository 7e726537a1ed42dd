//! What a node's driver must do: six requests, its limits, and the capabilities it may have.
//!
//! A driver sees only requests that are valid: within the length, aligned to
//! [`Limits::request_alignment`], not longer than [`Limits::max_transfer`], permitted, not empty.
//! [`Node`](crate::Node) sees to that. Only where the length is not a multiple of the alignment, a
//! request may reach past it, up to the next multiple; bytes there read as zeroes. What only some drivers can do is a trait of its own,
//! asked for by [`Driver::capabilities`].

use crate::permissions::{ChildRole, Permissions, Shares};
use crate::{ByteRange, Child, Error, Extent, WriteFlags, ZeroFlags};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use std::rc::Rc;

/// The future answer to a request on a data thread.
pub type Answer<'a, T> = LocalBoxFuture<'a, Result<T, Error>>;

/// A node's behaviour. One per node; reached only through [`Node`](crate::Node).
///
/// Cancel safety: dropping an answer abandons the request; whether it took effect is unknown,
/// as after a power cut. Memory handed to a kernel stays with the operation until it has ended.
pub trait Driver {
    /// The `driver` string of `blockdev-add`.
    fn name(&self) -> &'static str;

    /// Length, alignment and other bounds as they are now.
    fn limits(&self) -> Limits;

    /// Reads `range`; the answer has exactly its length.
    fn read(&self, range: ByteRange) -> Answer<'_, Bytes>;

    /// Writes `data` at `offset`.
    fn write(&self, offset: u64, data: Bytes, flags: WriteFlags) -> Answer<'_, ()>;

    /// Makes `range` read as zeroes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if that is not cheaper than
    /// writing; the node then falls back to writes, unless told not to.
    fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Answer<'_, ()>;

    /// Gives the space of `range` back, if it can; what it reads as afterwards is undefined.
    fn discard(&self, range: ByteRange) -> Answer<'_, ()>;

    /// Makes all writes answered before this call durable.
    fn flush(&self) -> Answer<'_, ()>;

    /// The allocation of `range`: extents in ascending order that cover it from its start on. May
    /// stop early, but not before the first extent.
    fn block_status(&self, range: ByteRange) -> Answer<'_, Vec<Extent>>;

    /// The edges to the nodes below, in order.
    fn children(&self) -> Vec<Rc<Child>> {
        Vec::new()
    }

    /// What this node needs on the edge to `child` and what it lets others do there, given what its
    /// own parents use and share (`above`).
    fn child_permissions(&self, child: &Child, above: Shares) -> Shares {
        default_child_permissions(child.role(), above)
    }

    /// What only some drivers can do.
    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::default()
    }

    /// Makes the medium writable, or read-only again (a reopen: R36, R63). Called while no request is
    /// in flight; the node's own flag and its children are the caller's business.
    fn set_writable(&self, _writable: bool) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Ends background work, flushes and lets the medium go. Called once, after the last request.
    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// The permissions of QEMU's default rules: a filter passes through what its parents use and
/// share; backing is only read, and others may change it only if the parents of the overlay put up with
/// changes; a protocol below a format belongs to the format.
pub fn default_child_permissions(role: ChildRole, above: Shares) -> Shares {
    match role {
        ChildRole::Filtered => above,
        ChildRole::Backing => Shares {
            used: above.used & Permissions::CONSISTENT_READ,
            shared: if above.shared.contains(Permissions::WRITE) {
                Permissions::ALL
            } else {
                Permissions::CONSISTENT_READ | Permissions::WRITE_UNCHANGED
            },
        },
        ChildRole::Data => Shares {
            used: Permissions::CONSISTENT_READ
                | (above.used & (Permissions::WRITE | Permissions::RESIZE)),
            shared: (above.shared & Permissions::WRITE)
                | Permissions::CONSISTENT_READ
                | Permissions::WRITE_UNCHANGED,
        },
    }
}

/// Bounds of a node as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of the disk in bytes; any number, not only a multiple of the alignment.
    pub length: u64,
    /// Offsets and lengths of requests must be multiples of this (bytes, a power of two).
    pub request_alignment: u64,
    /// What clients should align to for speed (bytes, a power of two).
    pub preferred_alignment: u64,
    /// Longest read or write in bytes, a multiple of the alignment; longer ones are cut.
    pub max_transfer: u64,
    /// Whether the driver honours [`WriteFlags::fua`] itself. Otherwise the node flushes.
    pub fua: bool,
}

impl Limits {
    /// Byte-granular, up to 32 MiB a request, no FUA of its own.
    pub fn of_length(length: u64) -> Limits {
        Limits {
            length,
            request_alignment: 1,
            preferred_alignment: 4096,
            max_transfer: 32 << 20,
            fua: false,
        }
    }
}

/// What only some drivers can do; absent means they cannot.
#[derive(Clone, Copy, Default)]
pub struct Capabilities<'a> {
    /// Dropping everything an overlay holds.
    pub make_empty: Option<&'a dyn MakeEmpty>,
    /// Making holes, whatever the user said about discards.
    pub punch_hole: Option<&'a dyn PunchHole>,
    /// Changing the length.
    pub resize: Option<&'a dyn Resize>,
    /// Recording how far replication has come in an overlay.
    pub overlay_state: Option<&'a dyn OverlayState>,
    /// Copy-before-write's checkpoint.
    pub copy_before_write: Option<&'a dyn CopyBeforeWrite>,
    /// Children that come and go at run time.
    pub dynamic_children: Option<&'a dyn DynamicChildren>,
    /// A connection that can be cut from outside, so that nothing waits for a dead peer.
    pub yank: Option<&'a dyn Yank>,
    /// A medium locked against other programs.
    pub image_locks: Option<&'a dyn ImageLocks>,
    /// Replication: the filter whose stage `engine` moves.
    pub replication: Option<&'a dyn ReplicationFilter>,
    /// A driver-specific view for those above that know the type.
    pub any: Option<&'a dyn std::any::Any>,
}

/// An overlay that can drop all it holds (R35, R52).
pub trait MakeEmpty {
    /// Drops everything the overlay holds, so that it shows its backing again. Takes effect at once
    /// and costs the same whatever it holds; the space is given back in the background. The
    /// caller has drained the node.
    fn make_empty(&self) -> Answer<'_, ()>;

    /// Whether it can be emptied now. Where several overlays are emptied together, all are asked
    /// before the first is (R52).
    ///
    /// # Errors
    ///
    /// Why not: an earlier flush failed, or the contents are unknown.
    fn check_emptiable(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Bytes the overlay holds at present.
    fn allocated_bytes(&self) -> u64;

    /// Whether every file that takes the data is still there (R51).
    fn medium_present(&self) -> bool {
        true
    }
}

/// A sparse medium. Its owner (a private overlay) makes holes where it holds nothing, whether or not
/// users' discards are passed on (`discard`).
pub trait PunchHole {
    /// Makes `range` read as zeroes and gives its space back.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the medium cannot.
    fn punch_hole(&self, range: ByteRange) -> Answer<'_, ()>;
}

/// A node whose length can be changed: a file, and formats that let theirs grow.
pub trait Resize {
    /// Changes the length to `length` bytes. New bytes read as zeroes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) for a device of fixed length.
    fn resize(&self, length: u64) -> Answer<'_, ()>;
}

/// How far replication has come, as recorded in an overlay's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayStage {
    /// Holds nothing, or an ordinary overlay's data that a flush made durable.
    Clean,
    /// In use by replication: after an unclean end the contents are unknown.
    Replicating,
    /// Being committed: data and map are durable up to the last flush; a commit can be resumed.
    Failover,
    /// Was found `Replicating` when opened: open for inspection only.
    ContentsUnknown,
}

/// An overlay whose header records how far replication has come.
pub trait OverlayState {
    /// The stage in force.
    fn stage(&self) -> OverlayStage;

    /// Makes data, map and then the new stage durable, in this order, before it answers.
    fn set_stage(&self, stage: OverlayStage) -> Answer<'_, ()>;
}

/// The filter that saves old data before it is overwritten.
pub trait CopyBeforeWrite {
    /// Forgets what was saved: from now on every block is saved again before its first write. The
    /// caller has drained the node; no copy is in flight.
    fn reset(&self);

    /// Resolves when no copy is in flight. A copy may outlive the write that began it (a write that
    /// was dropped or timed out), so that a drained node may still have one.
    fn settle(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// The first copy that failed since the last reset, if any.
    fn first_error(&self) -> Option<Error>;

    /// Bytes saved since the last reset.
    fn saved_bytes(&self) -> u64;
}

/// A node whose children come and go (quorum). Called in a drained section.
pub trait DynamicChildren {
    /// The name the next child will get.
    fn next_child_name(&self) -> String;

    /// Adds an edge.
    ///
    /// # Errors
    ///
    /// Says which rule the child breaks.
    fn add_child(&self, child: Rc<Child>) -> Result<(), Error>;

    /// Takes an edge out by name.
    ///
    /// # Errors
    ///
    /// Says why it has to stay.
    fn remove_child(&self, name: &str) -> Result<Rc<Child>, Error>;
}

/// A connection that can be cut from outside.
pub trait Yank {
    /// Cuts the connection; pending requests fail at once.
    fn yank(&self);
}

/// A medium that other programs may open too, and that is locked by what the graph does with it.
pub trait ImageLocks {
    /// Takes over what all parents of the node together use, and what all of them share. The graph
    /// calls this before it lets a parent have more, and after it took something away.
    ///
    /// # Errors
    ///
    /// Another program uses the medium in a way that contradicts this. Nothing has changed then.
    fn permissions_changed(&self, shares: Shares) -> Answer<'_, ()>;
}

/// A `replication` node, as `engine` sees it. The concrete type is reached through
/// [`Capabilities::any`].
pub trait ReplicationFilter {
    /// Whether it forwards for a primary (else it is a secondary's).
    fn is_primary(&self) -> bool;
}
