//! Operations that are refused while something is under way, with the reason (R40).

use crate::Node;
use std::rc::Rc;

/// Names a block, so that it can be taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockerId(u64);

/// The blocks in force.
#[derive(Debug, Default)]
pub(super) struct Blockers {
    next: u64,
    list: Vec<Blocker>,
}

#[derive(Debug)]
struct Blocker {
    id: BlockerId,
    node: Rc<Node>,
    reason: String,
}

impl Blockers {
    pub(super) fn add(&mut self, node: &Rc<Node>, reason: String) -> BlockerId {
        let id = BlockerId(self.next);
        self.next = self.next.saturating_add(1);
        let node = Rc::clone(node);
        self.list.push(Blocker { id, node, reason });
        id
    }

    pub(super) fn remove(&mut self, id: BlockerId) {
        self.list.retain(|blocker| blocker.id != id);
    }

    /// The oldest reason in force.
    pub(super) fn reason(&self, node: &Rc<Node>) -> Option<&str> {
        let mut list = self.list.iter();
        let blocker = list.find(|blocker| Rc::ptr_eq(&blocker.node, node))?;
        Some(&blocker.reason)
    }
}
