//! What the two ends of an edge may do with a node, and what they let others do.
//!
//! Source: `docs/spec/replication.md` (R17, R18, R89) and QEMU's four permissions, which users
//! know by name from its error messages.

use std::fmt;
use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

/// A set of the four permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Permissions(u8);

impl Permissions {
    /// None of them.
    pub const NONE: Permissions = Permissions(0);
    /// Read data that makes sense as a whole.
    pub const CONSISTENT_READ: Permissions = Permissions(1);
    /// Change what the node reads as.
    pub const WRITE: Permissions = Permissions(2);
    /// Write what it reads as anyway (a copy to another layer).
    pub const WRITE_UNCHANGED: Permissions = Permissions(4);
    /// Change its length.
    pub const RESIZE: Permissions = Permissions(8);
    /// All of them.
    pub const ALL: Permissions = Permissions(15);

    /// Whether every permission of `other` is in the set.
    pub fn contains(self, other: Permissions) -> bool {
        self.0 & other.0 == other.0
    }

    /// The permissions of either set.
    #[must_use]
    pub const fn union(self, other: Permissions) -> Permissions {
        Permissions(self.0 | other.0)
    }

    /// Whether the set is empty.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Permissions {
    type Output = Permissions;
    fn bitor(self, other: Permissions) -> Permissions {
        Permissions(self.0 | other.0)
    }
}

impl BitOrAssign for Permissions {
    fn bitor_assign(&mut self, other: Permissions) {
        self.0 |= other.0;
    }
}

impl BitAnd for Permissions {
    type Output = Permissions;
    fn bitand(self, other: Permissions) -> Permissions {
        Permissions(self.0 & other.0)
    }
}

impl Not for Permissions {
    type Output = Permissions;
    fn not(self) -> Permissions {
        Permissions(!self.0 & Permissions::ALL.0)
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Permissions::CONSISTENT_READ, "consistent read"),
            (Permissions::WRITE, "write"),
            (Permissions::WRITE_UNCHANGED, "write unchanged"),
            (Permissions::RESIZE, "resize"),
        ];
        let held = names
            .iter()
            .filter(|(permission, _)| self.contains(*permission));
        let held: Vec<&str> = held.map(|(_, name)| *name).collect();
        f.write_str(&held.join(", "))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

/// What one edge uses of a node, and what it lets the node's other parents use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Used by this edge.
    pub used: Permissions,
    /// Left to the others.
    pub shared: Permissions,
}

/// What a child is to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildRole {
    /// The parent shows this child's data, changed in flight at most.
    Filtered,
    /// The parent keeps (part of) its data here.
    Data,
    /// What the parent shows where it holds nothing itself.
    Backing,
}
