//! Keeping the old primary out after a failover (R102): its exports are closed, new ones refused.

use super::Exports;
use super::export::{Access, Ending, Export};
use block::{ChildRole, Node};
use futures_util::future::join_all;
use qmp::Error;
use std::rc::Rc;

/// A node that only `filter`, and who comes through it, may write to.
pub(super) struct Fence {
    node: Rc<Node>,
    filter: Rc<Node>,
}

impl Exports {
    /// Takes away every writable export that reaches `node` other than through `filter`, refuses
    /// new ones, and waits (bounded) until none of their requests is in flight.
    ///
    /// # Errors
    ///
    /// Names the exports that did not go in time; new ones are refused all the same.
    pub(crate) async fn fence(&self, node: &Rc<Node>, filter: &Rc<Node>) -> Result<(), Error> {
        let fence = Fence {
            node: Rc::clone(node),
            filter: Rc::clone(filter),
        };
        let outside: Vec<Rc<Export>> = self
            .list()
            .into_iter()
            .filter(|export| export.access() == Access::Writable)
            .filter(|export| export.root.child().node().is_ok_and(|n| fence.bars(&n)))
            .collect();
        self.unfence(filter);
        self.inner.fences.borrow_mut().push(fence);
        let ends = outside
            .iter()
            .map(|export| Box::pin(self.end(export, Ending::Fenced)));
        let gone = join_all(ends).await;
        let left = outside.iter().zip(gone).filter(|(_, gone)| !gone);
        let left: Vec<&str> = left.map(|(export, _)| export.id()).collect();
        if left.is_empty() {
            return Ok(());
        }
        let (left, node) = (left.join("', '"), node.name());
        Err(Error::generic(format!(
            "Writers of node '{node}' are still at work: block export '{left}'"
        )))
    }

    /// Takes the fence of `filter` down: the filter has gone.
    pub(crate) fn unfence(&self, filter: &Rc<Node>) {
        let mut fences = self.inner.fences.borrow_mut();
        fences.retain(|fence| !Rc::ptr_eq(&fence.filter, filter));
    }

    /// Whether a writable export of `node` would get past a fence.
    pub(super) fn check_fences(&self, node: &Rc<Node>) -> Result<(), Error> {
        let fences = self.inner.fences.borrow();
        match fences.iter().find(|fence| fence.bars(node)) {
            None => Ok(()),
            Some(fence) => Err(Error::generic(format!(
                "Node '{}' takes no writers: it belongs to '{}' since the failover",
                fence.node.name(),
                fence.filter.name()
            ))),
        }
    }
}

impl Fence {
    /// Whether `from` shows the fenced node's data without passing through the filter.
    fn bars(&self, from: &Rc<Node>) -> bool {
        if Rc::ptr_eq(from, &self.node) {
            return true;
        }
        if Rc::ptr_eq(from, &self.filter) {
            return false;
        }
        let children = from.driver().children();
        let mut filtered = children
            .iter()
            .filter(|child| child.role() == ChildRole::Filtered);
        filtered.any(|child| child.node().is_ok_and(|node| self.bars(&node)))
    }
}
