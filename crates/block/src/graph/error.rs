//! Why the graph refuses a change. The texts are what a QMP client reads.

use crate::permissions::Permissions;

/// A refused change; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name breaks the rules.
    #[error(
        "Invalid node-name: '{name}' (a letter, then letters, digits, '-', '.' or '_', {} bytes at most)",
        super::LONGEST_NODE_NAME
    )]
    InvalidName {
        /// The name.
        name: String,
    },
    /// Another node has the name.
    #[error("Duplicate nodes with node-name='{name}'")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// There is no such node.
    #[error("Cannot find device='{name}' nor node-name='{name}'")]
    NotFound {
        /// The name.
        name: String,
    },
    /// Something under way blocks the operation.
    #[error("Node '{node}' is busy: {reason}")]
    Busy {
        /// The node.
        node: String,
        /// What is under way.
        reason: String,
    },
    /// The node still has users.
    #[error("Block device {node} is in use by {user}")]
    InUse {
        /// The node.
        node: String,
        /// One of its users.
        user: String,
    },
    /// The user may not delete a node that belongs to another.
    #[error("Node {node} is not owned by the monitor")]
    NotOwned {
        /// The node.
        node: String,
    },
    /// Two users of a node exclude each other.
    #[error("{0}")]
    Conflict(Box<Conflict>),
    /// A user wants to write to a read-only node.
    #[error("Block node '{node}' is read-only, but {by} needs to write to it")]
    ReadOnly {
        /// The node.
        node: String,
        /// Who wants to write.
        by: String,
    },
    /// A node would be its own descendant, or an edge would leave the graph.
    #[error("{0}")]
    Shape(String),
    /// The node's driver refuses.
    #[error("{0}")]
    Driver(String),
}

/// Two users of a node that exclude each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "Permission conflict on node '{node}': permissions '{permissions}' are both required by \
     {by} (uses node '{node}' as '{by_child}' child) and unshared by {unshared} (uses node \
     '{node}' as '{unshared_child}' child)"
)]
pub struct Conflict {
    /// The node.
    pub node: String,
    /// What one needs and the other does not share.
    pub permissions: Permissions,
    /// Who needs it.
    pub by: String,
    /// As which child.
    pub by_child: String,
    /// Who does not share it.
    pub unshared: String,
    /// As which child.
    pub unshared_child: String,
}
