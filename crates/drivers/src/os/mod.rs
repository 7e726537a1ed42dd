//! The ports of a data thread, by tokio, `io_uring` and the kernel. Nothing outside names any of
//! them.
//!
//! ```text
//! data thread: tokio current_thread runtime + LocalSet
//!  ├── sockets, timers          epoll
//!  ├── ring                     direct I/O; inside this thread, no hand-over
//!  ├── short buffered I/O       at once, where it cannot block
//!  └── pool of threads          whatever may block
//! ```

mod file;
mod lock;
mod network;
mod pool;
mod ring;
mod runtime;
mod signal;

use crate::ports::Ports;
use file::HostFiles;
use network::HostNetwork;
use pool::Pool;
use ring::Ring;
use runtime::{HostRandom, HostRuntime};
pub use signal::Termination;
use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::thread::JoinHandle;

/// Stack of a data thread in bytes: a request goes down as many nodes as a graph has levels.
const STACK: usize = 8 << 20;

/// What the ports of one data thread have in common.
struct Shared {
    pool: Pool,
    /// Set up when first needed; `None` if there is no ring to be had.
    ring: OnceCell<Option<Ring>>,
    /// More work waits for this thread.
    backlog: Cell<bool>,
}

impl Shared {
    /// The ring, unless there is none to be had; the pool does its work then.
    fn ring(&self) -> Option<Ring> {
        let ring = self.ring.get_or_init(|| match Ring::new() {
            Ok(ring) => Some(ring),
            Err(error) => {
                tracing::warn!(%error, "io_uring is not to be had; a pool of threads takes its place");
                None
            }
        });
        ring.clone()
    }
}

/// The ports of this thread. Call within [`run`] or [`run_data_thread`].
pub fn ports() -> Ports {
    let shared = Rc::new(Shared {
        pool: Pool::new(),
        ring: OnceCell::new(),
        backlog: Cell::new(false),
    });
    Ports {
        runtime: Rc::new(HostRuntime::new()),
        files: Rc::new(HostFiles::new(shared)),
        network: Rc::new(HostNetwork),
        random: Rc::new(HostRandom),
    }
}

/// Makes the calling thread a data thread until `body` has ended. Tasks it left behind are dropped.
///
/// # Errors
///
/// If the host has no room for an event loop (descriptors, memory).
pub fn run<F, Fut>(body: F) -> io::Result<Fut::Output>
where
    F: FnOnce(Ports) -> Fut,
    Fut: Future,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let tasks = tokio::task::LocalSet::new();
    let result = tasks.block_on(&runtime, async { body(ports()).await });
    // Tasks before the runtime whose timers and sockets they hold.
    runtime.block_on(async { drop(tasks) });
    Ok(result)
}

/// Starts a data thread called `name` that runs `body` to its end.
///
/// # Errors
///
/// If the host has no room for another thread.
pub fn run_data_thread<F, Fut>(name: &str, body: F) -> io::Result<DataThread<Fut::Output>>
where
    F: FnOnce(Ports) -> Fut + Send + 'static,
    Fut: Future<Output: Send + 'static>,
{
    let thread = std::thread::Builder::new().name(name.to_owned());
    let thread = thread.stack_size(STACK);
    let thread = thread.spawn(move || run(body))?;
    Ok(DataThread { thread })
}

/// A running data thread. Dropping the handle lets it run on.
#[derive(Debug)]
pub struct DataThread<T> {
    thread: JoinHandle<io::Result<T>>,
}

impl<T> DataThread<T> {
    /// Waits, blocking, until the thread has ended.
    ///
    /// # Errors
    ///
    /// If it could not set up its event loop, or panicked.
    pub fn join(self) -> io::Result<T> {
        let panicked = |_| io::Error::other("a data thread panicked");
        self.thread.join().map_err(panicked)?
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::pending;
    use std::time::Duration;

    /// Says when it is dropped.
    struct Guard(Rc<Cell<bool>>);

    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    #[test]
    fn a_data_thread_runs_its_tasks_and_returns_what_its_body_did() {
        let thread = run_data_thread("data0", |ports| async move {
            let sum = Rc::new(Cell::new(0));
            let task = |amount: u32| {
                let (sum, runtime) = (Rc::clone(&sum), Rc::clone(&ports.runtime));
                ports.runtime.spawn(Box::pin(async move {
                    runtime.sleep(Duration::from_millis(1)).await;
                    sum.set(sum.get() + amount);
                }))
            };
            let tasks = [task(1), task(2)];
            while !tasks.iter().all(crate::ports::Task::is_finished) {
                ports.runtime.sleep(Duration::from_millis(1)).await;
            }
            assert_ne!(ports.random.identity(), ports.random.identity());
            (sum.get(), std::thread::current().name().map(str::to_owned))
        });
        let result = thread.unwrap().join().unwrap();
        assert_eq!(result, (3, Some("data0".to_owned())));
    }

    #[test]
    fn an_aborted_task_drops_what_it_holds_and_so_does_the_end_of_the_thread() {
        let (aborted, left) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let spawn = |ports: &Ports, guard: &Rc<Cell<bool>>| {
            let guard = Guard(Rc::clone(guard));
            ports.runtime.spawn(Box::pin(async move {
                let _guard = guard;
                pending::<()>().await;
            }))
        };
        run(async |ports| {
            let task = spawn(&ports, &aborted);
            let _left_behind = spawn(&ports, &left);
            task.abort();
            ports.runtime.sleep(Duration::from_millis(1)).await;
            assert!(task.is_finished());
            assert!(aborted.get());
            assert!(!left.get());
        })
        .unwrap();
        assert!(left.get());
    }

    #[test]
    fn a_data_thread_that_panics_is_an_error_for_who_joins_it() {
        let thread = run_data_thread("data0", |_| async { panic!("a bug") });
        let joined: io::Result<()> = thread.unwrap().join();
        assert_eq!(joined.unwrap_err().to_string(), "a data thread panicked");
    }
}
