//! One replication filter as the engine keeps it, and the chain below it.

use crate::jobs::Job;
use block::graph::BlockerId;
use block::{ChildRole, Error, ErrorKind, Node};
use drivers::ports::Task;
use drivers::replication::Replication;
use replication::{Input, Role, Stage};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A replication node of the graph.
pub(crate) struct Member {
    node: Rc<Node>,
    pub(super) chain: RefCell<Option<Chain>>,
    /// What keeps operations off the top node (R40).
    pub(super) blocker: Cell<Option<BlockerId>>,
    /// The copy-before-write filter above the secondary disk while replication runs.
    pub(super) filter: RefCell<Option<Rc<Node>>>,
    /// The job that shows it.
    pub(super) backup: RefCell<Option<Rc<Job>>>,
    /// Nodes that were read-only and were reopened, in this order (R36).
    pub(super) reopened: RefCell<Vec<Rc<Node>>>,
    /// The commit, while it runs.
    pub(super) commit: RefCell<Option<Task>>,
    /// Whether that is copying, or about to.
    pub(super) copying: Cell<bool>,
    /// What was reported of it while a command was on its way.
    pub(super) reports: RefCell<Vec<(Input, Error)>>,
}

/// The nodes below a secondary's filter.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) active: Rc<Node>,
    pub(super) hidden: Rc<Node>,
    pub(super) secondary: Rc<Node>,
}

impl Member {
    pub(super) fn new(node: Rc<Node>) -> Rc<Member> {
        Rc::new(Member {
            node,
            chain: RefCell::default(),
            blocker: Cell::default(),
            filter: RefCell::default(),
            backup: RefCell::default(),
            reopened: RefCell::default(),
            commit: RefCell::default(),
            copying: Cell::default(),
            reports: RefCell::default(),
        })
    }

    /// Its node.
    pub(crate) fn node(&self) -> &Rc<Node> {
        &self.node
    }

    /// Its `node-name`.
    pub(crate) fn name(&self) -> &str {
        self.node.name()
    }

    /// Its driver.
    pub(crate) fn driver(&self) -> &Replication {
        Replication::of(&self.node).expect("only replication nodes become members")
    }

    /// Its side.
    pub(crate) fn role(&self) -> Role {
        self.driver().role()
    }

    /// How far it has come.
    pub(crate) fn stage(&self) -> Stage {
        self.driver().stage()
    }

    /// Active, hidden and secondary disk: as attached, else as they lie below the filter.
    pub(super) fn chain(&self) -> Result<Chain, Error> {
        if let Some(chain) = &*self.chain.borrow() {
            return Ok(chain.clone());
        }
        let active = self.driver().file().node()?;
        //= docs/spec/replication.md#start
        //# A start MUST be refused if the active disk has no backing disk.
        let hidden =
            backing(&active).ok_or_else(|| invalid("Active disk doesn't have backing file"))?;
        //= docs/spec/replication.md#start
        //# A start MUST be refused if the hidden disk has no backing disk.
        let secondary =
            backing(&hidden).ok_or_else(|| invalid("Hidden disk doesn't have backing file"))?;
        Ok(Chain {
            active,
            hidden,
            secondary,
        })
    }

    /// All nodes whose users must be at rest while the chain changes.
    pub(super) fn nodes(&self) -> Vec<Rc<Node>> {
        let mut nodes = vec![Rc::clone(&self.node)];
        if self.role() == Role::Secondary
            && let Ok(chain) = self.chain()
        {
            nodes.extend([chain.active, chain.hidden, chain.secondary]);
        }
        nodes
    }
}

/// The node that `overlay` lies over.
fn backing(overlay: &Rc<Node>) -> Option<Rc<Node>> {
    let children = overlay.driver().children();
    let backing = children
        .iter()
        .find(|child| child.role() == ChildRole::Backing)?;
    backing.node().ok()
}

/// A rule of the command that the chain breaks.
pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::with_message(ErrorKind::InvalidRequest, message)
}
