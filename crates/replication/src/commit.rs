//! What a commit still has to copy, and where the guest's writes go meanwhile.
//!
//! ```text
//!            next_copy                        copied(ok)
//!   dirty ─────────────▶ claimed ─▶ copying ─────────────▶ clean
//!     ▲                 (waits for writes that           │
//!     └─────────────────  began while it was dirty)      │
//!         copied(failed), or a guest write failed ◀──────┘
//!
//!   guest write to a dirty chunk      ─▶ active only: the copy will take it along
//!   guest write to any other chunk    ─▶ active, then the secondary disk, after a copy in flight
//! ```
//!
//! Convergence contract: however fast the guest writes, the set of dirty chunks only shrinks (a
//! failed write alone puts chunks back), so each chunk is copied once and the commit ends.
//!
//! Equality contract: when nothing is dirty, copied or being written, the secondary disk shows
//! what the guest sees.
//!
//! Order contract: guest writes that overlap are carried out one after the other, in the order
//! they began, so that both disks end with the same one.
//!
//! Pure: `poll_*` register the caller's waker; every change wakes all of them.
//!
//! Source: `docs/spec/replication.md`, section "Commit".

use block::{BlockMap, ByteRange};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::task::{Context, Poll, Waker};

/// Longest single copy in bytes (or one chunk, if that is more).
const MAX_COPY: u64 = 1 << 20;

/// The state of one commit.
#[derive(Clone, Debug)]
pub struct Commit {
    chunk: u64,
    length: u64,
    /// Chunks to be copied that nobody copies at present.
    dirty: BlockMap,
    /// Chunks that were ever to be copied.
    total: u64,
    next_id: u64,
    copies: BTreeMap<CopyTicket, InFlight>,
    writes: BTreeMap<WriteTicket, Write>,
    wakers: Vec<Waker>,
}

#[derive(Clone, Debug)]
struct InFlight {
    chunks: Range<u64>,
    /// Writes to active that began while these chunks were dirty; the copy waits for them.
    after: BTreeSet<WriteTicket>,
    is_handed_out: bool,
}

#[derive(Clone, Debug)]
struct Write {
    range: ByteRange,
    phase: Phase,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for earlier writes that overlap.
    Waiting,
    /// Goes to active; `through` is for the secondary disk afterwards.
    InActive { through: Vec<Range<u64>> },
    /// Is in active; goes to the secondary disk once no copy of these chunks is in flight.
    Through { through: Vec<Range<u64>> },
}

/// A copy in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyTicket(u64);

/// A guest write in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteTicket(u64);

/// What the copier does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Read this range through active and write it to the secondary disk, then report it.
    Copy(CopyTicket, ByteRange),
    /// Everything is copied; guest writes still go to both disks.
    Finished,
}

/// How a copy or a write to the active disk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Done,
    /// It failed: what it leaves is unknown.
    Failed,
}

impl Commit {
    /// A commit of a disk of `length` bytes, in chunks of `chunk` bytes (at least 1). Nothing is
    /// to be copied until [`Commit::add`] says so.
    pub fn new(length: u64, chunk: u64) -> Commit {
        let chunk = chunk.max(1);
        Commit {
            chunk,
            length,
            dirty: BlockMap::new(length.div_ceil(chunk)),
            total: 0,
            next_id: 0,
            copies: BTreeMap::new(),
            writes: BTreeMap::new(),
            wakers: Vec::new(),
        }
    }

    /// `range` is allocated in active or hidden: it has to be copied. Called for all of them
    /// before the first copy and the first write.
    pub fn add(&mut self, range: ByteRange) {
        self.dirty.insert(self.chunks(range));
        self.total = self.total.max(self.dirty.len());
    }

    /// The next range to copy. Pending while the rest is in flight or waits for guest writes.
    pub fn poll_next_copy(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        if !self.has_claim_waiting() {
            self.claim();
        }
        let ready = self
            .copies
            .iter_mut()
            .find(|(_, copy)| !copy.is_handed_out && copy.after.is_empty());
        if let Some((&ticket, copy)) = ready {
            copy.is_handed_out = true;
            let chunks = copy.chunks.clone();
            return Poll::Ready(Next::Copy(ticket, self.bytes(&chunks)));
        }
        if self.dirty.is_empty() && self.copies.is_empty() {
            return Poll::Ready(Next::Finished);
        }
        self.wait(cx)
    }

    /// A copy has ended. After a failure its chunks are to be copied again.
    pub fn copied(&mut self, ticket: CopyTicket, outcome: Outcome) {
        let Some(copy) = self.copies.remove(&ticket) else {
            return;
        };
        if outcome == Outcome::Failed {
            self.dirty.insert(copy.chunks);
        }
        self.changed();
    }

    /// A guest write (or zero) begins. [`Commit::poll_active`] says when it may go to active.
    pub fn begin_write(&mut self, range: ByteRange) -> WriteTicket {
        let ticket = WriteTicket(self.take_id());
        let phase = Phase::Waiting;
        self.writes.insert(ticket, Write { range, phase });
        ticket
    }

    /// Ready when the write may go to the active disk; reported by [`Commit::in_active`].
    pub fn poll_active(&mut self, ticket: WriteTicket, cx: &mut Context<'_>) -> Poll<()> {
        let Some(range) = self.writes.get(&ticket).map(|write| write.range) else {
            return Poll::Ready(());
        };
        //= docs/spec/replication.md#commit
        //# Guest writes that overlap during a commit MUST reach both disks in the same order.
        let mut earlier = self.writes.range(..ticket);
        if earlier.any(|(_, other)| other.range.overlaps(range)) {
            return self.wait(cx);
        }
        //= docs/spec/replication.md#commit
        //# A guest write during the commit MUST go to the active disk, and to the secondary disk
        //# too wherever the commit has copied or is copying.
        let through = self.not_dirty(self.chunks(range));
        if let Some(write) = self.writes.get_mut(&ticket)
            && write.phase == Phase::Waiting
        {
            write.phase = Phase::InActive { through };
        }
        Poll::Ready(())
    }

    /// The write to the active disk has ended.
    ///
    /// After a failure nobody knows what active shows there, so those chunks are copied (again).
    pub fn in_active(&mut self, ticket: WriteTicket, outcome: Outcome) {
        for copy in self.copies.values_mut() {
            copy.after.remove(&ticket);
        }
        let Some(write) = self.writes.get_mut(&ticket) else {
            return;
        };
        if let Phase::InActive { through } = &mut write.phase {
            let mut through = std::mem::take(through);
            if outcome == Outcome::Failed {
                for chunks in through.drain(..) {
                    self.dirty.insert(chunks);
                }
            }
            write.phase = Phase::Through { through };
        }
        self.changed();
    }

    /// Ready with the ranges to write to the secondary disk as well, in ascending order; empty if
    /// the copy takes the write along. Pending while a copy of them is in flight. Then
    /// [`Commit::end_write`].
    pub fn poll_through(
        &mut self,
        ticket: WriteTicket,
        cx: &mut Context<'_>,
    ) -> Poll<Vec<ByteRange>> {
        let Some(Write {
            range,
            phase: Phase::Through { through },
        }) = self.writes.get(&ticket)
        else {
            return Poll::Ready(Vec::new());
        };
        let is_copied = |chunks: &Range<u64>| {
            let mut copies = self.copies.values();
            copies.any(|copy| overlap(&copy.chunks, chunks))
        };
        if through.iter().any(is_copied) {
            return self.wait(cx);
        }
        let bytes = through
            .iter()
            .map(|chunks| self.bytes(chunks).intersection(*range));
        Poll::Ready(bytes.collect())
    }

    /// The write has ended: done on both disks, or failed or dropped somewhere on its way. What did
    /// not reach the secondary disk is copied.
    pub fn end_write(&mut self, ticket: WriteTicket, outcome: Outcome) {
        self.in_active(ticket, Outcome::Failed);
        if let Some(Write {
            phase: Phase::Through { through },
            ..
        }) = self.writes.remove(&ticket)
            && outcome == Outcome::Failed
        {
            for chunks in through {
                self.dirty.insert(chunks);
            }
        }
        self.total = self.total.max(self.remaining());
        self.changed();
    }

    /// Whether the secondary disk shows what the guest sees: nothing is dirty, copied or written.
    pub fn is_level(&self) -> bool {
        self.dirty.is_empty() && self.copies.is_empty() && self.writes.is_empty()
    }

    /// Bytes copied, and bytes to copy in all.
    pub fn progress(&self) -> (u64, u64) {
        let total = self.total.saturating_mul(self.chunk);
        let left = self.remaining().saturating_mul(self.chunk);
        (total.saturating_sub(left), total)
    }

    /// Chunks that are dirty or being copied.
    fn remaining(&self) -> u64 {
        let copying = self.copies.values().map(|copy| length(&copy.chunks));
        copying.fold(self.dirty.len(), u64::saturating_add)
    }

    fn has_claim_waiting(&self) -> bool {
        self.copies.values().any(|copy| !copy.is_handed_out)
    }

    /// Takes the first dirty chunks out that are best copied now: those without a guest write on
    /// its way, else any, so that a guest that never pauses cannot hold the commit up.
    //= docs/spec/replication.md#commit
    //# A commit MUST copy each chunk once, however fast the guest writes, so that it ends under any
    //# load.
    fn claim(&mut self) {
        let found = self
            .candidates()
            .find(|chunks| self.writers_of(chunks).is_empty())
            .or_else(|| self.candidates().next());
        let Some(chunks) = found else {
            return;
        };
        self.dirty.remove(chunks.clone());
        let copy = InFlight {
            after: self.writers_of(&chunks),
            chunks,
            is_handed_out: false,
        };
        let ticket = CopyTicket(self.take_id());
        self.copies.insert(ticket, copy);
    }

    /// Dirty runs that no copy in flight touches, cut to the longest copy.
    fn candidates(&self) -> impl Iterator<Item = Range<u64>> {
        let longest = MAX_COPY.checked_div(self.chunk).unwrap_or(1).max(1);
        let pieces = self.dirty.members().flat_map(move |run| {
            let mut next = run.start;
            std::iter::from_fn(move || {
                let start = next;
                next = start.saturating_add(longest).min(run.end);
                (start < run.end).then_some(start..next)
            })
        });
        pieces.filter(|piece| {
            !self
                .copies
                .values()
                .any(|copy| overlap(&copy.chunks, piece))
        })
    }

    /// Writes on their way to active that count on the copy of a chunk of `chunks`.
    fn writers_of(&self, chunks: &Range<u64>) -> BTreeSet<WriteTicket> {
        let is_in_active = |write: &Write| matches!(write.phase, Phase::InActive { .. });
        self.writes
            .iter()
            .filter(|(_, write)| is_in_active(write) && overlap(&self.chunks(write.range), chunks))
            .map(|(&ticket, _)| ticket)
            .collect()
    }

    fn not_dirty(&self, chunks: Range<u64>) -> Vec<Range<u64>> {
        self.dirty
            .runs(chunks)
            .filter_map(|(dirty, run)| (!dirty).then_some(run))
            .collect()
    }

    fn chunks(&self, range: ByteRange) -> Range<u64> {
        if range.is_empty() {
            return 0..0;
        }
        let start = range.offset().checked_div(self.chunk).unwrap_or(0);
        let end = range.end().min(self.length).div_ceil(self.chunk);
        start..end.max(start)
    }

    fn bytes(&self, chunks: &Range<u64>) -> ByteRange {
        ByteRange::between(
            chunks.start.saturating_mul(self.chunk),
            chunks.end.saturating_mul(self.chunk).min(self.length),
        )
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id = id.saturating_add(1);
        id
    }

    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<T> {
        if !self.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            self.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }

    fn changed(&mut self) {
        self.wakers.drain(..).for_each(Waker::wake);
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start.max(b.start) < a.end.min(b.end)
}

fn length(chunks: &Range<u64>) -> u64 {
    chunks.end.saturating_sub(chunks.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes of a chunk: two, so that writes may touch half of one.
    const CHUNK: u64 = 2;

    fn ready<T>(poll: Poll<T>) -> Option<T> {
        match poll {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn next_copy(commit: &mut Commit) -> Option<Next> {
        ready(commit.poll_next_copy(&mut cx()))
    }

    #[test]
    fn a_write_to_a_dirty_chunk_goes_to_active_only_and_the_copy_waits_for_it() {
        let mut commit = Commit::new(8, CHUNK);
        commit.add(ByteRange::between(0, 2));
        let write = commit.begin_write(ByteRange::between(1, 2));
        assert!(commit.poll_active(write, &mut cx()).is_ready());
        assert_eq!(next_copy(&mut commit), None);
        commit.in_active(write, Outcome::Done);
        assert_eq!(ready(commit.poll_through(write, &mut cx())), Some(vec![]));
        assert!(matches!(next_copy(&mut commit), Some(Next::Copy(..))));
    }

    //= docs/spec/replication.md#commit
    //= type=test
    //# A guest write during the commit MUST go to the active disk, and to the secondary disk too
    //# wherever the commit has copied or is copying.
    #[test]
    fn a_write_to_a_chunk_in_flight_follows_the_copy_to_the_secondary_disk() {
        let mut commit = Commit::new(8, CHUNK);
        commit.add(ByteRange::between(2, 4));
        let Some(Next::Copy(copy, range)) = next_copy(&mut commit) else {
            panic!("there is a chunk to copy");
        };
        assert_eq!(range, ByteRange::between(2, 4));
        let write = commit.begin_write(ByteRange::between(1, 3));
        assert!(commit.poll_active(write, &mut cx()).is_ready());
        commit.in_active(write, Outcome::Done);
        assert_eq!(ready(commit.poll_through(write, &mut cx())), None);
        commit.copied(copy, Outcome::Done);
        assert_eq!(
            ready(commit.poll_through(write, &mut cx())),
            Some(vec![ByteRange::between(1, 3)])
        );
    }

    #[test]
    fn a_chunk_that_is_dirty_again_is_not_copied_while_its_first_copy_is_in_flight() {
        let mut commit = Commit::new(8, CHUNK);
        commit.add(ByteRange::between(0, 2));
        let Some(Next::Copy(first, _)) = next_copy(&mut commit) else {
            panic!("there is a chunk to copy");
        };
        let write = commit.begin_write(ByteRange::between(0, 1));
        assert!(commit.poll_active(write, &mut cx()).is_ready());
        commit.end_write(write, Outcome::Failed);
        assert_eq!(next_copy(&mut commit), None);
        commit.copied(first, Outcome::Done);
        assert!(matches!(next_copy(&mut commit), Some(Next::Copy(..))));
    }

    //= docs/spec/replication.md#commit
    //= type=test
    //# Guest writes that overlap during a commit MUST reach both disks in the same order.
    #[test]
    fn overlapping_writes_are_carried_out_one_after_the_other() {
        let mut commit = Commit::new(8, CHUNK);
        let first = commit.begin_write(ByteRange::between(0, 4));
        let second = commit.begin_write(ByteRange::between(3, 5));
        let apart = commit.begin_write(ByteRange::between(5, 6));
        assert!(commit.poll_active(first, &mut cx()).is_ready());
        assert!(commit.poll_active(second, &mut cx()).is_pending());
        assert!(commit.poll_active(apart, &mut cx()).is_ready());
        commit.end_write(first, Outcome::Failed);
        assert!(commit.poll_active(second, &mut cx()).is_ready());
    }

    //= docs/spec/replication.md#commit
    //= type=test
    //# A commit MUST copy each chunk once, however fast the guest writes, so that it ends under any
    //# load.
    #[test]
    fn a_guest_that_never_pauses_cannot_hold_the_commit_up() {
        let mut commit = Commit::new(8, CHUNK);
        commit.add(ByteRange::between(0, 8));
        let mut copies = 0;
        let mut before = commit.begin_write(ByteRange::between(0, 8));
        assert!(commit.poll_active(before, &mut cx()).is_ready());
        loop {
            match next_copy(&mut commit) {
                Some(Next::Finished) => break,
                Some(Next::Copy(ticket, range)) => {
                    copies += range.length() / CHUNK;
                    commit.copied(ticket, Outcome::Done);
                }
                None => {}
            }
            // The next write has begun before the last one ends.
            let next = commit.begin_write(ByteRange::between(0, 8));
            commit.in_active(before, Outcome::Done);
            commit.end_write(before, Outcome::Done);
            assert!(commit.poll_active(next, &mut cx()).is_ready());
            before = next;
        }
        assert_eq!(copies, 4, "each chunk is copied once");
        assert_eq!(commit.progress(), (8, 8));
    }

    /// A guest write of the model.
    #[derive(Clone, Debug)]
    struct Guest {
        range: ByteRange,
        letter: u8,
        step: GuestStep,
    }

    #[derive(Clone, Debug)]
    enum GuestStep {
        Idle,
        Begun(WriteTicket),
        InActive(WriteTicket),
        Through(WriteTicket),
        Writing(WriteTicket, Vec<ByteRange>),
        Ended,
    }

    /// What the guest sees, what the secondary disk holds, and the copies with what they read.
    #[derive(Clone, Debug)]
    struct Model {
        commit: Commit,
        view: Vec<u8>,
        secondary: Vec<u8>,
        copies: Vec<(CopyTicket, ByteRange, Option<Vec<u8>>)>,
        guests: Vec<Guest>,
        copied: u64,
        failures: u64,
    }

    fn bytes(range: ByteRange) -> Range<usize> {
        usize::try_from(range.offset()).unwrap()..usize::try_from(range.end()).unwrap()
    }

    impl Model {
        fn new(dirty: &[u64], writes: &[(u64, u64)]) -> Model {
            let mut commit = Commit::new(8, CHUNK);
            let (mut view, secondary) = (b"........".to_vec(), b"........".to_vec());
            for &chunk in dirty {
                let range = ByteRange::between(chunk * CHUNK, (chunk + 1) * CHUNK);
                commit.add(range);
                view[bytes(range)].fill(b'D');
            }
            let guest = |(&(start, end), letter): (&(u64, u64), u8)| Guest {
                range: ByteRange::between(start, end),
                letter,
                step: GuestStep::Idle,
            };
            Model {
                commit,
                view,
                secondary,
                copies: Vec::new(),
                guests: writes.iter().zip(b'a'..).map(guest).collect(),
                copied: 0,
                failures: 0,
            }
        }

        /// Carries out event `choice` if it can happen now; says whether it did.
        fn apply(&mut self, choice: usize) -> bool {
            let guests = self.guests.len();
            match choice {
                0 => match next_copy(&mut self.commit) {
                    Some(Next::Copy(ticket, range)) => {
                        self.copied += range.length() / CHUNK;
                        self.copies.push((ticket, range, None));
                        true
                    }
                    Some(Next::Finished) | None => false,
                },
                1..=4 => self.copy_goes_on((choice - 1) / 2, (choice - 1).is_multiple_of(2)),
                _ if choice - 5 < guests => self.guest_goes_on(choice - 5, Outcome::Done),
                _ if choice - 5 - guests < guests => {
                    self.guest_goes_on(choice - 5 - guests, Outcome::Failed)
                }
                _ => false,
            }
        }

        fn copy_goes_on(&mut self, index: usize, succeeds: bool) -> bool {
            let Some((ticket, range, read)) = self.copies.get_mut(index) else {
                return false;
            };
            let Some(data) = read.take() else {
                *read = Some(self.view[bytes(*range)].to_vec());
                return succeeds;
            };
            let (ticket, range) = (*ticket, *range);
            let _ = self.copies.remove(index);
            if succeeds {
                self.secondary[bytes(range)].copy_from_slice(&data);
                self.commit.copied(ticket, Outcome::Done);
            } else {
                self.failures += 1;
                self.commit.copied(ticket, Outcome::Failed);
            }
            true
        }

        fn guest_goes_on(&mut self, index: usize, outcome: Outcome) -> bool {
            let (range, letter) = (self.guests[index].range, self.guests[index].letter);
            let failed = outcome == Outcome::Failed;
            let next = match self.guests[index].step.clone() {
                GuestStep::Idle if !failed => GuestStep::Begun(self.commit.begin_write(range)),
                GuestStep::Begun(ticket) if !failed => {
                    match self.commit.poll_active(ticket, &mut cx()) {
                        Poll::Ready(()) => GuestStep::InActive(ticket),
                        Poll::Pending => return false,
                    }
                }
                GuestStep::InActive(ticket) => {
                    // A failed write may have written the first byte.
                    let written = if failed { 1 } else { bytes(range).len() };
                    self.view[bytes(range)][..written].fill(letter);
                    self.commit.in_active(ticket, outcome);
                    self.failures += u64::from(failed);
                    if failed {
                        self.commit.end_write(ticket, Outcome::Failed);
                        GuestStep::Ended
                    } else {
                        GuestStep::Through(ticket)
                    }
                }
                GuestStep::Through(ticket) if !failed => {
                    match self.commit.poll_through(ticket, &mut cx()) {
                        Poll::Ready(ranges) => GuestStep::Writing(ticket, ranges),
                        Poll::Pending => return false,
                    }
                }
                GuestStep::Writing(ticket, ranges) => {
                    let ranges = if failed { &[] } else { &ranges[..] };
                    for range in ranges {
                        self.secondary[bytes(*range)].fill(letter);
                    }
                    self.failures += u64::from(failed);
                    self.commit.end_write(ticket, outcome);
                    GuestStep::Ended
                }
                GuestStep::Idle | GuestStep::Begun(_) | GuestStep::Through(_) => return false,
                GuestStep::Ended => return false,
            };
            self.guests[index].step = next;
            true
        }

        /// Lets everything end without further failures and checks the contracts.
        fn settle(&mut self) {
            let calm: Vec<usize> = (0..5 + self.guests.len())
                .filter(|choice| ![2, 4].contains(choice))
                .collect();
            while calm.iter().any(|&choice| self.apply(choice)) {}
            assert_eq!(
                next_copy(&mut self.commit),
                Some(Next::Finished),
                "{self:?}"
            );
            assert!(self.commit.is_level());
            assert_eq!(self.secondary, self.view, "{self:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_the_secondary_disk_ends_as_the_guest_sees_it(
            dirty in prop::collection::btree_set(0u64..4, 0..4),
            writes in prop::collection::vec((0u64..8, 1u64..5), 0..6),
            choices in prop::collection::vec(0usize..17, 0..80),
        ) {
            let dirty: Vec<u64> = dirty.into_iter().collect();
            let writes: Vec<_> = writes
                .into_iter()
                .map(|(start, length)| (start, (start + length).min(8)))
                .collect();
            let mut model = Model::new(&dirty, &writes);
            for choice in choices {
                model.apply(choice);
            }
            model.settle();
            if model.failures == 0 {
                let chunks = u64::try_from(dirty.len()).unwrap();
                prop_assert_eq!(model.copied, chunks, "each chunk is copied once");
            }
        }
    }

    /// Every order of two writes and the copies of two chunks, without failures.
    #[test]
    fn two_writes_and_two_copies_end_level_in_every_order() {
        fn explore(model: &Model) {
            let mut is_end = true;
            for choice in [0, 1, 3, 5, 6] {
                let mut next = model.clone();
                if next.apply(choice) {
                    is_end = false;
                    explore(&next);
                }
            }
            if is_end {
                model.clone().settle();
            }
        }
        for writes in [[(0, 1), (0, 2)], [(1, 3), (2, 3)], [(0, 4), (3, 4)]] {
            explore(&Model::new(&[0, 1], &writes));
        }
    }
}
