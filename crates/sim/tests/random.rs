//! Random scripts on the real engine.
//!
//! Goal: whatever overlaps, fails, is lost or dies, readers see what the model allows.
//! Method: one seed is one script and one order of events. `SIM_SEEDS` says how many (500),
//! `SIM_SEED` picks one, `SIM_EXTRA_SEED` adds one. A seed that fails is printed with its script,
//! shortened for as long as it still fails. Rare states are counted: a run that never came
//! across one of them has not tried hard enough, and fails.

use sim::layout::Layout;
use sim::minimise::minimise;
use sim::pair::{Build, Peer, Top};
use sim::play::{Played, Stage, play};
use sim::random::{self, Mood};
use sim::rng::Rng;
use sim::run::Counters;
use sim::script::Script;
use sim::world::Options;
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Seeds where the environment does not say.
const SEEDS: u64 = 500;
/// With so many seeds everything rare must have happened.
const ENOUGH: u64 = 3000;

/// What every long run must have come across.
const RARE: &[&str] = &[
    "checkpoint refused",
    "checkpoint with the guest's writes in flight",
    "checkpoint with the peer's writes in flight",
    "connection lost with writes in flight",
    "crash during the commit",
    "crash while replicating",
    "double crash during the commit",
    "failover failed",
    "failover with the peer's writes in flight",
    "guest read of what the peer was writing",
    "request lost",
    "secondary hung with writes in flight",
    "stop with the peer's writes in flight",
];

#[test]
fn readers_see_what_the_model_allows_whatever_happens() {
    if let Some(seed) = number("SIM_SEED") {
        report(seed, &attempt(seed, &case(seed).1));
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let counters = run(seeds);
    if let Some(seed) = number("SIM_EXTRA_SEED") {
        report(seed, &attempt(seed, &case(seed).1));
    }
    if seeds >= ENOUGH {
        let missing: Vec<_> = RARE.iter().filter(|r| !counters.contains_key(*r)).collect();
        assert!(
            missing.is_empty(),
            "never happened: {missing:?}; happened: {counters:#?}"
        );
    }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

/// Tries the seeds below `seeds` on all processors.
fn run(seeds: u64) -> Counters {
    let next = AtomicU64::new(0);
    let all = Mutex::new(Counters::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let played = attempt(seed, &case(seed).1);
            report(seed, &played);
            let mut all = all.lock().expect("nobody has failed");
            for (name, count) in played.counters {
                *all.entry(name).or_default() += count;
            }
        }
    };
    thread::scope(|scope| {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..processors {
            scope.spawn(work);
        }
    });
    all.into_inner().expect("nobody has failed")
}

/// The script of a seed. The disk's last cluster is short, and so is its last sector.
fn case(seed: u64) -> (Mood, Script) {
    random::script(&Rng::new(seed), &layout())
}

fn layout() -> Layout {
    Layout::untearable((36 << 10) + 300)
}

fn attempt(seed: u64, script: &Script) -> Played {
    let stage = Stage {
        seed,
        options: Options::unruly(),
        layout: layout(),
        build: Build {
            top: if seed.is_multiple_of(2) {
                Top::Quorum
            } else {
                Top::Plain
            },
            peer: if seed.is_multiple_of(3) {
                Peer::Primary
            } else {
                Peer::Client
            },
        },
    };
    play(&stage, script)
}

/// Fails with all there is to know if a promise was broken.
fn report(seed: u64, played: &Played) {
    let Some(broken) = &played.broken else { return };
    let (mood, script) = case(seed);
    let short = minimise(&script, |script| attempt(seed, script).broken.is_some());
    let again = attempt(seed, &short);
    panic!(
        "SIM_SEED={seed} ({mood:?}) breaks a promise: {broken:?}\n\
         shortened script: {short}\n{}then: {:?}",
        again.transcript, again.broken
    );
}
