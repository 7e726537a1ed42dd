//! Start and its undoing: the chain is checked, reopened, attached, protected.

use super::Member;
use super::member::{Chain, invalid};
use super::run::Run;
use crate::jobs::{Job, Outcome};
use block::{Child, ChildRole, Error, Graph, Node, NodeOptions, OverlayStage, Owner};
use drivers::copy_before_write::{self, Filter};
use drivers::replication::{HIDDEN_DISK, Replication, SECONDARY_DISK};
use qmp::types::JobType;
use std::rc::Rc;

/// What operations on top are refused with (R40).
const BUSY: &str = "Block device is in use by internal backup job";

impl Run<'_> {
    /// R31 to R35, in this order.
    pub(super) fn validate_chain(&self, member: &Rc<Member>) -> Result<(), Error> {
        let chain = member.chain()?;
        let edits = &self.group.inner.edits;
        //= docs/spec/replication.md#start
        //# A start MUST be refused if nobody has the secondary disk in use, that is, if no export
        //# of it exists.
        if !edits.look(|graph| graph.has_root(&chain.secondary)) {
            let name = chain.secondary.name();
            return Err(invalid(format!(
                "The secondary disk doesn't have block backend: export node '{name}' first"
            )));
        }
        let length = chain.secondary.length();
        //= docs/spec/replication.md#start
        //# A start MUST be refused unless the active, hidden and secondary disk have the same
        //# length in bytes.
        if chain.active.length() != length || chain.hidden.length() != length {
            let message = "Active disk, hidden disk, secondary disk's length are not the same";
            return Err(invalid(message));
        }
        for overlay in [&chain.active, &chain.hidden] {
            let capabilities = overlay.driver().capabilities();
            //= docs/spec/replication.md#start
            //# A start MUST be refused if the active or the hidden disk cannot be emptied.
            if capabilities.make_empty.is_none() {
                let message = "Active disk or hidden disk doesn't support make_empty";
                return Err(invalid(message));
            }
            check_contents(overlay)?;
        }
        Ok(())
    }

    //= docs/spec/replication.md#start
    //# A start MUST make the hidden and the secondary disk writable where they were read-only, and
    //# remember that.
    /// R36.
    pub(super) async fn reopen_writable(&self, member: &Rc<Member>) -> Result<(), Error> {
        let chain = member.chain()?;
        for node in [&chain.hidden, &chain.secondary] {
            self.reopen(member, node).await?;
        }
        Ok(())
    }

    /// Makes `node` writable, after the nodes it keeps its data in.
    async fn reopen(&self, member: &Rc<Member>, node: &Rc<Node>) -> Result<(), Error> {
        let mut nodes = vec![Rc::clone(node)];
        let mut next = 0;
        while let Some(node) = nodes.get(next).cloned() {
            next = next.saturating_add(1);
            for child in node.driver().children() {
                let below = child.node()?;
                if child.role() != ChildRole::Backing && self.is_private(&below) {
                    nodes.push(below);
                }
            }
        }
        while let Some(node) = nodes.pop() {
            if node.is_read_only() {
                node.driver().set_writable(true).await?;
                node.set_read_only(false);
                member.reopened.borrow_mut().push(node);
            }
        }
        Ok(())
    }

    /// Whether a node was described inside its parent, so that the parent's mode is its mode.
    fn is_private(&self, node: &Rc<Node>) -> bool {
        let edits = &self.group.inner.edits;
        edits.look(|graph| graph.owner(node)) == Some(Owner::Parents)
    }

    /// R63, in reverse order; who still writes to a node keeps it writable.
    pub(super) async fn restore_read_only(&self, member: &Rc<Member>) -> Result<(), Error> {
        let mut nodes = member.reopened.take();
        while let Some(node) = nodes.pop() {
            let unused = self.group.inner.edits.edit(|edit| {
                edit.set_read_only(&node, true);
                Ok(())
            });
            if unused.await.is_ok() {
                node.driver().set_writable(false).await?;
            }
        }
        Ok(())
    }

    //= docs/spec/replication.md#start
    //# A start MUST attach the hidden and the secondary disk to the filter as children called
    //# `hidden disk` and `secondary disk`.
    /// R37.
    pub(super) async fn attach_buffers(&self, member: &Rc<Member>) -> Result<(), Error> {
        let chain = member.chain()?;
        let edge = |name, node: &Rc<Node>| Child::new(name, ChildRole::Data, Rc::clone(node));
        let hidden = edge(HIDDEN_DISK, &chain.hidden);
        let secondary = edge(SECONDARY_DISK, &chain.secondary);
        let attached = self.group.inner.edits.edit(|edit| {
            let driver = member.driver();
            driver.attach(Rc::clone(&hidden), Rc::clone(&secondary));
            let member = Rc::clone(member);
            edit.on_undo(move || {
                member.driver().detach();
            });
            Ok(())
        });
        attached.await?;
        member.chain.replace(Some(chain));
        Ok(())
    }

    /// Undoes it; what nobody else uses goes.
    pub(super) async fn detach_buffers(&self, member: &Rc<Member>) -> Result<(), Error> {
        let detached = self.group.inner.edits.edit(|edit| {
            let edges = member.driver().detach();
            let member = Rc::clone(member);
            edit.on_undo(move || {
                if let [hidden, secondary] = &edges[..] {
                    let (hidden, secondary) = (Rc::clone(hidden), Rc::clone(secondary));
                    member.driver().attach(hidden, secondary);
                }
            });
            Ok(())
        });
        let ((), gone) = detached.await?;
        member.chain.take();
        close_all(&gone).await
    }

    //= docs/spec/replication.md#start
    //# While replication runs, operations on the top node other than I/O, new exports and changes
    //# of its children MUST be refused with the reason.
    /// R38, R40.
    pub(super) fn block_top(&self, member: &Rc<Member>) -> Result<(), Error> {
        let edits = &self.group.inner.edits;
        let Some(top) = edits.look(|graph| find_top(graph, member)) else {
            return Err(invalid("No top_bs or it is invalid"));
        };
        let blocker = edits.with(|graph| graph.block(&top, BUSY));
        member.blocker.set(Some(blocker));
        Ok(())
    }

    //= docs/spec/replication.md#stop
    //# A top node that is gone by then MUST NOT keep a stop from tidying up.
    pub(super) fn unblock_top(&self, member: &Rc<Member>) {
        if let Some(blocker) = member.blocker.take() {
            self.group.inner.edits.with(|graph| graph.unblock(blocker));
        }
    }

    /// R41, R89: the other parents of the secondary disk now write through the filter.
    pub(super) async fn insert_copy_before_write(&self, member: &Rc<Member>) -> Result<(), Error> {
        let chain = member.chain()?;
        let filter = self.copy_before_write(member, &chain)?;
        let inserted = self
            .group
            .inner
            .edits
            .edit(|edit| edit.insert_filter(&filter, &chain.secondary));
        inserted.await?;
        let saved = Rc::clone(&filter);
        member.filter.replace(Some(filter));
        let progress = move || {
            let copying = saved.driver().capabilities().copy_before_write;
            let done = copying.map_or(0, block::CopyBeforeWrite::saved_bytes);
            (done, saved.length())
        };
        let job = Job::internal(JobType::Backup, member.name(), progress);
        member
            .backup
            .replace(Some(self.group.inner.jobs.begin(job)));
        Ok(())
    }

    fn copy_before_write(&self, member: &Rc<Member>, chain: &Chain) -> Result<Rc<Node>, Error> {
        let edge = |name, role, node: &Rc<Node>| Child::new(name, role, Rc::clone(node));
        let file = edge("file", ChildRole::Filtered, &chain.secondary);
        let target = edge("target", ChildRole::Data, &chain.hidden);
        let inner = &self.group.inner;
        let name = inner.edits.with(Graph::generate_name);
        let options = copy_before_write::Options {
            node: name.clone(),
            ..copy_before_write::Options::default()
        };
        // Weak: the filter lies below the node it reports to.
        let latch = Rc::downgrade(member.node());
        let driver = Filter::new(options, file, target, inner.ports.clone())?;
        let driver = driver.on_failure(move |error| {
            let node = latch.upgrade();
            if let Some(replication) = node.as_deref().and_then(Replication::of) {
                replication.latch(error);
            }
        });
        Ok(Node::new(name, Box::new(driver), NodeOptions::default()))
    }

    pub(super) async fn remove_copy_before_write(&self, member: &Rc<Member>) -> Result<(), Error> {
        let Some(filter) = member.filter.borrow().clone() else {
            return Ok(());
        };
        self.settle(&filter).await?;
        let edits = &self.group.inner.edits;
        let removed = edits.edit(|edit| edit.remove_filter(&filter));
        let ((), gone) = removed.await?;
        member.filter.take();
        if let Some(job) = member.backup.take() {
            self.group.inner.jobs.end(&job, Outcome::Cancelled);
        }
        close_all(&gone).await
    }

    pub(super) async fn mark_running(&self, member: &Rc<Member>) -> Result<(), Error> {
        set_stage(member, OverlayStage::Replicating).await
    }

    pub(super) async fn mark_idle(&self, member: &Rc<Member>) -> Result<(), Error> {
        set_stage(member, OverlayStage::Clean).await
    }
}

//= docs/spec/replication.md#options
//# `top-id` MUST be kept as it was written and looked up at start only: the node it names need not
//# exist before.
//= docs/spec/replication.md#start
//# A start MUST be refused unless `top-id` names an existing node without parents other than
//# exports, with the filter in its tree.
/// The node `top-id` names, if it is a root node above the filter.
fn find_top(graph: &Graph, member: &Member) -> Option<Rc<Node>> {
    let top = graph.node(member.driver().top_id()?)?;
    let below = graph.below(&top);
    let above = below.iter().any(|node| Rc::ptr_eq(node, member.node()));
    (above && graph.is_root_node(&top)).then_some(top)
}

/// Records `stage` in hidden, then in active, where they can record it.
async fn set_stage(member: &Member, stage: OverlayStage) -> Result<(), Error> {
    let chain = member.chain()?;
    for overlay in [&chain.hidden, &chain.active] {
        if let Some(header) = overlay.driver().capabilities().overlay_state {
            header.set_stage(stage).await?;
        }
    }
    Ok(())
}

//= docs/spec/replication.md#start
//# A start MUST be refused if an overlay is marked "contents unknown".
//= docs/spec/replication.md#close-and-restart
//# A secondary that ended uncleanly in RUNNING MUST be found "contents unknown" and refuse to start
//# until its overlays are created anew.
/// Overlays that may not be emptied, because they may hold the only copy of something.
fn check_contents(overlay: &Node) -> Result<(), Error> {
    let Some(header) = overlay.driver().capabilities().overlay_state else {
        return Ok(());
    };
    let name = overlay.name();
    let why = match header.stage() {
        OverlayStage::Clean => return Ok(()),
        OverlayStage::Replicating => "is in use by replication already",
        OverlayStage::Failover => "holds a failover that was not committed",
        OverlayStage::ContentsUnknown => {
            "ended uncleanly in the middle of replication, so its contents are unknown: create its \
             file anew"
        }
    };
    Err(invalid(format!("Overlay '{name}' {why}")))
}

/// Closes nodes that have left the graph, all of them, and returns the first error.
pub(super) async fn close_all(gone: &[Rc<Node>]) -> Result<(), Error> {
    let mut first = Ok(());
    for node in gone {
        if let Err(error) = node.driver().close().await
            && first.is_ok()
        {
            first = Err(error);
        }
    }
    first
}
