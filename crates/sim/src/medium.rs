//! A file on a disk with a volatile cache: what the programs see, and what a power cut leaves.
//!
//! ```text
//!  write ──▶ cache (what everybody reads)
//!        └─▶ pending changes ── sync ──▶ stable
//!                            └─ power cut: per 512-byte sector, any of them or none ──▶ stable
//! ```
//!
//! A failed flush forgets the pending changes without making them stable, as kernels do: the cache
//! goes on showing what a power cut will take away. Pure bookkeeping; `disk` adds time and faults.

use crate::rng::Rng;
use block::{ByteRange, Extent, coalesce};
use bytes::Bytes;
use std::ops::Range;

/// The unit that a power cut tears at, in bytes.
pub const SECTOR: u64 = 512;

/// One simulated file.
#[derive(Debug, Default)]
pub struct Medium {
    cache: Contents,
    stable: Contents,
    pending: Vec<Change>,
}

/// A change that is not stable yet.
#[derive(Clone, Debug)]
pub enum Change {
    /// New data; the file grows if it must.
    Write(u64, Bytes),
    /// Zeroes; a hole if the flag says so.
    Zero(ByteRange, bool),
    /// A new length.
    Length(u64),
}

impl Medium {
    /// A file with `bytes` in it, all stable.
    pub fn with_contents(bytes: &[u8]) -> Medium {
        let mut contents = Contents::default();
        let whole = Change::Write(0, Bytes::copy_from_slice(bytes));
        contents.apply(&whole, |_| true);
        Medium {
            stable: contents.clone(),
            cache: contents,
            pending: Vec::new(),
        }
    }

    /// A file of `length` bytes without any data.
    pub fn sparse(length: u64) -> Medium {
        let mut contents = Contents::default();
        contents.apply(&Change::Length(length), |_| true);
        Medium {
            stable: contents.clone(),
            cache: contents,
            pending: Vec::new(),
        }
    }

    /// Length as programs see it.
    pub fn length(&self) -> u64 {
        len(&self.cache.bytes)
    }

    /// What programs read at `range`, cut at the end of the file.
    pub fn read(&self, range: ByteRange) -> &[u8] {
        let range = range.intersection(ByteRange::between(0, self.length()));
        self.cache.bytes.get(indices(range)).unwrap_or_default()
    }

    /// Makes a change that everybody sees at once and a power cut may undo.
    pub fn change(&mut self, change: Change) {
        self.cache.apply(&change, |_| true);
        self.pending.push(change);
    }

    /// As [`Medium::change`], but only some of the sectors: a write that failed half-way.
    pub fn tear(&mut self, change: &Change, rng: &Rng) {
        let Change::Write(offset, data) = change else {
            return;
        };
        let range = ByteRange::between(*offset, offset.saturating_add(len(data)));
        for piece in range.pieces(SECTOR) {
            let start = piece.offset().saturating_sub(*offset);
            let part = ByteRange::between(start, start.saturating_add(piece.length()));
            if piece.end() <= self.length() && rng.percent(50) {
                self.change(Change::Write(piece.offset(), data.slice(indices(part))));
            }
        }
    }

    /// Flips one bit of what is stored at `offset`, in the cache and below it.
    pub fn rot(&mut self, offset: u64, bit: u64) {
        let index = to_index(offset);
        for contents in [&mut self.cache, &mut self.stable] {
            if let Some(byte) = contents.bytes.get_mut(index) {
                *byte ^= 1 << (bit % 8);
            }
        }
    }

    /// Makes everything that programs see stable.
    pub fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            self.stable.apply(&change, |_| true);
        }
    }

    /// A flush that failed: the pending changes will never be stable.
    pub fn forget_pending(&mut self) {
        self.pending.clear();
    }

    /// How many changes a power cut could undo.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The power goes: of each sector any pending version stays, or the stable one.
    pub fn power_cut(&mut self, rng: &Rng) {
        let percent = *rng.pick(&[0, 10, 50, 90, 100]).unwrap_or(&50);
        for change in std::mem::take(&mut self.pending) {
            let whole = rng.percent(50).then(|| rng.percent(percent));
            self.stable
                .apply(&change, |_| whole.unwrap_or_else(|| rng.percent(percent)));
        }
        self.cache = self.stable.clone();
    }

    /// Bytes of sectors that hold data.
    pub fn allocated_bytes(&self) -> u64 {
        let held = self.cache.data.iter().filter(|held| **held).count();
        u64::try_from(held)
            .unwrap_or(u64::MAX)
            .saturating_mul(SECTOR)
    }

    /// How many more bytes would be allocated by a write to `range`.
    pub fn growth(&self, range: ByteRange) -> u64 {
        let missing = sectors(range).filter(|&sector| !self.cache.holds(sector));
        u64::try_from(missing.count())
            .unwrap_or(u64::MAX)
            .saturating_mul(SECTOR)
    }

    /// Data and holes of `range`; what lies past the end is a hole.
    pub fn extents(&self, range: ByteRange) -> Vec<Extent> {
        let whole = range.pieces(SECTOR).map(|piece| {
            if self.cache.holds(piece.offset() / SECTOR) {
                Extent::data(piece)
            } else {
                Extent::hole(piece)
            }
        });
        coalesce(whole)
    }
}

/// Bytes, and which sectors of them are data rather than hole.
#[derive(Clone, Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    data: Vec<bool>,
}

impl Contents {
    /// Makes `change` in those sectors that `lands` says yes to.
    fn apply(&mut self, change: &Change, mut lands: impl FnMut(u64) -> bool) {
        match change {
            Change::Write(offset, data) => self.write(*offset, data, lands),
            Change::Zero(range, unmap) => {
                for piece in range.pieces(SECTOR).filter(|p| lands(p.offset() / SECTOR)) {
                    if let Some(bytes) = self.bytes.get_mut(indices(piece)) {
                        bytes.fill(0);
                    }
                    if *unmap && piece.length() == SECTOR {
                        self.mark(piece.offset() / SECTOR, false);
                    }
                }
            }
            Change::Length(length) => {
                if lands(length / SECTOR) {
                    self.set_length(*length);
                }
            }
        }
    }

    fn write(&mut self, offset: u64, data: &Bytes, mut lands: impl FnMut(u64) -> bool) {
        let range = ByteRange::between(offset, offset.saturating_add(len(data)));
        for piece in range.pieces(SECTOR).filter(|p| lands(p.offset() / SECTOR)) {
            if piece.end() > len(&self.bytes) {
                self.set_length(piece.end());
            }
            let start = piece.offset().saturating_sub(offset);
            let from = ByteRange::between(start, start.saturating_add(piece.length()));
            if let (Some(to), Some(from)) =
                (self.bytes.get_mut(indices(piece)), data.get(indices(from)))
            {
                to.copy_from_slice(from);
            }
            self.mark(piece.offset() / SECTOR, true);
        }
    }

    fn set_length(&mut self, length: u64) {
        self.bytes.resize(to_index(length), 0);
        self.data.resize(to_index(length.div_ceil(SECTOR)), false);
    }

    fn holds(&self, sector: u64) -> bool {
        self.data.get(to_index(sector)).copied().unwrap_or(false)
    }

    fn mark(&mut self, sector: u64, data: bool) {
        if let Some(mark) = self.data.get_mut(to_index(sector)) {
            *mark = data;
        }
    }
}

/// The sectors a range touches.
fn sectors(range: ByteRange) -> Range<u64> {
    range.offset() / SECTOR..range.end().div_ceil(SECTOR)
}

fn indices(range: ByteRange) -> Range<usize> {
    to_index(range.offset())..to_index(range.end())
}

fn to_index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn len(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, byte: u8, length: usize) -> Change {
        Change::Write(offset, Bytes::from(vec![byte; length]))
    }

    fn all(medium: &Medium) -> Vec<u8> {
        medium.read(ByteRange::between(0, medium.length())).to_vec()
    }

    #[test]
    fn what_was_synced_survives_every_power_cut() {
        for seed in 0..50 {
            let mut medium = Medium::with_contents(&[1; 2048]);
            medium.change(write(512, 2, 1024));
            medium.sync();
            medium.power_cut(&Rng::new(seed));
            let expected = [[1; 512], [2; 512], [2; 512], [1; 512]].concat();
            assert_eq!(all(&medium), expected);
        }
    }

    #[test]
    fn an_unsynced_write_is_torn_at_sectors_and_nowhere_else() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut medium = Medium::with_contents(&[1; 1024]);
            medium.change(write(0, 2, 1024));
            assert_eq!(all(&medium), [2; 1024], "everybody sees it at once");
            medium.power_cut(&Rng::new(seed));
            let left = all(&medium);
            assert!(left.chunks(512).all(|sector| sector == [sector[0]; 512]));
            outcomes.insert((left[0], left[512]));
        }
        assert_eq!(
            outcomes.into_iter().collect::<Vec<_>>(),
            [(1, 1), (1, 2), (2, 1), (2, 2)]
        );
    }

    #[test]
    fn after_a_failed_flush_the_cache_shows_what_a_power_cut_takes_away() {
        let mut medium = Medium::with_contents(&[1; 512]);
        medium.change(write(0, 2, 512));
        medium.forget_pending();
        medium.sync();
        assert_eq!(all(&medium), [2; 512]);
        medium.power_cut(&Rng::new(1));
        assert_eq!(all(&medium), [1; 512]);
    }

    #[test]
    fn holes_are_told_from_data() {
        let mut medium = Medium::sparse(2048);
        medium.change(write(512, 7, 1024));
        medium.change(Change::Zero(ByteRange::between(512, 1024), true));
        assert_eq!(
            medium.extents(ByteRange::between(0, 2048)),
            [
                Extent::hole(ByteRange::between(0, 1024)),
                Extent::data(ByteRange::between(1024, 1536)),
                Extent::hole(ByteRange::between(1536, 2048)),
            ]
        );
        assert_eq!(medium.allocated_bytes(), 512);
        assert_eq!(medium.growth(ByteRange::between(0, 2048)), 1536);
    }

    #[test]
    fn a_write_past_the_end_grows_the_file() {
        let mut medium = Medium::default();
        medium.change(write(512, 3, 100));
        assert_eq!(medium.length(), 612);
        assert_eq!(medium.read(ByteRange::between(600, 4096)), [3; 12]);
    }
}
