//! The graph as data: which nodes there are, who uses them, and what may be changed.
//!
//! ```text
//! Root 'export root0'      Root 'export sec0'          edges: Root::child, Driver::children
//!        │ root                   │ root               nodes: by node-name
//!      quorum ─ children.0 ─▶ replication
//!                                 │ file
//!                               active ─ backing ─▶ hidden ─ backing ─▶ disk
//! ```
//!
//! Every change goes through [`Graph::edit`]: steps are made, permissions and cycles are checked, and
//! either all of it stays or nothing does. The caller holds the gates of
//! [`Graph::roots_above`] meanwhile (a drained section), so that no request sees a half-made change;
//! an edit itself never waits.
//!
//! A node belongs to the user who added it ([`Owner::User`]) or to its parents ([`Owner::Parents`]:
//! children described inside their parent, filters of jobs); the latter go with their last
//! parent.

mod blockers;
mod check;
mod dump;
mod edit;
mod error;
mod name;

#[cfg(test)]
mod tests;

pub use blockers::BlockerId;
pub use edit::Edit;
pub use error::{Conflict, Error};
pub use name::{LONGEST_NODE_NAME, check_node_name};

use crate::permissions::Shares;
use crate::{Child, Node, Root};
use blockers::Blockers;
use std::rc::Rc;

/// All nodes of a data thread, and who uses them from outside.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Entry>,
    roots: Vec<Rc<Root>>,
    blockers: Blockers,
    named: u64,
}

/// A node and who it belongs to.
#[derive(Clone, Debug)]
struct Entry {
    node: Rc<Node>,
    owner: Owner,
}

/// Who decides when a node goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The user: it stays until it is deleted by name.
    User,
    /// Its parents: it goes with the last of them.
    Parents,
}

/// What a change would lead to.
#[derive(Clone, Debug)]
pub struct Rehearsal {
    /// What all parents of each node that locks its medium would together use and share.
    pub locks: Vec<(Rc<Node>, Shares)>,
    /// The nodes that would leave the graph, parents first.
    pub gone: Vec<Rc<Node>>,
}

/// An edge with the parent it belongs to.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The upper end.
    pub parent: Parent,
    /// The edge.
    pub child: Rc<Child>,
}

/// The upper end of an edge.
#[derive(Clone, Debug)]
pub enum Parent {
    /// A node of the graph.
    Node(Rc<Node>),
    /// A user from outside.
    Root(Rc<Root>),
}

impl Edge {
    /// Whether it leads to `node`.
    pub fn leads_to(&self, node: &Rc<Node>) -> bool {
        self.child.node().is_ok_and(|n| Rc::ptr_eq(&n, node))
    }
}

impl Parent {
    /// As it is named in messages: `node 'x'`, or the root's own name.
    pub fn describe(&self) -> String {
        match self {
            Parent::Node(node) => format!("node '{}'", node.name()),
            Parent::Root(root) => root.child().name().to_owned(),
        }
    }
}

impl Graph {
    /// No nodes.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// The node called `name`.
    pub fn node(&self, name: &str) -> Option<Rc<Node>> {
        let mut nodes = self.nodes.iter().map(|entry| &entry.node);
        nodes.find(|node| node.name() == name).cloned()
    }

    /// All nodes, oldest first.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = &Rc<Node>> {
        self.nodes.iter().map(|entry| &entry.node)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Who `node` belongs to; `None` if it is not of this graph.
    pub fn owner(&self, node: &Rc<Node>) -> Option<Owner> {
        let mut entries = self.nodes.iter();
        let entry = entries.find(|entry| Rc::ptr_eq(&entry.node, node))?;
        Some(entry.owner)
    }

    /// All users from outside, oldest first.
    pub fn roots(&self) -> &[Rc<Root>] {
        &self.roots
    }

    /// A name for a node the user gave none: `#blockN`, which no user can take.
    pub fn generate_name(&mut self) -> String {
        loop {
            let name = format!("#block{:03}", self.named);
            self.named = self.named.saturating_add(1);
            if self.node(&name).is_none() {
                return name;
            }
        }
    }

    /// All edges: of the roots, then of the nodes, oldest first.
    pub fn edges(&self) -> Vec<Edge> {
        let roots = self.roots.iter().map(|root| Edge {
            parent: Parent::Root(Rc::clone(root)),
            child: Rc::clone(root.child()),
        });
        let nodes = self.nodes.iter().flat_map(|entry| edges_of(&entry.node));
        roots.chain(nodes).collect()
    }

    /// The edges that lead to `node`.
    pub fn parents(&self, node: &Rc<Node>) -> Vec<Edge> {
        let mut edges = self.edges();
        edges.retain(|edge| edge.leads_to(node));
        edges
    }

    /// Whether nothing but users from outside has `node` as a child (R38); no user at all is fine.
    pub fn is_root_node(&self, node: &Rc<Node>) -> bool {
        let parents = self.parents(node);
        parents
            .iter()
            .all(|edge| matches!(edge.parent, Parent::Root(_)))
    }

    /// Whether `node` itself has a user from outside: what QEMU calls a `BlockBackend` (R33).
    pub fn has_root(&self, node: &Rc<Node>) -> bool {
        self.roots
            .iter()
            .any(|root| root.child().node().is_ok_and(|n| Rc::ptr_eq(&n, node)))
    }

    /// The users from outside whose requests may reach one of `nodes`. Holding their gates and
    /// waiting until they are drained is a drained section of `nodes`.
    pub fn roots_above(&self, nodes: &[Rc<Node>]) -> Vec<Rc<Root>> {
        let edges = self.edges();
        let mut reached: Vec<Rc<Node>> = nodes.to_vec();
        let mut roots: Vec<Rc<Root>> = Vec::new();
        let mut next = 0;
        while let Some(node) = reached.get(next).cloned() {
            next = next.saturating_add(1);
            for edge in edges.iter().filter(|edge| edge.leads_to(&node)) {
                match &edge.parent {
                    Parent::Node(parent) => push_new(&mut reached, parent),
                    Parent::Root(root) => push_new(&mut roots, root),
                }
            }
        }
        roots
    }

    /// `node` and every node below it, each once, parents before their first child.
    pub fn below(&self, node: &Rc<Node>) -> Vec<Rc<Node>> {
        reachable(node)
    }

    /// Makes a change: all of `steps`, or nothing.
    ///
    /// Returns what `steps` returned and the nodes that are no longer part of the graph, parents
    /// first: the caller closes them in this order.
    ///
    /// # Errors
    ///
    /// What `steps` returned, or the rule the result would break; nothing has changed then.
    pub fn edit<T>(
        &mut self,
        steps: impl FnOnce(&mut Edit<'_>) -> Result<T, Error>,
    ) -> Result<(T, Vec<Rc<Node>>), Error> {
        let mut edit = Edit::begin(self);
        let value = steps(&mut edit)?;
        let gone = edit.commit()?;
        Ok((value, gone))
    }

    /// What [`Graph::edit`] with the same steps would lead to; nothing changes.
    ///
    /// # Errors
    ///
    /// As [`Graph::edit`].
    pub fn rehearse<T>(
        &mut self,
        steps: impl FnOnce(&mut Edit<'_>) -> Result<T, Error>,
    ) -> Result<Rehearsal, Error> {
        let mut edit = Edit::begin(self);
        steps(&mut edit)?;
        edit.rehearse()
    }

    /// What all parents of each node that locks its medium together use and share.
    pub fn locks(&self) -> Vec<(Rc<Node>, Shares)> {
        // A graph that was accepted stays acceptable.
        check::calculate(self).map_or_else(|_| Vec::new(), |plan| plan.locks(self))
    }

    /// Blocks deleting, resizing and the like of `node` until [`Graph::unblock`] (R40). Requests
    /// are not affected.
    pub fn block(&mut self, node: &Rc<Node>, reason: impl Into<String>) -> BlockerId {
        self.blockers.add(node, reason.into())
    }

    /// Takes a block off; twice is once.
    pub fn unblock(&mut self, blocker: BlockerId) {
        self.blockers.remove(blocker);
    }

    /// Why operations on `node` are blocked.
    pub fn blocked_by(&self, node: &Rc<Node>) -> Option<&str> {
        self.blockers.reason(node)
    }

    /// Refuses if operations on `node` are blocked.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] with the reason.
    pub fn check_not_blocked(&self, node: &Rc<Node>) -> Result<(), Error> {
        match self.blockers.reason(node) {
            None => Ok(()),
            Some(reason) => Err(Error::Busy {
                node: node.name().to_owned(),
                reason: reason.to_owned(),
            }),
        }
    }

    /// The graph as an indented tree, one line an edge, for people.
    pub fn dump(&self) -> String {
        dump::dump(self)
    }

    /// The nodes that belong to their parents and have none left.
    fn take_orphans(&mut self) -> Vec<Rc<Node>> {
        let mut gone = Vec::new();
        loop {
            let edges = self.edges();
            let used = |node: &Rc<Node>| edges.iter().any(|edge| edge.leads_to(node));
            let orphan = self
                .nodes
                .iter()
                .position(|entry| entry.owner == Owner::Parents && !used(&entry.node));
            match orphan {
                Some(index) => gone.push(self.nodes.remove(index).node),
                None => return gone,
            }
        }
    }
}

/// The edges from `node` down.
fn edges_of(node: &Rc<Node>) -> impl Iterator<Item = Edge> {
    let children = node.driver().children().into_iter();
    children.map(|child| Edge {
        parent: Parent::Node(Rc::clone(node)),
        child,
    })
}

/// `node` and all below it.
fn reachable(node: &Rc<Node>) -> Vec<Rc<Node>> {
    let mut found = vec![Rc::clone(node)];
    let mut next = 0;
    while let Some(node) = found.get(next).cloned() {
        next = next.saturating_add(1);
        for edge in edges_of(&node) {
            if let Ok(child) = edge.child.node() {
                push_new(&mut found, &child);
            }
        }
    }
    found
}

fn push_new<T>(list: &mut Vec<Rc<T>>, item: &Rc<T>) {
    if !list.iter().any(|known| Rc::ptr_eq(known, item)) {
        list.push(Rc::clone(item));
    }
}
