//! The view between two checkpoints, and what reading it tells of its base.

use super::history::{History, Write, base_shows, meet, of, shows, windows};
use super::{Tag, Time, Violation, unexplained};
use std::ops::{Range, RangeInclusive};

/// The view between two checkpoints.
#[derive(Clone, Debug)]
pub(super) struct Epoch {
    /// Readers may be in this epoch at these times.
    pub(super) during: Range<Time>,
    /// The checkpoint that it begins with has not returned yet.
    pub(super) coming: bool,
    pub(super) base: Base,
    pub(super) guest: Vec<History>,
    /// What readers saw of the base.
    pub(super) seen: Vec<Option<Tag>>,
}

/// What the view shows where its guest has written nothing.
#[derive(Clone, Debug)]
pub(super) enum Base {
    /// The peer's contents at one instant of these.
    Cut(RangeInclusive<Time>),
    /// Replication was stopped by then, and the peer goes on: its contents at any time since. A part of
    /// a block that the guest writes makes an overlay keep the rest of it as it was.
    Since(Time),
}

impl Epoch {
    pub(super) fn new(since: Time, base: Base, guest: Vec<History>) -> Epoch {
        let seen = vec![None; guest.len()];
        Epoch {
            during: since..Time::MAX,
            coming: false,
            base,
            guest,
            seen,
        }
    }

    /// Drops the guest's writes that ended before a checkpoint called at `called`; whether it has
    /// dropped those in flight, nobody can tell.
    pub(super) fn overtake(&mut self, called: Time) {
        for history in &mut self.guest {
            history.retain(|write| write.ended > called);
        }
        self.doubt();
    }

    /// Nobody can tell whether the guest's writes are there.
    pub(super) fn doubt(&mut self) {
        for history in &mut self.guest {
            for write in history {
                write.certain = false;
                write.overtaken = true;
            }
        }
    }

    /// What a read at some time of `when` tells of the base, if the epoch can explain its answer.
    pub(super) fn explain(
        &self,
        peer: &[History],
        when: &RangeInclusive<Time>,
        (first, tags): (usize, &[Option<Tag>]),
    ) -> Result<Learnt, Violation> {
        let mut learnt = Learnt::default();
        let mut base = self.base.clone();
        for (block, found) in (first..).zip(tags) {
            let guest = of(&self.guest, block);
            let peer = of(peer, block);
            match found {
                None => return Err(unexplained(block, None, "anybody's writes", peer)),
                Some(tag) if shows(guest, *tag, when) => {}
                found if !base_shows(guest, when) => {
                    return Err(unexplained(block, *found, "the guest's writes", guest));
                }
                Some(tag) if base.fits(self.seen(block), peer, *tag, when) => {
                    base.narrow(peer, *tag);
                    learnt.seen.push((block, *tag));
                }
                found => {
                    let what = format!("{base:?}, seen as {:?}, over", self.seen(block));
                    return Err(unexplained(block, *found, &what, peer));
                }
            }
        }
        learnt.base = Some(base);
        Ok(learnt)
    }

    /// What a reader saw of the base.
    pub(super) fn seen(&self, block: usize) -> Option<Tag> {
        self.seen.get(block).copied().flatten()
    }

    pub(super) fn learn(&mut self, learnt: Learnt) {
        self.base = learnt.base.unwrap_or_else(|| self.base.clone());
        for (block, tag) in learnt.seen {
            if let Some(seen) = self.seen.get_mut(block) {
                *seen = Some(tag);
            }
        }
    }
}

/// What a read tells of the base.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    pub(super) base: Option<Base>,
    pub(super) seen: Vec<(usize, Tag)>,
}

impl Base {
    /// Whether it may show `tag` where the peer's writes were `peer` and a reader has seen `seen`.
    pub(super) fn fits(
        &self,
        seen: Option<Tag>,
        peer: &[Write],
        tag: Tag,
        when: &RangeInclusive<Time>,
    ) -> bool {
        match self {
            Base::Cut(cut) => seen.is_none_or(|seen| seen == tag) && shows(peer, tag, cut),
            Base::Since(stopped) => shows(peer, tag, &(*stopped..=*when.end())),
        }
    }

    /// The cut lies no later than `now`.
    pub(super) fn end_by(&mut self, now: Time) {
        if let Base::Cut(cut) = self {
            *cut = *cut.start()..=now.min(*cut.end());
        }
    }

    /// `tag` was seen where the peer's writes were `peer`: the cut lies in its window.
    fn narrow(&mut self, peer: &[Write], tag: Tag) {
        let Base::Cut(cut) = self else { return };
        let mut fitting = windows(peer, tag).filter(|window| meet(window, cut));
        if let (Some(window), None) = (fitting.next(), fitting.next()) {
            *cut = *cut.start().max(window.start())..=*cut.end().min(window.end());
        }
    }
}
