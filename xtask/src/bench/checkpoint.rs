//! How long a checkpoint takes, by how much the peer wrote since the last one.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Bench;
use super::figures::{Table, median, ratio, show};
use super::load::{End, Load, Operation, Pattern};
use super::pair::Secondary;
use super::process::Software;
use super::replicating::replicators;
use super::scratch::{Scratch, Storage};

/// Mebibytes written before the checkpoint; those beyond the disk's size are left out.
const WRITTEN_MIB: [u64; 5] = [0, 1, 16, 256, 1024];

/// How often a pair goes through all of them.
const PASSES: usize = 3;

/// Between a write and the checkpoint, so that the writer's departure is not measured with it.
const PAUSE: Duration = Duration::from_millis(10);

/// One secondary after the other, round after round.
pub(crate) fn measure(bench: &Bench, storage: Storage) -> Result<Table> {
    let written: Vec<u64> = WRITTEN_MIB
        .into_iter()
        .filter(|mebibytes| mebibytes << 20 <= bench.disk_bytes)
        .collect();
    let softwares = replicators(bench);
    let mut samples: Vec<Vec<Vec<f64>>> = vec![Vec::new(); softwares.len()];
    for _ in 0..bench.rounds {
        for (software, samples) in softwares.iter().zip(&mut samples) {
            let times = round(bench, *software, storage, &written)
                .with_context(|| format!("measuring the checkpoints of {}", software.name()))?;
            samples.extend(times);
        }
    }
    Ok(table(storage, &softwares, &written, &samples))
}

/// Milliseconds of a checkpoint after each amount, pass after pass.
fn round(
    bench: &Bench,
    software: Software,
    storage: Storage,
    written: &[u64],
) -> Result<Vec<Vec<f64>>> {
    let scratch = Scratch::new(storage)?;
    let disk = scratch.disk("replica.raw", bench.disk_bytes)?;
    let mut secondary = Secondary::start(bench, software, &scratch, &disk)?;
    secondary.replicate()?;
    let mut pass = || -> Result<Vec<f64>> {
        let after = |mebibytes: &u64| checkpoint(&mut secondary, *mebibytes);
        written.iter().map(after).collect()
    };
    (0..PASSES).map(|_| pass()).collect()
}

/// Milliseconds of a checkpoint after so much has been written.
fn checkpoint(secondary: &mut Secondary, mebibytes: u64) -> Result<f64> {
    let load = Load {
        operation: Operation::Write,
        pattern: Pattern::Sequential,
        length: 1 << 20,
        depth: 4,
        end: End::Count(mebibytes),
    };
    secondary.client()?.run(&load)?;
    thread::sleep(PAUSE);
    let since = Instant::now();
    secondary.checkpoint()?;
    Ok(since.elapsed().as_secs_f64() * 1e3)
}

fn table(
    storage: Storage,
    softwares: &[Software],
    written: &[u64],
    samples: &[Vec<Vec<f64>>],
) -> Table {
    let mut columns = vec!["MiB written since the last".to_owned()];
    for software in softwares {
        columns.extend([format!("{} ms", software.name()), "/ empty".to_owned()]);
    }
    let mut table = Table::new(format!("Checkpoint, {}", storage.name()), columns);
    for (index, mebibytes) in written.iter().enumerate() {
        let mut cells = vec![mebibytes.to_string()];
        for rounds in samples {
            let time =
                |row: usize| median(rounds.iter().filter_map(|times| times.get(row)).copied());
            cells.extend([show(time(index)), show(ratio(time(index), time(0)))]);
        }
        table.row(cells);
    }
    table
}
