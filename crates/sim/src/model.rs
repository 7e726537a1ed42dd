//! The reference model: what the promises of `docs/spec/replication.md` allow a reader to see.
//!
//! ```text
//!   peer's writes   ──▶ history of each block ──┐ as it was at the checkpoint's instant (the cut)
//!   guest's writes  ──▶ history since then    ──┴──▶ what the view may show
//! ```
//!
//! A write takes effect at one instant between its issue and its answer if it is acknowledged;
//! then or not at all if it fails; at any time after its issue, or never, if its outcome is unknown.
//! So what it wrote has a *window*: from its issue until a later write is certain to have replaced it.
//! A checkpoint lies at an instant between call and return. What readers see of the primary's
//! contents narrows that instant down, for all blocks at once: a view that mixes two instants has
//! none left, and is found out. What was seen once must be seen again.
//!
//! Shares no code with what it judges; time is a counter of events.

mod epoch;
mod history;

use epoch::{Base, Epoch};
use history::{History, Write, base_shows, forget, of, settle, shows};
use std::fmt;
use std::ops::Range;

/// What a block was written with; each write has its own, but for zeroes, which are 0.
pub type Tag = u32;
/// A count of events.
pub type Time = u64;

/// Who writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The primary, into the secondary disk.
    Peer,
    /// The secondary's guest, into the view.
    Guest,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has taken effect.
    Acknowledged,
    /// It may have taken effect, or part of it; it will not any more.
    Failed,
    /// It may have taken effect, or may yet.
    Unknown,
}

/// How a checkpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// The view shows the peer's contents at an instant between call and return.
    Done,
    /// Nothing has changed.
    Failed,
    /// One of the two.
    Unknown,
}

/// A write that has begun: hand it back to [`Model::end_write`].
#[derive(Clone, Debug)]
pub struct Begun {
    writer: Writer,
    blocks: Range<usize>,
    at: Time,
}

/// A reader saw what nothing allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

/// The judge.
pub struct Model {
    clock: Time,
    peer: Vec<History>,
    epochs: Vec<Epoch>,
    /// Writes that ended before this survive a crash.
    guest_durable: Time,
    peer_durable: Time,
    /// When a checkpoint ended whose outcome is not known yet.
    unsettled: Option<Time>,
}

impl Model {
    /// A pair whose disks both hold `contents`, replicating, with empty buffers.
    pub fn new(contents: &[Tag]) -> Model {
        let first = |&tag| {
            vec![Write {
                tag,
                issued: 0,
                ended: 0,
                gone: Time::MAX,
                certain: true,
                overtaken: false,
            }]
        };
        let blocks = contents.len();
        Model {
            clock: 1,
            peer: contents.iter().map(first).collect(),
            epochs: vec![Epoch::new(
                1,
                Base::Cut(0..=0),
                vec![History::new(); blocks],
            )],
            guest_durable: 0,
            peer_durable: 0,
            unsettled: None,
        }
    }

    /// The next instant; where something begins or ends that is no write.
    pub fn tick(&mut self) -> Time {
        self.clock = self.clock.saturating_add(1);
        self.clock
    }

    /// A write of `tag` to `blocks` is issued.
    pub fn begin_write(&mut self, writer: Writer, blocks: Range<usize>, tag: Tag) -> Begun {
        let at = self.tick();
        let write = Write {
            tag,
            issued: at,
            ended: Time::MAX,
            gone: Time::MAX,
            certain: false,
            overtaken: false,
        };
        self.each_history(writer, &blocks, |history| history.push(write.clone()));
        // A checkpoint on its way may come after it.
        for epoch in self.epochs.iter_mut().filter(|epoch| epoch.coming) {
            epoch.doubt();
        }
        Begun { writer, blocks, at }
    }

    /// It has ended.
    pub fn end_write(&mut self, begun: &Begun, outcome: Outcome) {
        let now = self.tick();
        let ended = if outcome == Outcome::Unknown {
            Time::MAX
        } else {
            now
        };
        self.each_history(begun.writer, &begun.blocks, |history| {
            for write in history.iter_mut().filter(|write| write.issued == begun.at) {
                write.ended = write.ended.min(ended);
                write.certain = outcome == Outcome::Acknowledged && !write.overtaken;
            }
        });
    }

    /// A flush by `writer` that was called at `called` has succeeded.
    pub fn flushed(&mut self, writer: Writer, called: Time) {
        let durable = match writer {
            Writer::Peer => &mut self.peer_durable,
            Writer::Guest => &mut self.guest_durable,
        };
        *durable = called.max(*durable);
    }

    /// A checkpoint is called: from now on readers may find it done.
    pub fn begin_checkpoint(&mut self) -> Time {
        let called = self.tick();
        let guest = self.open_epoch().guest.clone();
        let mut epoch = Epoch::new(called, Base::Cut(called..=Time::MAX), guest);
        epoch.coming = true;
        epoch.overtake(called);
        self.epochs.push(epoch);
        called
    }

    /// The checkpoint called at `called` has returned; one that fails changes nothing (R53).
    pub fn end_checkpoint(&mut self, called: Time, verdict: Checkpoint) {
        let now = self.tick();
        let begun = |epoch: &Epoch| epoch.during.start == called;
        if verdict == Checkpoint::Failed {
            self.epochs.retain(|epoch| !begun(epoch));
            return;
        }
        for epoch in &mut self.epochs {
            if begun(epoch) {
                epoch.coming = false;
                epoch.base.end_by(now);
            } else if verdict == Checkpoint::Done {
                epoch.during.end = epoch.during.end.min(now);
            }
        }
        if verdict == Checkpoint::Unknown {
            self.unsettled = Some(now);
        }
    }

    /// The checkpoint that has just ended was a stop without failover, called at `called`: the view shows the peer's
    /// contents as they come, and what its guest writes from now on.
    pub fn stopped(&mut self, called: Time) {
        if let Some(epoch) = self.epochs.last_mut() {
            epoch.base = Base::Since(called);
        }
    }

    /// The secondary's process has died: of its guest's writes only those flushed are certain.
    pub fn crash(&mut self) {
        let (now, durable) = (self.tick(), self.guest_durable);
        let guest = self.epochs.iter_mut().flat_map(|epoch| &mut epoch.guest);
        guest.for_each(|history| forget(history, now, durable));
    }

    /// Its host has lost power: of the peer's writes, too, only those flushed are certain.
    pub fn power_cut(&mut self) {
        self.crash();
        let (now, durable) = (self.tick(), self.peer_durable);
        self.peer
            .iter_mut()
            .for_each(|history| forget(history, now, durable));
        self.epochs
            .iter_mut()
            .for_each(|epoch| epoch.seen.fill(None));
    }

    /// A read of the view, called at `called`, has answered `tags` for the blocks from `first` on;
    /// `None` stands for contents nobody wrote.
    ///
    /// # Errors
    ///
    /// [`Violation`] if no epoch that was there meanwhile could have shown that.
    pub fn judge_view(
        &mut self,
        called: Time,
        first: usize,
        tags: &[Option<Tag>],
    ) -> Result<(), Violation> {
        let now = self.tick();
        let mut reasons = Vec::new();
        let mut fitting = Vec::new();
        for epoch in &mut self.epochs {
            if epoch.during.start > now || epoch.during.end < called {
                continue;
            }
            match epoch.explain(&self.peer, &(called..=now), (first, tags)) {
                Ok(learnt) => fitting.push((epoch, learnt)),
                Err(Violation(reason)) => reasons.push(reason),
            }
        }
        if fitting.is_empty() {
            return Err(Violation(reasons.join("; ")));
        }
        // Where two epochs explain it, nothing is learnt.
        if let [(epoch, learnt)] = &mut fitting[..] {
            epoch.learn(std::mem::take(learnt));
            let found = epoch.during.start;
            self.settle(called, found);
        }
        Ok(())
    }

    /// A read called at `called` has found the epoch that began at `found`: if a checkpoint of unknown
    /// outcome had ended by then, that is the one there is.
    fn settle(&mut self, called: Time, found: Time) {
        let ended = self.unsettled.take_if(|ended| *ended < called);
        if ended.is_some() {
            for epoch in self.epochs.iter_mut().filter(|e| e.during.start != found) {
                epoch.during.end = epoch.during.end.min(called);
            }
            self.epochs
                .retain(|epoch| epoch.during.start <= found || epoch.during.end > called);
        }
    }

    /// A read of the secondary disk by the peer, called at `called`, has answered `tags`.
    ///
    /// # Errors
    ///
    /// [`Violation`] if no write of the peer explains it.
    pub fn judge_disk(
        &mut self,
        called: Time,
        first: usize,
        tags: &[Option<Tag>],
    ) -> Result<(), Violation> {
        let now = self.tick();
        for (block, tag) in (first..).zip(tags) {
            let history = of(&self.peer, block);
            if !tag.is_some_and(|tag| shows(history, tag, &(called..=now))) {
                return Err(unexplained(block, *tag, "the disk", history));
            }
        }
        for (block, tag) in (first..).zip(tags) {
            if let (Some(history), Some(tag)) = (self.peer.get_mut(block), *tag) {
                settle(history, tag, &(called..=now));
            }
        }
        Ok(())
    }

    /// What the view may show of `block` now, oldest first.
    pub fn view(&self, block: usize) -> Vec<Tag> {
        let now = self.clock..=self.clock;
        let epoch = self.open_epoch();
        let (guest, peer) = (of(&epoch.guest, block), of(&self.peer, block));
        let base = base_shows(guest, &now);
        let tags = peer.iter().chain(guest).map(|write| write.tag);
        tags.filter(|&tag| {
            let from_base = || epoch.base.fits(epoch.seen(block), peer, tag, &now);
            shows(guest, tag, &now) || (base && from_base())
        })
        .collect()
    }

    /// The newest epoch; there always is one.
    fn open_epoch(&self) -> &Epoch {
        self.epochs.last().expect("a model has an epoch")
    }

    fn each_history(
        &mut self,
        writer: Writer,
        blocks: &Range<usize>,
        mut change: impl FnMut(&mut History),
    ) {
        match writer {
            Writer::Peer => self
                .peer
                .get_mut(blocks.clone())
                .into_iter()
                .flatten()
                .for_each(change),
            Writer::Guest => {
                for epoch in &mut self.epochs {
                    let histories = epoch.guest.get_mut(blocks.clone());
                    histories.into_iter().flatten().for_each(&mut change);
                }
            }
        }
    }
}

fn unexplained(block: usize, tag: Option<Tag>, what: &str, history: &[Write]) -> Violation {
    Violation(format!(
        "block {block} shows {tag:?}, which {what} cannot: {history:?}"
    ))
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pair of two blocks, both written with 1.
    fn model() -> Model {
        Model::new(&[1, 1])
    }

    fn write(model: &mut Model, writer: Writer, block: usize, tag: Tag) {
        let begun = model.begin_write(writer, block..block + 1, tag);
        model.end_write(&begun, Outcome::Acknowledged);
    }

    fn checkpoint(model: &mut Model) {
        let called = model.begin_checkpoint();
        model.end_checkpoint(called, Checkpoint::Done);
    }

    fn sees(model: &mut Model, tags: [Tag; 2]) -> bool {
        let called = model.tick();
        model.judge_view(called, 0, &tags.map(Some)).is_ok()
    }

    #[test]
    fn the_peers_writes_are_seen_after_a_checkpoint_and_not_before() {
        let mut model = model();
        write(&mut model, Writer::Peer, 0, 2);
        assert_eq!(model.view(0), [1]);
        assert!(sees(&mut model, [1, 1]) && !sees(&mut model, [2, 1]));
        checkpoint(&mut model);
        assert_eq!(model.view(0), [2]);
        assert!(sees(&mut model, [2, 1]) && !sees(&mut model, [1, 1]));
    }

    #[test]
    fn the_guest_sees_its_own_writes_until_the_checkpoint() {
        let mut model = model();
        write(&mut model, Writer::Guest, 0, 9);
        assert!(sees(&mut model, [9, 1]) && !sees(&mut model, [1, 1]));
        checkpoint(&mut model);
        assert!(sees(&mut model, [1, 1]) && !sees(&mut model, [9, 1]));
    }

    #[test]
    fn a_write_in_flight_across_the_checkpoint_may_be_in_it_but_does_not_come_later() {
        for seen_first in [1, 2] {
            let mut model = model();
            let begun = model.begin_write(Writer::Peer, 0..1, 2);
            checkpoint(&mut model);
            assert!(sees(&mut model, [seen_first, 1]));
            model.end_write(&begun, Outcome::Acknowledged);
            assert!(sees(&mut model, [seen_first, 1]));
            assert!(!sees(&mut model, [3 - seen_first, 1]));
        }
    }

    #[test]
    fn a_view_that_mixes_two_instants_is_found_out() {
        let mut model = model();
        let called = model.begin_checkpoint();
        write(&mut model, Writer::Peer, 0, 2);
        write(&mut model, Writer::Peer, 1, 3);
        model.end_checkpoint(called, Checkpoint::Done);
        assert!(
            !sees(&mut model, [1, 3]),
            "3 was written after 2 had been answered"
        );
        assert!(sees(&mut model, [2, 1]));
        assert!(!sees(&mut model, [2, 3]), "block 1 was seen before");
    }

    #[test]
    fn a_failed_write_may_be_there_and_one_of_unknown_outcome_may_come_later() {
        let mut model = model();
        let failed = model.begin_write(Writer::Peer, 0..1, 2);
        model.end_write(&failed, Outcome::Failed);
        let unknown = model.begin_write(Writer::Peer, 1..2, 3);
        model.end_write(&unknown, Outcome::Unknown);
        checkpoint(&mut model);
        assert_eq!((model.view(0), model.view(1)), (vec![1, 2], vec![1, 3]));
        write(&mut model, Writer::Peer, 0, 4);
        write(&mut model, Writer::Peer, 1, 4);
        checkpoint(&mut model);
        assert_eq!((model.view(0), model.view(1)), (vec![4], vec![3, 4]));
    }

    #[test]
    fn a_failed_checkpoint_changes_nothing() {
        let mut model = model();
        write(&mut model, Writer::Peer, 0, 2);
        write(&mut model, Writer::Guest, 1, 9);
        let called = model.begin_checkpoint();
        model.end_checkpoint(called, Checkpoint::Failed);
        assert!(sees(&mut model, [1, 9]));
        assert!(!sees(&mut model, [2, 1]) && !sees(&mut model, [1, 1]));
    }

    #[test]
    fn a_checkpoint_of_unknown_outcome_is_settled_by_the_first_who_looks() {
        for seen_first in [1, 2] {
            let mut model = model();
            write(&mut model, Writer::Peer, 0, 2);
            let called = model.begin_checkpoint();
            model.end_checkpoint(called, Checkpoint::Unknown);
            assert!(sees(&mut model, [seen_first, 1]));
            assert!(sees(&mut model, [seen_first, 1]));
            assert!(!sees(&mut model, [3 - seen_first, 1]));
        }
    }

    #[test]
    fn a_reader_beside_a_checkpoint_is_on_one_side_of_it() {
        let mut model = model();
        write(&mut model, Writer::Peer, 0, 2);
        write(&mut model, Writer::Guest, 1, 9);
        let read = model.tick();
        checkpoint(&mut model);
        assert!(model.judge_view(read, 0, &[Some(1), Some(9)]).is_ok());
        assert!(model.judge_view(read, 0, &[Some(2), Some(1)]).is_ok());
        assert!(model.judge_view(read, 0, &[Some(2), Some(9)]).is_err());
    }

    #[test]
    fn after_a_stop_the_view_follows_the_peer() {
        let mut model = model();
        write(&mut model, Writer::Guest, 1, 9);
        let called = model.begin_checkpoint();
        model.end_checkpoint(called, Checkpoint::Done);
        model.stopped(called);
        write(&mut model, Writer::Peer, 0, 2);
        assert!(sees(&mut model, [2, 1]) && !sees(&mut model, [2, 9]));
    }

    #[test]
    fn a_crash_keeps_what_the_guest_has_flushed() {
        let mut model = model();
        write(&mut model, Writer::Guest, 0, 8);
        let flush = model.tick();
        model.flushed(Writer::Guest, flush);
        write(&mut model, Writer::Guest, 0, 9);
        write(&mut model, Writer::Guest, 1, 9);
        model.crash();
        assert_eq!((model.view(0), model.view(1)), (vec![8, 9], vec![1, 9]));
    }

    #[test]
    fn a_power_cut_keeps_what_the_peer_has_flushed() {
        let mut model = model();
        write(&mut model, Writer::Peer, 0, 2);
        let flush = model.tick();
        model.flushed(Writer::Peer, flush);
        write(&mut model, Writer::Peer, 1, 3);
        checkpoint(&mut model);
        assert!(sees(&mut model, [2, 3]));
        model.power_cut();
        assert_eq!((model.view(0), model.view(1)), (vec![2], vec![1, 3]));
    }

    #[test]
    fn of_two_writes_at_once_the_one_that_was_read_came_last() {
        let mut model = model();
        let one = model.begin_write(Writer::Peer, 0..1, 2);
        let other = model.begin_write(Writer::Peer, 0..1, 3);
        model.end_write(&one, Outcome::Acknowledged);
        model.end_write(&other, Outcome::Acknowledged);
        let called = model.tick();
        assert_eq!(model.judge_disk(called, 0, &[Some(3)]), Ok(()));
        checkpoint(&mut model);
        assert!(sees(&mut model, [3, 1]) && !sees(&mut model, [2, 1]));
    }

    #[test]
    fn contents_nobody_wrote_are_never_right() {
        let mut model = model();
        let called = model.tick();
        assert!(model.judge_view(called, 0, &[None]).is_err());
        assert!(model.judge_disk(called, 0, &[Some(5)]).is_err());
        assert!(model.judge_disk(called, 0, &[Some(1)]).is_ok());
    }
}
