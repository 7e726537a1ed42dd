//! `replication`: the filter that forwards a primary's writes, or keeps a secondary's view apart.
//!
//! ```text
//! primary      quorum ─▶ replication(mode=primary) ─file─▶ nbd ═══▶ the secondary's export
//!
//! secondary    view ─▶ replication(mode=secondary) ─file─▶ active ─backing─▶ hidden ─backing─┐
//!                        ├─ "hidden disk" ────────────────────────────────────▶ hidden       │
//!                        └─ "secondary disk" ─────────────────────────────────▶ secondary ◀──┤
//!              the peer's export ─▶ copy-before-write ─file───────────────────▶ secondary disk
//! ```
//!
//! The filter moves data and remembers; the engine decides when the stage changes, by the table of
//! `replication::stage`, and carries its actions out. What the engine calls here, in this order:
//!
//! - **Start, secondary**: [`Replication::attach`] (edges `hidden disk` and `secondary disk`, not yet
//!   granted), grant what [`Driver::child_permissions`] asks for, [`Replication::set_stage`].
//!   **Undone**: [`Replication::detach`].
//! - **Checkpoint**: in the drained section [`CopyBeforeWrite::settle`](block::CopyBeforeWrite),
//!   `make_empty` on active, on hidden, then `CopyBeforeWrite::reset`; nothing on the filter.
//! - **Stop**: `detach`, `set_stage(Done)`.
//! - **Failover**: `set_stage(Failover)` in the drained section in which the fence is complete and
//!   copy-before-write has left; [`Replication::record_failover`]; then spawn [`Replication::commit`].
//! - **Finish**, when `commit` has answered `Ok`: drained section; if
//!   [`Replication::commit_remaining`] is not 0, leave it and run `commit` again; else
//!   [`Replication::record_done`], move the target of `file` and of every other parent of active
//!   to the secondary disk, `detach`, `set_stage(Done)`, leave the drained section. Active and
//!   hidden may then be emptied.
//! - **Retry** after `commit` failed (the stage is then `FailoverFailed`): as failover; `commit`
//!   goes on with what remains.
//! - **Resume** after a crash: `attach`, `set_stage(Failover)`, spawn `commit`: it looks for
//!   everything the overlays hold. Copying again what was copied is harmless.
//!
//! Which way a request goes is decided by `replication::path`, what a commit copies and where the
//! guest's writes go meanwhile by `replication::Commit`, how a write is cut after a failed failover by
//! `replication::Split`. This folder carries it out.
//!
//! Bounds: a forward takes at most [`Options::forward_timeout`]; the commit copies at most 16 runs of
//! at most 1 MiB at a time.
//!
//! Source: `docs/spec/replication.md`.

mod commit;
mod forward;
mod latch;
mod view;

#[cfg(test)]
mod tests;

pub use commit::Progress;
pub use latch::Latched;

use self::commit::Committing;
use self::latch::Latch;
use self::view::Change;
use crate::event::EventSink;
use crate::ports::Ports;
use ::replication::{Path, Request, Role, Stage, path};
use block::{
    Answer, ByteRange, Capabilities, Child, ChildRole, Driver, Error, ErrorKind, Extent, Limits,
    Node, Op, OverlayStage, Permissions, ReplicationFilter, Shares, WriteFlags, ZeroFlags,
};
use bytes::Bytes;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::ready;
use std::rc::Rc;
use std::time::Duration;

/// Name of the extra edge to hidden while replication runs (R37).
pub const HIDDEN_DISK: &str = "hidden disk";
/// Name of the extra edge to the secondary disk while replication runs (R37).
pub const SECONDARY_DISK: &str = "secondary disk";
/// How long a forward may take by default (R100).
pub const FORWARD_TIMEOUT: Duration = Duration::from_secs(5);

/// What a `replication` node is made of.
pub struct Options {
    /// Its `node-name`, for events.
    pub node: String,
    /// `mode`.
    pub role: Role,
    /// `top-id`, verbatim (R9); a secondary has one, a primary has none.
    pub top_id: Option<String>,
    /// Whether the node is open for writing (R17).
    pub writable: bool,
    /// `x-ai-forward-timeout`: how long the primary waits for the peer (R100); `Duration::MAX` is for
    /// ever.
    pub forward_timeout: Duration,
}

/// The `replication` driver. `engine` reaches it by [`Replication::of`].
pub struct Replication {
    options: Options,
    ports: Ports,
    stage: Cell<Stage>,
    latch: Latch,
    file: Rc<Child>,
    buffers: RefCell<Option<Buffers>>,
    commit: Committing,
}

/// The extra edges of a secondary while replication runs.
#[derive(Clone)]
struct Buffers {
    hidden: Rc<Child>,
    secondary: Rc<Child>,
}

impl Replication {
    /// A filter over `file`, not started.
    pub fn new(options: Options, file: Rc<Child>, ports: Ports, events: EventSink) -> Replication {
        let latch = Latch::new(options.node.clone(), events);
        let length = file.length();
        Replication {
            options,
            ports,
            stage: Cell::new(Stage::NotStarted),
            latch,
            file,
            buffers: RefCell::new(None),
            commit: Committing::new(length),
        }
    }

    /// The filter that `node` is, if it is one.
    pub fn of(node: &Node) -> Option<&Replication> {
        node.driver().capabilities().any?.downcast_ref()
    }

    /// Which side it serves.
    pub fn role(&self) -> Role {
        self.options.role
    }

    /// `top-id`, verbatim.
    pub fn top_id(&self) -> Option<&str> {
        self.options.top_id.as_deref()
    }

    /// How far replication has come.
    pub fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Enters `stage`. In a drained section, except from `Failover` to `FailoverFailed` and back.
    pub fn set_stage(&self, stage: Stage) {
        self.stage.set(stage);
    }

    /// The first error since the latch was last cleared.
    pub fn first_error(&self) -> Option<Latched> {
        self.latch.get()
    }

    /// Remembers `error` and reports it, unless one is remembered already.
    pub fn latch(&self, error: Error) {
        self.latch.set(error, self.ports.runtime.wall_clock());
    }

    /// Forgets the remembered error.
    pub fn clear_error(&self) {
        self.latch.clear();
    }

    /// The edge to what it filters: the peer, or active, or in the end the secondary disk.
    pub fn file(&self) -> &Rc<Child> {
        &self.file
    }

    /// Takes the edges to hidden and the secondary disk (R37). Make them with
    /// [`HIDDEN_DISK`], [`SECONDARY_DISK`] and [`ChildRole::Data`].
    pub fn attach(&self, hidden: Rc<Child>, secondary: Rc<Child>) {
        self.buffers.replace(Some(Buffers { hidden, secondary }));
    }

    /// Gives them back; nothing if there are none.
    pub fn detach(&self) -> Vec<Rc<Child>> {
        let buffers = self.buffers.take();
        buffers.map_or_else(Vec::new, |b| vec![b.hidden, b.secondary])
    }

    /// Records FAILOVER durably in hidden, then in active, with all they hold (R86). Nothing to do
    /// for overlays that cannot record it.
    ///
    /// # Errors
    ///
    /// What the overlay says; a crash then leaves its contents unknown, or resumable.
    pub async fn record_failover(&self) -> Result<(), Error> {
        for node in self.overlays()? {
            if let Some(overlay) = node.driver().capabilities().overlay_state {
                overlay.set_stage(OverlayStage::Failover).await?;
            }
        }
        Ok(())
    }

    /// Makes the secondary disk durable, then empties hidden, then active, and records in each that
    /// nothing has to be committed any more. In the drained section that ends with active replaced:
    /// a crash before the last step resumes a commit that has nothing left to change. Emptied, because
    /// from now on the disk moves on without them: nobody must ever see them over it again.
    ///
    /// # Errors
    ///
    /// What the disk or the overlay says; the commit then has failed and may be retried.
    pub async fn record_done(&self) -> Result<(), Error> {
        self.buffers()?.secondary.flush().await?;
        for node in self.overlays()? {
            let can = node.driver().capabilities();
            if let Some(overlay) = can.make_empty {
                overlay.make_empty().await?;
            }
            // The header says both at once: empty, and clean.
            if let Some(overlay) = can.overlay_state {
                overlay.set_stage(OverlayStage::Clean).await?;
            }
        }
        Ok(())
    }

    /// Hidden, then active.
    fn overlays(&self) -> Result<[Rc<Node>; 2], Error> {
        Ok([self.buffers()?.hidden.node()?, self.file.node()?])
    }

    fn buffers(&self) -> Result<Buffers, Error> {
        self.buffers.borrow().clone().ok_or_else(|| {
            let message = "hidden and secondary disk are not attached";
            Error::with_message(ErrorKind::ShuttingDown, message)
        })
    }

    fn path(&self, request: Request) -> Path {
        path(self.role(), self.stage(), request)
    }

    fn refused(&self) -> Error {
        let message = match (self.role(), self.stage()) {
            (Role::Primary, Stage::Running | Stage::OutOfSync) => {
                "a primary's replication node is only written to"
            }
            (_, Stage::NotStarted) => "replication has not been started",
            (_, _) => "replication has ended",
        };
        Error::with_message(ErrorKind::Io, message)
    }
}

impl Driver for Replication {
    //= docs/spec/replication.md#options
    //# The driver MUST be called `replication` and count as a filter: it has one filtered child,
    //# `file`, and passes its length and block status through.
    fn name(&self) -> &'static str {
        "replication"
    }

    fn limits(&self) -> Limits {
        let limits = self.file.node().map(|node| node.limits());
        let limits = limits.unwrap_or(Limits::of_length(0));
        // A secondary's write is durable when both its disks have been flushed.
        Limits {
            fua: limits.fua && self.role() == Role::Primary,
            ..limits
        }
    }

    fn read(&self, range: ByteRange) -> Answer<'_, Bytes> {
        match self.path(Request::Read) {
            Path::Fail | Path::Drop => Box::pin(ready(Err(self.refused()))),
            Path::Forward(_)
            | Path::Active
            | Path::Commit
            | Path::Split
            | Path::Both
            //= docs/spec/replication.md#requests
            //# A running secondary MUST serve reads from the active disk, then hidden, then the
            //# secondary disk.
            //= docs/spec/replication.md#failover
            //# After failover the guest MUST read what the last checkpoint held, overlaid with its
            //# own writes since, and nothing the primary wrote after that checkpoint.
            | Path::File => Box::pin(self.file.read(range)),
        }
    }

    fn write(&self, offset: u64, data: Bytes, flags: WriteFlags) -> Answer<'_, ()> {
        self.change(Change::Write(offset, data, flags))
    }

    fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Answer<'_, ()> {
        self.change(Change::Zero(range, flags))
    }

    fn discard(&self, range: ByteRange) -> Answer<'_, ()> {
        self.change(Change::Discard(range))
    }

    fn flush(&self) -> Answer<'_, ()> {
        match self.path(Request::Flush) {
            Path::Fail => Box::pin(ready(Err(self.refused()))),
            // Nothing was sent, so there is nothing to make durable.
            Path::Drop => Box::pin(ready(Ok(()))),
            Path::Forward(on_loss) => {
                let nothing = (Op::Flush, ByteRange::between(0, 0));
                Box::pin(self.forward(nothing, on_loss, self.file.flush()))
            }
            Path::Active => Box::pin(self.noticing(self.file.flush())),
            Path::File => Box::pin(self.file.flush()),
            Path::Commit | Path::Split | Path::Both => Box::pin(self.noticing(self.flush_both())),
        }
    }

    fn block_status(&self, range: ByteRange) -> Answer<'_, Vec<Extent>> {
        if self.path(Request::BlockStatus) == Path::Fail {
            return Box::pin(ready(Err(self.refused())));
        }
        Box::pin(self.file.block_status(range))
    }

    fn children(&self) -> Vec<Rc<Child>> {
        let mut children = vec![Rc::clone(&self.file)];
        if let Some(buffers) = &*self.buffers.borrow() {
            children.extend([Rc::clone(&buffers.hidden), Rc::clone(&buffers.secondary)]);
        }
        children
    }

    //= docs/spec/replication.md#permissions
    //# The filter MUST ask for consistent read on its `file` child, for nothing on its other
    //# children, and for write on all of them if the node is writable.
    //= docs/spec/replication.md#permissions
    //# The filter MUST let others read and write its children, but never resize them.
    /// R17, R18: reading through `file` only, writing everywhere; nobody may resize.
    fn child_permissions(&self, child: &Child, _above: Shares) -> Shares {
        let mut used = Permissions::NONE;
        if child.role() == ChildRole::Filtered {
            used |= Permissions::CONSISTENT_READ;
        }
        if self.options.writable {
            used |= Permissions::WRITE;
        }
        Shares {
            used,
            //= docs/spec/replication.md#permissions
            //# Resizing the active, hidden or secondary disk MUST be refused while replication
            //# runs.
            shared: Permissions::CONSISTENT_READ
                | Permissions::WRITE
                | Permissions::WRITE_UNCHANGED,
        }
    }

    fn capabilities(&self) -> Capabilities<'_> {
        let any: &dyn Any = self;
        Capabilities {
            replication: Some(self),
            any: Some(any),
            ..Capabilities::default()
        }
    }
}

impl ReplicationFilter for Replication {
    fn is_primary(&self) -> bool {
        self.role() == Role::Primary
    }
}
