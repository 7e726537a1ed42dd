//! The secondary's guest during a failover: writes one block over and over, and keeps the times.
//!
//! A standby guest runs on the view all along. What it notices of a failover is how long its writes
//! take.

use super::disk::{Disk, stamped};
use super::workload::{SharedLedger, lock};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Pause between two writes.
const PAUSE: Duration = Duration::from_millis(1);
/// How long the first write may take.
const FIRST: Duration = Duration::from_secs(10);

/// A guest that writes.
pub(super) struct Guest {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    thread: JoinHandle<Result<Vec<Span>, String>>,
}

/// When a write began and when it was answered.
#[derive(Clone, Copy)]
struct Span {
    begun: Instant,
    done: Instant,
}

/// What the guest noticed.
pub(super) struct Noticed {
    spans: Vec<Span>,
}

impl Guest {
    /// Starts a guest that writes `block` of the view at `socket`; returns when it has written once.
    pub(super) fn start(
        socket: &Path,
        ledger: &SharedLedger,
        block: usize,
    ) -> Result<Guest, String> {
        let (stop, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let (socket, ledger) = (socket.to_owned(), Arc::clone(ledger));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&written));
        let thread = std::thread::spawn(move || {
            Disk::with(&socket, async |disk| {
                let mut spans = Vec::new();
                while !stopped.load(Ordering::Relaxed) {
                    let version = lock(&ledger).issue(block);
                    let begun = Instant::now();
                    disk.write_block(block, stamped(block, version)).await?;
                    spans.push(Span {
                        begun,
                        done: Instant::now(),
                    });
                    lock(&ledger).acknowledge(block);
                    counter.fetch_add(1, Ordering::Relaxed);
                    disk.sleep(PAUSE).await;
                }
                Ok(spans)
            })
        });
        let guest = Guest {
            stop,
            written,
            thread,
        };
        guest.wait_for_first_write()?;
        Ok(guest)
    }

    fn wait_for_first_write(&self) -> Result<(), String> {
        let deadline = Instant::now() + FIRST;
        while self.written.load(Ordering::Relaxed) == 0 {
            if self.thread.is_finished() || Instant::now() > deadline {
                return Err("the secondary's guest cannot write".to_owned());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Ends it and returns what it noticed.
    pub(super) fn stop(self) -> Result<Noticed, String> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self
            .thread
            .join()
            .map_err(|_| "the guest panicked".to_owned());
        joined.and_then(|spans| Ok(Noticed { spans: spans? }))
    }
}

impl Noticed {
    /// When the first write was answered of those that began after `instant`.
    pub(super) fn first_after(&self, instant: Instant) -> Option<Instant> {
        let mut spans = self.spans.iter();
        spans
            .find(|span| span.begun >= instant)
            .map(|span| span.done)
    }

    /// How long the slowest write took of those that were not yet answered at `instant`.
    pub(super) fn slowest_from(&self, instant: Instant) -> Duration {
        let later = self.spans.iter().filter(|span| span.done >= instant);
        let took = later.map(|span| span.done.duration_since(span.begun));
        took.max().unwrap_or_default()
    }
}
