//! `quorum`: one disk kept by several children, which vote.
//!
//! ```text
//!             ┌─children.0─▶ local disk                          votes, is read
//!   quorum ───┤
//!             └─children.1─▶ replication (mode=primary) ─▶ nbd   gets every write, has no vote
//! ```
//!
//! Vote contract: a change goes to all children at once and is answered when the last one has; it
//! succeeds if as many of those that have a vote succeeded as the threshold asks for (all of them, if
//! they are fewer). A filter that forwards for a primary swallows its errors, so that its success
//! says nothing: it has no vote, and a local write that fails, fails.
//!
//! Order contract: changes that overlap are sent one after the other, so that every child ends with
//! the same one.
//!
//! Read contract: `fifo` asks one child after the other; `quorum` asks all that have a vote and takes
//! what the threshold agrees on. A child without a vote is never read.
//!
//! Source: `docs/spec/replication.md`; names, events and errors as in QEMU.

mod vote;

#[cfg(test)]
mod tests;

use self::vote::{Ballot, Member};
use crate::event::{Event, EventSink};
use block::{
    Answer, ByteRange, Capabilities, Child, Driver, DynamicChildren, Error, ErrorKind, Extent,
    Limits, LockKind, Op, Permissions, RangeGuard, RangeLock, Shares, WriteFlags, ZeroFlags,
};
use bytes::Bytes;
use futures_util::future::join_all;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;

/// Most children.
const MOST_CHILDREN: usize = 64;

/// How a read chooses among the children (`read-pattern`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadPattern {
    /// All are read; the threshold has to agree.
    #[default]
    Quorum,
    /// In order, until one succeeds.
    Fifo,
}

/// Options of the driver. `blkverify` and `rewrite-corrupted` are not served.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its `node-name`, for events.
    pub node: String,
    /// `vote-threshold`.
    pub vote_threshold: usize,
    /// `read-pattern`.
    pub read_pattern: ReadPattern,
}

/// The driver.
pub struct Quorum {
    options: Options,
    events: EventSink,
    members: RefCell<Rc<[Member]>>,
    next_index: Cell<u64>,
    order: RangeLock,
}

/// A request that goes to all children.
struct Change {
    op: Op,
    range: ByteRange,
    /// It may be refused as unsupported.
    is_fast: bool,
}

impl Change {
    fn new(op: Op, range: ByteRange) -> Change {
        Change {
            op,
            range,
            is_fast: false,
        }
    }
}

/// The name of the child with this number.
pub fn child_name(index: u64) -> String {
    format!("children.{index}")
}

impl Quorum {
    /// A quorum of `children`, which are called [`child_name`] of 0, 1, 2 and so on.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidRequest`] if the threshold is 0 or above the number of children, there are
    /// too many of these, or they differ in length.
    pub fn new(
        options: Options,
        children: Vec<Rc<Child>>,
        events: EventSink,
    ) -> Result<Quorum, Error> {
        if options.vote_threshold == 0 {
            return refuse("vote-threshold must be at least 1");
        }
        if options.vote_threshold > children.len() {
            return refuse("threshold may not exceed children count");
        }
        check_count(children.len())?;
        if let Some((first, rest)) = children.split_first() {
            rest.iter()
                .try_for_each(|child| same_length(first, child))?;
        }
        Ok(Quorum {
            options,
            events,
            next_index: Cell::new(u64::try_from(children.len()).unwrap_or(u64::MAX)),
            members: RefCell::new(children.into_iter().map(Member::new).collect()),
            order: RangeLock::new(),
        })
    }

    fn members(&self) -> Rc<[Member]> {
        Rc::clone(&self.members.borrow())
    }

    fn first_voter(&self) -> Result<Rc<Child>, Error> {
        let members = self.members();
        let voter = members.iter().find(|member| member.votes());
        voter
            .map(|member| Rc::clone(&member.child))
            .ok_or_else(|| Error::with_message(ErrorKind::Io, "no child of the quorum can be read"))
    }

    /// Sends a change to all children and counts.
    async fn change<F>(
        &self,
        Change { op, range, is_fast }: Change,
        send: impl Fn(Rc<Child>) -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<(), Error>>,
    {
        let members = self.members();
        let _order = self.in_order(op, range, members.len()).await;
        let answers = members.iter().map(|member| send(Rc::clone(&member.child)));
        let answers = join_all(answers).await;
        let mut ballot = Ballot::new(self.options.vote_threshold);
        for (member, answer) in members.iter().zip(answers) {
            // What one child cannot do fast, none has to: another request follows.
            if is_fast
                && answer
                    .as_ref()
                    .is_err_and(|e| e.kind() == ErrorKind::Unsupported)
            {
                return answer;
            }
            if let Err(error) = &answer {
                self.report_bad(op, range, (member, Some(error.clone())));
            }
            ballot.count(member.votes(), answer);
        }
        ballot.result().inspect_err(|_| self.report_failure(range))
    }

    async fn in_order(&self, op: Op, range: ByteRange, members: usize) -> Option<RangeGuard> {
        if op == Op::Flush || members < 2 {
            return None;
        }
        Some(self.order.lock(range, LockKind::Exclusive).await)
    }

    async fn read_fifo(&self, range: ByteRange) -> Result<Bytes, Error> {
        let members = self.members();
        let mut last = None;
        for member in members.iter().filter(|member| member.votes()) {
            match member.child.read(range).await {
                Ok(data) => return Ok(data),
                Err(error) => {
                    self.report_bad(Op::Read, range, (member, Some(error.clone())));
                    last = Some(error);
                }
            }
        }
        let message = "no child of the quorum can be read";
        Err(last.unwrap_or_else(|| Error::with_message(ErrorKind::Io, message)))
    }

    async fn read_quorum(&self, range: ByteRange) -> Result<Bytes, Error> {
        let members = self.members();
        let voters: Vec<&Member> = members.iter().filter(|member| member.votes()).collect();
        let answers = join_all(voters.iter().map(|member| member.child.read(range))).await;
        let elected = vote::elect(&answers, self.options.vote_threshold);
        for (member, answer) in voters.into_iter().zip(answers) {
            match (answer, &elected) {
                (Err(error), _) => self.report_bad(Op::Read, range, (member, Some(error))),
                (Ok(data), Ok(elected)) if data != elected => {
                    self.report_bad(Op::Read, range, (member, None));
                }
                (Ok(_), _) => {}
            }
        }
        elected.inspect_err(|_| self.report_failure(range))
    }

    fn report_bad(&self, op: Op, range: ByteRange, (member, error): (&Member, Option<Error>)) {
        self.events.send(Event::QuorumReportBad {
            op,
            node: member.node_name(),
            offset: range.offset(),
            length: range.length(),
            error,
        });
    }

    fn report_failure(&self, range: ByteRange) {
        self.events.send(Event::QuorumFailure {
            node: self.options.node.clone(),
            offset: range.offset(),
            length: range.length(),
        });
    }
}

/// Each request goes to every child, and each is checked against every other when the graph changes.
fn check_count(children: usize) -> Result<(), Error> {
    if children <= MOST_CHILDREN {
        return Ok(());
    }
    refuse(&format!(
        "a quorum has at most {MOST_CHILDREN} children, not {children}"
    ))
}

fn same_length(first: &Child, child: &Child) -> Result<(), Error> {
    let (length, other) = (first.length(), child.length());
    if length == other {
        return Ok(());
    }
    refuse(&format!(
        "the children of a quorum must have one length: {length} bytes and {other}"
    ))
}

fn refuse<T>(message: &str) -> Result<T, Error> {
    Err(Error::with_message(ErrorKind::InvalidRequest, message))
}

impl Driver for Quorum {
    fn name(&self) -> &'static str {
        "quorum"
    }

    /// What all children can take, so that none of them has to read before it writes: one that
    /// forwards for a primary cannot be read.
    fn limits(&self) -> Limits {
        let members = self.members();
        let nodes = members.iter().filter_map(|member| member.child.node().ok());
        let all = nodes.map(|node| node.limits()).reduce(|a, b| Limits {
            length: a.length,
            request_alignment: a.request_alignment.max(b.request_alignment),
            preferred_alignment: a.preferred_alignment.max(b.preferred_alignment),
            max_transfer: a.max_transfer.min(b.max_transfer),
            fua: true,
        });
        Limits {
            // Every child's node sees to it.
            fua: true,
            ..all.unwrap_or(Limits::of_length(0))
        }
    }

    fn read(&self, range: ByteRange) -> Answer<'_, Bytes> {
        match self.options.read_pattern {
            ReadPattern::Fifo => Box::pin(self.read_fifo(range)),
            ReadPattern::Quorum => Box::pin(self.read_quorum(range)),
        }
    }

    fn write(&self, offset: u64, data: Bytes, flags: WriteFlags) -> Answer<'_, ()> {
        let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let range = ByteRange::between(offset, offset.saturating_add(length));
        let send = move |child: Rc<Child>| {
            let data = data.clone();
            async move { child.write(offset, data, flags).await }
        };
        Box::pin(self.change(Change::new(Op::Write, range), send))
    }

    fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Answer<'_, ()> {
        let send = move |child: Rc<Child>| async move { child.write_zeroes(range, flags).await };
        let change = Change {
            is_fast: flags.no_fallback,
            ..Change::new(Op::WriteZeroes, range)
        };
        Box::pin(self.change(change, send))
    }

    fn discard(&self, range: ByteRange) -> Answer<'_, ()> {
        let send = move |child: Rc<Child>| async move { child.discard(range).await };
        Box::pin(self.change(Change::new(Op::Discard, range), send))
    }

    fn flush(&self) -> Answer<'_, ()> {
        let nothing = ByteRange::between(0, 0);
        let send = |child: Rc<Child>| async move { child.flush().await };
        Box::pin(self.change(Change::new(Op::Flush, nothing), send))
    }

    fn block_status(&self, range: ByteRange) -> Answer<'_, Vec<Extent>> {
        Box::pin(async move {
            let voters = self.members().iter().filter(|m| m.votes()).count();
            if voters > 1 && self.options.read_pattern == ReadPattern::Quorum {
                return Ok(vec![Extent::data(range)]);
            }
            self.first_voter()?.block_status(range).await
        })
    }

    fn children(&self) -> Vec<Rc<Child>> {
        let members = self.members();
        members.iter().map(|m| Rc::clone(&m.child)).collect()
    }

    /// Another writer of a child would make the children differ.
    fn child_permissions(&self, _child: &Child, above: Shares) -> Shares {
        let unchanging = Permissions::CONSISTENT_READ | Permissions::WRITE_UNCHANGED;
        Shares {
            used: above.used,
            shared: above.shared & unchanging,
        }
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            dynamic_children: Some(self),
            ..Capabilities::default()
        }
    }
}

impl DynamicChildren for Quorum {
    fn next_child_name(&self) -> String {
        child_name(self.next_index.get())
    }

    fn add_child(&self, child: Rc<Child>) -> Result<(), Error> {
        let members = self.members();
        check_count(members.len().saturating_add(1))?;
        if let Some(first) = members.first() {
            same_length(&first.child, &child)?;
        }
        let added = members.iter().cloned().chain([Member::new(child)]);
        self.members.replace(added.collect());
        self.next_index.set(self.next_index.get().saturating_add(1));
        Ok(())
    }

    fn remove_child(&self, name: &str) -> Result<Rc<Child>, Error> {
        let members = self.members();
        let Some(gone) = members.iter().find(|member| member.child.name() == name) else {
            let node = &self.options.node;
            return refuse(&format!("Node '{node}' does not have child '{name}'"));
        };
        let threshold = self.options.vote_threshold;
        if members.len() <= threshold {
            return refuse(&format!(
                "The number of children cannot be lower than the vote threshold {threshold}"
            ));
        }
        let kept = members.iter().filter(|member| member.child.name() != name);
        self.members.replace(kept.cloned().collect());
        // A number is used again only if it was the last one.
        let last = self.next_index.get().saturating_sub(1);
        if child_name(last) == name {
            self.next_index.set(last);
        }
        Ok(Rc::clone(&gone.child))
    }
}
