//! Block replication: the filters of the graph, and the commands that drive them.
//!
//! ```text
//! command ─▶ Operation (replication::group: which step next) ─▶ step carried out here ─▶ report
//!              Hold      drain everybody above every disk of the group
//!              Act       start.rs, checkpoint.rs, failover.rs: one function an action
//!              Enter     the filter's stage, X_AI_STAGE_CHANGE
//!              Error     the filter's latch
//!              Release
//! ```
//!
//! One command is on its way at a time. What is reported meanwhile (a writer lost, R99) waits until
//! it has ended, except that it keeps a barrier from being reached: a checkpoint never covers it up.

mod checkpoint;
mod failover;
mod member;
mod run;
mod start;
mod status;

pub(crate) use member::Member;

use crate::edits::Edits;
use crate::events::Events;
use crate::exports::{Export, Exports, Listener};
use crate::jobs::Jobs;
use crate::options::Options;
use crate::turns::Turns;
use block::{Error, ErrorKind, Node};
use drivers::ports::Ports;
use nbd::server::Closed;
use replication::Input;
use std::cell::RefCell;
use std::rc::{Rc, Weak};

/// The replication filters of a data thread. Clones share them.
#[derive(Clone)]
pub(crate) struct Group {
    pub(super) inner: Rc<Inner>,
}

/// What carrying out an operation needs.
pub(crate) struct Inner {
    pub(super) ports: Ports,
    pub(super) options: Options,
    pub(super) edits: Edits,
    pub(super) exports: Exports,
    pub(super) jobs: Jobs,
    pub(super) events: Events,
    /// One command or report at a time; shared with all that change the graph.
    pub(super) turns: Turns,
    /// Oldest first.
    members: RefCell<Vec<Rc<Member>>>,
    pub(super) busy: std::cell::Cell<bool>,
}

/// What the filters work with.
pub(crate) struct Parts {
    pub(crate) ports: Ports,
    pub(crate) options: Options,
    pub(crate) edits: Edits,
    pub(crate) exports: Exports,
    pub(crate) jobs: Jobs,
    pub(crate) events: Events,
    pub(crate) turns: Turns,
}

impl Group {
    /// No filters yet.
    pub(crate) fn new(parts: Parts) -> Group {
        let exports = parts.exports.clone();
        let group = Group {
            inner: Rc::new(Inner {
                ports: parts.ports,
                options: parts.options,
                edits: parts.edits,
                exports: parts.exports,
                jobs: parts.jobs,
                events: parts.events,
                turns: parts.turns,
                members: RefCell::default(),
                busy: std::cell::Cell::new(false),
            }),
        };
        exports.listen(Rc::new(Reports(group.downgrade())));
        group
    }

    //= docs/spec/replication.md#options
    //# A node that was opened MUST be known to all replication commands at once, in stage NONE and
    //# without error.
    //= docs/spec/replication.md#close-and-restart
    //# A filter that is opened over overlays recorded in FAILOVER MUST resume the commit and refuse
    //# writers of the secondary disk.
    /// Registers a replication node (R10), and resumes a commit that a crash has interrupted.
    pub(crate) async fn added(&self, node: &Rc<Node>) -> Result<(), qmp::Error> {
        let member = Member::new(Rc::clone(node));
        self.inner.members.borrow_mut().push(Rc::clone(&member));
        if !member.is_interrupted() {
            return Ok(());
        }
        tracing::info!(node = member.name(), "resuming the commit of a failover");
        let resumed = self.run(Input::Resume, std::slice::from_ref(&member)).await;
        if resumed.is_err() {
            self.forget(node);
        }
        resumed
    }

    /// Ends replication on a node that is about to be deleted (R85 to R87).
    pub(crate) async fn closing(&self, node: &Rc<Node>) -> Result<(), qmp::Error> {
        let Some(member) = self.member(node) else {
            return Ok(());
        };
        self.end_commit(&member).await;
        self.run(Input::Close, std::slice::from_ref(&member)).await
    }

    //= docs/spec/replication.md#close-and-restart
    //# A closed filter MUST be unknown to the replication commands.
    /// Takes a node that was deleted out of the registry.
    pub(crate) fn forget(&self, node: &Rc<Node>) {
        let mut members = self.inner.members.borrow_mut();
        members.retain(|member| !Rc::ptr_eq(member.node(), node));
        drop(members);
        self.inner.exports.unfence(node);
    }

    /// Access that does not keep it alive.
    pub(crate) fn downgrade(&self) -> Weak<Inner> {
        Rc::downgrade(&self.inner)
    }

    /// The group behind a weak reference, if it still exists.
    pub(crate) fn upgrade(weak: &Weak<Inner>) -> Option<Group> {
        let inner = weak.upgrade()?;
        Some(Group { inner })
    }

    /// Whether `node` is one of its filters.
    pub(crate) fn knows(&self, node: &Rc<Node>) -> bool {
        self.member(node).is_some()
    }

    /// All filters, oldest first.
    pub(crate) fn members(&self) -> Vec<Rc<Member>> {
        self.inner.members.borrow().clone()
    }

    fn member(&self, node: &Rc<Node>) -> Option<Rc<Member>> {
        let members = self.inner.members.borrow();
        let mut members = members.iter();
        members
            .find(|member| Rc::ptr_eq(member.node(), node))
            .cloned()
    }

    /// Carries `input` out on all filters.
    pub(crate) async fn command(&self, input: Input) -> Result<(), qmp::Error> {
        self.run(input, &self.members()).await
    }

    /// A client of a writable export has gone without a clean farewell (R99).
    fn writer_lost(&self, export: &Rc<Export>, closed: Closed) {
        let Ok(node) = export.root().child().node() else {
            return;
        };
        for member in self.members() {
            let reached = self.inner.edits.look(|graph| graph.below(&node));
            let secondary = member.secondary();
            let writes = secondary.is_some_and(|disk| reached.iter().any(|n| Rc::ptr_eq(n, &disk)));
            // The view's own exports lie above the filter: their writers are the guest.
            let guest = reached.iter().any(|n| Rc::ptr_eq(n, member.node()));
            if writes && !guest {
                let message = format!(
                    "a writer of export '{}' was lost: {closed:?}",
                    export.name()
                );
                tracing::warn!(node = member.name(), "{message}");
                let error = Error::with_message(ErrorKind::Io, message);
                self.report(&member, Input::WriterLost, error);
            }
        }
    }
}

/// What exports report; it does not keep the group alive.
struct Reports(Weak<Inner>);

impl Listener for Reports {
    fn writer_lost(&self, export: &Rc<Export>, closed: Closed) {
        if let Some(group) = Group::upgrade(&self.0) {
            group.writer_lost(export, closed);
        }
    }
}
