//! What replication costs: the secondary's ingest, and the primary with its secondary.
//!
//! `first` touches a new 64 KiB cluster with every write, right after a checkpoint, so that each
//! is copied before it is overwritten; `again` repeats the same writes.

use anyhow::{Context, Result};

use super::Bench;
use super::client::Client;
use super::figures::{Sample, Table, median, ratio, show};
use super::load::{End, Load, Operation, Pattern};
use super::pair::{Primary, Secondary};
use super::process::Software;
use super::scratch::{Scratch, Storage, settle};

const CLUSTER_BYTES: u64 = 64 << 10;

/// The rows, in the order they are measured.
const ROWS: [&str; 5] = [
    "secondary, plain",
    "secondary, first",
    "secondary, again",
    "pair, first",
    "pair, again",
];

/// The software that can replicate, of what was chosen.
pub(crate) fn replicators(bench: &Bench) -> Vec<Software> {
    let can = |software: &Software| matches!(software, Software::Afterimage | Software::QemuSystem);
    bench.software.iter().copied().filter(can).collect()
}

/// One pair after the other, round after round.
pub(crate) fn measure(bench: &Bench, storage: Storage) -> Result<Table> {
    let softwares = replicators(bench);
    let mut samples: Vec<Vec<[Sample; 5]>> = vec![Vec::new(); softwares.len()];
    for _ in 0..bench.rounds {
        for (software, samples) in softwares.iter().zip(&mut samples) {
            let sample = round(bench, *software, storage)
                .with_context(|| format!("measuring the pair of {}", software.name()))?;
            samples.push(sample);
        }
    }
    Ok(table(storage, &softwares, &samples))
}

/// Builds one pair and measures every row once.
fn round(bench: &Bench, software: Software, storage: Storage) -> Result<[Sample; 5]> {
    let scratch = Scratch::new(storage)?;
    let replica = scratch.disk("replica.raw", bench.disk_bytes)?;
    let local = scratch.disk("local.raw", bench.disk_bytes)?;
    let load = Load {
        operation: Operation::Write,
        pattern: Pattern::Strided(CLUSTER_BYTES),
        length: 4 << 10,
        depth: 32,
        end: End::Count(bench.disk_bytes / CLUSTER_BYTES),
    };
    let mut secondary = Secondary::start(bench, software, &scratch, &replica)?;
    let ingest = |secondary: &Secondary, client: &mut Client| -> Result<Sample> {
        settle(&replica)?;
        let before = secondary.process.cpu_time()?;
        let achieved = client.run(&load)?;
        Ok(Sample::new(
            achieved,
            secondary.process.cpu_time()?.saturating_sub(before),
        ))
    };
    let mut client = secondary.client()?;
    let plain = ingest(&secondary, &mut client)?;
    secondary.replicate()?;
    let first = ingest(&secondary, &mut client)?;
    let again = ingest(&secondary, &mut client)?;
    drop(client);
    secondary.checkpoint()?;

    let primary = Primary::start(bench, software, &scratch, &local, &secondary)?;
    let mut client = primary.client()?;
    let mut both = || -> Result<Sample> {
        settle(&local)?;
        let cpu = || Ok::<_, anyhow::Error>(primary.cpu_time()? + secondary.process.cpu_time()?);
        let before = cpu()?;
        let achieved = client.run(&load)?;
        Ok(Sample::new(achieved, cpu()?.saturating_sub(before)))
    };
    Ok([plain, first, again, both()?, both()?])
}

fn table(storage: Storage, softwares: &[Software], samples: &[Vec<[Sample; 5]>]) -> Table {
    let mut columns = vec!["4 KiB writes every 64 KiB, depth 32".to_owned()];
    for software in softwares {
        let name = software.name();
        columns.extend([
            format!("{name} IOPS"),
            format!("{name} / plain"),
            format!("{name} CPU µs"),
        ]);
    }
    columns.extend([
        "IOPS ours / QEMU's".to_owned(),
        "CPU ours / QEMU's".to_owned(),
    ]);
    let mut table = Table::new(format!("Replicating, {}", storage.name()), columns);
    for (index, name) in ROWS.iter().enumerate() {
        let figure = |software: usize, row: usize, of: fn(&Sample) -> f64| {
            let samples = samples.get(software)?;
            median(samples.iter().filter_map(|rows| rows.get(row)).map(of))
        };
        let rate = |software, row| figure(software, row, |sample| sample.per_second);
        let cpu = |software, row| figure(software, row, |sample| sample.cpu_us);
        let mut cells = vec![(*name).to_owned()];
        for software in 0..softwares.len() {
            let share = ratio(rate(software, index), rate(software, 0));
            cells.extend([
                show(rate(software, index)),
                show(share),
                show(cpu(software, index)),
            ]);
        }
        let place = |wanted| softwares.iter().position(|software| *software == wanted);
        let (ours, qemus) = (place(Software::Afterimage), place(Software::QemuSystem));
        let of = |place: Option<usize>, figure: &dyn Fn(usize, usize) -> Option<f64>| {
            figure(place?, index)
        };
        cells.push(show(ratio(of(ours, &rate), of(qemus, &rate))));
        cells.push(show(ratio(of(ours, &cpu), of(qemus, &cpu))));
        table.row(cells);
    }
    table
}
