//! The demo's load: stamped writes to random blocks of an NBD export, many at once, from a thread
//! of its own, each noted in the ledger before it is sent and after it is answered.

use super::disk::{Disk, stamped};
use super::ledger::{Ledger, mix};
use futures_util::future::join_all;
use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Writes in flight.
const DEPTH: usize = 16;
/// How long a pause may take to come into force.
const QUIET: Duration = Duration::from_secs(10);

/// What the writers do next.
mod command {
    pub(super) const RUN: u8 = 0;
    pub(super) const PAUSE: u8 = 1;
    pub(super) const STOP: u8 = 2;
}

/// The ledger, shared by the writers and whoever takes checkpoints.
pub(super) type SharedLedger = Arc<Mutex<Ledger>>;

/// Locks the ledger; a writer that panicked has left it consistent.
pub(super) fn lock(ledger: &SharedLedger) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running workload.
pub(super) struct Workload {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

struct Shared {
    ledger: SharedLedger,
    command: AtomicU8,
    written: AtomicU64,
}

impl Workload {
    /// Starts writing to the export `disk` of the server at `socket`.
    pub(super) fn start(socket: &Path, ledger: &SharedLedger, seed: u64) -> Workload {
        let shared = Arc::new(Shared {
            ledger: Arc::clone(ledger),
            command: AtomicU8::new(command::RUN),
            written: AtomicU64::new(0),
        });
        let (socket, for_thread) = (socket.to_owned(), Arc::clone(&shared));
        let thread = std::thread::spawn(move || {
            Disk::with(&socket, async |disk| {
                let rng = Cell::new(seed);
                let writers = (0..DEPTH).map(|_| write_blocks(&disk, &for_thread, &rng));
                join_all(writers).await.into_iter().collect()
            })
        });
        Workload {
            shared,
            thread: Some(thread),
        }
    }

    /// Blocks written and acknowledged so far.
    pub(super) fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// Stops issuing writes and waits until none is in flight.
    pub(super) fn pause(&self) -> Result<(), String> {
        self.shared.command.store(command::PAUSE, Ordering::Relaxed);
        let deadline = Instant::now() + QUIET;
        while !lock(&self.shared.ledger).is_quiet() {
            if Instant::now() > deadline {
                return Err(format!("writes are still in flight after {QUIET:?}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Goes on after a pause.
    pub(super) fn resume(&self) {
        self.shared.command.store(command::RUN, Ordering::Relaxed);
    }

    /// Ends the writers and says how they ended: an error is what a killed server leaves.
    pub(super) fn stop(mut self) -> Result<(), String> {
        self.shared.command.store(command::STOP, Ordering::Relaxed);
        let thread = self.thread.take().map(JoinHandle::join);
        thread
            .unwrap_or(Ok(Ok(())))
            .unwrap_or_else(|_| Err("a writer panicked".to_owned()))
    }
}

/// One writer: picks an idle block, stamps it, writes it, notes the answer.
async fn write_blocks(disk: &Disk, shared: &Shared, rng: &Cell<u64>) -> Result<(), String> {
    loop {
        match shared.command.load(Ordering::Relaxed) {
            command::STOP => return Ok(()),
            command::PAUSE => {
                disk.sleep(Duration::from_millis(1)).await;
                continue;
            }
            _ => {}
        }
        let (block, version) = pick(&mut lock(&shared.ledger), rng);
        disk.write_block(block, stamped(block, version)).await?;
        lock(&shared.ledger).acknowledge(block);
        shared.written.fetch_add(1, Ordering::Relaxed);
    }
}

fn pick(ledger: &mut Ledger, rng: &Cell<u64>) -> (usize, u64) {
    // The last block is the probe's: see `super::Story`.
    let blocks = u64::try_from(ledger.blocks())
        .unwrap_or(u64::MAX)
        .saturating_sub(1);
    loop {
        rng.set(mix(rng.get()));
        let block = rng
            .get()
            .checked_rem(blocks)
            .and_then(|block| usize::try_from(block).ok());
        match block {
            Some(block) if ledger.is_idle(block) => return (block, ledger.issue(block)),
            _ => {}
        }
    }
}
