//! What a request may ask for besides its range, and what block status answers.

use crate::ByteRange;

/// Wishes that go with a write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteFlags {
    /// The data must be durable before the write is answered (force unit access).
    pub fua: bool,
    /// The write waits for, and excludes, every overlapping request on the node it is sent to,
    /// reads that pass through to its backing included. Copy-before-write saves old data this way,
    /// so that no reader of the old view sees what is written after (reference: R95, R96).
    pub serialise: bool,
}

/// Wishes that go with a write-zeroes request.
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent wishes, each by its protocol name"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ZeroFlags {
    /// As [`WriteFlags::fua`].
    pub fua: bool,
    /// As [`WriteFlags::serialise`].
    pub serialise: bool,
    /// The range may become a hole: its space may be given back.
    pub may_unmap: bool,
    /// Fail with [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) rather than write
    /// zero bytes the slow way.
    pub no_fallback: bool,
}

/// A run of bytes with one allocation status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Which bytes.
    pub range: ByteRange,
    /// Whether the medium holds data for them (not a hole).
    pub data: bool,
    /// Whether they read as zeroes.
    pub zero: bool,
    /// Which layer they come from: 1 is the node that was asked, 2 its backing, and so on; 0 is
    /// no layer at all.
    pub depth: u32,
}

impl Extent {
    /// Allocated data of the node itself.
    pub fn data(range: ByteRange) -> Extent {
        Extent {
            range,
            data: true,
            zero: false,
            depth: 1,
        }
    }

    /// A hole of the node itself that reads as zeroes.
    pub fn hole(range: ByteRange) -> Extent {
        Extent {
            range,
            data: false,
            zero: true,
            depth: 1,
        }
    }

    /// The same extent seen from one layer above.
    #[must_use]
    pub fn one_deeper(self) -> Extent {
        let depth = if self.depth == 0 {
            0
        } else {
            self.depth.saturating_add(1)
        };
        Extent { depth, ..self }
    }

    /// Whether the two lie next to each other and say the same.
    pub fn continues(&self, next: &Extent) -> bool {
        self.range.end() == next.range.offset()
            && (self.data, self.zero, self.depth) == (next.data, next.zero, next.depth)
    }
}

/// Joins neighbours that say the same.
pub fn coalesce(extents: impl IntoIterator<Item = Extent>) -> Vec<Extent> {
    let mut joined: Vec<Extent> = Vec::new();
    for extent in extents {
        match joined.last_mut() {
            Some(last) if last.continues(&extent) => {
                last.range = ByteRange::between(last.range.offset(), extent.range.end());
            }
            _ => joined.push(extent),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_neighbours_are_joined() {
        let extents = [
            Extent::data(ByteRange::between(0, 10)),
            Extent::data(ByteRange::between(10, 20)),
            Extent::hole(ByteRange::between(20, 30)),
        ];
        assert_eq!(
            coalesce(extents),
            [
                Extent::data(ByteRange::between(0, 20)),
                Extent::hole(ByteRange::between(20, 30))
            ]
        );
    }
}
