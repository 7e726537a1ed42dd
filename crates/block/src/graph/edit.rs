//! A change in the making: steps with their undo, then the check, then it stays or is undone.
//!
//! Steps take effect on the edges at once, but an edit never waits, so nobody sees them until
//! [`Edit::commit`]; dropping an uncommitted edit undoes all steps in reverse order.

use super::{
    Edge, Entry, Error, Graph, Owner, Parent, Rehearsal, check, check_node_name, reachable,
};
use crate::permissions::{ChildRole, Shares};
use crate::{Child, Node, Root};
use std::rc::Rc;

/// A change in the making; see [`Graph::edit`].
pub struct Edit<'a> {
    graph: &'a mut Graph,
    undo: Vec<Undo>,
}

/// How to take a step back.
type Undo = Box<dyn FnOnce(&mut Graph)>;

impl<'a> Edit<'a> {
    pub(super) fn begin(graph: &'a mut Graph) -> Edit<'a> {
        let undo = Vec::new();
        Edit { graph, undo }
    }

    /// The graph with the steps made so far.
    pub fn graph(&self) -> &Graph {
        self.graph
    }

    /// A generated name.
    pub fn generate_name(&mut self) -> String {
        self.graph.generate_name()
    }

    /// Adds a node; its children must be part of the graph when the edit ends.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::DuplicateName`].
    pub fn add_node(&mut self, node: Rc<Node>, owner: Owner) -> Result<(), Error> {
        let name = node.name().to_owned();
        if !name.starts_with('#') {
            check_node_name(&name)?;
        }
        if self.graph.node(&name).is_some() {
            return Err(Error::DuplicateName { name });
        }
        self.graph.nodes.push(Entry { node, owner });
        self.undo.push(Box::new(move |graph| {
            graph.nodes.retain(|entry| entry.node.name() != name);
        }));
        Ok(())
    }

    /// Deletes a user's node that nobody uses. What belongs only to it goes with it.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::Busy`], [`Error::InUse`], [`Error::NotOwned`].
    pub fn delete_node(&mut self, name: &str) -> Result<(), Error> {
        let node = self.find(name)?;
        self.graph.check_not_blocked(&node)?;
        //= docs/spec/replication.md#permissions
        //# Deleting the filter or a node of its chain while something is attached to it MUST be
        //# refused.
        if let Some(edge) = self.graph.parents(&node).first() {
            return Err(Error::InUse {
                node: name.to_owned(),
                user: edge.parent.describe(),
            });
        }
        if self.graph.owner(&node) != Some(Owner::User) {
            let node = name.to_owned();
            return Err(Error::NotOwned { node });
        }
        self.set_owner(&node, Owner::Parents);
        Ok(())
    }

    /// Gives a node to the user or to its parents; one without parents goes when the edit ends.
    pub fn set_owner(&mut self, node: &Rc<Node>, owner: Owner) {
        let set = |graph: &mut Graph, node: &Rc<Node>, owner| {
            let mut entries = graph.nodes.iter_mut();
            let entry = entries.find(|entry| Rc::ptr_eq(&entry.node, node))?;
            Some(std::mem::replace(&mut entry.owner, owner))
        };
        let Some(before) = set(self.graph, node, owner) else {
            return;
        };
        let node = Rc::clone(node);
        self.undo.push(Box::new(move |graph| {
            set(graph, &node, before);
        }));
    }

    /// Adds a user from outside.
    pub fn add_root(&mut self, root: &Rc<Root>) {
        self.graph.roots.push(Rc::clone(root));
        let root = Rc::clone(root);
        self.undo.push(Box::new(move |graph| {
            graph.roots.retain(|known| !Rc::ptr_eq(known, &root));
        }));
    }

    /// Takes a user from outside away; the caller has seen to it that it sends no more requests.
    pub fn remove_root(&mut self, root: &Rc<Root>) {
        let mut roots = self.graph.roots.iter();
        let Some(index) = roots.position(|known| Rc::ptr_eq(known, root)) else {
            return;
        };
        let root = self.graph.roots.remove(index);
        self.undo.push(Box::new(move |graph| {
            graph.roots.insert(index.min(graph.roots.len()), root);
        }));
    }

    /// Changes what a user from outside uses and shares.
    pub fn set_shares(&mut self, root: &Rc<Root>, shares: Shares) {
        let before = root.shares();
        root.set_shares(shares);
        let root = Rc::clone(root);
        self.undo.push(Box::new(move |_| root.set_shares(before)));
    }

    /// Makes a node read-only or not (what its driver has to do for it has been done).
    pub fn set_read_only(&mut self, node: &Rc<Node>, read_only: bool) {
        let before = node.is_read_only();
        node.set_read_only(read_only);
        let node = Rc::clone(node);
        self.undo
            .push(Box::new(move |_| node.set_read_only(before)));
    }

    /// Moves an edge to another node, or cuts it.
    pub fn move_edge(&mut self, child: &Rc<Child>, target: Option<&Rc<Node>>) {
        let before = child.node().ok();
        child.set_target(target.cloned());
        let child = Rc::clone(child);
        self.undo.push(Box::new(move |_| child.set_target(before)));
    }

    /// Moves everybody who uses `from` to `to`, except `to` itself and what lies below it.
    pub fn replace_node(&mut self, from: &Rc<Node>, to: &Rc<Node>) {
        let below = reachable(to);
        let stays = |edge: &Edge| match &edge.parent {
            Parent::Node(parent) => below.iter().any(|node| Rc::ptr_eq(node, parent)),
            Parent::Root(_) => false,
        };
        for edge in self.graph.parents(from) {
            if !stays(&edge) {
                self.move_edge(&edge.child, Some(to));
            }
        }
    }

    /// Puts `filter`, whose child is `below`, between `below` and its parents. Parents that the
    /// filter itself uses stay where they are (the overlay a copy goes to shows the disk as it is).
    ///
    /// # Errors
    ///
    /// As [`Edit::add_node`].
    pub fn insert_filter(&mut self, filter: &Rc<Node>, below: &Rc<Node>) -> Result<(), Error> {
        self.add_node(Rc::clone(filter), Owner::Parents)?;
        self.replace_node(below, filter);
        Ok(())
    }

    /// Takes `filter` out: its parents use what it filters. It goes when the edit ends.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] if it filters nothing.
    pub fn remove_filter(&mut self, filter: &Rc<Node>) -> Result<(), Error> {
        let mut children = filter.driver().children().into_iter();
        let filtered = children.find(|child| child.role() == ChildRole::Filtered);
        let Some(below) = filtered.and_then(|child| child.node().ok()) else {
            let message = format!("node '{}' is not a filter", filter.name());
            return Err(Error::Shape(message));
        };
        self.replace_node(filter, &below);
        self.set_owner(filter, Owner::Parents);
        Ok(())
    }

    /// Adds `node` to the children of `parent`, which must take any number, and returns the name
    /// the child got.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] if the driver does not take it.
    pub fn add_child(&mut self, parent: &Rc<Node>, node: &Rc<Node>) -> Result<String, Error> {
        let Some(children) = parent.driver().capabilities().dynamic_children else {
            let name = parent.name();
            let message = format!("The node {name} does not support adding a child");
            return Err(Error::Driver(message));
        };
        let name = children.next_child_name();
        let child = Child::new(name.clone(), ChildRole::Filtered, Rc::clone(node));
        children.add_child(child).map_err(|e| driver_error(&e))?;
        let (parent, added) = (Rc::clone(parent), name.clone());
        self.undo.push(Box::new(move |_| {
            if let Some(children) = parent.driver().capabilities().dynamic_children {
                // What was just added can be taken out again; the rules it could break are about
                // the children that were there before.
                let _ = children.remove_child(&added);
            }
        }));
        Ok(name)
    }

    /// Takes the child called `name` out of the children of `parent`. Undone, it is the last child.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] if the driver has to keep it.
    pub fn remove_child(&mut self, parent: &Rc<Node>, name: &str) -> Result<Rc<Child>, Error> {
        let Some(children) = parent.driver().capabilities().dynamic_children else {
            let node = parent.name();
            let message = format!("The node {node} does not support removing a child");
            return Err(Error::Driver(message));
        };
        let child = children.remove_child(name).map_err(|e| driver_error(&e))?;
        let (parent, removed) = (Rc::clone(parent), Rc::clone(&child));
        self.undo.push(Box::new(move |_| {
            if let Some(children) = parent.driver().capabilities().dynamic_children {
                let _ = children.add_child(removed);
            }
        }));
        Ok(child)
    }

    /// Records how to undo a change of edges that only a driver can make and that the caller has
    /// just made.
    pub fn on_undo(&mut self, undo: impl FnOnce() + 'static) {
        self.undo.push(Box::new(move |_| undo()));
    }

    /// The node called `name`.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub fn find(&self, name: &str) -> Result<Rc<Node>, Error> {
        self.graph.node(name).ok_or_else(|| Error::NotFound {
            name: name.to_owned(),
        })
    }

    /// What the result would be; the steps are undone.
    pub(super) fn rehearse(self) -> Result<Rehearsal, Error> {
        let entries = self.graph.nodes.clone();
        let gone = self.graph.take_orphans();
        let plan = check::calculate(self.graph);
        let locks = plan.map(|plan| plan.locks(self.graph));
        self.graph.nodes = entries;
        Ok(Rehearsal {
            locks: locks?,
            gone,
        })
    }

    /// Checks the result and puts its permissions into force.
    pub(super) fn commit(mut self) -> Result<Vec<Rc<Node>>, Error> {
        let entries = self.graph.nodes.clone();
        let gone = self.graph.take_orphans();
        match check::calculate(self.graph) {
            Ok(plan) => {
                plan.grant();
                self.undo.clear();
                Ok(gone)
            }
            Err(error) => {
                self.graph.nodes = entries;
                Err(error)
            }
        }
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        while let Some(undo) = self.undo.pop() {
            undo(self.graph);
        }
    }
}

fn driver_error(error: &crate::Error) -> Error {
    let said = error.message();
    let said = if said.is_empty() {
        error.to_string()
    } else {
        said.to_owned()
    };
    Error::Driver(said)
}
