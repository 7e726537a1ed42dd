//! Which blocks the overlay holds, and what of that has yet to be written. Pure.
//!
//! ```text
//!           allocate                     flush: changed pages, to their other slot
//!  held ◀───────────── writes   changed ──────────────────────────────────────────▶ file
//!   │ empty: epoch + 1
//!   ▼
//!  stale: space to be given back
//! ```
//!
//! Epoch contract: a page counts only in its own epoch, so emptying the map writes nothing. An
//! epoch is never used twice, not even one that was lost in a power cut: its pages may have
//! reached the file.

use super::format::{BLOCK, Layout, PageTag, Slot};
use block::{BlockMap, ByteRange, Error, ErrorKind};
use bytes::Bytes;
use std::ops::Range;

/// How much of the disk is given back at once, in blocks (4 MiB).
const RECLAIM_BLOCKS: u64 = 1024;

/// The allocation state of an overlay.
pub(super) struct Map {
    layout: Layout,
    identity: [u8; 16],
    held: BlockMap,
    /// Pages with bits that are not in the file.
    changed: BlockMap,
    /// Pages last written to slot B.
    in_slot_b: BlockMap,
    /// Blocks whose space is still to be given back.
    stale: BlockMap,
    epoch: u64,
    /// Highest epoch ever seen in the file.
    last_epoch: u64,
    /// Of the page or header written last.
    sequence: u64,
}

/// A page to be written.
pub(super) struct PageWrite {
    pub(super) offset: u64,
    pub(super) data: Bytes,
}

impl Map {
    /// The empty map of an overlay in `epoch`.
    pub(super) fn new(layout: Layout, identity: [u8; 16], epoch: u64, sequence: u64) -> Map {
        Map {
            layout,
            identity,
            held: BlockMap::new(layout.blocks),
            changed: BlockMap::new(layout.pages),
            in_slot_b: BlockMap::new(layout.pages),
            stale: BlockMap::new(layout.blocks),
            epoch,
            last_epoch: epoch,
            sequence,
        }
    }

    /// Takes what the two slots of a page hold. Every page that was written must pass here before
    /// anything else is done, for its epoch and sequence.
    pub(super) fn load(&mut self, page: u64, slots: [&[u8]; 2]) {
        let tags = slots.map(|bits| PageTag::parse(bits, self.identity, page));
        for tag in tags.into_iter().flatten() {
            self.last_epoch = self.last_epoch.max(tag.epoch);
            self.sequence = self.sequence.max(tag.sequence);
        }
        //= docs/spec/ai-overlay.md#opening
        //# A map page MUST count only if it is whole, stands at its own place, and carries the
        //# identity and the epoch of the header.
        let counts = |tag: Option<PageTag>| tag.filter(|tag| tag.epoch == self.epoch);
        let [a, b] = tags.map(counts);
        let sequence = |tag: Option<PageTag>| tag.map(|tag| tag.sequence);
        let [bits_a, bits_b] = slots;
        if sequence(a) > sequence(b) {
            if let Some(tag) = a {
                tag.load(bits_a, &mut self.held);
            }
        } else if let Some(tag) = b {
            tag.load(bits_b, &mut self.held);
            self.in_slot_b.insert(page..page.saturating_add(1));
        }
    }

    /// Fails if the file's numbers leave no room for later ones: nobody has counted that far.
    pub(super) fn check_numbers(&self) -> Result<(), Error> {
        let highest = self.last_epoch.max(self.sequence);
        if highest < u64::MAX / 2 {
            return Ok(());
        }
        let message = format!("the overlay's epoch or sequence {highest} is impossible");
        Err(Error::with_message(ErrorKind::InvalidRequest, message))
    }

    pub(super) fn identity(&self) -> [u8; 16] {
        self.identity
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The first run of `blocks`: whether it is held, and where it ends.
    pub(super) fn run(&self, blocks: Range<u64>) -> (bool, u64) {
        self.held.run(blocks)
    }

    /// The runs of `blocks`, held or not.
    pub(super) fn runs(&self, blocks: Range<u64>) -> Vec<(bool, Range<u64>)> {
        self.held.runs(blocks).collect()
    }

    /// The first of them, at most `most`.
    pub(super) fn first_runs(&self, blocks: Range<u64>, most: usize) -> Vec<(bool, Range<u64>)> {
        self.held.runs(blocks).take(most).collect()
    }

    pub(super) fn holds(&self, block: u64) -> bool {
        self.held.contains(block)
    }

    pub(super) fn held_blocks(&self) -> u64 {
        self.held.len()
    }

    /// `blocks` hold data from now on. Their data must have been written before.
    pub(super) fn allocate(&mut self, blocks: Range<u64>) {
        let (held, end) = self.held.run(blocks.clone());
        if held && end >= blocks.end {
            return;
        }
        let last = Layout::page_of(blocks.end.saturating_sub(1));
        self.changed
            .insert(Layout::page_of(blocks.start)..last.saturating_add(1));
        self.held.insert(blocks);
    }

    //= docs/spec/ai-overlay.md#emptying
    //# Emptying MUST take effect at once and MUST NOT write anything.
    //= docs/spec/replication.md#checkpoint
    //# A checkpoint MUST cost the same whatever the overlays hold, given overlays that are emptied
    //# at once; space is given back in the background.
    /// Nothing is held any more.
    pub(super) fn empty(&mut self) {
        if self.held.is_empty() {
            return;
        }
        //= docs/spec/ai-overlay.md#emptying
        //# An epoch MUST NOT be used a second time, not even one whose header was lost in a power
        //# cut.
        self.last_epoch = self.last_epoch.saturating_add(1);
        self.epoch = self.last_epoch;
        let gone = self.held.take();
        self.stale.absorb(gone);
        self.changed = BlockMap::new(self.layout.pages);
    }

    /// The next number for something that is written in turns.
    pub(super) fn next_sequence(&mut self) -> u64 {
        self.sequence = self.sequence.saturating_add(1);
        self.sequence
    }

    /// The pages that have changed, as they are at this instant. They count as written from now on:
    /// if writing them fails, the map must not be used any more.
    pub(super) fn take_changed(&mut self) -> Vec<PageWrite> {
        let changed = self.changed.take();
        changed.members().flatten().map(|p| self.page(p)).collect()
    }

    fn page(&mut self, page: u64) -> PageWrite {
        let here = page..page.saturating_add(1);
        //= docs/spec/ai-overlay.md#durability
        //# A map page and a header MUST be written to the slot that does not hold the newest
        //# durable one.
        let slot = if self.in_slot_b.contains(page) {
            self.in_slot_b.remove(here);
            Slot::A
        } else {
            self.in_slot_b.insert(here);
            Slot::B
        };
        let tag = PageTag {
            identity: self.identity,
            page,
            epoch: self.epoch,
            sequence: self.next_sequence(),
        };
        PageWrite {
            offset: Layout::page_offset(page, slot),
            data: Bytes::from(tag.encode(&self.held)),
        }
    }

    /// The first part of the disk at or after `from` with space to be given back.
    pub(super) fn next_stale(&self, from: u64) -> Option<Range<u64>> {
        let mut runs = self.stale.runs(from..self.layout.blocks);
        let (_, run) = runs.find(|(stale, _)| *stale)?;
        let start = block::align_down(run.start, RECLAIM_BLOCKS);
        let end = start.saturating_add(RECLAIM_BLOCKS);
        Some(start.max(from)..end.min(self.layout.blocks))
    }

    /// The parts of `blocks` whose space nobody needs, to be given back now. What is neither held
    /// nor stale is a hole already; taking it along saves requests.
    pub(super) fn take_stale(&mut self, blocks: Range<u64>) -> Vec<ByteRange> {
        //= docs/spec/ai-overlay.md#emptying
        //# Space MUST NOT be given back where a block is held again.
        let runs = self.held.runs(blocks.clone());
        let free = runs.filter(|(held, _)| !held).map(|(_, run)| run);
        let stale = free.filter(|run| self.stale.runs(run.clone()).any(|(stale, _)| stale));
        let bytes = stale.map(|run| {
            ByteRange::between(
                run.start.saturating_mul(BLOCK),
                run.end.saturating_mul(BLOCK),
            )
        });
        let bytes = bytes.collect();
        self.stale.remove(blocks);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: [u8; 16] = [9; 16];

    fn map(epoch: u64) -> Map {
        Map::new(Layout::of_length(1 << 30).unwrap(), IDENTITY, epoch, 0)
    }

    fn held(map: &Map) -> Vec<Range<u64>> {
        map.held.members().collect()
    }

    //= docs/spec/ai-overlay.md#durability
    //= type=test
    //# A map page and a header MUST be written to the slot that does not hold the newest durable
    //# one.
    #[test]
    fn pages_are_written_to_their_slots_in_turn_and_only_when_bits_were_added() {
        let mut map = map(1);
        let offsets = |map: &mut Map| -> Vec<u64> {
            map.take_changed().iter().map(|page| page.offset).collect()
        };
        map.allocate(5..6);
        assert_eq!(offsets(&mut map), [8192 + 4096]);
        map.allocate(5..6);
        assert_eq!(offsets(&mut map), [0; 0]);
        map.allocate(32_250..32_260);
        assert_eq!(offsets(&mut map), [8192, 8192 + 8192 + 4096]);
    }

    //= docs/spec/ai-overlay.md#opening
    //= type=test
    //# A map page MUST count only if it is whole, stands at its own place, and carries the
    //# identity and the epoch of the header.
    #[test]
    fn the_newest_whole_page_of_the_right_epoch_counts() {
        let mut writer = map(4);
        writer.allocate(1..2);
        let first = writer.take_changed();
        // Its bit lies in another sector of the page than that of the first.
        writer.allocate(20_000..20_001);
        let second = writer.take_changed();
        let torn = [&second[0].data[..512], &[0; 3584]].concat();
        let load = |slots: [&[u8]; 2], epoch| {
            let mut reader = map(epoch);
            reader.load(0, slots);
            held(&reader)
        };
        let both = vec![1..2, 20_000..20_001];
        assert_eq!(load([&second[0].data, &first[0].data], 4), both);
        assert_eq!(load([&torn, &first[0].data], 4), both[..1]);
        assert_eq!(load([&second[0].data, &first[0].data], 3), []);
    }

    #[test]
    fn an_epoch_that_was_lost_is_not_used_again() {
        let mut lost = map(1);
        lost.allocate(0..1);
        lost.empty();
        lost.allocate(7..8);
        let page = lost.take_changed();
        // The header of epoch 2 never reached the file, its page did.
        let mut again = map(1);
        again.load(0, [&[], &page[0].data]);
        again.allocate(0..1);
        again.empty();
        assert_eq!(again.epoch(), 3);
    }

    #[test]
    fn stale_space_is_taken_once_and_never_where_data_is_held_again() {
        let mut map = map(1);
        map.allocate(0..10);
        map.allocate(5000..5001);
        map.empty();
        map.allocate(4..6);
        let window = map.next_stale(0).unwrap();
        assert_eq!(window, 0..1024);
        let bytes = |range: Range<u64>| ByteRange::between(range.start * 4096, range.end * 4096);
        assert_eq!(map.take_stale(window), [bytes(0..4), bytes(6..1024)]);
        assert_eq!(map.next_stale(0), Some(4096..5120));
        assert_eq!(map.take_stale(4096..5120), [bytes(4096..5120)]);
        assert_eq!(map.next_stale(0), None);
    }
}
