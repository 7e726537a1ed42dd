//! A load: what is asked for, where, how many at a time, until when.

use std::time::{Duration, Instant};

/// What each request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
}

/// Where the next request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// One after the other, from the beginning again at the end.
    Sequential,
    /// Every so many bytes, from the beginning again at the end.
    Strided(u64),
    /// Anywhere; the same places for everybody.
    Random,
}

/// When no further request is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    After(Duration),
    /// So many requests in all.
    Count(u64),
}

/// A load on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) operation: Operation,
    pub(crate) pattern: Pattern,
    /// Bytes of one request.
    pub(crate) length: u32,
    /// Requests under way at once.
    pub(crate) depth: u32,
    pub(crate) end: End,
}

/// What a load came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Achieved {
    pub(crate) operations: u64,
    pub(crate) elapsed: Duration,
}

/// The offsets of a load on a disk, without end.
pub(crate) struct Offsets {
    pattern: Pattern,
    length: u64,
    /// How many requests fit side by side.
    places: u64,
    state: u64,
}

impl Offsets {
    pub(crate) fn new(load: &Load, disk_bytes: u64) -> Self {
        let step = match load.pattern {
            Pattern::Strided(stride) => stride,
            Pattern::Sequential | Pattern::Random => u64::from(load.length),
        };
        Self {
            pattern: load.pattern,
            length: step,
            places: (disk_bytes / step).max(1),
            state: 0,
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        let place = match self.pattern {
            Pattern::Sequential | Pattern::Strided(_) => self.state % self.places,
            Pattern::Random => mix(self.state) % self.places,
        };
        self.state += 1;
        place * self.length
    }
}

/// Steele's splitmix64: well spread numbers from consecutive ones.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl End {
    /// True once `started` requests are enough.
    pub(crate) fn is_reached(self, started: u64, since: Instant) -> bool {
        match self {
            Self::After(time) => since.elapsed() >= time,
            Self::Count(count) => started >= count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{End, Load, Offsets, Operation, Pattern};

    fn offsets(pattern: Pattern, count: usize) -> Vec<u64> {
        let load = Load {
            operation: Operation::Read,
            pattern,
            length: 10,
            depth: 1,
            end: End::Count(1),
        };
        let mut offsets = Offsets::new(&load, 45);
        (0..count).map(|_| offsets.next()).collect()
    }

    #[test]
    fn offsets_stay_inside_the_disk_and_begin_again() {
        assert_eq!(offsets(Pattern::Sequential, 5), [0, 10, 20, 30, 0]);
        assert_eq!(offsets(Pattern::Strided(20), 3), [0, 20, 0]);
        assert!(
            offsets(Pattern::Random, 100)
                .iter()
                .all(|offset| [0, 10, 20, 30].contains(offset))
        );
    }
}
