//! `kill -9` of either half of a pair at a random moment of a write load.
//!
//! Goal: the secondary killed, the primary's guest sees no error and no other data; the primary
//! killed, every block of the secondary's view after the failover holds a version between the last
//! one acknowledged before the last checkpoint was asked for and the last one issued before it had
//! returned.
//! Method: a client writes numbered versions and keeps a record of what was issued and answered.
//! The seed is printed; `AFTERIMAGE_SEED` runs one again (the moments, not the scheduling).

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics says where"
)]

mod common;

use common::colo::{SIZE, checkpoint, complaint, fail_over, join, primary, secondary};
use common::{Daemon, scratch, wait_until};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

const BLOCK: usize = 4096;
const BLOCKS: usize = 1024;
/// Rounds for each side.
const ROUNDS: u64 = 3;
/// Requests in flight.
const DEPTH: usize = 8;

/// Numbers from a seed.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }

    fn pause(&mut self, most: u64) {
        std::thread::sleep(Duration::from_millis(self.next() % most));
    }
}

fn seed(of: &str) -> Rng {
    let given = std::env::var("AFTERIMAGE_SEED").ok();
    let seed = given.map_or_else(
        || u64::from(std::process::id()) << 20 ^ u64::try_from(of.len()).unwrap(),
        |text| text.parse().unwrap(),
    );
    println!("{of}: AFTERIMAGE_SEED={seed}");
    Rng(seed)
}

/// Which version of each block was issued, and which was answered.
#[derive(Clone)]
struct Record {
    issued: Vec<u64>,
    answered: Vec<u64>,
}

/// A write load on an export.
struct Load {
    record: Arc<Mutex<Record>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Load {
    fn start(socket: &Path, mut rng: Rng) -> Load {
        let record = Arc::new(Mutex::new(Record {
            issued: vec![0; BLOCKS],
            answered: vec![0; BLOCKS],
        }));
        let stop = Arc::new(AtomicBool::new(false));
        let stream = open(socket, "disk").unwrap();
        let (shared, asked) = (Arc::clone(&record), Arc::clone(&stop));
        let thread = std::thread::spawn(move || write(stream, &shared, &asked, &mut rng));
        Load {
            record,
            stop,
            thread,
        }
    }

    fn now(&self) -> Record {
        self.record.lock().unwrap().clone()
    }

    /// Waits until so much more has been answered, so that something is at stake.
    fn has_written(&self, writes: u64) {
        let sum = || self.now().answered.iter().sum::<u64>();
        let before = sum();
        wait_until("writes", || {
            sum() >= before + writes || self.thread.is_finished()
        });
    }

    fn end(self) -> std::io::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// An NBD client of the simplest kind.
fn open(socket: &Path, export: &str) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.read_exact(&mut [0; 18])?;
    stream.write_all(&3_u32.to_be_bytes())?;
    stream.write_all(b"IHAVEOPT")?;
    stream.write_all(&1_u32.to_be_bytes())?;
    stream.write_all(&u32::try_from(export.len()).unwrap().to_be_bytes())?;
    stream.write_all(export.as_bytes())?;
    stream.read_exact(&mut [0; 10])?;
    Ok(stream)
}

fn request(command: u16, cookie: u64, block: usize, length: usize) -> Vec<u8> {
    let offset = u64::try_from(block * BLOCK).unwrap();
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
    bytes
}

/// Reads a reply without payload; its cookie.
fn reply(stream: &mut UnixStream) -> std::io::Result<u64> {
    let mut bytes = [0; 16];
    stream.read_exact(&mut bytes)?;
    assert_eq!(bytes[..4], 0x6744_6698_u32.to_be_bytes(), "a simple reply");
    let error = u32::from_be_bytes(bytes[4..8].try_into().unwrap());
    if error != 0 {
        return Err(std::io::Error::other(format!("NBD error {error}")));
    }
    Ok(u64::from_be_bytes(bytes[8..].try_into().unwrap()))
}

/// Writes random blocks, each with its next version and one at a time, until told to stop.
fn write(
    mut stream: UnixStream,
    record: &Mutex<Record>,
    stop: &AtomicBool,
    rng: &mut Rng,
) -> std::io::Result<()> {
    let mut in_flight = BTreeMap::new();
    let mut cookie = 0_u64;
    loop {
        while in_flight.len() < DEPTH && !stop.load(Ordering::Relaxed) {
            let block = rng.below(BLOCKS);
            if in_flight.values().any(|known| *known == block) {
                continue;
            }
            let version = {
                let issued = &mut record.lock().unwrap().issued[block];
                *issued += 1;
                *issued
            };
            cookie += 1;
            in_flight.insert(cookie, block);
            let mut bytes = request(1, cookie, block, BLOCK);
            bytes.extend(version.to_le_bytes().repeat(BLOCK / 8));
            stream.write_all(&bytes)?;
        }
        if in_flight.is_empty() {
            // Say goodbye.
            return stream.write_all(&request(2, 0, 0, 0));
        }
        let block = in_flight
            .remove(&reply(&mut stream)?)
            .expect("a known cookie");
        let mut record = record.lock().unwrap();
        record.answered[block] = record.issued[block];
    }
}

/// The version that each block of an export holds.
fn versions(socket: &Path) -> Vec<u64> {
    let mut stream = open(socket, "disk").unwrap();
    let read = |block| {
        let mut bytes = vec![0; BLOCK];
        stream.write_all(&request(0, 1, block, BLOCK)).unwrap();
        reply(&mut stream).unwrap();
        stream.read_exact(&mut bytes).unwrap();
        let words: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
            .collect();
        assert!(
            words.iter().all(|word| *word == words[0]),
            "block {block} is torn"
        );
        if words[0] == 0x1111_1111_1111_1111 {
            0
        } else {
            words[0]
        }
    };
    (0..BLOCKS).map(read).collect()
}

fn pair(dir: &Path) -> (Daemon, Daemon) {
    assert_eq!(SIZE, u64::try_from(BLOCK * BLOCKS).unwrap());
    let (mut s, mut p) = (secondary(dir, "s"), primary(dir, "p"));
    join(&mut p, &mut s);
    (s, p)
}

#[test]
fn a_secondary_killed_at_any_moment_costs_the_guest_nothing() {
    let mut rng = seed("the secondary is killed");
    for round in 0..ROUNDS {
        let dir = scratch();
        let (mut s, mut p) = pair(dir.path());
        let load = Load::start(&p.nbd(), Rng(rng.next()));
        load.has_written(100);
        for _ in 0..rng.below(4) {
            checkpoint(&mut s);
        }
        rng.pause(50);
        s.kill();
        load.has_written(200);
        let record = Arc::clone(&load.record);
        load.end()
            .unwrap_or_else(|error| panic!("round {round}: the guest saw {error}"));
        assert_eq!(
            versions(&p.nbd()),
            record.lock().unwrap().issued,
            "round {round}"
        );
        assert!(complaint(&mut p).is_some(), "the lost peer must be visible");
        p.quit();
    }
}

//= docs/spec/replication.md#failover
//= type=test
//# After failover the guest MUST read what the last checkpoint held, overlaid with its own writes
//# since, and nothing the primary wrote after that checkpoint.
#[test]
fn a_primary_killed_at_any_moment_leaves_the_view_of_the_last_checkpoint() {
    let mut rng = seed("the primary is killed");
    for round in 0..ROUNDS {
        let dir = scratch();
        let (mut s, mut p) = pair(dir.path());
        let load = Load::start(&p.nbd(), Rng(rng.next()));
        load.has_written(100);
        let mut moment = Rng(rng.next());
        let killer = std::thread::spawn(move || {
            moment.pause(300);
            p.kill();
        });
        let start = Record {
            issued: vec![0; BLOCKS],
            answered: vec![0; BLOCKS],
        };
        let mut window = (start.answered, start.issued);
        // Checkpoints until one is refused, because the writer was lost.
        loop {
            let lowest = load.now().answered;
            if s.qmp.execute("xen-colo-do-checkpoint", json!({})).is_err() {
                break;
            }
            window = (lowest, load.now().issued);
            rng.pause(20);
        }
        killer.join().unwrap();
        assert!(load.end().is_err(), "the guest's disk has gone");
        fail_over(&mut s);
        for (block, version) in versions(&s.nbd()).into_iter().enumerate() {
            let (lowest, highest) = (window.0[block], window.1[block]);
            assert!(
                (lowest..=highest).contains(&version),
                "round {round}: block {block} holds version {version}, not one of {lowest} to {highest}"
            );
        }
        s.quit();
    }
}
