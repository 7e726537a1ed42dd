//! Every short sequence of operations on four clusters, on the real engine.
//!
//! Goal: no short sequence breaks a promise; most faults of replication need three operations.
//! Method: all sequences of up to `SIM_STEPS` (4) of the operations below, each judged by the model
//! after every step.

use sim::layout::Layout;
use sim::pair::{Build, Peer, Top};
use sim::play::{Stage, play};
use sim::script::Script;
use sim::world::Options;
use std::env;

const OPERATIONS: [&str; 8] = [
    "peer 0 P",
    "peer 0-1 Q",
    "guest 1 G",
    "guest 1-2 H",
    "peer zero 1",
    "checkpoint",
    "failover",
    "stop",
];

#[test]
fn no_short_sequence_breaks_a_promise() {
    let steps = env::var("SIM_STEPS").map_or(4, |text| text.parse().expect("a number"));
    let stage = Stage {
        seed: 1,
        options: Options::orderly(),
        layout: Layout::equal(4, 65536),
        build: Build {
            top: Top::Plain,
            peer: Peer::Client,
        },
    };
    let mut tried = 0;
    for length in 1..=steps {
        for number in 0..OPERATIONS.len().pow(length) {
            let text = sequence(number, length);
            let script: Script = text.parse().expect("a script");
            let played = play(&stage, &script);
            assert_eq!(played.broken, None, "{text}\n{}", played.transcript);
            tried += 1;
        }
    }
    let expected: usize = (1..=steps).map(|length| OPERATIONS.len().pow(length)).sum();
    assert_eq!(tried, expected);
}

/// The `number`th sequence of `length` operations.
fn sequence(number: usize, length: u32) -> String {
    let mut rest = number;
    let mut steps = Vec::new();
    for _ in 0..length {
        let operation = OPERATIONS.get(rest % OPERATIONS.len());
        steps.push(*operation.expect("a remainder is smaller"));
        rest /= OPERATIONS.len();
    }
    steps.join(" | ")
}
