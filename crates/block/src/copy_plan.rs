//! Which old clusters must be saved before a write may reach the secondary disk.
//!
//! ```text
//!              plan                  finished(ok)
//!  unsaved ───────────▶ in flight ─────────────────▶ saved ──▶ writes go
//!     ▲                     │                          │
//!     ├─────────────────────┘ finished(failed)         │
//!     └────────────────────────────────────────────────┘ reset (a checkpoint)
//! ```
//!
//! Copy contract: a cluster has at most one copier, and is copied at most once between two
//! resets. A write waits for the copies of all clusters it touches, including those another
//! write has started. A copy that fails frees its clusters: whoever waited plans again and copies
//! them itself, so that a write fails only if its own attempt failed.
//!
//! Reset contract: never while a copy or a write is on its way; so none of them can count for an
//! epoch it was not begun in. Tickets are never used again: a report that comes twice or too late
//! changes nothing.
//!
//! Cancellation contract: dropping a write does not cancel its copies, since others may wait for
//! them; who drops a copy reports it as failed.
//!
//! Pure: no I/O, no clock. The copy-before-write driver carries the plan out:
//!
//! ```text
//! loop { match plan(range) {
//!     Step::Go(write) => { write the new data; written(write); return }
//!     Step::Save(work) => { copy and report every work.copies; await every work.wait_for;
//!                           if a copy of our own failed { return its error } }
//! } }
//! ```
//!
//! Source: `docs/spec/replication.md`, section "Copy before write".

use crate::{BlockMap, ByteRange};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::task::{Context, Poll, Waker};

/// Longest single copy in bytes (or one cluster, if that is more): bounds the memory of a copy and
/// lets the copies of a long write run side by side.
const MAX_COPY: u64 = 1 << 20;

/// What was saved since the last reset, and what is being saved now.
#[derive(Clone, Debug)]
pub struct CopyPlan {
    cluster: u64,
    length: u64,
    saved: BlockMap,
    next_id: u64,
    /// Copies in flight, by their first cluster; they do not overlap.
    copies: BTreeMap<u64, InFlight>,
    /// The same copies by ticket, with those that wait for them.
    tickets: BTreeMap<Ticket, Waiting>,
    writes: BTreeSet<WriteTicket>,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    end: u64,
    ticket: Ticket,
}

#[derive(Clone, Debug)]
struct Waiting {
    clusters: Range<u64>,
    wakers: Vec<Waker>,
}

/// A copy in flight, to report it or wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// A write that may go on, until it reports [`CopyPlan::written`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteTicket(u64);

/// Old data to save: read `range` and write it to the target, then report `ticket`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClusterCopy {
    /// What to report it with.
    pub ticket: Ticket,
    /// Whole clusters, cut at the end of the disk.
    pub range: ByteRange,
}

/// What must happen before a write may go on; then the write plans again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// To be copied by this write; the copies may run side by side.
    pub copies: Vec<ClusterCopy>,
    /// Copies of others to wait for.
    pub wait_for: Vec<Ticket>,
}

/// What a write has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Every cluster is saved: write, then report [`CopyPlan::written`].
    Go(WriteTicket),
    /// Save first.
    Save(Work),
}

/// A reset has to wait for a copy or a write in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Copies in flight.
    pub copies: usize,
    /// Writes in flight.
    pub writes: usize,
}

impl CopyPlan {
    /// Nothing saved yet of a disk of `length` bytes, in clusters of `cluster` bytes (at least 1).
    pub fn new(length: u64, cluster: u64) -> CopyPlan {
        let cluster = cluster.max(1);
        CopyPlan {
            cluster,
            length,
            saved: BlockMap::new(length.div_ceil(cluster)),
            next_id: 0,
            copies: BTreeMap::new(),
            tickets: BTreeMap::new(),
            writes: BTreeSet::new(),
        }
    }

    /// What a write (zero, discard) to `range` has to do before it may go on.
    pub fn plan(&mut self, range: ByteRange) -> Step {
        let clusters = self.clusters(range);
        let missing = self.missing(clusters);
        if missing.is_empty() {
            let ticket = WriteTicket(self.take_id());
            self.writes.insert(ticket);
            return Step::Go(ticket);
        }
        let mut work = Work {
            copies: Vec::new(),
            wait_for: Vec::new(),
        };
        //= docs/spec/replication.md#copy-before-write
        //# While replication runs, a write, zero or discard of the peer MUST NOT change the
        //# secondary disk before the old data of every block it touches is in the hidden disk.
        for run in missing {
            self.share_out(run, &mut work);
        }
        Step::Save(work)
    }

    /// A copy has ended. Its clusters are saved, or free for whoever waited to try.
    ///
    /// A ticket that is not in flight any more changes nothing.
    pub fn finished(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(waiting) = self.tickets.remove(&ticket) else {
            return;
        };
        self.copies.remove(&waiting.clusters.start);
        //= docs/spec/replication.md#copy-before-write
        //# The old data of a block MUST be saved at most once between two checkpoints.
        //= docs/spec/replication.md#copy-before-write
        //# A write of the peer MUST fail only if its own attempt to save failed; who waited for a
        //# failed copy tries it again.
        if outcome == Outcome::Saved {
            self.saved.insert(waiting.clusters);
        }
        waiting.wakers.into_iter().for_each(Waker::wake);
    }

    /// The write of a [`Step::Go`] has ended, whether it succeeded or not.
    pub fn written(&mut self, ticket: WriteTicket) {
        self.writes.remove(&ticket);
    }

    /// Ready once the copy is not in flight any more.
    pub fn poll_finished(&mut self, ticket: Ticket, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Waiting { wakers, .. }) = self.tickets.get_mut(&ticket) else {
            return Poll::Ready(());
        };
        if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Begins a new epoch: nothing is saved. Costs the same whatever was saved.
    ///
    /// # Errors
    ///
    /// [`Busy`] while a copy or a write is in flight; nothing has changed then.
    pub fn reset(&mut self) -> Result<(), Busy> {
        //= docs/spec/replication.md#checkpoint
        //# A checkpoint MUST NOT be accepted while a copy or a write of the peer is in flight.
        if !self.is_idle() {
            return Err(Busy {
                copies: self.copies.len(),
                writes: self.writes.len(),
            });
        }
        drop(self.saved.take());
        Ok(())
    }

    /// Whether neither a copy nor a write is in flight.
    pub fn is_idle(&self) -> bool {
        self.copies.is_empty() && self.writes.is_empty()
    }

    /// Bytes saved since the last reset.
    pub fn saved_bytes(&self) -> u64 {
        let whole = self.saved.len().saturating_mul(self.cluster);
        let last = self.length.checked_div(self.cluster).unwrap_or(0);
        match self.length.checked_rem(self.cluster) {
            Some(part) if part > 0 && self.saved.contains(last) => {
                whole.saturating_sub(self.cluster.saturating_sub(part))
            }
            _ => whole,
        }
    }

    /// The granularity in bytes.
    pub fn cluster(&self) -> u64 {
        self.cluster
    }

    /// The unsaved runs of `clusters`, in flight or not; allocates nothing if there are none.
    fn missing(&self, clusters: Range<u64>) -> Vec<Range<u64>> {
        self.saved
            .runs(clusters)
            .filter_map(|(saved, run)| (!saved).then_some(run))
            .collect()
    }

    /// Waits for what others copy already, and claims the rest.
    //= docs/spec/replication.md#copy-before-write
    //# A block MUST have at most one copy in flight; other writes to it wait for that copy.
    fn share_out(&mut self, run: Range<u64>, work: &mut Work) {
        let others = self.in_flight(run.clone());
        let mut next = run.start;
        for (start, InFlight { end, ticket }) in others {
            self.claim(next..start.max(next), work);
            work.wait_for.push(ticket);
            next = end.max(next);
        }
        self.claim(next..run.end, work);
    }

    /// Copies in flight that touch `run`, in ascending order.
    fn in_flight(&self, run: Range<u64>) -> Vec<(u64, InFlight)> {
        // They do not overlap, so only the last one that starts before the run can reach into it.
        let before = self.copies.range(..run.start).next_back();
        before
            .filter(|(_, copy)| copy.end > run.start)
            .into_iter()
            .chain(self.copies.range(run))
            .map(|(&start, &copy)| (start, copy))
            .collect()
    }

    fn claim(&mut self, clusters: Range<u64>, work: &mut Work) {
        let longest = MAX_COPY.checked_div(self.cluster).unwrap_or(1).max(1);
        let mut start = clusters.start;
        while start < clusters.end {
            let end = start.saturating_add(longest).min(clusters.end);
            let ticket = Ticket(self.take_id());
            self.copies.insert(start, InFlight { end, ticket });
            let waiting = Waiting {
                clusters: start..end,
                wakers: Vec::new(),
            };
            self.tickets.insert(ticket, waiting);
            let range = ByteRange::between(
                start.saturating_mul(self.cluster),
                end.saturating_mul(self.cluster).min(self.length),
            );
            work.copies.push(ClusterCopy { ticket, range });
            start = end;
        }
    }

    fn clusters(&self, range: ByteRange) -> Range<u64> {
        if range.is_empty() {
            return 0..0;
        }
        let end = range.end().min(self.length);
        let start = range.offset().checked_div(self.cluster).unwrap_or(0);
        start..end.div_ceil(self.cluster).max(start)
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        id
    }
}

/// How a copy ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The old data is in the target.
    Saved,
    /// It is not; the clusters may be tried again.
    Failed,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLUSTER: u64 = 10;

    fn work(step: Step) -> Work {
        match step {
            Step::Save(work) => work,
            Step::Go(_) => panic!("nothing was saved, yet the write may go"),
        }
    }

    #[test]
    fn a_second_writer_waits_for_the_copy_and_saves_only_the_rest() {
        let mut plan = CopyPlan::new(40, CLUSTER);
        let first = work(plan.plan(ByteRange::between(12, 18)));
        assert_eq!(first.copies[0].range, ByteRange::between(10, 20));
        let second = work(plan.plan(ByteRange::between(0, 35)));
        let ranges: Vec<_> = second.copies.iter().map(|copy| copy.range).collect();
        assert_eq!(
            ranges,
            [ByteRange::between(0, 10), ByteRange::between(20, 40)]
        );
        assert_eq!(second.wait_for, [first.copies[0].ticket]);
    }

    #[test]
    fn the_last_cluster_ends_with_the_disk() {
        let mut plan = CopyPlan::new(25, CLUSTER);
        let work = work(plan.plan(ByteRange::between(24, 25)));
        assert_eq!(work.copies[0].range, ByteRange::between(20, 25));
        plan.finished(work.copies[0].ticket, Outcome::Saved);
        assert_eq!(plan.saved_bytes(), 5);
    }

    #[test]
    fn a_long_write_is_saved_in_pieces_that_may_run_side_by_side() {
        let mut plan = CopyPlan::new(3 << 20, 64 << 10);
        let work = work(plan.plan(ByteRange::between(1, 3 << 20)));
        let lengths: Vec<_> = work.copies.iter().map(|copy| copy.range.length()).collect();
        assert_eq!(lengths, [1 << 20, 1 << 20, 1 << 20]);
    }

    #[test]
    fn a_ticket_of_an_older_epoch_saves_nothing() {
        let mut plan = CopyPlan::new(40, CLUSTER);
        let old = work(plan.plan(ByteRange::between(0, 10))).copies[0];
        plan.finished(old.ticket, Outcome::Failed);
        plan.reset().unwrap();
        let _new = work(plan.plan(ByteRange::between(0, 10)));
        plan.finished(old.ticket, Outcome::Saved);
        assert_eq!(plan.saved_bytes(), 0);
        assert!(!plan.is_idle());
    }

    #[test]
    fn those_who_wait_for_a_copy_are_woken_when_it_ends() {
        let mut plan = CopyPlan::new(40, CLUSTER);
        let copy = work(plan.plan(ByteRange::between(0, 10))).copies[0];
        let mut cx = Context::from_waker(Waker::noop());
        assert!(plan.poll_finished(copy.ticket, &mut cx).is_pending());
        plan.finished(copy.ticket, Outcome::Failed);
        assert!(plan.poll_finished(copy.ticket, &mut cx).is_ready());
    }

    /// One writer of the model.
    #[derive(Clone, Debug)]
    struct Writer {
        range: ByteRange,
        state: State,
    }

    #[derive(Clone, Debug)]
    enum State {
        Planning,
        /// Own copies still in flight, copies of others waited for, whether an own copy failed.
        Saving(Vec<ClusterCopy>, Vec<Ticket>, bool),
        Writing(WriteTicket),
        Ended,
    }

    /// The secondary disk, the saved data and the writers; a cluster is one letter.
    #[derive(Clone, Debug)]
    struct Model {
        plan: CopyPlan,
        writers: Vec<Writer>,
        disk: Vec<u8>,
        at_checkpoint: Vec<u8>,
        hidden: Vec<Option<u8>>,
        copiers: Vec<usize>,
    }

    /// One thing that may happen next.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Go(usize),
        CopyEnds(usize, usize, Outcome),
        Checkpoint,
    }

    impl Model {
        fn new(ranges: &[(u64, u64)]) -> Model {
            let writer = |&(start, end): &(u64, u64)| Writer {
                range: ByteRange::between(start * CLUSTER + 1, end * CLUSTER - 1),
                state: State::Planning,
            };
            Model {
                plan: CopyPlan::new(4 * CLUSTER, CLUSTER),
                writers: ranges.iter().map(writer).collect(),
                disk: b"abcd".to_vec(),
                at_checkpoint: b"abcd".to_vec(),
                hidden: vec![None; 4],
                copiers: vec![0; 4],
            }
        }

        fn events(&self) -> Vec<Event> {
            let mut events = vec![Event::Checkpoint];
            for (index, writer) in self.writers.iter().enumerate() {
                match &writer.state {
                    State::Planning | State::Writing(_) => events.push(Event::Go(index)),
                    State::Saving(copies, waits, _) => {
                        for copy in 0..copies.len() {
                            events.push(Event::CopyEnds(index, copy, Outcome::Saved));
                            events.push(Event::CopyEnds(index, copy, Outcome::Failed));
                        }
                        let waits = waits.iter().any(|t| self.plan.tickets.contains_key(t));
                        if copies.is_empty() && !waits {
                            events.push(Event::Go(index));
                        }
                    }
                    State::Ended => {}
                }
            }
            events
        }

        fn apply(&mut self, event: Event) {
            match event {
                Event::Go(index) => self.go(index),
                Event::CopyEnds(index, copy, outcome) => self.copy_ends(index, copy, outcome),
                Event::Checkpoint => self.checkpoint(),
            }
            for cluster in 0..4 {
                assert!(self.copiers[cluster] <= 1, "two copiers of {cluster}");
                let view = self.hidden[cluster].unwrap_or(self.disk[cluster]);
                assert_eq!(
                    view, self.at_checkpoint[cluster],
                    "the old view has changed"
                );
            }
        }

        fn go(&mut self, index: usize) {
            let range = self.writers[index].range;
            let next = match self.writers[index].state.clone() {
                State::Planning | State::Saving(_, _, false) => match self.plan.plan(range) {
                    Step::Go(ticket) => State::Writing(ticket),
                    Step::Save(work) => {
                        for copy in &work.copies {
                            for cluster in touched(copy.range) {
                                self.copiers[cluster] += 1;
                            }
                        }
                        State::Saving(work.copies, work.wait_for, false)
                    }
                },
                State::Saving(_, _, true) => State::Ended,
                State::Writing(ticket) => {
                    for cluster in touched(range) {
                        assert!(
                            self.hidden[cluster].is_some(),
                            "written before it was saved"
                        );
                        self.disk[cluster] = b'0' + u8::try_from(index).unwrap();
                    }
                    self.plan.written(ticket);
                    State::Ended
                }
                State::Ended => unreachable!("an ended writer has no events"),
            };
            self.writers[index].state = next;
        }

        fn copy_ends(&mut self, index: usize, copy: usize, outcome: Outcome) {
            let State::Saving(copies, _, failed) = &mut self.writers[index].state else {
                unreachable!("only a writer that saves has copies");
            };
            let copy = copies.remove(copy);
            *failed |= outcome == Outcome::Failed;
            for cluster in touched(copy.range) {
                self.copiers[cluster] -= 1;
                if outcome == Outcome::Saved {
                    // As late as a real copy could read: whatever the disk holds at its end.
                    assert!(self.hidden[cluster].is_none(), "saved twice");
                    self.hidden[cluster] = Some(self.disk[cluster]);
                }
            }
            self.plan.finished(copy.ticket, outcome);
        }

        fn checkpoint(&mut self) {
            let copying = self.copiers.iter().any(|&copiers| copiers > 0);
            let writing = self
                .writers
                .iter()
                .any(|writer| matches!(writer.state, State::Writing(_)));
            assert_eq!(self.plan.reset().is_err(), copying || writing);
            if !copying && !writing {
                self.hidden = vec![None; 4];
                self.at_checkpoint.clone_from(&self.disk);
            }
        }

        fn key(&self) -> String {
            let writers: Vec<String> = self
                .writers
                .iter()
                .map(|writer| match &writer.state {
                    State::Planning => "p".into(),
                    State::Saving(copies, waits, failed) => {
                        let ranges: Vec<_> = copies.iter().map(|copy| copy.range).collect();
                        let open = waits.iter().filter_map(|t| self.plan.tickets.get(t));
                        let open: Vec<_> = open.map(|waiting| &waiting.clusters).collect();
                        format!("s{ranges:?}{open:?}{failed}")
                    }
                    State::Writing(_) => "w".into(),
                    State::Ended => "e".into(),
                })
                .collect();
            format!("{writers:?}{:?}{:?}", self.disk, self.hidden)
        }
    }

    fn touched(range: ByteRange) -> Range<usize> {
        let cluster = |bytes: u64| usize::try_from(bytes).unwrap();
        cluster(range.offset() / CLUSTER)..cluster(range.end().div_ceil(CLUSTER))
    }

    /// Runs every order of events there is and checks the contracts after each.
    fn explore(model: &Model, seen: &mut BTreeSet<String>) {
        if !seen.insert(model.key()) {
            return;
        }
        let events = model.events();
        let ended = model
            .writers
            .iter()
            .all(|writer| matches!(writer.state, State::Ended));
        assert!(ended || events.len() > 1, "nobody can go on: {model:?}");
        for event in events {
            let mut next = model.clone();
            next.apply(event);
            explore(&next, seen);
        }
    }

    //= docs/spec/replication.md#copy-before-write
    //= type=test
    //# While replication runs, a write, zero or discard of the peer MUST NOT change the secondary
    //# disk before the old data of every block it touches is in the hidden disk.
    //= docs/spec/replication.md#copy-before-write
    //= type=test
    //# A block MUST have at most one copy in flight; other writes to it wait for that copy.
    #[test]
    fn two_writers_of_four_clusters_keep_the_contracts_in_every_order() {
        let ranges: Vec<(u64, u64)> = (0..4)
            .flat_map(|start| (start + 1..=4).map(move |end| (start, end)))
            .collect();
        for &one in &ranges {
            for &two in &ranges {
                explore(&Model::new(&[one, two]), &mut BTreeSet::new());
            }
        }
    }

    //= docs/spec/replication.md#copy-before-write
    //= type=test
    //# The old data of a block MUST be saved at most once between two checkpoints.
    //= docs/spec/replication.md#copy-before-write
    //= type=test
    //# A write of the peer MUST fail only if its own attempt to save failed; who waited for a
    //# failed copy tries it again.
    //= docs/spec/replication.md#checkpoint
    //= type=test
    //# A checkpoint MUST NOT be accepted while a copy or a write of the peer is in flight.
    #[test]
    fn three_overlapping_writers_keep_the_contracts_in_every_order() {
        for ranges in [
            [(0, 2), (1, 3), (2, 4)],
            [(0, 4), (1, 2), (1, 3)],
            [(1, 2), (1, 2), (1, 2)],
        ] {
            explore(&Model::new(&ranges), &mut BTreeSet::new());
        }
    }

    proptest! {
        #[test]
        fn many_writers_keep_the_contracts(
            ranges in prop::collection::vec((0u64..4, 1u64..=4), 1..8),
            choices in prop::collection::vec(any::<prop::sample::Index>(), 1..120),
        ) {
            let ranges: Vec<_> = ranges
                .into_iter()
                .map(|(start, length)| (start, (start + length).min(4)))
                .collect();
            let mut model = Model::new(&ranges);
            for choice in choices {
                let events = model.events();
                model.apply(*choice.get(&events));
            }
        }
    }
}
