//! Byte ranges of a disk: the one unit in which requests, locks and extents are counted.
//!
//! A [`ByteRange`] cannot wrap around: its end always fits in a `u64`. Everything that arrives
//! from outside passes through [`ByteRange::new`] once and needs no further checks.

use std::fmt;

/// `length` bytes from `offset` on; the end never exceeds `u64::MAX`.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    offset: u64,
    length: u64,
}

impl ByteRange {
    /// The range of `length` bytes at `offset`, or `None` if its end does not fit in a `u64`.
    pub fn new(offset: u64, length: u64) -> Option<ByteRange> {
        offset.checked_add(length)?;
        Some(ByteRange { offset, length })
    }

    /// The bytes from `start` up to, not including, `end`; empty if `end` is not above `start`.
    pub fn between(start: u64, end: u64) -> ByteRange {
        ByteRange {
            offset: start,
            length: end.saturating_sub(start),
        }
    }

    /// First byte of the range.
    pub fn offset(self) -> u64 {
        self.offset
    }

    /// Length in bytes.
    pub fn length(self) -> u64 {
        self.length
    }

    /// First byte after the range.
    pub fn end(self) -> u64 {
        // `new` and `between` keep the end within u64; saturating costs nothing and cannot lie.
        self.offset.saturating_add(self.length)
    }

    /// Whether the range has no bytes.
    pub fn is_empty(self) -> bool {
        self.length == 0
    }

    /// Whether the two ranges share at least one byte.
    pub fn overlaps(self, other: ByteRange) -> bool {
        self.offset.max(other.offset) < self.end().min(other.end())
    }

    /// Whether every byte of `other` lies in this range.
    pub fn contains(self, other: ByteRange) -> bool {
        self.offset <= other.offset && other.end() <= self.end()
    }

    /// The bytes both ranges share; empty if there are none.
    pub fn intersection(self, other: ByteRange) -> ByteRange {
        ByteRange::between(self.offset.max(other.offset), self.end().min(other.end()))
    }

    /// Whether both ends are multiples of `alignment` (bytes, a power of two).
    pub fn is_aligned(self, alignment: u64) -> bool {
        self.offset.is_multiple_of(alignment) && self.length.is_multiple_of(alignment)
    }

    /// The smallest range with both ends multiples of `alignment` (bytes, not zero) around this
    /// one. The end stops at the last multiple that fits in a `u64`.
    pub fn align_out(self, alignment: u64) -> ByteRange {
        let start = align_down(self.offset, alignment);
        let end = self.end().checked_next_multiple_of(alignment);
        ByteRange::between(start, end.unwrap_or(align_down(u64::MAX, alignment)))
    }

    /// The largest range with both ends multiples of `alignment` (bytes, not zero) within this
    /// one; empty if there is none.
    pub fn align_in(self, alignment: u64) -> ByteRange {
        let start = self
            .offset
            .checked_next_multiple_of(alignment)
            .unwrap_or(u64::MAX);
        ByteRange::between(start, align_down(self.end(), alignment))
    }

    /// Cuts the range at every multiple of `unit` (bytes, not zero), in ascending order.
    pub fn pieces(self, unit: u64) -> impl Iterator<Item = ByteRange> {
        let mut next = self.offset;
        std::iter::from_fn(move || {
            if next >= self.end() {
                return None;
            }
            let start = next;
            next = align_down(start, unit).saturating_add(unit).min(self.end());
            Some(ByteRange::between(start, next))
        })
    }
}

/// The largest multiple of `alignment` (not zero) that is not above `value`.
pub fn align_down(value: u64, alignment: u64) -> u64 {
    value.saturating_sub(value.checked_rem(alignment).unwrap_or(0))
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.offset, self.length)
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at offset {}", self.length, self.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_that_would_wrap_is_refused() {
        assert_eq!(ByteRange::new(u64::MAX, 1), None);
        assert_eq!(
            ByteRange::new(u64::MAX, 0).map(ByteRange::end),
            Some(u64::MAX)
        );
    }

    #[test]
    fn alignment_grows_outwards_and_shrinks_inwards() {
        let range = ByteRange::new(100, 900).unwrap();
        assert_eq!(range.align_out(512), ByteRange::between(0, 1024));
        assert_eq!(range.align_in(512), ByteRange::between(512, 512));
        assert!(ByteRange::between(100, 400).align_in(512).is_empty());
    }

    #[test]
    fn pieces_are_cut_at_multiples() {
        let pieces: Vec<_> = ByteRange::between(3, 18).pieces(8).collect();
        assert_eq!(
            pieces,
            [
                ByteRange::between(3, 8),
                ByteRange::between(8, 16),
                ByteRange::between(16, 18)
            ]
        );
    }

    #[test]
    fn empty_ranges_overlap_nothing() {
        let empty = ByteRange::between(5, 5);
        assert!(!empty.overlaps(ByteRange::between(0, 10)));
    }
}
