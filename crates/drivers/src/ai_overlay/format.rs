//! The overlay's file: header slots, map pages and where everything lies. Pure.
//!
//! ```text
//! 0          4096       8192                          data (multiple of 64 KiB)
//! ├ header 0 ┼ header 1 ┼ page 0: slot 0, slot 1 ┼ … ┼ block 0 ┼ block 1 ┼ …
//! ```
//!
//! Numbers are little-endian. A header slot (4096 bytes, zero where not listed):
//!
//! ```text
//!  0  8  magic "AIOVERLY"      40  8  length of the disk in bytes
//!  8  4  version, 1            48  4  block size in bytes, 4096
//! 12  4  CRC-32C (this field   52  4  stage: 0 clean, 1 replicating, 2 failover
//!        taken as zero)        56  8  epoch
//! 16  8  sequence
//! 24 16  identity
//! ```
//!
//! A map page (4096 bytes): bit n of byte 64 + m says that block 32256 · page + 8 · m + n is held.
//!
//! ```text
//!  0  4  magic "AIMP"          24  8  number of the page
//!  4  4  CRC-32C               32 16  identity
//!  8  8  sequence              48 16  zero
//! 16  8  epoch                 64 ..  bits
//! ```
//!
//! Everything read here is hostile until parsed: what is returned cannot be out of bounds.
//!
//! Source: `docs/spec/ai-overlay.md`.

use block::{BlockMap, ByteRange, Error, ErrorKind, OverlayStage};

/// Size of a block, the unit of allocation, in bytes.
pub(super) const BLOCK: u64 = 4096;
/// Size of a header slot and of a map page in bytes.
pub(super) const PAGE: u64 = 4096;
/// Both header slots, in bytes.
pub(super) const HEADERS: u64 = 2 * PAGE;
/// Longest disk in bytes: bounds the memory of the map.
pub(super) const MAX_LENGTH: u64 = 1 << 48;
/// The one version there is.
const VERSION: u32 = 1;
const HEADER_MAGIC: [u8; 8] = *b"AIOVERLY";
const PAGE_MAGIC: [u8; 4] = *b"AIMP";
/// Where the bits of a map page begin.
const BITS_AT: usize = 64;
/// Blocks that a map page describes.
const PAGE_BLOCKS: u64 = (PAGE - 64) * 8;
/// The data begins at a multiple of this, so that large requests stay aligned.
const DATA_ALIGNMENT: u64 = 64 << 10;
/// Zeroes of a page's size.
const ZEROES: [u8; 4096] = [0; 4096];

/// Where things lie in the file of an overlay over a disk of a given length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) length: u64,
    pub(super) blocks: u64,
    pub(super) pages: u64,
    data: u64,
}

impl Layout {
    pub(super) fn of_length(length: u64) -> Result<Layout, Error> {
        if length > MAX_LENGTH {
            let message = format!("the disk has {length} bytes, an overlay at most {MAX_LENGTH}");
            return Err(Error::with_message(ErrorKind::InvalidRequest, message));
        }
        let blocks = length.div_ceil(BLOCK);
        let pages = blocks.div_ceil(PAGE_BLOCKS);
        let map_end = HEADERS.saturating_add(pages.saturating_mul(2 * PAGE));
        Ok(Layout {
            length,
            blocks,
            pages,
            data: map_end.next_multiple_of(DATA_ALIGNMENT),
        })
    }

    /// Length of the whole file in bytes.
    pub(super) fn file_length(&self) -> u64 {
        self.data.saturating_add(self.blocks.saturating_mul(BLOCK))
    }

    /// Where a slot of a map page lies.
    pub(super) fn page_offset(page: u64, slot: Slot) -> u64 {
        let slots = page.saturating_mul(2).saturating_add(slot.index());
        HEADERS.saturating_add(slots.saturating_mul(PAGE))
    }

    /// The part of the file that the map takes.
    pub(super) fn map(&self) -> ByteRange {
        ByteRange::between(HEADERS, Layout::page_offset(self.pages, Slot::A))
    }

    /// Where the disk's bytes `range` lie in the file.
    pub(super) fn data(&self, range: ByteRange) -> ByteRange {
        let at = |offset: u64| self.data.saturating_add(offset);
        ByteRange::between(at(range.offset()), at(range.end()))
    }

    /// Which part of the disk lies at `range` of the file's data.
    pub(super) fn disk(&self, range: ByteRange) -> ByteRange {
        let at = |offset: u64| offset.saturating_sub(self.data);
        ByteRange::between(at(range.offset()), at(range.end()))
    }

    /// The map page that describes `block`.
    pub(super) fn page_of(block: u64) -> u64 {
        block / PAGE_BLOCKS
    }

    /// The blocks that `range` of the disk touches.
    pub(super) fn blocks(range: ByteRange) -> std::ops::Range<u64> {
        range.offset() / BLOCK..range.end().div_ceil(BLOCK)
    }

    /// The bytes of `blocks`, cut at the end of the disk.
    pub(super) fn bytes(&self, blocks: std::ops::Range<u64>) -> ByteRange {
        let at = |block: u64| block.saturating_mul(BLOCK).min(self.length);
        ByteRange::between(at(blocks.start), at(blocks.end))
    }
}

/// One of the two places something is written to in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    A,
    B,
}

impl Slot {
    pub(super) fn index(self) -> u64 {
        match self {
            Slot::A => 0,
            Slot::B => 1,
        }
    }

    pub(super) fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }
}

/// What a valid header slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) sequence: u64,
    pub(super) identity: [u8; 16],
    pub(super) length: u64,
    pub(super) epoch: u64,
    /// Never `ContentsUnknown`: that is what `Replicating` means when it is found.
    pub(super) stage: OverlayStage,
}

/// What was found in a header slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderSlot {
    /// Only zeroes.
    Empty,
    /// Not a header of ours, or one that was cut off while it was written.
    Invalid,
    /// A header of ours.
    Valid(Header),
}

impl Header {
    /// The slot's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = Fields::new();
        page.put(0, &HEADER_MAGIC);
        page.put(8, &VERSION.to_le_bytes());
        page.put(16, &self.sequence.to_le_bytes());
        page.put(24, &self.identity);
        page.put(40, &self.length.to_le_bytes());
        page.put(48, &4096_u32.to_le_bytes());
        page.put(52, &stage_number(self.stage).to_le_bytes());
        page.put(56, &self.epoch.to_le_bytes());
        page.seal(12)
    }

    /// Parses a slot.
    ///
    /// # Errors
    ///
    /// A whole header that this version cannot serve, saying what is in it.
    pub(super) fn parse(slot: &[u8]) -> Result<HeaderSlot, Error> {
        if slot == ZEROES {
            return Ok(HeaderSlot::Empty);
        }
        if bytes::<8>(slot, 0) != HEADER_MAGIC || !is_sealed(slot, 12) {
            return Ok(HeaderSlot::Invalid);
        }
        //= docs/spec/ai-overlay.md#opening
        //# A header of another version, block size or stage MUST be refused, naming what was found
        //# and what is known.
        let refuse = |what: &str, found: u32, right: &str| {
            let message = format!("the overlay's {what} is {found}, this program knows {right}");
            Err(Error::with_message(ErrorKind::Unsupported, message))
        };
        let (version, block) = (u32_at(slot, 8), u32_at(slot, 48));
        if version != VERSION {
            return refuse("format version", version, "version 1");
        }
        if u64::from(block) != BLOCK {
            return refuse("block size", block, "4096");
        }
        let stage = match u32_at(slot, 52) {
            0 => OverlayStage::Clean,
            1 => OverlayStage::Replicating,
            2 => OverlayStage::Failover,
            other => return refuse("stage", other, "0 to 2"),
        };
        Ok(HeaderSlot::Valid(Header {
            sequence: u64_at(slot, 16),
            identity: bytes(slot, 24),
            length: u64_at(slot, 40),
            epoch: u64_at(slot, 56),
            stage,
        }))
    }
}

fn stage_number(stage: OverlayStage) -> u32 {
    match stage {
        OverlayStage::Clean => 0,
        OverlayStage::Replicating | OverlayStage::ContentsUnknown => 1,
        OverlayStage::Failover => 2,
    }
}

/// What identifies a map page besides its bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageTag {
    pub(super) identity: [u8; 16],
    pub(super) page: u64,
    pub(super) epoch: u64,
    pub(super) sequence: u64,
}

impl PageTag {
    /// The page's bytes, its bits taken from `held`.
    pub(super) fn encode(&self, held: &BlockMap) -> Vec<u8> {
        let mut page = Fields::new();
        page.put(0, &PAGE_MAGIC);
        page.put(8, &self.sequence.to_le_bytes());
        page.put(16, &self.epoch.to_le_bytes());
        page.put(24, &self.page.to_le_bytes());
        page.put(32, &self.identity);
        for (at, first) in words(self.page) {
            page.put(at, &held.word(first).to_le_bytes());
        }
        page.seal(4)
    }

    /// The tag of a whole page of the overlay `identity` that was written as number `page`.
    pub(super) fn parse(bits: &[u8], identity: [u8; 16], page: u64) -> Option<PageTag> {
        let ours = bytes::<4>(bits, 0) == PAGE_MAGIC
            && u64_at(bits, 24) == page
            && bytes::<16>(bits, 32) == identity
            && is_sealed(bits, 4);
        ours.then(|| PageTag {
            identity,
            page,
            epoch: u64_at(bits, 16),
            sequence: u64_at(bits, 8),
        })
    }

    /// Adds the page's bits to `held`.
    pub(super) fn load(&self, bits: &[u8], held: &mut BlockMap) {
        for (at, first) in words(self.page) {
            held.insert_word(first, u64_at(bits, at));
        }
    }
}

/// Where in a page each word of bits lies, and the first block it describes.
fn words(page: u64) -> impl Iterator<Item = (usize, u64)> {
    let first = page.saturating_mul(PAGE_BLOCKS);
    let places = (BITS_AT..ZEROES.len()).step_by(8);
    places.zip((first..).step_by(64))
}

/// A page under construction.
struct Fields(Vec<u8>);

impl Fields {
    fn new() -> Fields {
        Fields(ZEROES.to_vec())
    }

    fn put(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at.saturating_add(value.len())) {
            place.copy_from_slice(value);
        }
    }

    /// Adds the checksum at `at`, where zeroes have to be so far.
    fn seal(mut self, at: usize) -> Vec<u8> {
        let sum = crc32c::crc32c(&self.0);
        self.put(at, &sum.to_le_bytes());
        self.0
    }
}

/// Whether a page is whole: its checksum, at `at`, is right.
fn is_sealed(page: &[u8], at: usize) -> bool {
    let (Some(before), Some(after)) = (page.get(..at), page.get(at.saturating_add(4)..)) else {
        return false;
    };
    let sum = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    page.len() == ZEROES.len() && crc32c::crc32c_append(sum, after) == u32_at(page, at)
}

/// `N` bytes at `at`; zeroes past the end.
fn bytes<const N: usize>(page: &[u8], at: usize) -> [u8; N] {
    let field = page.get(at..at.saturating_add(N));
    field.and_then(|f| f.try_into().ok()).unwrap_or([0; N])
}

fn u32_at(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(page, at))
}

fn u64_at(page: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(page, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: Header = Header {
        sequence: 7,
        identity: [3; 16],
        length: 1000,
        epoch: 5,
        stage: OverlayStage::Failover,
    };

    #[test]
    fn the_byte_map_of_a_header_is_the_documented_one() {
        let slot = HEADER.encode();
        assert_eq!(slot[..8], *b"AIOVERLY");
        assert_eq!(slot[8..12], [1, 0, 0, 0]);
        assert_eq!(slot[16..24], [7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(slot[24..40], [3; 16]);
        assert_eq!(slot[40..48], [0xe8, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(slot[48..52], [0, 16, 0, 0]);
        assert_eq!(slot[52..56], [2, 0, 0, 0]);
        assert_eq!(slot[56..64], [5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(slot[64..], [0; 4032]);
        assert_eq!(Header::parse(&slot), Ok(HeaderSlot::Valid(HEADER)));
    }

    #[test]
    fn any_changed_byte_makes_a_header_or_a_page_invalid() {
        let tag = PageTag {
            identity: [3; 16],
            page: 1,
            epoch: 5,
            sequence: 2,
        };
        let page = tag.encode(&BlockMap::new(100_000));
        for at in 0..4096 {
            let mut slot = HEADER.encode();
            slot[at] ^= 1;
            assert_eq!(Header::parse(&slot), Ok(HeaderSlot::Invalid), "byte {at}");
            let mut page = page.clone();
            page[at] ^= 1;
            assert_eq!(PageTag::parse(&page, [3; 16], 1), None, "byte {at}");
        }
    }

    //= docs/spec/ai-overlay.md#opening
    //= type=test
    //# A header of another version, block size or stage MUST be refused, naming what was found and
    //# what is known.
    #[test]
    fn what_this_version_does_not_know_is_refused_by_name() {
        let mut fields = Fields(HEADER.encode());
        fields.put(12, &[0; 4]);
        fields.put(8, &[9]);
        let error = Header::parse(&fields.seal(12)).unwrap_err();
        assert_eq!(
            error.message(),
            "the overlay's format version is 9, this program knows version 1"
        );
    }

    #[test]
    fn a_page_counts_only_at_its_own_place_and_for_its_own_overlay() {
        let tag = PageTag {
            identity: [3; 16],
            page: 1,
            epoch: 5,
            sequence: 2,
        };
        let page = tag.encode(&BlockMap::new(100_000));
        assert_eq!(PageTag::parse(&page, [3; 16], 1), Some(tag));
        assert_eq!(PageTag::parse(&page, [3; 16], 0), None);
        assert_eq!(PageTag::parse(&page, [4; 16], 1), None);
        assert_eq!(PageTag::parse(&page[..4000], [3; 16], 1), None);
    }

    #[test]
    fn regions_follow_each_other_without_overlap() {
        let layout = Layout::of_length(10 << 30).unwrap();
        assert_eq!((layout.blocks, layout.pages), (2_621_440, 82));
        assert_eq!(layout.map(), ByteRange::between(8192, 8192 + 82 * 8192));
        assert_eq!(layout.data(ByteRange::between(0, 1)).offset(), 720_896);
        assert_eq!(layout.file_length(), 720_896 + (10 << 30));
        assert!(Layout::of_length(MAX_LENGTH + 1).is_err());
    }

    proptest! {
        #[test]
        fn a_map_comes_back_from_its_pages(runs in prop::collection::vec((0u64..70_000, 1u64..400), 0..20)) {
            let mut map = BlockMap::new(70_000);
            for (start, length) in runs {
                map.insert(start..start + length);
            }
            let mut back = BlockMap::new(70_000);
            for page in 0..3 {
                let tag = PageTag { identity: [1; 16], page, epoch: 1, sequence: 1 };
                let bits = tag.encode(&map);
                PageTag::parse(&bits, [1; 16], page).unwrap().load(&bits, &mut back);
            }
            prop_assert_eq!(back, map);
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(bytes in prop::collection::vec(any::<u8>(), 0..5000)) {
            let _ = Header::parse(&bytes);
            let _ = PageTag::parse(&bytes, [0; 16], 0);
        }
    }
}
