//! The disks of one host as `ports::Files`: media with latency, faults and a power switch.
//!
//! An operation belongs to the hardware, not to the caller: dropping the answer leaves it running,
//! and only a power cut ends it. It takes effect at some moment between the call and the answer,
//! in two parts if the dice say so, so that a reader may catch it half done. What a
//! [`Fault`] does is stated at its [`Effect`]s. Image locks are not simulated.

mod file;

use crate::executor::{Executor, Life};
use crate::medium::Medium;
use crate::rng::Rng;
use block::ByteRange;
use drivers::ports::{File, FileOptions, Files, Runtime};
use file::SimFile;
use futures_channel::oneshot;
use futures_util::future::LocalBoxFuture;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const ESHUTDOWN: i32 = 108;

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Open a file.
    Open,
    /// Read data.
    Read,
    /// Write data, zeroes included.
    Write,
    /// Punch a hole.
    Discard,
    /// Make everything stable.
    Sync,
    /// Change the length.
    SetLength,
}

/// A fault to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which operation it strikes.
    pub op: DiskOp,
    /// Which files: those whose path contains this.
    pub file: String,
    /// Only operations that touch these bytes.
    pub range: Option<ByteRange>,
    /// How many such operations pass unharmed before it strikes.
    pub skip: u32,
    /// How often it strikes.
    pub times: u32,
    /// What it does.
    pub effect: Effect,
}

/// What a fault does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The operation fails with this error number. A failed write has written some sectors or none;
    /// a failed sync has lost what was pending.
    Fail(i32),
    /// The operation takes this much longer.
    Slow(Duration),
    /// A sync answers without having done anything.
    Lie,
    /// A write lands this many bytes further on.
    Misdirect(u64),
    /// A read answers with one bit flipped on the medium.
    Rot,
}

/// How operations go.
#[derive(Clone, Copy, Debug)]
pub struct Temper {
    /// How long they take at least.
    pub least: Duration,
    /// How long they take at most.
    pub most: Duration,
    /// Whether writes take effect in two parts now and then, and failed ones in part.
    pub tears: bool,
}

/// The disks of one host. Clones share them.
#[derive(Clone)]
pub struct Disks {
    state: Rc<State>,
}

struct State {
    executor: Executor,
    rng: Rng,
    temper: Cell<Temper>,
    /// What runs the operations; a new one after each power cut.
    hardware: RefCell<Life>,
    files: RefCell<BTreeMap<PathBuf, Rc<RefCell<Medium>>>>,
    faults: RefCell<Vec<Fault>>,
    /// Bytes that may be allocated in all files together.
    space: Cell<u64>,
    /// Files opened with `direct` take only multiples of this (bytes).
    direct_alignment: Cell<u64>,
    struck: Cell<u64>,
}

impl Disks {
    /// Empty disks of a host called `name`.
    pub fn new(executor: &Executor, name: &str, rng: Rng, temper: Temper) -> Disks {
        Disks {
            state: Rc::new(State {
                executor: executor.clone(),
                rng,
                temper: Cell::new(temper),
                hardware: RefCell::new(executor.life(&format!("{name}'s disks"))),
                files: RefCell::default(),
                faults: RefCell::default(),
                space: Cell::new(u64::MAX),
                direct_alignment: Cell::new(512),
                struck: Cell::new(0),
            }),
        }
    }

    /// Puts a file there, stable; an older one of that name is gone.
    pub fn put(&self, path: impl Into<PathBuf>, medium: Medium) {
        let medium = Rc::new(RefCell::new(medium));
        self.state.files.borrow_mut().insert(path.into(), medium);
    }

    /// What programs would read of the whole file, without asking the disk; for judges.
    pub fn peek(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        let files = self.state.files.borrow();
        let medium = files.get(path.as_ref())?.borrow();
        Some(medium.read(ByteRange::between(0, medium.length())).to_vec())
    }

    /// Adds a fault to come.
    pub fn inject(&self, fault: Fault) {
        self.state.faults.borrow_mut().push(fault);
    }

    /// Takes all faults back.
    pub fn heal(&self) {
        self.state.faults.borrow_mut().clear();
        self.state.space.set(u64::MAX);
    }

    /// How many faults have struck so far.
    pub fn struck(&self) -> u64 {
        self.state.struck.get()
    }

    /// Limits the space left to `bytes`, counted over all files from now on.
    pub fn limit_space(&self, bytes: u64) {
        let used: u64 = self.used_bytes();
        self.state.space.set(used.saturating_add(bytes));
    }

    /// Bytes allocated in all files together.
    pub fn used_bytes(&self) -> u64 {
        let files = self.state.files.borrow();
        files.values().map(|m| m.borrow().allocated_bytes()).sum()
    }

    /// Cuts the power: operations in flight end undone, unsynced changes survive as the dice say.
    /// Files opened before answer nothing but errors.
    pub fn power_cut(&self) {
        let fresh = self.state.executor.life("disks after a power cut");
        self.state.hardware.replace(fresh).end();
        for medium in self.state.files.borrow().values() {
            medium.borrow_mut().power_cut(&self.state.rng);
        }
    }

    /// The next fault for `op` on bytes `range` of `path`, if one strikes.
    fn strike(&self, op: DiskOp, path: &Path, range: Option<ByteRange>) -> Option<Effect> {
        let mut faults = self.state.faults.borrow_mut();
        let fault = faults.iter_mut().find(|fault| {
            fault.op == op
                && fault.times > 0
                && path.to_string_lossy().contains(&fault.file)
                && match (fault.range, range) {
                    (Some(wanted), Some(touched)) => wanted.overlaps(touched),
                    (Some(_), None) => false,
                    (None, _) => true,
                }
        })?;
        if let Some(left) = fault.skip.checked_sub(1) {
            fault.skip = left;
            return None;
        }
        fault.times = fault.times.saturating_sub(1);
        self.state
            .struck
            .set(self.state.struck.get().saturating_add(1));
        Some(fault.effect)
    }

    /// Some time within the bounds.
    fn a_moment(&self, hardware: &Life) -> impl Future<Output = ()> + 'static {
        let Temper { least, most, .. } = self.state.temper.get();
        let spread = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX);
        let extra = Duration::from_nanos(self.state.rng.below(spread.saturating_add(1)));
        // Half of it before the effect, half after.
        hardware.sleep(least.saturating_add(extra) / 2)
    }

    /// Runs `operation` as the hardware's own task and waits for its answer.
    async fn run<T: 'static>(
        hardware: &Life,
        operation: impl Future<Output = io::Result<T>> + 'static,
    ) -> io::Result<T> {
        let (answer, answered) = oneshot::channel();
        let _runs_on = hardware.spawn(Box::pin(async move {
            let _ = answer.send(operation.await);
        }));
        answered.await.unwrap_or_else(|_| Err(errno(ESHUTDOWN)))
    }

    fn check_space(&self, medium: &RefCell<Medium>, range: ByteRange) -> io::Result<()> {
        let growth = medium.borrow().growth(range);
        if self.state.space.get() == u64::MAX
            || growth == 0
            || self.used_bytes().saturating_add(growth) <= self.state.space.get()
        {
            return Ok(());
        }
        Err(errno(ENOSPC))
    }
}

impl Files for Disks {
    fn open(&self, options: FileOptions) -> LocalBoxFuture<'_, io::Result<Rc<dyn File>>> {
        Box::pin(async move {
            let hardware = self.state.hardware.borrow().clone();
            self.a_moment(&hardware).await;
            if let Some(Effect::Fail(number)) = self.strike(DiskOp::Open, &options.path, None) {
                return Err(errno(number));
            }
            let mut files = self.state.files.borrow_mut();
            let medium = match files.get(&options.path) {
                Some(medium) => Rc::clone(medium),
                None if options.create => Rc::default(),
                None => return Err(io::ErrorKind::NotFound.into()),
            };
            files.insert(options.path.clone(), Rc::clone(&medium));
            let file = SimFile {
                disks: self.clone(),
                hardware,
                medium,
                alignment: if options.direct {
                    self.state.direct_alignment.get()
                } else {
                    1
                },
                writable: Cell::new(options.writable),
                path: options.path,
            };
            let file: Rc<dyn File> = Rc::new(file);
            Ok(file)
        })
    }

    fn remove(&self, path: &Path) -> LocalBoxFuture<'_, io::Result<()>> {
        let removed = self.state.files.borrow_mut().remove(path);
        let result = removed
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into());
        Box::pin(async { result })
    }
}

/// An I/O error.
pub fn io_error() -> Effect {
    Effect::Fail(EIO)
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::Order;
    use crate::medium::SECTOR;
    use bytes::Bytes;

    fn disks(seed: u64) -> (Executor, Disks) {
        let rng = Rng::new(seed);
        let executor = Executor::new(rng.fork(), Order::Random, 100_000);
        let temper = Temper {
            least: Duration::from_micros(10),
            most: Duration::from_millis(1),
            tears: true,
        };
        let disks = Disks::new(&executor, "host", rng, temper);
        disks.put("disk", Medium::with_contents(&[1; 4096]));
        (executor, disks)
    }

    async fn open(disks: &Disks, path: &str) -> Rc<dyn File> {
        let options = FileOptions {
            path: path.into(),
            writable: true,
            create: true,
            ..FileOptions::default()
        };
        disks.open(options).await.unwrap()
    }

    fn fault(op: DiskOp, effect: Effect) -> Fault {
        Fault {
            op,
            file: "disk".into(),
            range: None,
            skip: 1,
            times: 1,
            effect,
        }
    }

    #[test]
    fn a_synced_write_survives_a_power_cut_and_the_old_handle_does_not() {
        let (executor, disks) = disks(1);
        let run = executor.run(async {
            let file = open(&disks, "disk").await;
            file.write_at(512, Bytes::from_static(&[2; 512]))
                .await
                .unwrap();
            file.sync().await.unwrap();
            disks.power_cut();
            let late = file.read_at(0, 512).await.unwrap_err();
            assert_eq!(late.raw_os_error(), Some(ESHUTDOWN));
            open(&disks, "disk").await.read_at(0, 1024).await.unwrap()
        });
        assert_eq!(run.unwrap(), [[1; 512], [2; 512]].concat());
    }

    #[test]
    fn a_write_goes_on_when_its_answer_is_dropped() {
        let (executor, disks) = disks(2);
        let run = executor.run(async {
            let file = open(&disks, "disk").await;
            let mut write = file.write_at(0, Bytes::from_static(&[9; 512]));
            assert!(futures_util::poll!(&mut write).is_pending());
            drop(write);
            let clock = disks.state.hardware.borrow().clone();
            clock.sleep(Duration::from_secs(1)).await;
        });
        run.unwrap();
        assert_eq!(disks.peek("disk").unwrap()[..512], [9; 512]);
    }

    #[test]
    fn a_fault_strikes_after_its_skips_and_as_often_as_told() {
        let (executor, disks) = disks(3);
        disks.inject(fault(DiskOp::Write, io_error()));
        let run = executor.run(async {
            let file = open(&disks, "disk").await;
            let mut results = Vec::new();
            for _ in 0..3 {
                let result = file.write_at(0, Bytes::from_static(&[2; 512])).await;
                results.push(result.is_ok());
            }
            results
        });
        assert_eq!(run.unwrap(), [true, false, true]);
        assert_eq!(disks.struck(), 1);
    }

    #[test]
    fn a_lying_sync_makes_nothing_stable() {
        let mut lost = false;
        for seed in 0..20 {
            let (executor, disks) = disks(seed);
            disks.inject(Fault {
                skip: 0,
                ..fault(DiskOp::Sync, Effect::Lie)
            });
            let run = executor.run(async {
                let file = open(&disks, "disk").await;
                file.write_at(0, Bytes::from_static(&[2; 512]))
                    .await
                    .unwrap();
                file.sync().await.unwrap();
                disks.power_cut();
            });
            run.unwrap();
            lost |= disks.peek("disk").unwrap()[0] == 1;
        }
        assert!(lost);
    }

    #[test]
    fn a_full_disk_refuses_new_sectors_and_takes_old_ones() {
        let (executor, disks) = disks(4);
        disks.limit_space(512);
        let run = executor.run(async {
            let file = open(&disks, "other").await;
            file.write_at(0, Bytes::from_static(&[2; 512]))
                .await
                .unwrap();
            let full = file.write_at(512, Bytes::from_static(&[2; 512])).await;
            assert_eq!(full.unwrap_err().raw_os_error(), Some(ENOSPC));
            file.write_at(0, Bytes::from_static(&[3; 512]))
                .await
                .unwrap();
        });
        run.unwrap();
    }

    #[test]
    fn a_reader_may_catch_a_write_half_done() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..300 {
            let (executor, disks) = disks(seed);
            let run = executor.run(async {
                let file = open(&disks, "disk").await;
                let write = file.write_at(0, Bytes::from(vec![2; 1024]));
                let read = file.read_at(0, 1024);
                let (written, read) = futures_util::future::join(write, read).await;
                written.unwrap();
                read.unwrap()
            });
            let data = run.unwrap();
            seen.insert((data[0], data[512]));
        }
        assert_eq!(
            seen.into_iter().collect::<Vec<_>>(),
            [(1, 1), (1, 2), (2, 1), (2, 2)]
        );
    }

    #[test]
    fn direct_files_refuse_unaligned_requests() {
        let (executor, disks) = disks(5);
        let options = FileOptions {
            path: "disk".into(),
            writable: true,
            direct: true,
            ..FileOptions::default()
        };
        let run = executor.run(async {
            let file = disks.open(options).await.unwrap();
            assert_eq!(file.info().alignment, SECTOR);
            file.read_at(100, 512).await.unwrap_err().kind()
        });
        assert_eq!(run.unwrap(), io::ErrorKind::InvalidInput);
    }
}
