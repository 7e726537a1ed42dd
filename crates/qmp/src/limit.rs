//! Keeps events that can come in floods to one a second, as QEMU does.
//!
//! The first event of a kind leaves at once; of those that follow within a second only the last is
//! kept, and leaves when the second is over, with the time at which it happened. The kind of a
//! report about a node includes the node.
//!
//! Pure: the caller brings the monotonic time and asks for the deadline.

use crate::event::Event;
use crate::types::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// The least time between two events of a kind.
const INTERVAL: Duration = Duration::from_secs(1);

/// The events that wait. Holds at most one for each kind and node.
#[derive(Debug, Default)]
pub struct EventLimiter {
    kinds: BTreeMap<(&'static str, String), Second>,
}

/// The second after an event has left.
#[derive(Debug)]
struct Second {
    ends: Duration,
    /// The last event that came meanwhile.
    last: Option<(Event, Timestamp)>,
}

impl EventLimiter {
    /// Takes an event that happened at `now` and `timestamp`; returns it if it may leave at once.
    pub fn offer(&mut self, event: Event, timestamp: Timestamp, now: Duration) -> Option<Event> {
        let Some(subject) = subject(&event) else {
            return Some(event);
        };
        let kind = (event.name(), subject.to_owned());
        if let Some(second) = self.kinds.get_mut(&kind) {
            second.last = Some((event, timestamp));
            return None;
        }
        self.kinds.insert(
            kind,
            Second {
                ends: now + INTERVAL,
                last: None,
            },
        );
        Some(event)
    }

    /// When [`expire`](Self::expire) is due, if ever.
    pub fn deadline(&self) -> Option<Duration> {
        self.kinds.values().map(|second| second.ends).min()
    }

    /// The events whose waiting is over at `now`, in the order of their kinds.
    pub fn expire(&mut self, now: Duration) -> Vec<(Event, Timestamp)> {
        let mut leaving = Vec::new();
        self.kinds.retain(|_, second| {
            if second.ends > now {
                return true;
            }
            let Some(event) = second.last.take() else {
                return false;
            };
            leaving.push(event);
            second.ends = now + INTERVAL;
            true
        });
        leaving
    }
}

/// What a limited event is about; `None` for events that are not limited.
fn subject(event: &Event) -> Option<&str> {
    match event {
        Event::QuorumReportBad(data) => Some(&data.node_name),
        Event::QuorumFailure(data) => Some(&data.reference),
        Event::BlockIoError(data) => Some(&data.device),
        Event::BlockJobCompleted(_)
        | Event::BlockJobCancelled(_)
        | Event::BlockJobError(_)
        | Event::BlockJobReady(_)
        | Event::BlockJobPending(_)
        | Event::JobStatusChange(_)
        | Event::BlockExportDeleted(_)
        | Event::Shutdown(_)
        | Event::StageChange(_)
        | Event::ReplicationError(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{BlockExportDeleted, QuorumOpType, QuorumReportBad};
    use expect_test::expect;
    use std::fmt::Write;

    fn bad(node: &str, sector: u64) -> Event {
        Event::QuorumReportBad(QuorumReportBad {
            kind: QuorumOpType::Write,
            error: None,
            node_name: node.to_owned(),
            sector_num: sector,
            sectors_count: 1,
        })
    }

    fn line(event: &Event) -> String {
        let Event::QuorumReportBad(bad) = event else {
            panic!("only reports are offered")
        };
        format!("{} {}", bad.node_name, bad.sector_num)
    }

    #[test]
    fn reports_come_once_a_second_for_each_node() {
        let mut limiter = EventLimiter::default();
        let mut out = String::new();
        let offers = [
            (0, "a", 1),
            (100, "a", 2),
            (200, "b", 3),
            (300, "a", 4),
            (1500, "a", 5),
            (3500, "a", 6),
        ];
        let mut offers = offers.iter().peekable();
        for now in (0..5000).step_by(100) {
            let time = Duration::from_millis(now);
            if limiter.deadline().is_some_and(|deadline| deadline <= time) {
                for (event, at) in limiter.expire(time) {
                    writeln!(
                        out,
                        "{now}: {} of {:?}",
                        line(&event),
                        at.microseconds / 1000
                    )
                    .unwrap();
                }
            }
            while let Some((_, node, sector)) = offers.next_if(|(at, ..)| *at == now) {
                let offered = limiter.offer(bad(node, *sector), Timestamp::new(time), time);
                let said = offered.map_or("waits".to_owned(), |event| line(&event));
                writeln!(out, "{now}: {said}").unwrap();
            }
        }
        expect![[r"
            0: a 1
            100: waits
            200: b 3
            300: waits
            1000: a 4 of 300
            1500: waits
            2000: a 5 of 500
            3500: a 6
        "]]
        .assert_eq(&out);
        assert_eq!(limiter.deadline(), None, "nothing is held for ever");
    }

    #[test]
    fn other_events_are_not_held() {
        let mut limiter = EventLimiter::default();
        let event = || Event::BlockExportDeleted(BlockExportDeleted { id: "e".to_owned() });
        for _ in 0..3 {
            let offered = limiter.offer(event(), Timestamp::new(Duration::ZERO), Duration::ZERO);
            assert_eq!(offered, Some(event()));
        }
    }
}
