//! `cargo xtask bench`: the same load against afterimage and its peers, as Markdown tables.
//!
//! All servers serve the same file in the same cache mode, one after the other; rounds are
//! interleaved, so that a disturbance of the machine meets all alike, and medians are taken.
//! CPU an operation is the server's user and system time; it is the figure to trust where the
//! client shares the cores. Nothing here is a test: no figure fails anything.
//!
//! The client is a small one of our own, which shares no code with what it measures and works
//! while that does not compile.

mod checkpoint;
mod client;
mod figures;
mod load;
mod pair;
mod plain;
mod process;
mod qmp;
mod replicating;
mod scratch;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::packages::{self, Policy};
use crate::shell;
use process::Software;
use scratch::Storage;

/// How much to measure, and what.
#[derive(Args)]
pub(crate) struct Options {
    /// Tables to make; all without any.
    #[arg(value_enum)]
    tables: Vec<Table>,
    /// How often everything is repeated; medians are taken over these.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long a row of the first table is measured, in each round.
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    milliseconds: u64,
    /// Size of the disk.
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
    /// Where the disk lies; both without any.
    #[arg(long, value_enum)]
    storage: Vec<Storage>,
    /// Software to measure; all without any.
    #[arg(long, value_enum)]
    software: Vec<Software>,
    /// A first look in a minute or two: 3 rounds, short rows, memory only.
    #[arg(long, conflicts_with_all = ["rounds", "milliseconds"])]
    quick: bool,
    /// Use what is installed, install nothing.
    #[arg(long)]
    no_install: bool,
}

impl Options {
    fn rounds(&self) -> usize {
        if self.quick { 3 } else { self.rounds.max(1) }
    }

    fn row(&self) -> Duration {
        Duration::from_millis(if self.quick { 250 } else { self.milliseconds })
    }

    fn storages(&self) -> Vec<Storage> {
        if self.quick && self.storage.is_empty() {
            return vec![Storage::Tmpfs];
        }
        or_all(&self.storage)
    }
}

/// The tables there are.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Table {
    /// A plain export, against qemu-nbd, qemu-storage-daemon and nbdkit.
    Plain,
    /// The two halves of a pair against plain exports, beside QEMU's own pair.
    Replicating,
    /// How long a checkpoint takes after so much was written, beside QEMU's.
    Checkpoint,
}

/// What all tables need to know.
struct Bench {
    rounds: usize,
    row: Duration,
    disk_bytes: u64,
    software: Vec<Software>,
    /// Our own program.
    afterimage: PathBuf,
}

/// Measures and prints the tables asked for.
pub(crate) fn run(options: &Options) -> Result<()> {
    packages::provide(Policy::from_flag(options.no_install))?;
    let bench = Bench {
        rounds: options.rounds(),
        row: options.row(),
        disk_bytes: options.mebibytes << 20,
        software: or_all(&options.software),
        afterimage: shell::target()?.join("release/afterimage"),
    };
    if options.mebibytes < 64 {
        bail!(
            "a disk of {} MiB is too small to measure on; at least 64",
            options.mebibytes
        );
    }
    if bench.software.contains(&Software::Afterimage) {
        shell::run(&mut shell::cargo(&[
            "build",
            "--release",
            "--package",
            "afterimage",
        ]))?;
    }
    println!("{}", figures::conditions(&bench)?);
    for storage in options.storages() {
        for table in or_all(&options.tables) {
            let table = match table {
                Table::Plain => plain::measure(&bench, storage)?,
                Table::Replicating => replicating::measure(&bench, storage)?,
                Table::Checkpoint => checkpoint::measure(&bench, storage)?,
            };
            println!("{table}");
        }
    }
    Ok(())
}

/// What was chosen; everything if nothing was.
fn or_all<T: ValueEnum>(chosen: &[T]) -> Vec<T> {
    if chosen.is_empty() {
        T::value_variants().to_vec()
    } else {
        chosen.to_vec()
    }
}
