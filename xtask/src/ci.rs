//! `cargo xtask ci`: every check, then every test, then what each took.
//!
//! A failed step does not stop the later ones: one run shows all that is wrong.

use std::env;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::packages::Policy;
use crate::suites::{Count, Size};
use crate::{deny, fuzz, mutants, shell, suites, tidy, trace};

/// The wish for the whole run. A slower one is pointed out, not failed: hosts differ.
const WISH: Duration = Duration::from_mins(15);

/// Random runs of the simulation; one more takes its seed from the commit.
const SIM_SEEDS: u32 = 20_000;

/// A check and the name it has in the report.
type Step = (&'static str, fn() -> Result<()>);

/// The checks, cheapest first; the tests come after them.
const STEPS: &[Step] = &[
    ("fmt", fmt),
    ("tidy", tidy::run),
    ("trace", trace::run),
    ("deny", deny::run),
    ("clippy", clippy),
    ("doc", doc),
    ("fuzz", fuzz::smoke),
    ("mutants", mutants),
];

/// Runs all steps. The last line printed is the count of the tests.
pub(crate) fn run(policy: Policy) -> ExitCode {
    let mut report = Report::default();
    for (name, step) in STEPS {
        report.step(name, step);
    }
    let mut count = Count::default();
    report.step("test", || {
        count = suites::count(policy, &[], &sizes()?)?;
        count.verdict()
    });
    report.print();
    println!("{count}");
    if report.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// How much the random tests do here; what the environment says already is left as it is.
fn sizes() -> Result<Vec<Size>> {
    let commit = shell::capture(&mut shell::tool("git", &["rev-parse", "HEAD"]))?;
    let seed = commit.get(..16).context("git names no commit")?;
    let seed = u64::from_str_radix(seed, 16).context("git names no commit")?;
    let sizes = [
        ("SIM_SEEDS", SIM_SEEDS.to_string()),
        ("SIM_EXTRA_SEED", seed.to_string()),
    ];
    Ok(sizes
        .into_iter()
        .filter(|(name, _)| env::var_os(name).is_none())
        .collect())
}

fn fmt() -> Result<()> {
    shell::run(&mut shell::cargo(&["fmt", "--all", "--check"]))?;
    shell::run(&mut shell::cargo(&[
        "fmt",
        "--check",
        "--manifest-path",
        "fuzz/Cargo.toml",
    ]))
}

fn clippy() -> Result<()> {
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    shell::run(&mut shell::cargo(&args))
}

/// Until there is a folder of them, there is none to plant.
fn mutants() -> Result<()> {
    if shell::root().join("mutants").is_dir() {
        mutants::run(None)
    } else {
        Ok(())
    }
}

fn doc() -> Result<()> {
    let mut rustdoc = shell::cargo(&["doc", "--workspace", "--no-deps"]);
    shell::run(rustdoc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// What ran, how long it took, what failed.
#[derive(Default)]
struct Report {
    took: Vec<(&'static str, Duration)>,
    failed: Vec<&'static str>,
}

impl Report {
    fn step(&mut self, name: &'static str, step: impl FnOnce() -> Result<()>) {
        println!("\n== {name}");
        let started = Instant::now();
        let outcome = step();
        self.took.push((name, started.elapsed()));
        if let Err(error) = outcome {
            eprintln!("error: {name}: {error:#}");
            self.failed.push(name);
        }
    }

    fn print(&self) {
        let total: Duration = self.took.iter().map(|(_, took)| *took).sum();
        println!("\n== minutes");
        for (name, took) in &self.took {
            println!("{:>6} {name}", minutes(*took));
        }
        let remark = if total > WISH {
            format!(", wished for {}", minutes(WISH))
        } else {
            String::new()
        };
        println!("{:>6} total{remark}", minutes(total));
        if self.failed.is_empty() {
            println!("all steps passed");
        } else {
            println!("failed: {}", self.failed.join(", "));
        }
    }
}

fn minutes(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() / 60.0)
}
