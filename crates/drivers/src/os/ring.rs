//! An `io_uring` inside the data thread.
//!
//! ```text
//! read(), write() ─▶ slot + SQE ─┐ (any number in one scheduler turn)
//!                                ▼
//! driver task: submit once ─▶ reap ─▶ wait for the ring's descriptor (epoll) ─▶ ...
//!                                │
//!        waiter woken ◀─ CQE ────┘
//! ```
//!
//! Ownership contract: the slot owns the memory and the file of its operation until the kernel has
//! answered. Dropping the future only marks the slot as abandoned. When the ring itself goes, it
//! waits for what is in flight, and rather leaks memory than free what the kernel may still use.
//!
//! Bound: [`SLOTS`] operations in flight; more wait in line.

#![expect(
    unsafe_code,
    reason = "the kernel is handed raw memory; the slots keep it alive"
)]

use block::Buffer;
use bytes::Bytes;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, opcode, squeue};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most operations in flight.
const SLOTS: u32 = 256;
/// How long a closing ring waits for what is in flight.
const CLOSE: Duration = Duration::from_secs(5);
/// How long a closing ring waits between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// How long submission pauses when the kernel takes nothing.
const RETRY: Duration = Duration::from_millis(10);

/// A handle on the data thread's ring.
#[derive(Clone)]
pub(super) struct Ring {
    inner: Rc<Inner>,
}

struct Inner {
    ring: RefCell<IoUring>,
    /// The ring's descriptor once more, to wait for completions.
    ready: AsyncFd<OwnedFd>,
    slots: RefCell<Slab<Slot>>,
    permits: Arc<Semaphore>,
    /// Entries the kernel has not been told of.
    unsubmitted: Cell<bool>,
    driver: RefCell<Option<Waker>>,
}

/// One operation in flight and all it needs.
struct Slot {
    memory: Memory,
    progress: Progress,
    file: Arc<dyn AsFd>,
    _permit: OwnedSemaphorePermit,
}

enum Memory {
    /// The kernel fills the spare room.
    Read(Buffer),
    /// The kernel reads it.
    Write(Bytes),
}

enum Progress {
    /// The kernel has it; somebody waits, or has not asked yet.
    Running(Option<Waker>),
    /// The kernel has it; nobody wants the answer.
    Abandoned,
    /// Answered: a count of bytes, or a negative error number.
    Done(i32),
}

impl Ring {
    /// Sets a ring up and starts its driver task. Call within the data thread's `LocalSet`.
    pub(super) fn new() -> io::Result<Ring> {
        let ring = build()?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Read::CODE) || !probe.is_supported(opcode::Write::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let descriptor = descriptor_of(&ring)?;
        // SAFETY: the `AsyncFd` owns the descriptor, which nobody else closes or changes.
        let ready = unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?;
        let inner = Rc::new(Inner {
            ring: RefCell::new(ring),
            ready,
            slots: RefCell::new(Slab::new()),
            permits: Arc::new(Semaphore::new(usize::try_from(SLOTS).unwrap_or(1))),
            unsubmitted: Cell::new(false),
            driver: RefCell::new(None),
        });
        tokio::task::spawn_local(drive(Rc::clone(&inner)));
        Ok(Ring { inner })
    }

    /// Reads at `offset` into the spare room of `buffer`; tells how many bytes were added.
    pub(super) async fn read(
        &self,
        file: Arc<dyn AsFd>,
        offset: u64,
        buffer: Buffer,
    ) -> (io::Result<usize>, Buffer) {
        let (result, memory) = self.run(file, offset, Memory::Read(buffer)).await;
        let Memory::Read(mut buffer) = memory else {
            unreachable!("a slot gives back the memory it was given");
        };
        if let Ok(count) = result {
            buffer.advance(count);
        }
        (result, buffer)
    }

    /// Writes `data` at `offset`; tells how many bytes were written.
    pub(super) async fn write(
        &self,
        file: Arc<dyn AsFd>,
        offset: u64,
        data: Bytes,
    ) -> io::Result<usize> {
        self.run(file, offset, Memory::Write(data)).await.0
    }

    async fn run(
        &self,
        file: Arc<dyn AsFd>,
        offset: u64,
        memory: Memory,
    ) -> (io::Result<usize>, Memory) {
        let Ok(permit) = Arc::clone(&self.inner.permits).acquire_owned().await else {
            return (Err(io::ErrorKind::BrokenPipe.into()), memory);
        };
        let key = self.inner.start(
            Slot {
                memory,
                progress: Progress::Running(None),
                file,
                _permit: permit,
            },
            offset,
        );
        let operation = Operation {
            inner: &self.inner,
            key: Some(key),
        };
        let (result, memory) = operation.await;
        let result = usize::try_from(result)
            .map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()));
        (result, memory)
    }
}

/// The best ring this kernel has.
fn build() -> io::Result<IoUring> {
    let lean = IoUring::builder()
        .dontfork()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .build(SLOTS);
    match lean {
        // Older kernels know none of the two.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            IoUring::builder().dontfork().build(SLOTS)
        }
        result => result,
    }
}

fn descriptor_of(ring: &IoUring) -> io::Result<OwnedFd> {
    // SAFETY: the ring keeps its descriptor open, and is borrowed until the copy is made.
    let descriptor = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
    descriptor.try_clone_to_owned()
}

/// Submits, reaps and waits, for ever.
async fn drive(inner: Rc<Inner>) {
    loop {
        if let Err(error) = inner.submit() {
            // Out of memory, mostly. What was not taken stays queued.
            tracing::warn!(%error, "the ring takes no operations at present");
            tokio::time::sleep(RETRY).await;
        }
        inner.reap();
        poll_fn(|cx| inner.poll_work(cx)).await;
    }
}

impl Inner {
    /// Gives an operation to the ring; the kernel hears of it at the end of this turn.
    fn start(&self, slot: Slot, offset: u64) -> usize {
        let file = Fd(slot.file.as_fd().as_raw_fd());
        let key = self.slots.borrow_mut().insert(slot);
        let entry = {
            let mut slots = self.slots.borrow_mut();
            match slots.get_mut(key).map(|slot| &mut slot.memory) {
                Some(Memory::Read(buffer)) => {
                    let spare = buffer.spare_mut();
                    let length = u32::try_from(spare.len()).unwrap_or(u32::MAX);
                    opcode::Read::new(file, spare.as_mut_ptr(), length)
                        .offset(offset)
                        .build()
                }
                Some(Memory::Write(data)) => {
                    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                    opcode::Write::new(file, data.as_ptr(), length)
                        .offset(offset)
                        .build()
                }
                None => opcode::Nop::new().build(),
            }
        };
        self.push(&entry.user_data(u64::try_from(key).unwrap_or(u64::MAX)));
        key
    }

    fn push(&self, entry: &squeue::Entry) {
        let mut ring = self.ring.borrow_mut();
        // SAFETY: the entry points into memory and names a file that its slot owns; the slot stays in
        // the table until the operation's completion has been reaped.
        let pushed = unsafe { ring.submission().push(entry) };
        assert!(
            pushed.is_ok(),
            "fewer slots than entries: the queue has room"
        );
        self.unsubmitted.set(true);
        drop(ring);
        if let Some(waker) = self.driver.borrow_mut().take() {
            waker.wake();
        }
    }

    fn submit(&self) -> io::Result<()> {
        if !self.unsubmitted.get() {
            return Ok(());
        }
        let mut ring = self.ring.borrow_mut();
        let result = match ring.submit() {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(()),
        };
        self.unsubmitted.set(!ring.submission().is_empty());
        result
    }

    /// Takes the answers in and wakes those who wait for them.
    fn reap(&self) {
        let mut ended = Vec::new();
        let mut slots = self.slots.borrow_mut();
        for completion in self.ring.borrow_mut().completion() {
            let key = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
            let Some(slot) = slots.get_mut(key) else {
                continue;
            };
            let done = Progress::Done(completion.result());
            match std::mem::replace(&mut slot.progress, done) {
                Progress::Running(waker) => waker.into_iter().for_each(Waker::wake),
                Progress::Abandoned => ended.push(slots.remove(key)),
                Progress::Done(_) => {}
            }
        }
        // Only now, with nothing borrowed, their memory goes.
        drop(slots);
        drop(ended);
    }

    /// Ready when there is something to submit or to reap.
    fn poll_work(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unsubmitted.get() {
            return Poll::Ready(());
        }
        self.driver.replace(Some(cx.waker().clone()));
        match self.ready.poll_read_ready(cx) {
            Poll::Ready(Ok(mut guard)) => {
                // A completion after this raises the descriptor's edge again.
                guard.clear_ready();
                Poll::Ready(())
            }
            // The runtime is going away, and this task with it.
            Poll::Ready(Err(_)) | Poll::Pending => Poll::Pending,
        }
    }

    /// Takes back what can be, and waits, bounded, until the kernel holds nothing of ours.
    fn drain(&self) {
        if !self.is_idle() {
            // Only what waits for something else than a disk can be taken back; a kernel that cannot
            // do it at all makes us wait longer.
            let ring = self.ring.borrow_mut();
            let pause = Timespec::from(PAUSE);
            drop(ring.submit());
            drop(
                ring.submitter()
                    .register_sync_cancel(Some(pause), CancelBuilder::any()),
            );
        }
        let deadline = std::time::Instant::now() + CLOSE;
        let pause = Timespec::from(PAUSE);
        while !self.is_idle() && std::time::Instant::now() < deadline {
            let ring = self.ring.borrow_mut();
            let waited = if ring.params().is_feature_ext_arg() {
                let args = SubmitArgs::new().timespec(&pause);
                ring.submitter().submit_with_args(1, &args)
            } else {
                ring.submit_and_wait(1)
            };
            drop(ring);
            // A timeout and an interruption only mean: look again.
            drop(waited);
            self.reap();
        }
    }

    fn is_idle(&self) -> bool {
        let slots = self.slots.borrow();
        slots
            .iter()
            .all(|(_, slot)| matches!(slot.progress, Progress::Done(_)))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.drain();
        if self.is_idle() {
            return;
        }
        tracing::error!(
            "the kernel did not answer in time; the memory of its operations is left to it"
        );
        std::mem::forget(self.slots.take());
    }
}

/// The answer to one operation.
struct Operation<'a> {
    inner: &'a Inner,
    /// Its slot, until the answer was taken.
    key: Option<usize>,
}

impl Future for Operation<'_> {
    type Output = (i32, Memory);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<(i32, Memory)> {
        let mut slots = self.inner.slots.borrow_mut();
        let key = self.key.expect("not polled again after it was ready");
        let slot = slots
            .get_mut(key)
            .expect("a slot stays until its answer was taken");
        if let Progress::Done(result) = slot.progress {
            let slot = slots.remove(key);
            drop(slots);
            self.key = None;
            return Poll::Ready((result, slot.memory));
        }
        slot.progress = Progress::Running(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Operation<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut slots = self.inner.slots.borrow_mut();
        let Some(slot) = slots.get_mut(key) else {
            return;
        };
        if let Progress::Done(_) = slot.progress {
            let slot = slots.remove(key);
            drop(slots);
            drop(slot);
        } else {
            slot.progress = Progress::Abandoned;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os;
    use rustix::pipe::pipe;
    use tokio::task::yield_now;

    /// Lets the driver run until `slots` operations are left.
    async fn settle(ring: &Ring, slots: usize) {
        while ring.inner.slots.borrow().len() != slots {
            yield_now().await;
        }
    }

    #[test]
    fn the_memory_of_a_dropped_read_stays_until_the_kernel_has_answered() {
        os::run(|_| async {
            let ring = Ring::new().unwrap();
            let (reader, writer) = pipe().unwrap();
            let reader: Arc<dyn AsFd> = Arc::new(reader);
            let buffer = Buffer::with_capacity(1 << 16);
            let memory = {
                let mut probe = buffer;
                let memory = probe.spare_mut().as_ptr();
                let read = Box::pin(ring.read(Arc::clone(&reader), 0, probe));
                let _ = futures_util::poll!(read);
                memory
            };
            for _ in 0..10 {
                yield_now().await;
            }
            assert_eq!(
                ring.inner.slots.borrow().len(),
                1,
                "the kernel still has it"
            );
            assert_eq!(Arc::strong_count(&reader), 2, "and the file");
            assert_ne!(Buffer::with_capacity(1 << 16).spare_mut().as_ptr(), memory);
            rustix::io::write(&writer, b"late").unwrap();
            settle(&ring, 0).await;
            assert_eq!(Arc::strong_count(&reader), 1);
        })
        .unwrap();
    }

    #[test]
    fn a_closing_ring_takes_back_what_would_wait_for_ever() {
        let (reader, _writer) = pipe().unwrap();
        let reader: Arc<dyn AsFd> = Arc::new(reader);
        let held = Arc::clone(&reader);
        os::run(|_| async {
            let ring = Ring::new().unwrap();
            let read = Box::pin(ring.read(held, 0, Buffer::with_capacity(4096)));
            let _ = futures_util::poll!(read);
            yield_now().await;
        })
        .unwrap();
        assert_eq!(
            Arc::strong_count(&reader),
            1,
            "nothing is left to the kernel"
        );
    }

    #[test]
    fn more_operations_than_slots_wait_in_line() {
        os::run(|_| async {
            let ring = Ring::new().unwrap();
            let (reader, writer) = pipe().unwrap();
            let reader: Arc<dyn AsFd> = Arc::new(reader);
            let count = usize::try_from(SLOTS).unwrap() + 50;
            let reads = (0..count).map(|_| {
                let read = ring.read(Arc::clone(&reader), 0, Buffer::with_capacity(1));
                async { read.await.0.unwrap() }
            });
            let feed = async {
                settle(&ring, usize::try_from(SLOTS).unwrap()).await;
                rustix::io::write(&writer, &vec![0; count]).unwrap();
            };
            let (read, ()) = tokio::join!(futures_util::future::join_all(reads), feed);
            assert_eq!(read.iter().sum::<usize>(), count);
        })
        .unwrap();
    }
}
