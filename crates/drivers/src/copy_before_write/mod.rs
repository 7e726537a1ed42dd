//! `copy-before-write`: saves old data in `target` before it is overwritten in `file`.
//!
//! ```text
//!   a writer ─▶ copy-before-write ──file──▶ secondary disk ◀─backing─┐
//!                     └───────────target──▶ hidden ──────────────────┘◀── readers of the old view
//! ```
//!
//! Which clusters a write has to save is `block::CopyPlan`'s decision; this file carries it out.
//!
//! Order contract: the new data is sent to `file` only after the old data of all its clusters has
//! been written to `target` *serialised*: after every reader that was on its way through `target`
//! to `file`, and before every later one. So no reader of the old view sees new data.
//!
//! Copy contract: a copy is a task of its own. Dropping a write, or a write that times out, leaves its
//! copies running; [`CopyBeforeWrite::settle`] waits for them.
//!
//! Bounds: at most 64 copies of at most 1 MiB (one cluster, if that is more) at a time; others wait.
//!
//! Source: `docs/spec/replication.md`, section "Copy before write".

mod options;
mod slots;

#[cfg(test)]
mod tests;

pub use options::{OnCopyError, Options};

use self::slots::Slots;
use crate::ports::Ports;
use block::copy_plan::{ClusterCopy, Outcome, Step, Ticket, Work, WriteTicket};
use block::{
    Answer, ByteRange, Capabilities, Child, ChildRole, CopyBeforeWrite, CopyPlan, Driver, Error,
    ErrorKind, Extent, Limits, Op, Permissions, Shares, WriteFlags, ZeroFlags, is_zero,
};
use bytes::Bytes;
use futures_util::future::{Either, select};
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;

/// Copies in flight at most.
const COPIES: usize = 64;
/// Cluster size of a target that does not say how finely it allocates, in bytes.
const DEFAULT_CLUSTER: u64 = 64 << 10;
/// Longest `min-cluster-size` in bytes: what a copy holds in memory.
const MAX_CLUSTER: u64 = 32 << 20;
/// Zeroes and discards are carried out in pieces of this many bytes, to bound what one plans.
const PIECE: u64 = 64 << 20;

/// The filter.
pub struct Filter {
    core: Rc<Core>,
}

/// Is told of an error.
type Told = Box<dyn Fn(Error)>;

/// What writes and copies share.
struct Core {
    options: Options,
    ports: Ports,
    file: Rc<Child>,
    target: Rc<Child>,
    plan: RefCell<CopyPlan>,
    first_error: RefCell<Option<Error>>,
    /// Who is told of every copy that fails.
    on_failure: RefCell<Option<Told>>,
    slots: Slots,
}

impl Filter {
    /// A filter over `file` that has saved nothing in `target` yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] if the two differ in length, or if `min-cluster-size` is no
    /// power of two or too long.
    pub fn new(
        options: Options,
        file: Rc<Child>,
        target: Rc<Child>,
        ports: Ports,
    ) -> Result<Filter, Error> {
        let refuse = |message: String| Err(Error::with_message(ErrorKind::InvalidRequest, message));
        let (length, room) = (file.length(), target.length());
        if length != room {
            return refuse(format!(
                "the target has {room} bytes, but {length} have to be saved in it"
            ));
        }
        let least = options.min_cluster;
        if least > 0 && !least.is_power_of_two() {
            return refuse(format!("min-cluster-size {least} is not a power of two"));
        }
        if least > MAX_CLUSTER {
            return refuse(format!(
                "min-cluster-size {least} is above {MAX_CLUSTER}: a cluster is copied as a whole"
            ));
        }
        let cluster = granularity(&target)?.max(least);
        Ok(Filter {
            core: Rc::new(Core {
                options,
                ports,
                file,
                target,
                plan: RefCell::new(CopyPlan::new(length, cluster)),
                first_error: RefCell::new(None),
                on_failure: RefCell::new(None),
                slots: Slots::new(COPIES),
            }),
        })
    }

    /// Tells `report` of every copy that fails; it must not call back into a node.
    #[must_use]
    pub fn on_failure(self, report: impl Fn(Error) + 'static) -> Filter {
        self.core.on_failure.replace(Some(Box::new(report)));
        self
    }

    /// Bytes that are saved together.
    pub fn cluster(&self) -> u64 {
        self.core.plan.borrow().cluster()
    }
}

/// How finely the target allocates. What is saved in larger units would be read for nothing, in
/// smaller ones allocated for nothing.
fn granularity(target: &Child) -> Result<u64, Error> {
    let node = target.node()?;
    let preferred = node.limits().preferred_alignment;
    let is_overlay = node.driver().capabilities().overlay_state.is_some();
    Ok(if is_overlay {
        preferred
    } else {
        preferred.max(DEFAULT_CLUSTER)
    })
}

impl Core {
    /// Carries `request` out once the old data of `range` is saved.
    async fn protected(
        self: &Rc<Core>,
        range: ByteRange,
        request: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        //= docs/spec/replication.md#copy-before-write
        //# A copy that fails MUST fail the peer's write with the same error number, leave the
        //# secondary disk as it was, and leave the block to be saved again.
        let ticket = match self.save(range).await {
            Ok(ticket) => Some(ticket),
            Err(error) => {
                let error = error.at(&self.options.node, Op::CopyBeforeWrite, range);
                self.note(&error);
                match self.options.on_error {
                    OnCopyError::BreakGuestWrite => return Err(error),
                    OnCopyError::BreakSnapshot => None,
                }
            }
        };
        let _writing = Writing { core: self, ticket };
        request.await
    }

    async fn save(self: &Rc<Core>, range: ByteRange) -> Result<WriteTicket, Error> {
        let is_lost = self.options.on_error == OnCopyError::BreakSnapshot;
        loop {
            if is_lost && let Some(error) = &*self.first_error.borrow() {
                return Err(error.clone());
            }
            let step = self.plan.borrow_mut().plan(range);
            match step {
                Step::Go(ticket) => return Ok(ticket),
                Step::Save(work) => self.within_timeout(self.carry_out(work)).await?,
            }
        }
    }

    async fn within_timeout(
        &self,
        saved: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let bound = self.options.timeout;
        if bound.is_zero() {
            return saved.await;
        }
        match select(pin!(saved), self.ports.runtime.sleep(bound)).await {
            Either::Left((result, _)) => result,
            Either::Right(((), _)) => {
                let message = format!("old data was not saved within {bound:?}");
                Err(Error::with_message(ErrorKind::TimedOut, message))
            }
        }
    }

    //= docs/spec/replication.md#copy-before-write
    //# A failed copy MUST be latched in the secondary's status and reported by an event.
    fn note(&self, error: &Error) {
        self.first_error.borrow_mut().get_or_insert(error.clone());
        if let Some(report) = &*self.on_failure.borrow() {
            report(error.clone());
        }
    }

    /// Starts the copies, and waits for them and for those of others.
    async fn carry_out(self: &Rc<Core>, work: Work) -> Result<(), Error> {
        let failed = Rc::new(RefCell::new(None));
        let own = work.copies.iter().map(|copy| copy.ticket);
        let awaited: Vec<Ticket> = own.chain(work.wait_for).collect();
        for copy in work.copies {
            let task = copy_task(Rc::clone(self), copy, Rc::clone(&failed));
            // Not kept: it ends by itself and reports to the plan.
            drop(self.ports.runtime.spawn(Box::pin(task)));
        }
        for ticket in awaited {
            poll_fn(|cx| self.plan.borrow_mut().poll_finished(ticket, cx)).await;
        }
        failed.take().map_or(Ok(()), Err)
    }

    //= docs/spec/replication.md#copy-before-write
    //# A write to part of a block MUST leave the rest of the block as the view showed it.
    /// Copies the old data of whole clusters to the target.
    async fn copy(&self, range: ByteRange) -> Result<(), Error> {
        let _slot = self.slots.enter().await;
        let data = self.file.read(range).await?;
        if is_zero(&data) {
            let flags = ZeroFlags {
                serialise: true,
                may_unmap: true,
                ..ZeroFlags::default()
            };
            return self.target.write_zeroes(range, flags).await;
        }
        //= docs/spec/replication.md#copy-before-write
        //# A reader of the view MUST NOT see data that the peer wrote after the last checkpoint,
        //# however reads, copies and writes overlap.
        let flags = WriteFlags {
            serialise: true,
            ..WriteFlags::default()
        };
        self.target.write(range.offset(), data, flags).await
    }
}

/// One copy, its outcome for the plan and its error for the write that began it.
async fn copy_task(core: Rc<Core>, copy: ClusterCopy, failed: Rc<RefCell<Option<Error>>>) {
    let mut report = Report {
        core: &core,
        ticket: copy.ticket,
        outcome: Outcome::Failed,
    };
    match core.copy(copy.range).await {
        Ok(()) => report.outcome = Outcome::Saved,
        Err(error) => {
            let error = error.at(&core.options.node, Op::CopyBeforeWrite, copy.range);
            core.note(&error);
            failed.replace(Some(error));
        }
    }
}

/// Tells the plan how a copy ended, also one whose task was dropped.
struct Report<'a> {
    core: &'a Core,
    ticket: Ticket,
    outcome: Outcome,
}

impl Drop for Report<'_> {
    fn drop(&mut self) {
        let mut plan = self.core.plan.borrow_mut();
        plan.finished(self.ticket, self.outcome);
        drop(plan);
        self.core.slots.notify();
    }
}

/// A write of new data, for as long as it lives.
struct Writing<'a> {
    core: &'a Core,
    ticket: Option<WriteTicket>,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.core.plan.borrow_mut().written(ticket);
            // Whoever settles waits for writes too.
            self.core.slots.notify();
        }
    }
}

impl Driver for Filter {
    fn name(&self) -> &'static str {
        "copy-before-write"
    }

    fn limits(&self) -> Limits {
        let limits = self.core.file.node().map(|node| node.limits());
        limits.unwrap_or(Limits::of_length(0))
    }

    fn read(&self, range: ByteRange) -> Answer<'_, Bytes> {
        Box::pin(self.core.file.read(range))
    }

    fn write(&self, offset: u64, data: Bytes, flags: WriteFlags) -> Answer<'_, ()> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let range = ByteRange::between(offset, offset.saturating_add(length));
        let write = self.core.file.write(offset, data, flags);
        Box::pin(self.core.protected(range, write))
    }

    fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Answer<'_, ()> {
        Box::pin(async move {
            for piece in range.pieces(PIECE) {
                let zero = self.core.file.write_zeroes(piece, flags);
                self.core.protected(piece, zero).await?;
            }
            Ok(())
        })
    }

    fn discard(&self, range: ByteRange) -> Answer<'_, ()> {
        Box::pin(async move {
            for piece in range.pieces(PIECE) {
                let discard = self.core.file.discard(piece);
                self.core.protected(piece, discard).await?;
            }
            Ok(())
        })
    }

    fn flush(&self) -> Answer<'_, ()> {
        Box::pin(self.core.file.flush())
    }

    fn block_status(&self, range: ByteRange) -> Answer<'_, Vec<Extent>> {
        Box::pin(self.core.file.block_status(range))
    }

    fn children(&self) -> Vec<Rc<Child>> {
        vec![Rc::clone(&self.core.file), Rc::clone(&self.core.target)]
    }

    /// Nobody else may write to `file`: that would pass the filter by (R89).
    fn child_permissions(&self, child: &Child, above: Shares) -> Shares {
        let target = Shares {
            used: Permissions::WRITE,
            shared: Permissions::CONSISTENT_READ
                | Permissions::WRITE
                | Permissions::WRITE_UNCHANGED,
        };
        let file = Shares {
            used: above.used | Permissions::CONSISTENT_READ,
            //= docs/spec/replication.md#permissions
            //# A new writer directly on the secondary disk MUST be refused while copy-before-write
            //# is in place, with both nodes and the permission in the error.
            shared: above.shared & !(Permissions::WRITE | Permissions::RESIZE),
        };
        match child.role() {
            ChildRole::Filtered => file,
            ChildRole::Data | ChildRole::Backing => target,
        }
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            copy_before_write: Some(self),
            ..Capabilities::default()
        }
    }
}

impl CopyBeforeWrite for Filter {
    fn reset(&self) {
        let reset = self.core.plan.borrow_mut().reset();
        assert_eq!(reset, Ok(()), "the node was drained and settled");
        self.core.first_error.replace(None);
    }

    fn settle(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let is_idle = || self.core.plan.borrow().is_idle();
            self.core.slots.wait(is_idle).await;
            Ok(())
        })
    }

    fn first_error(&self) -> Option<Error> {
        self.core.first_error.borrow().clone()
    }

    fn saved_bytes(&self) -> u64 {
        self.core.plan.borrow().saved_bytes()
    }
}
