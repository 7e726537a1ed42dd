//! Which bytes of a disk a block of the model is, and what they hold when a write has put its tag there.
//!
//! Blocks need not be equal, nor aligned to anything: boundaries in the middle of sectors and clusters
//! are where unaligned writes go wrong. A block holds its tag and its own number over and
//! over, so that data in the wrong place is found out; the tag 0 stands for zeroes.

use crate::model::Tag;
use block::{ByteRange, is_zero};
use bytes::Bytes;
use std::ops::Range;

/// More blocks than this are printed as runs.
const LONG: usize = 64;

/// Boundaries of the blocks of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where each block ends, in bytes; ascending.
    ends: Vec<u64>,
    /// How many blocks are printed together.
    group: usize,
}

impl Layout {
    /// `blocks` blocks of `size` bytes.
    pub fn equal(blocks: usize, size: u64) -> Layout {
        Layout::repeated(blocks, &[size])
    }

    /// `groups` times the same blocks, of these sizes in bytes.
    pub fn repeated(groups: usize, sizes: &[u64]) -> Layout {
        let mut end: u64 = 0;
        let all = std::iter::repeat_n(sizes, groups).flatten();
        let ends = all.map(|size| {
            end = end.saturating_add(*size);
            end
        });
        Layout {
            ends: ends.collect(),
            group: sizes.len(),
        }
    }

    /// Blocks none of which lies in two sectors, so that nothing tears them: every other sector is
    /// one block, the others are cut in two. The rest of a `length` (bytes) that is no multiple of
    /// 1024 is one block, of 8 to 512 bytes.
    pub fn untearable(length: u64) -> Layout {
        let pairs = usize::try_from(length / 1024).unwrap_or(0);
        let mut layout = Layout::repeated(pairs, &[512, 200, 312]);
        if length > layout.length() {
            layout.ends.push(length);
        }
        layout
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.ends.len()
    }

    /// Length of the disk in bytes.
    pub fn length(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The bytes of `blocks`.
    pub fn range(&self, blocks: &Range<usize>) -> ByteRange {
        ByteRange::between(self.start(blocks.start), self.start(blocks.end))
    }

    /// What `blocks` hold after a write of `tag`.
    pub fn data(&self, blocks: &Range<usize>, tag: Tag) -> Bytes {
        let mut data = Vec::new();
        for block in blocks.clone() {
            let length = self.range(&(block..block.saturating_add(1))).length();
            let length = usize::try_from(length).unwrap_or(0);
            data.extend(mark(block, tag).into_iter().cycle().take(length));
        }
        Bytes::from(data)
    }

    /// The tags in `data`, which was read from `blocks`; `None` where it is no block's contents.
    pub fn tags(&self, blocks: &Range<usize>, data: &[u8]) -> Vec<Option<Tag>> {
        let mut rest = data;
        let mut tags = Vec::with_capacity(blocks.len());
        for block in blocks.clone() {
            let length = self.range(&(block..block.saturating_add(1))).length();
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let (own, others) = rest.split_at_checked(length).unwrap_or((&[], &[]));
            tags.push(tag_of(block, own));
            rest = others;
        }
        tags
    }

    /// One character a block, for transcripts: letters for themselves, `.` for zeroes, `?` for what
    /// nobody wrote, `#` for tags that are no letters. Where there are many blocks, runs of them.
    pub fn print(&self, tags: &[Option<Tag>]) -> String {
        if tags.len() > LONG {
            return runs(tags);
        }
        let groups = tags.chunks(self.group.max(1));
        let groups: Vec<String> = groups
            .map(|g| g.iter().copied().map(letter).collect())
            .collect();
        groups.join(if self.group > 1 { " " } else { "" })
    }

    /// First byte of a block; the disk's end for the one after the last.
    fn start(&self, block: usize) -> u64 {
        let before = block
            .checked_sub(1)
            .and_then(|before| self.ends.get(before));
        match (block, before) {
            (0, _) => 0,
            (_, Some(end)) => *end,
            (_, None) => self.length(),
        }
    }
}

fn letter(tag: Option<Tag>) -> char {
    match tag {
        None => '?',
        Some(0) => '.',
        Some(tag) => char::from_u32(tag)
            .filter(char::is_ascii_alphabetic)
            .unwrap_or('#'),
    }
}

/// `[C 0-95][#1003 96-98]`
fn runs(tags: &[Option<Tag>]) -> String {
    let mut start: usize = 0;
    let runs = tags.chunk_by(|a, b| a == b).map(|run| {
        let first = start;
        start = start.saturating_add(run.len());
        let tag = run.first().copied().flatten();
        let name = match (letter(tag), tag) {
            ('#', Some(tag)) => format!("#{tag}"),
            (letter, _) => letter.to_string(),
        };
        format!("[{name} {first}-{}]", start.saturating_sub(1))
    });
    let runs: Vec<String> = runs.collect();
    runs.concat()
}

/// What is repeated in a block: tag and number, or zeroes.
fn mark(block: usize, tag: Tag) -> [u8; 8] {
    let number = u32::try_from(block).unwrap_or(u32::MAX);
    let mark = u64::from(tag) << 32 | u64::from(number);
    if tag == 0 { [0; 8] } else { mark.to_be_bytes() }
}

fn tag_of(block: usize, data: &[u8]) -> Option<Tag> {
    if data.is_empty() {
        return None;
    }
    if is_zero(data) {
        return Some(0);
    }
    let start = data.first_chunk::<4>()?;
    let tag = u32::from_be_bytes(*start);
    let mark = mark(block, tag);
    let fits = |chunk: &[u8]| mark.starts_with(chunk);
    (tag != 0 && data.chunks(mark.len()).all(fits)).then_some(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_printed() {
        let layout = Layout::repeated(2, &[512, 100, 3484]);
        assert_eq!((layout.blocks(), layout.length()), (6, 8192));
        let mut disk = layout.data(&(0..6), u32::from(b'C')).to_vec();
        let range = layout.range(&(1..4));
        assert_eq!(range, ByteRange::between(512, 4608));
        disk[512..4608].copy_from_slice(&layout.data(&(1..4), 7));
        disk[4608..4708].fill(0);
        disk[8191] ^= 1;
        let tags = layout.tags(&(0..6), &disk);
        let c = Some(67);
        assert_eq!(tags, [c, Some(7), Some(7), Some(7), Some(0), None]);
        assert_eq!(layout.print(&tags), "C## #.?");
    }

    #[test]
    fn data_in_the_wrong_place_belongs_to_nobody() {
        let layout = Layout::equal(2, 512);
        let data = layout.data(&(0..1), 7);
        assert_eq!(layout.tags(&(1..2), &data), [None]);
    }
}
