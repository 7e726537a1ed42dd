//! A sparse set of block numbers: which blocks of a disk are allocated, copied or dirty.
//!
//! ```text
//! chunks   [ None | Some(bits of 4096 blocks) | None | Some(..) | .. ]
//! ```
//!
//! Memory is spent only where a bit was ever set: 512 bytes for 4096 blocks, plus a pointer a chunk.
//! Emptying the whole set drops the chunks; its cost grows with the chunks in use (16 MiB of disk
//! each at 4 KiB blocks), not with the blocks, and [`BlockMap::take`] hands them to whoever
//! gives the space back later.

use std::ops::Range;

/// Blocks a chunk describes.
const CHUNK_BLOCKS: u64 = 4096;
/// Bits of a word.
const WORD_BITS: u64 = 64;

/// The bits of one chunk and how many of them are set.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chunk {
    words: [u64; 64],
    set: u64,
}

/// A set of block numbers below a fixed bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMap {
    blocks: u64,
    chunks: Vec<Option<Box<Chunk>>>,
    set: u64,
}

impl BlockMap {
    /// An empty set of block numbers below `blocks`.
    pub fn new(blocks: u64) -> BlockMap {
        let chunks = usize::try_from(blocks.div_ceil(CHUNK_BLOCKS)).unwrap_or(usize::MAX);
        BlockMap {
            blocks,
            chunks: vec![None; chunks],
            set: 0,
        }
    }

    /// The bound: every member is below it.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many blocks are in the set.
    pub fn len(&self) -> u64 {
        self.set
    }

    /// Whether no block is in the set.
    pub fn is_empty(&self) -> bool {
        self.set == 0
    }

    /// Whether `block` is in the set; blocks past the bound never are.
    pub fn contains(&self, block: u64) -> bool {
        let (chunk, word, bit) = place(block);
        self.chunk(chunk)
            .and_then(|c| c.words.get(word))
            .is_some_and(|w| w & bit != 0)
    }

    /// Adds the blocks of `range`; those past the bound are ignored.
    pub fn insert(&mut self, range: Range<u64>) {
        self.update(range, |word, mask| word | mask);
    }

    /// Takes the blocks of `range` out.
    pub fn remove(&mut self, range: Range<u64>) {
        self.update(range, |word, mask| word & !mask);
    }

    /// Empties the set and returns what it held.
    #[must_use]
    pub fn take(&mut self) -> BlockMap {
        std::mem::replace(self, BlockMap::new(self.blocks))
    }

    /// Adds the members of `other`. Costs its chunks in use; a chunk that is new here just moves.
    pub fn absorb(&mut self, other: BlockMap) {
        for (index, theirs) in other.chunks.into_iter().enumerate() {
            let (Some(theirs), Some(slot)) = (theirs, self.chunks.get_mut(index)) else {
                continue;
            };
            let Some(ours) = slot else {
                self.set = self.set.saturating_add(theirs.set);
                *slot = Some(theirs);
                continue;
            };
            let before = ours.set;
            ours.set = 0;
            for (word, more) in ours.words.iter_mut().zip(theirs.words) {
                *word |= more;
                ours.set = ours.set.saturating_add(u64::from(word.count_ones()));
            }
            self.set = self.set.saturating_add(ours.set).saturating_sub(before);
        }
    }

    /// Membership of the 64 blocks from `first` (a multiple of 64) on, the lowest bit first.
    pub fn word(&self, first: u64) -> u64 {
        let (chunk, word, _) = place(first);
        let words = self.chunk(chunk).map(|c| &c.words);
        words.and_then(|w| w.get(word)).copied().unwrap_or(0)
    }

    /// Adds those of the 64 blocks from `first` (a multiple of 64) on whose bit is set.
    pub fn insert_word(&mut self, first: u64, bits: u64) {
        let (chunk, word, _) = place(first);
        let within = mask(0, self.blocks.saturating_sub(first).min(WORD_BITS));
        self.update_word((chunk, word), |old| old | (bits & within));
    }

    /// The first run of equal membership within `range`: whether its blocks are in the set, and
    /// where it ends. An empty range gives `(false, range.start)`.
    pub fn run(&self, range: Range<u64>) -> (bool, u64) {
        let member = self.contains(range.start);
        let mut next = range.start;
        while next < range.end {
            let (chunk, word, _) = place(next);
            let first = word_start(next);
            let bits = self
                .chunk(chunk)
                .and_then(|c| c.words.get(word))
                .copied()
                .unwrap_or(0);
            let differs = if member { !bits } else { bits };
            // Look only at the bits from `next` on.
            let ahead = differs >> next.saturating_sub(first);
            if ahead != 0 {
                return (
                    member,
                    next.saturating_add(u64::from(ahead.trailing_zeros()))
                        .min(range.end),
                );
            }
            next = match self.chunk(chunk) {
                None => chunk_end(next),
                Some(_) => first.saturating_add(WORD_BITS),
            };
        }
        (member, range.end.max(range.start))
    }

    /// The runs of equal membership of `range`, in ascending order.
    pub fn runs(&self, range: Range<u64>) -> impl Iterator<Item = (bool, Range<u64>)> {
        let mut next = range.start;
        std::iter::from_fn(move || {
            if next >= range.end {
                return None;
            }
            let start = next;
            let (member, end) = self.run(start..range.end);
            next = end;
            Some((member, start..end))
        })
    }

    /// The members of the set as runs, in ascending order.
    pub fn members(&self) -> impl Iterator<Item = Range<u64>> {
        self.runs(0..self.blocks)
            .filter_map(|(member, run)| member.then_some(run))
    }

    fn chunk(&self, index: usize) -> Option<&Chunk> {
        self.chunks.get(index).and_then(Option::as_deref)
    }

    /// Applies `change` (old word, mask) to every word that `range` touches.
    fn update(&mut self, range: Range<u64>, change: impl Fn(u64, u64) -> u64) {
        let mut next = range.start;
        let end = range.end.min(self.blocks);
        while next < end {
            let (chunk, word, _) = place(next);
            let first = word_start(next);
            let stop = first.saturating_add(WORD_BITS).min(end);
            let mask = mask(next.saturating_sub(first), stop.saturating_sub(first));
            self.update_word((chunk, word), |old| change(old, mask));
            next = stop;
        }
    }

    fn update_word(&mut self, (chunk, word): (usize, usize), change: impl Fn(u64) -> u64) {
        let Some(slot) = self.chunks.get_mut(chunk) else {
            return;
        };
        if slot.is_none() && change(0) == 0 {
            return;
        }
        let bits = slot.get_or_insert_with(|| {
            Box::new(Chunk {
                words: [0; 64],
                set: 0,
            })
        });
        let Some(old) = bits.words.get_mut(word) else {
            return;
        };
        let new = change(*old);
        let (before, after) = (u64::from(old.count_ones()), u64::from(new.count_ones()));
        *old = new;
        bits.set = bits.set.saturating_add(after).saturating_sub(before);
        self.set = self.set.saturating_add(after).saturating_sub(before);
        if bits.set == 0 {
            *slot = None;
        }
    }
}

/// Chunk, word within it and bit within that of a block.
fn place(block: u64) -> (usize, usize, u64) {
    let within = block % CHUNK_BLOCKS;
    let chunk = usize::try_from(block / CHUNK_BLOCKS).unwrap_or(usize::MAX);
    let word = usize::try_from(within / WORD_BITS).unwrap_or(usize::MAX);
    (chunk, word, 1 << (within % WORD_BITS))
}

/// First block of the chunk after the one that holds `block`.
fn chunk_end(block: u64) -> u64 {
    crate::align_down(block, CHUNK_BLOCKS).saturating_add(CHUNK_BLOCKS)
}

/// The bits `from..to` of a word; `to` is at most 64.
fn mask(from: u64, to: u64) -> u64 {
    let below = |bits: u64| {
        if bits >= WORD_BITS {
            u64::MAX
        } else {
            (1 << bits) - 1
        }
    };
    below(to) & !below(from)
}

/// First block of the word that holds `block`.
fn word_start(block: u64) -> u64 {
    crate::align_down(block, WORD_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_emptied_set_returns_what_it_held() {
        let mut map = BlockMap::new(10_000);
        map.insert(5..9);
        map.insert(4095..4098);
        let held = map.take();
        assert!(map.is_empty());
        assert_eq!(held.members().collect::<Vec<_>>(), [5..9, 4095..4098]);
    }

    #[test]
    fn blocks_past_the_bound_are_ignored() {
        let mut map = BlockMap::new(100);
        map.insert(90..u64::MAX);
        assert_eq!(map.len(), 10);
        assert!(!map.contains(100));
    }

    #[test]
    fn words_carry_a_map_over_and_absorbing_joins_two() {
        let mut map = BlockMap::new(5000);
        map.insert(60..70);
        map.insert(4999..5000);
        let mut copy = BlockMap::new(4999);
        for first in (0..5000).step_by(64) {
            copy.insert_word(first, map.word(first));
        }
        assert!(copy.members().flatten().eq(60..70));
        assert_eq!(copy.len(), 10);
        copy.insert(0..1);
        map.absorb(copy);
        assert_eq!(
            map.members().collect::<Vec<_>>(),
            [0..1, 60..70, 4999..5000]
        );
        assert_eq!(map.len(), 12);
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_set_of_numbers(
            steps in prop::collection::vec((any::<bool>(), 0u64..9000, 0u64..5000), 1..30),
        ) {
            let mut map = BlockMap::new(9000);
            let mut model = BTreeSet::new();
            for (insert, start, length) in steps {
                let range = start..(start + length).min(9000);
                if insert {
                    map.insert(range.clone());
                    model.extend(range);
                } else {
                    map.remove(range.clone());
                    model.retain(|block| !range.contains(block));
                }
            }
            let members: Vec<u64> = map.members().flatten().collect();
            prop_assert_eq!(members, model.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(map.len(), u64::try_from(model.len()).unwrap());
        }
    }
}
