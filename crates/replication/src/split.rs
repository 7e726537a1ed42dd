//! Cuts a write into runs after a failed failover: what the overlays hold already is written
//! there, everything else straight to the secondary disk.
//!
//! ```text
//! active          ██        ██                 a write over all of it:
//! hidden             ██     ▒▒                 │sec│active│active│sec│active│
//! secondary disk  ▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒▒
//! ```
//!
//! So no overlay grows, and the chain goes on showing what was written last.
//!
//! Order contract: a run is written before the next is asked for. The first one that fails ends
//! the write with its error; the runs before it stay written.
//!
//! Source: `docs/spec/replication.md`, section "After a failed failover".

use block::{ByteRange, Extent, align_down};

/// Runs begin and end at multiples of this, except at the ends of the write itself.
const SECTOR: u64 = 512;
/// Layers above the secondary disk, as block status of the active disk counts them.
const LAYERS_ABOVE: u32 = 2;

/// A write that is being cut.
#[derive(Clone, Debug)]
pub struct Split {
    rest: ByteRange,
}

/// Where a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The active disk.
    Active,
    /// The secondary disk, past the overlays.
    Secondary,
}

/// A part of the write that goes to one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which bytes.
    pub range: ByteRange,
    /// Where to.
    pub target: Target,
}

/// Block status said nothing about the bytes it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("block status says nothing about offset {offset}")]
pub struct NoAnswer {
    /// The first byte without an answer.
    pub offset: u64,
}

impl Split {
    /// A write to `range`.
    pub fn new(range: ByteRange) -> Split {
        Split { rest: range }
    }

    /// What is not cut yet: the range to ask the active disk's block status for. `None` at the end.
    pub fn rest(&self) -> Option<ByteRange> {
        (!self.rest.is_empty()).then_some(self.rest)
    }

    /// Cuts the next run, given the extents of [`Split::rest`] or of a beginning of it.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] if the extents do not begin where the rest does.
    //= docs/spec/replication.md#after-a-failed-failover
    //# A write in FAILOVER_FAILED MUST be cut into runs by whether active or hidden hold the block.
    //= docs/spec/replication.md#after-a-failed-failover
    //# Runs that the overlays hold MUST go to the active disk, all others to the secondary disk.
    pub fn next(&mut self, extents: &[Extent]) -> Result<Run, NoAnswer> {
        let start = self.rest.offset();
        let mut end = start;
        let mut target = None;
        for extent in extents.iter().filter(|extent| !extent.range.is_empty()) {
            let here = target_of(extent);
            if extent.range.offset() > end || *target.get_or_insert(here) != here {
                break;
            }
            end = end.max(extent.range.end().min(self.rest.end()));
        }
        //= docs/spec/replication.md#after-a-failed-failover
        //# A block status that fails MUST fail the write.
        let target = target
            .filter(|_| end > start)
            .ok_or(NoAnswer { offset: start })?;
        let run = whole_sectors(self.rest, end, target);
        self.rest = ByteRange::between(run.range.end(), self.rest.end());
        Ok(run)
    }
}

fn target_of(extent: &Extent) -> Target {
    if (1..=LAYERS_ABOVE).contains(&extent.depth) {
        Target::Active
    } else {
        Target::Secondary
    }
}

/// The run from the start of `rest` to `end`, moved to a multiple of [`SECTOR`]. A sector of which
/// the overlays hold any byte is theirs.
//= docs/spec/replication.md#after-a-failed-failover
//# Runs MUST begin and end at multiples of 512 bytes, but for the ends of the write.
fn whole_sectors(rest: ByteRange, end: u64, target: Target) -> Run {
    let start = rest.offset();
    let up = |offset: u64| {
        align_down(offset, SECTOR)
            .saturating_add(SECTOR)
            .min(rest.end())
    };
    let aligned = end == rest.end() || end.is_multiple_of(SECTOR);
    let (end, target) = match target {
        _ if aligned => (end, target),
        Target::Active => (up(end), target),
        Target::Secondary if align_down(end, SECTOR) > start => (align_down(end, SECTOR), target),
        Target::Secondary => (up(start), Target::Active),
    };
    Run {
        range: ByteRange::between(start, end),
        target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    /// `layout`: one letter a 512-byte sector: active, hidden, secondary, nothing (-).
    fn extents(layout: &str, rest: ByteRange, most: usize) -> Vec<Extent> {
        layout
            .bytes()
            .zip((0u64..).step_by(512))
            .map(|(letter, start)| Extent {
                depth: match letter {
                    b'a' => 1,
                    b'h' => 2,
                    b's' => 3,
                    _ => 0,
                },
                ..Extent::data(ByteRange::between(start, start + 512).intersection(rest))
            })
            .filter(|extent| !extent.range.is_empty())
            .take(most)
            .collect()
    }

    #[track_caller]
    fn check(layout: &str, most: usize, runs: &Expect) {
        let length = 512 * u64::try_from(layout.len()).unwrap();
        let mut split = Split::new(ByteRange::between(0, length));
        let mut actual = Vec::new();
        while let Some(rest) = split.rest() {
            let run = split.next(&extents(layout, rest, most)).unwrap();
            actual.push(format!("{:?} {:?}", run.range, run.target));
        }
        runs.assert_eq(&actual.join("\n"));
    }

    //= docs/spec/replication.md#after-a-failed-failover
    //= type=test
    //# A write in FAILOVER_FAILED MUST be cut into runs by whether active or hidden hold the block.
    //= docs/spec/replication.md#after-a-failed-failover
    //= type=test
    //# Runs that the overlays hold MUST go to the active disk, all others to the secondary disk.
    #[test]
    fn a_write_is_cut_where_allocation_changes() {
        check(
            "sahhs-a",
            usize::MAX,
            &expect![[r"
                0+512 Secondary
                512+1536 Active
                2048+1024 Secondary
                3072+512 Active"]],
        );
    }

    #[test]
    fn a_block_status_that_answers_in_parts_gives_smaller_runs_to_the_same_places() {
        check(
            "ahs",
            1,
            &expect![[r"
                0+512 Active
                512+512 Active
                1024+512 Secondary"]],
        );
    }

    //= docs/spec/replication.md#after-a-failed-failover
    //= type=test
    //# Runs MUST begin and end at multiples of 512 bytes, but for the ends of the write.
    #[test]
    fn a_sector_that_is_partly_allocated_goes_to_the_overlay_whole() {
        let extent = |start, end, depth| Extent {
            depth,
            ..Extent::data(ByteRange::between(start, end))
        };
        let extents = [extent(0, 700, 3), extent(700, 800, 1), extent(800, 2048, 3)];
        let mut split = Split::new(ByteRange::between(0, 2048));
        let first = split.next(&extents).unwrap();
        assert_eq!(
            (first.range, first.target),
            (ByteRange::between(0, 512), Target::Secondary)
        );
        let second = split.next(&extents_from(&extents, 512)).unwrap();
        assert_eq!(
            (second.range, second.target),
            (ByteRange::between(512, 1024), Target::Active)
        );
        let third = split.next(&extents_from(&extents, 1024)).unwrap();
        assert_eq!(
            (third.range, third.target),
            (ByteRange::between(1024, 2048), Target::Secondary)
        );
        assert_eq!(split.rest(), None);
    }

    fn extents_from(extents: &[Extent], start: u64) -> Vec<Extent> {
        let rest = ByteRange::between(start, u64::MAX);
        extents
            .iter()
            .map(|extent| Extent {
                range: extent.range.intersection(rest),
                ..*extent
            })
            .collect()
    }

    //= docs/spec/replication.md#after-a-failed-failover
    //= type=test
    //# A block status that fails MUST fail the write.
    #[test]
    fn a_block_status_without_an_answer_fails_the_write() {
        let mut split = Split::new(ByteRange::between(512, 1024));
        assert_eq!(split.next(&[]), Err(NoAnswer { offset: 512 }));
        let later = Extent::data(ByteRange::between(600, 1024));
        assert_eq!(split.next(&[later]), Err(NoAnswer { offset: 512 }));
    }
}
