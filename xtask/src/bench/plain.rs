//! A plain export of a raw file, against the servers people use.

use std::path::Path;

use anyhow::{Context, Result};

use super::Bench;
use super::client::{Address, Client};
use super::figures::{Sample, Table, median, ratio, show};
use super::load::{End, Load, Operation, Pattern};
use super::process::{Process, Software};
use super::scratch::{Scratch, Storage, settle};

/// The rows of the table: what, and what it is called.
fn loads(bench: &Bench) -> Vec<(String, Load)> {
    let mut loads = Vec::new();
    for (length, size, pattern) in [
        (4 << 10, "4 KiB random", Pattern::Random),
        (1 << 20, "1 MiB sequential", Pattern::Sequential),
    ] {
        for (operation, verb) in [(Operation::Read, "read"), (Operation::Write, "write")] {
            for depth in [1, 32] {
                let end = End::After(bench.row);
                loads.push((
                    format!("{size} {verb}, depth {depth}"),
                    Load {
                        operation,
                        pattern,
                        length,
                        depth,
                        end,
                    },
                ));
            }
        }
    }
    loads
}

/// Samples of one row, one list for each server.
type Row = Vec<Vec<Sample>>;

/// Serves one file by each server in turn, round after round.
pub(crate) fn measure(bench: &Bench, storage: Storage) -> Result<Table> {
    let scratch = Scratch::new(storage)?;
    let disk = scratch.disk("plain.raw", bench.disk_bytes)?;
    let loads = loads(bench);
    let servers: Vec<Software> = bench
        .software
        .iter()
        .copied()
        .filter(|software| *software != Software::QemuSystem)
        .collect();
    let mut rows: Vec<Row> = loads
        .iter()
        .map(|_| vec![Vec::new(); servers.len()])
        .collect();
    for round in 0..bench.rounds {
        for turn in 0..servers.len() {
            // Nobody is always first.
            let index = (turn + round) % servers.len();
            let Some(server) = servers.get(index) else {
                continue;
            };
            let samples = serve(bench, *server, &scratch, &disk, &loads)
                .with_context(|| format!("measuring {}", server.name()))?;
            for (row, sample) in rows.iter_mut().zip(samples) {
                if let Some(samples) = row.get_mut(index) {
                    samples.push(sample);
                }
            }
        }
    }
    Ok(table(storage, &servers, &loads, &rows))
}

/// One server, all loads.
fn serve(
    bench: &Bench,
    server: Software,
    scratch: &Scratch,
    disk: &Path,
    loads: &[(String, Load)],
) -> Result<Vec<Sample>> {
    let socket = scratch.socket("plain.sock");
    let command = server
        .plain(bench, disk, &socket)
        .context("is no plain server")?;
    let process = Process::start(command, &socket)?;
    let mut client = Client::connect(&Address::Unix(socket), "")?;
    let mut samples = Vec::new();
    for (_, load) in loads {
        settle(disk)?;
        let before = process.cpu_time()?;
        let achieved = client.run(load)?;
        samples.push(Sample::new(
            achieved,
            process.cpu_time()?.saturating_sub(before),
        ));
    }
    Ok(samples)
}

/// Rates of all, then CPU an operation of all, each with its ratio.
fn table(storage: Storage, servers: &[Software], loads: &[(String, Load)], rows: &[Row]) -> Table {
    let names = || servers.iter().map(|server| server.name().to_owned());
    let mut columns = vec!["IOPS or MiB/s; CPU µs an operation".to_owned()];
    columns.extend(names());
    columns.push("ours / best".to_owned());
    columns.extend(names().map(|name| format!("CPU {name}")));
    columns.push("CPU ours / qemu-nbd".to_owned());
    let mut table = Table::new(format!("Plain export, {}", storage.name()), columns);
    for ((name, load), row) in loads.iter().zip(rows) {
        let unit = if load.length >= 1 << 20 {
            f64::from(load.length >> 20)
        } else {
            1.0
        };
        let rates: Vec<_> = row
            .iter()
            .map(|samples| median(samples.iter().map(|s| s.per_second * unit)))
            .collect();
        let cpus: Vec<_> = row
            .iter()
            .map(|samples| median(samples.iter().map(|s| s.cpu_us)))
            .collect();
        let of = |values: &[Option<f64>], wanted: Software| {
            servers
                .iter()
                .zip(values)
                .find(|(server, _)| **server == wanted)
                .and_then(|(_, value)| *value)
        };
        let peers = servers
            .iter()
            .zip(&rates)
            .filter(|(server, _)| **server != Software::Afterimage);
        let best = peers.filter_map(|(_, rate)| *rate).max_by(f64::total_cmp);
        let mut cells = vec![name.clone()];
        cells.extend(rates.iter().map(|rate| show(*rate)));
        cells.push(show(ratio(of(&rates, Software::Afterimage), best)));
        cells.extend(cpus.iter().map(|cpu| show(*cpu)));
        cells.push(show(ratio(
            of(&cpus, Software::Afterimage),
            of(&cpus, Software::QemuNbd),
        )));
        table.row(cells);
    }
    table
}
