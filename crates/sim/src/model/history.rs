//! All writes to one block, and when a reader may find what one of them wrote.

use super::{Tag, Time};
use std::ops::RangeInclusive;

/// A write to one block.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) tag: Tag,
    pub(super) issued: Time,
    pub(super) ended: Time,
    /// What was there before is gone once it has ended.
    pub(super) certain: bool,
    /// A reader has found what another write wrote after this one: nobody finds this one from then on.
    pub(super) gone: Time,
    /// A checkpoint or a crash went by while it was in flight: it will never be certain.
    pub(super) overtaken: bool,
}

/// All writes to one block.
pub(super) type History = Vec<Write>;

/// The writes to `block`.
pub(super) fn of(histories: &[History], block: usize) -> &[Write] {
    histories.get(block).map_or(&[], |history| history)
}

/// When readers may have found `tag`, for each write of it.
pub(super) fn windows(history: &[Write], tag: Tag) -> impl Iterator<Item = RangeInclusive<Time>> {
    history
        .iter()
        .filter(move |write| write.tag == tag)
        .map(|write| {
            let later = history
                .iter()
                .filter(|w| w.certain && w.issued > write.ended);
            let replaced = later.map(|w| w.ended).min().unwrap_or(Time::MAX);
            write.issued..=replaced.min(write.gone).saturating_sub(1)
        })
}

/// Whether a reader at some time of `when` may have found `tag`.
pub(super) fn shows(history: &[Write], tag: Tag, when: &RangeInclusive<Time>) -> bool {
    windows(history, tag).any(|window| meet(&window, when))
}

/// A reader at some time of `when` has found `tag`: of the writes that had ended by then it is the
/// last. Where a write's outcome is not certain nothing is learnt.
pub(super) fn settle(history: &mut History, tag: Tag, when: &RangeInclusive<Time>) {
    let may_show = |write: &Write| shows(history, write.tag, when);
    if history
        .iter()
        .any(|write| !write.certain && may_show(write))
    {
        return;
    }
    let found = windows(history, tag).filter(|window| meet(window, when));
    let found: Vec<_> = found.collect();
    let [window] = &found[..] else { return };
    for write in history.iter_mut() {
        if write.issued != *window.start() && write.ended < *when.start() {
            write.gone = write.gone.min(*when.end());
        }
    }
}

/// Whether a reader at some time of `when` may have found none of the guest's writes.
pub(super) fn base_shows(guest: &[Write], when: &RangeInclusive<Time>) -> bool {
    let certain = guest.iter().filter(|write| write.certain);
    certain
        .map(|write| write.ended)
        .min()
        .is_none_or(|replaced| replaced > *when.start())
}

/// A crash at `now`: what had not ended by `durable` may be lost.
pub(super) fn forget(history: &mut History, now: Time, durable: Time) {
    for write in history {
        write.ended = write.ended.min(now);
        if write.ended > durable {
            write.certain = false;
            write.overtaken = true;
        }
    }
}

pub(super) fn meet(a: &RangeInclusive<Time>, b: &RangeInclusive<Time>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}
