//! From samples to a table: medians, ratios, Markdown.

use std::fmt;
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::Bench;
use super::load::Achieved;
use crate::shell;

/// One measurement of one server under one load.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    /// CPU time of the servers for each operation.
    pub(crate) cpu_us: f64,
}

impl Sample {
    pub(crate) fn new(achieved: Achieved, cpu: Duration) -> Self {
        // Counts of operations are far below 2^32: a run lasts seconds.
        let operations = f64::from(u32::try_from(achieved.operations).unwrap_or(u32::MAX));
        Self {
            per_second: operations / achieved.elapsed.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / operations.max(1.0),
        }
    }
}

/// The middle of some values; none of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get(values.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

/// A median for a table, with about three digits; a dash for none.
pub(crate) fn show(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}

/// One median divided by another.
pub(crate) fn ratio(value: Option<f64>, by: Option<f64>) -> Option<f64> {
    value
        .zip(by)
        .filter(|(_, by)| *by > 0.0)
        .map(|(value, by)| value / by)
}

/// A Markdown table with its title.
pub(crate) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: Vec<String>) -> Self {
        Self {
            title: title.into(),
            rows: vec![columns],
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n### {}\n", self.title)?;
        for (index, row) in self.rows.iter().enumerate() {
            writeln!(f, "| {} |", row.join(" | "))?;
            if index == 0 {
                let rule: Vec<&str> = row
                    .iter()
                    .enumerate()
                    .map(|(n, _)| if n == 0 { "---" } else { "--:" })
                    .collect();
                writeln!(f, "|{}|", rule.join("|"))?;
            }
        }
        Ok(())
    }
}

/// The machine and the versions, which figures mean nothing without.
pub(crate) fn conditions(bench: &Bench) -> Result<String> {
    let first_line = |program: &str, argument: &str| -> Result<String> {
        let said = shell::capture(&mut shell::tool(program, &[argument]))?;
        Ok(said.lines().next().unwrap_or_default().to_owned())
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let lines = [
        format!(
            "- {cores} cores, shared by client and servers; Linux {}",
            release(&first_line("uname", "-r")?)
        ),
        format!("- {}", first_line("qemu-nbd", "--version")?),
        format!("- {}", first_line("nbdkit", "--version")?),
        format!(
            "- disk of {} MiB, cache mode writeback, medians of {} rounds",
            bench.disk_bytes >> 20,
            bench.rounds
        ),
    ];
    Ok(lines.join("\n"))
}

/// A kernel's version and no more: what follows it names who built it.
fn release(full: &str) -> String {
    full.split('.').take(2).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::{Table, median, ratio, release, show};

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn figures_have_three_digits_and_none_is_a_dash() {
        assert_eq!(
            [Some(1234.5), Some(12.34), Some(0.123), None].map(show),
            ["1234", "12.3", "0.12", "–"]
        );
        assert_eq!(ratio(Some(1.0), Some(0.0)), None);
        assert_eq!(release("6.1.0-9-amd64"), "6.1");
    }

    #[test]
    fn a_table_is_markdown() {
        let mut table = Table::new("Reads", vec!["load".to_owned(), "IOPS".to_owned()]);
        table.row(vec!["4 KiB".to_owned(), "1".to_owned()]);
        assert_eq!(
            table.to_string(),
            "\n### Reads\n\n| load | IOPS |\n|---|--:|\n| 4 KiB | 1 |\n"
        );
    }
}
