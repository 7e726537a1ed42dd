//! Whether what a server has answered is durable: counted, because a connection may be lost between a
//! write's answer and the flush that would have made it durable.
//!
//! Pure.

/// The changes a server has answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// How many there were.
    made: u64,
    /// How many of them are durable, or in doubt.
    settled: u64,
    /// How often a connection was lost before the last ones were durable.
    doubts: u64,
    /// How many of these doubts a flush has reported.
    reported: u64,
}

impl Changes {
    /// The server has answered one more.
    pub(super) fn with_one_more(self) -> Changes {
        Changes {
            made: self.made.wrapping_add(1),
            ..self
        }
    }

    /// The connection was lost: what was not flushed is in doubt.
    pub(super) fn cut_off(self) -> Changes {
        let doubt = u64::from(self.made != self.settled);
        Changes {
            settled: self.made,
            doubts: self.doubts.saturating_add(doubt),
            ..self
        }
    }

    /// The server has answered a flush that was sent at `start`; its caller is told of all doubts.
    pub(super) fn flushed_since(self, start: Changes) -> Changes {
        Changes {
            settled: self.settled.max(start.made),
            reported: self.doubts,
            ..self
        }
    }

    /// Whether a flush sent at `start` and answered now leaves a doubt that nobody had heard of
    /// when it was sent.
    pub(super) fn doubtful_since(self, start: Changes) -> bool {
        self.doubts != start.reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Flushes at `start`, answered at `now`: whether it succeeds, and what is left.
    fn flush(start: Changes, now: Changes) -> (bool, Changes) {
        (!now.doubtful_since(start), now.flushed_since(start))
    }

    #[test]
    fn an_outage_after_a_flush_leaves_no_doubt() {
        let changes = Changes::default().with_one_more();
        let (durable, changes) = flush(changes, changes);
        assert!(durable);
        let changes = changes.cut_off();
        assert!(flush(changes, changes).0);
    }

    #[test]
    fn an_outage_before_the_flush_is_told_once() {
        let changes = Changes::default().with_one_more().cut_off().cut_off();
        let (durable, changes) = flush(changes, changes);
        assert!(!durable);
        assert!(flush(changes, changes).0);
    }

    #[test]
    fn all_flushes_that_were_under_way_hear_of_it() {
        let start = Changes::default().with_one_more();
        let now = start.cut_off();
        let (first, now) = flush(start, now);
        let (second, _) = flush(start, now);
        assert_eq!((first, second), (false, false));
    }

    #[test]
    fn a_change_answered_while_a_flush_runs_is_not_covered_by_it() {
        let start = Changes::default().with_one_more();
        let (durable, now) = flush(start, start.with_one_more());
        assert!(durable);
        let cut = now.cut_off();
        assert!(!flush(cut, cut).0);
    }
}
