//! Permissions of every edge, top down, and the rules the graph must keep.
//!
//! A node passes to each child what its driver says it needs there, given what its own parents
//! together use (union) and share (intersection). No parent of a node may use what another does
//! not share; nobody may write to a read-only node; nothing is its own descendant; no chain is longer
//! than a request has stack for.

use super::error::Conflict;
use super::{Edge, Error, Graph, Parent, reachable};
use crate::permissions::{Permissions, Shares};
use crate::{Child, Node};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What an unused node is asked for: nothing, and everything is shared.
const UNUSED: Shares = Shares {
    used: Permissions::NONE,
    shared: Permissions::ALL,
};
/// Most nodes on a way from the top of the graph to its bottom: a request takes stack for each.
const DEEPEST: usize = 64;
/// What only a writable node can give.
const CHANGES: Permissions = Permissions::WRITE
    .union(Permissions::WRITE_UNCHANGED)
    .union(Permissions::RESIZE);

/// The permissions of every edge.
#[derive(Debug, Default)]
pub(super) struct Plan {
    edges: Vec<(Edge, Shares)>,
}

impl Plan {
    /// Puts the permissions into force.
    pub(super) fn grant(&self) {
        for (edge, shares) in &self.edges {
            edge.child.grant(shares.used);
        }
    }

    /// What is used and shared of each node that locks its medium.
    pub(super) fn locks(&self, graph: &Graph) -> Vec<(Rc<Node>, Shares)> {
        let nodes = graph.nodes();
        let locking = nodes.filter(|node| node.driver().capabilities().image_locks.is_some());
        locking
            .map(|node| (Rc::clone(node), self.above(node)))
            .collect()
    }

    /// What the parents of `node` together use and share.
    pub(super) fn above(&self, node: &Rc<Node>) -> Shares {
        let edges = self.edges.iter().filter(|(edge, _)| edge.leads_to(node));
        edges.fold(UNUSED, |sum, (_, shares)| Shares {
            used: sum.used | shares.used,
            shared: sum.shared & shares.shared,
        })
    }
}

/// Calculates and checks the permissions of the graph as it stands.
pub(super) fn calculate(graph: &Graph) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    for root in graph.roots() {
        let parent = Parent::Root(Rc::clone(root));
        let child = Rc::clone(root.child());
        inside(graph, &parent, &child)?;
        plan.edges.push((Edge { parent, child }, root.shares()));
    }
    let order = parents_first(graph)?;
    check_depth(&order)?;
    for node in order {
        check_node(&node, &plan)?;
        let above = plan.above(&node);
        for child in node.driver().children() {
            let shares = node.driver().child_permissions(&child, above);
            let parent = Parent::Node(Rc::clone(&node));
            inside(graph, &parent, &child)?;
            plan.edges.push((Edge { parent, child }, shares));
        }
    }
    Ok(plan)
}

/// An edge must end at a node of the graph.
fn inside(graph: &Graph, parent: &Parent, child: &Child) -> Result<(), Error> {
    let Ok(target) = child.node() else {
        return Ok(());
    };
    if graph.owner(&target).is_some() {
        return Ok(());
    }
    Err(Error::Shape(format!(
        "node '{}', used by {}, is not part of the graph",
        target.name(),
        parent.describe()
    )))
}

/// All nodes so that every parent comes before its children.
fn parents_first(graph: &Graph) -> Result<Vec<Rc<Node>>, Error> {
    let mut waiting: BTreeMap<*const Node, usize> =
        graph.nodes().map(|node| (Rc::as_ptr(node), 0)).collect();
    let targets = |node: &Rc<Node>| {
        let children = node.driver().children();
        let targets: Vec<Rc<Node>> = children.iter().filter_map(|c| c.node().ok()).collect();
        targets
    };
    for target in graph.nodes().flat_map(targets) {
        if let Some(parents) = waiting.get_mut(&Rc::as_ptr(&target)) {
            *parents = parents.saturating_add(1);
        }
    }
    let free = |node: &&Rc<Node>| waiting.get(&Rc::as_ptr(node)) == Some(&0);
    let mut order: Vec<Rc<Node>> = graph.nodes().filter(free).cloned().collect();
    let mut next = 0;
    while let Some(node) = order.get(next).cloned() {
        next = next.saturating_add(1);
        for target in targets(&node) {
            let Some(parents) = waiting.get_mut(&Rc::as_ptr(&target)) else {
                continue;
            };
            *parents = parents.saturating_sub(1);
            if *parents == 0 {
                order.push(target);
            }
        }
    }
    // What lies below a cycle is left over too.
    let is_looped = |node: &&Rc<Node>| {
        let left = waiting.get(&Rc::as_ptr(node)).copied();
        let is_below = |target: &Rc<Node>| reachable(target).iter().any(|n| Rc::ptr_eq(n, node));
        left > Some(0) && targets(node).iter().any(is_below)
    };
    match graph.nodes().find(is_looped) {
        None => Ok(order),
        Some(node) => Err(Error::Shape(format!(
            "node '{}' would be part of its own chain (a cycle)",
            node.name()
        ))),
    }
}

/// No chain is so long that a request down it would run out of stack. `order` has parents first.
fn check_depth(order: &[Rc<Node>]) -> Result<(), Error> {
    let mut depths: BTreeMap<*const Node, usize> = BTreeMap::new();
    for node in order {
        let depth = *depths.entry(Rc::as_ptr(node)).or_insert(1);
        if depth > DEEPEST {
            return Err(Error::Shape(format!(
                "node '{}' would have more than {DEEPEST} nodes above each other down to it",
                node.name()
            )));
        }
        for target in node
            .driver()
            .children()
            .iter()
            .filter_map(|c| c.node().ok())
        {
            let below = depths.entry(Rc::as_ptr(&target)).or_default();
            *below = depth.saturating_add(1).max(*below);
        }
    }
    Ok(())
}

/// The rules between the parents of one node.
fn check_node(node: &Rc<Node>, plan: &Plan) -> Result<(), Error> {
    let edges = plan.edges.iter().filter(|(edge, _)| edge.leads_to(node));
    let parents: Vec<&(Edge, Shares)> = edges.collect();
    for (index, (edge, shares)) in parents.iter().enumerate() {
        if node.is_read_only() && !(shares.used & CHANGES).is_none() {
            return Err(Error::ReadOnly {
                node: node.name().to_owned(),
                by: edge.parent.describe(),
            });
        }
        let others = parents.iter().enumerate().filter(|(i, _)| *i != index);
        for (_, (other, others_shares)) in others {
            let denied = shares.used & !others_shares.shared;
            if !denied.is_none() {
                return Err(conflict(node, edge, other, denied));
            }
        }
    }
    Ok(())
}

fn conflict(node: &Rc<Node>, by: &Edge, other: &Edge, permissions: Permissions) -> Error {
    let child = |edge: &Edge| match edge.parent {
        Parent::Node(_) => edge.child.name().to_owned(),
        Parent::Root(_) => "root".to_owned(),
    };
    Error::Conflict(Box::new(Conflict {
        node: node.name().to_owned(),
        permissions,
        by: by.parent.describe(),
        by_child: child(by),
        unshared: other.parent.describe(),
        unshared_child: child(other),
    }))
}
