//! A small pool of threads for calls that may block.
//!
//! Threads are started when work waits and none is idle, up to [`THREADS`], and end after
//! [`IDLE`] without work. At most [`JOBS`] jobs are queued or running; more wait in line.
//!
//! Cancel safety: dropping the answer leaves the job running; what it owns lives until it ends.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_channel::oneshot;
use tokio::sync::Semaphore;

/// Most threads at once.
const THREADS: usize = 16;
/// Most jobs queued or running.
const JOBS: usize = 256;
/// How long a thread waits for work before it ends.
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// The pool of one data thread.
pub(super) struct Pool {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Pool {
    /// A pool without threads yet.
    pub(super) fn new() -> Pool {
        Pool {
            shared: Arc::default(),
            permits: Arc::new(Semaphore::new(JOBS)),
        }
    }

    /// Runs `work` on a thread of the pool.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let (sender, receiver) = oneshot::channel();
        self.push(Box::new(move || {
            let result = work();
            drop(permit);
            // Nobody may be waiting any more; then the result is simply dropped.
            let _ = sender.send(result);
        }))?;
        let gone = |_| io::Error::other("a blocking call ended without an answer");
        receiver.await.map_err(gone)?
    }

    fn push(&self, job: Job) -> io::Result<()> {
        let mut state = self.shared.lock();
        if state.jobs.len() >= state.idle && state.threads < THREADS {
            let shared = Arc::clone(&self.shared);
            let started = std::thread::Builder::new()
                .name("afterimage-io".into())
                .spawn(move || shared.serve());
            match started {
                Ok(_) => state.threads = state.threads.saturating_add(1),
                Err(error) if state.threads == 0 => return Err(error),
                // Those that run will get to it.
                Err(_) => {}
            }
        }
        state.jobs.push_back(job);
        drop(state);
        self.shared.work.notify_one();
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.work.notify_all();
    }
}

impl Shared {
    fn serve(&self) {
        while let Some(job) = self.next() {
            // A panic is a bug of ours; its caller sees a dropped channel, the others go on.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }

    /// The next job, or `None` when this thread has to end.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                break;
            }
            state.idle = state.idle.saturating_add(1);
            let waited = self.work.wait_timeout(state, IDLE);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle = state.idle.saturating_sub(1);
            if timeout.timed_out() && state.jobs.is_empty() {
                break;
            }
        }
        state.threads = state.threads.saturating_sub(1);
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os;
    use futures_util::future::join_all;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn more_jobs_than_fit_are_all_done_and_as_many_as_threads_at_once() {
        os::run(|_| async {
            let pool = Pool::new();
            // None of them ends before all threads have one.
            let together = Arc::new(Barrier::new(THREADS));
            let meet = (0..THREADS).map(|_| {
                let together = Arc::clone(&together);
                pool.run(move || Ok(together.wait()))
            });
            join_all(meet).await;
            let done = Arc::new(AtomicUsize::new(0));
            let count = (0..JOBS * 3).map(|_| {
                let done = Arc::clone(&done);
                pool.run(move || Ok(done.fetch_add(1, Ordering::SeqCst)))
            });
            assert!(join_all(count).await.iter().all(Result::is_ok));
            assert_eq!(done.load(Ordering::SeqCst), JOBS * 3);
            assert_eq!(pool.shared.lock().threads, THREADS);
        })
        .unwrap();
    }

    #[test]
    fn a_job_that_panics_fails_and_the_others_go_on() {
        os::run(|_| async {
            let pool = Pool::new();
            let failed = pool.run::<()>(|| panic!("a bug")).await.unwrap_err();
            assert_eq!(
                failed.to_string(),
                "a blocking call ended without an answer"
            );
            assert_eq!(pool.run(|| Ok(7)).await.unwrap(), 7);
        })
        .unwrap();
    }
}
