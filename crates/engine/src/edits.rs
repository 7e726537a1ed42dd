//! Changes of the graph together with the locks on images they need.
//!
//! ```text
//! rehearse ─▶ lock what will be used more ─▶ edit ─▶ unlock what is used less
//!                 └ another program is in the way: nothing has changed
//! ```
//!
//! Whoever edits has its turn at the locks until they are right again; nothing else is waited for
//! meanwhile, so that an edit never waits for a request.

use crate::turns::Turns;
use block::graph::{self, Edit};
use block::{Error, ErrorKind, Graph, Node, Permissions, Shares};
use std::cell::RefCell;
use std::rc::Rc;

/// Nothing is used, everything is shared.
const UNUSED: Shares = Shares {
    used: Permissions::NONE,
    shared: Permissions::ALL,
};

/// Access to the graph. Clones share it.
#[derive(Clone)]
pub(crate) struct Edits {
    graph: Rc<RefCell<Graph>>,
    turns: Turns,
}

impl Edits {
    /// An empty graph.
    pub(crate) fn new() -> Edits {
        Edits {
            graph: Rc::new(RefCell::new(Graph::new())),
            turns: Turns::default(),
        }
    }

    /// Looks at the graph.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Graph) -> T) -> T {
        look(&self.graph.borrow())
    }

    /// Blocks, unblocks, names, rehearses: what changes no edge.
    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut Graph) -> T) -> T {
        change(&mut self.graph.borrow_mut())
    }

    /// As [`Graph::edit`], with the locks. `steps` is carried out twice.
    ///
    /// # Errors
    ///
    /// What the graph refuses, or another program's lock; nothing has changed then.
    pub(crate) async fn edit<T>(
        &self,
        steps: impl Fn(&mut Edit<'_>) -> Result<T, graph::Error>,
    ) -> Result<(T, Vec<Rc<Node>>), Error> {
        let _turn = self.turns.take().await;
        let before = self.graph.borrow().locks();
        let rehearsed = self.graph.borrow_mut().rehearse(&steps);
        let after = rehearsed.map_err(|error| refused(&error))?.locks;
        let grown = grow(&before, &after).await?;
        let edited = self.graph.borrow_mut().edit(&steps);
        match edited {
            Ok(value) => {
                apply(&grown, &after).await;
                Ok(value)
            }
            Err(error) => {
                apply(&grown, &before).await;
                Err(refused(&error))
            }
        }
    }
}

impl Edits {
    /// Locks `nodes` for what the graph does with them, whatever was locked besides.
    pub(crate) async fn restore_locks(&self, nodes: &[Rc<Node>]) {
        let _turn = self.turns.take().await;
        let plan = self.graph.borrow().locks();
        apply(nodes, &plan).await;
    }
}

/// Locks every node for what it had before and for what it will have; returns those that changed.
async fn grow(
    before: &[(Rc<Node>, Shares)],
    after: &[(Rc<Node>, Shares)],
) -> Result<Vec<Rc<Node>>, Error> {
    let mut changed = Vec::new();
    for (node, wanted) in after {
        let had = find(before, node);
        if had == *wanted {
            continue;
        }
        changed.push(Rc::clone(node));
        let both = Shares {
            used: had.used | wanted.used,
            shared: had.shared & wanted.shared,
        };
        if both != had
            && let Err(error) = lock(node, both).await
        {
            apply(&changed, before).await;
            return Err(error);
        }
    }
    Ok(changed)
}

/// Locks each of `nodes` for what `plan` says.
async fn apply(nodes: &[Rc<Node>], plan: &[(Rc<Node>, Shares)]) {
    for node in nodes {
        if let Err(error) = lock(node, find(plan, node)).await {
            // Giving a lock up contradicts nobody.
            tracing::warn!(node = node.name(), %error, "cannot change an image's lock");
        }
    }
}

async fn lock(node: &Rc<Node>, shares: Shares) -> Result<(), Error> {
    match node.driver().capabilities().image_locks {
        Some(locks) => locks.permissions_changed(between_programs(shares)).await,
        None => Ok(()),
    }
}

/// What users in one graph share with each other is more than they share with other programs: two
/// of those never write one image.
fn between_programs(shares: Shares) -> Shares {
    if !shares.used.contains(Permissions::WRITE) {
        return shares;
    }
    Shares {
        shared: shares.shared & !(Permissions::WRITE | Permissions::RESIZE),
        ..shares
    }
}

fn find(plan: &[(Rc<Node>, Shares)], node: &Rc<Node>) -> Shares {
    let mut plan = plan.iter();
    let entry = plan.find(|(known, _)| Rc::ptr_eq(known, node));
    entry.map_or(UNUSED, |(_, shares)| *shares)
}

/// What the graph refuses breaks a rule; the text says which.
fn refused(error: &graph::Error) -> Error {
    Error::with_message(ErrorKind::InvalidRequest, error.to_string())
}
