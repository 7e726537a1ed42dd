//! `cargo xtask fuzz`: hostile bytes for the parsers, from libFuzzer on the stable toolchain.
//!
//! fuzz/README.md says what the targets are; the list of targets is that crate's list of binaries.
//! What is found lies in `fuzz/artifacts`, named after the target.

use std::env;
use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell;

/// How long a target runs unless told otherwise: a smoke test.
pub(crate) const SECONDS: u32 = 30;

const MANIFEST: &str = "fuzz/Cargo.toml";

/// The coverage passes libFuzzer is steered by; `rustc` runs them by name.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
];

/// Bounds of one run: an input, the time for it, the memory.
const LIMITS: &[&str] = &["-max_len=4096", "-timeout=10", "-rss_limit_mb=1024"];

/// Builds the targets and runs each, or the `chosen` one, for `seconds`.
pub(crate) fn run(chosen: Option<&str>, seconds: u32) -> Result<()> {
    let (targets, folder) = build()?;
    let targets: Vec<String> = targets
        .into_iter()
        .filter(|target| chosen.is_none_or(|name| name == target))
        .collect();
    if targets.is_empty() {
        bail!("no such target; fuzz/README.md lists them");
    }
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let mut crashed = Vec::new();
    for together in targets.chunks(cores) {
        let outcomes: Vec<_> = thread::scope(|scope| {
            let folder = &folder;
            let start = |target: &String| {
                let target = target.clone();
                scope.spawn(move || run_target(&target, folder, seconds))
            };
            let running: Vec<_> = together.iter().map(start).collect();
            running
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect()
        });
        for (target, outcome) in together.iter().zip(outcomes) {
            let outcome = outcome.unwrap_or_else(|_| bail!("our own thread panicked"));
            match outcome {
                Ok(said) => println!("{target}: {said}"),
                Err(error) => crashed.push(format!("{target}: {error:#}")),
            }
        }
    }
    if crashed.is_empty() {
        Ok(())
    } else {
        bail!("{}", crashed.join("\n"))
    }
}

/// All targets, for as long as `FUZZ_SECONDS` says.
pub(crate) fn smoke() -> Result<()> {
    let seconds = match env::var("FUZZ_SECONDS") {
        Ok(text) => text
            .parse()
            .with_context(|| format!("FUZZ_SECONDS={text} is no number"))?,
        Err(_) => SECONDS,
    };
    run(None, seconds)
}

/// Builds all targets; returns their names and the folder they are in.
fn build() -> Result<(Vec<String>, PathBuf)> {
    let metadata = [
        "metadata",
        "--no-deps",
        "--format-version",
        "1",
        "--manifest-path",
        MANIFEST,
    ];
    let metadata: Value = serde_json::from_str(&shell::capture(&mut shell::cargo(&metadata))?)?;
    let (targets, folder) = parse(&metadata).context("cargo metadata is not what it was")?;
    let triple = host_triple()?;
    let mut build = shell::cargo(&["build", "--release", "--bins", "--manifest-path", MANIFEST]);
    // With `--target`, build scripts and procedural macros stay without the flags.
    shell::run(
        build
            .args(["--target", &triple])
            .env("RUSTFLAGS", COVERAGE.join(" ")),
    )?;
    Ok((targets, folder.join(triple).join("release")))
}

fn parse(metadata: &Value) -> Option<(Vec<String>, PathBuf)> {
    let targets = metadata
        .get("packages")?
        .get(0)?
        .get("targets")?
        .as_array()?;
    let is_binary = |target: &&Value| {
        target.get("kind").and_then(|kind| kind.get(0)) == Some(&Value::from("bin"))
    };
    let names = targets
        .iter()
        .filter(is_binary)
        .map(|target| Some(target.get("name")?.as_str()?.to_owned()));
    Some((
        names.collect::<Option<_>>()?,
        metadata.get("target_directory")?.as_str()?.into(),
    ))
}

fn host_triple() -> Result<String> {
    let version = shell::capture(&mut shell::tool("rustc", &["-vV"]))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Runs one target; returns what it did in one line.
fn run_target(target: &str, folder: &Path, seconds: u32) -> Result<String> {
    let root = shell::root();
    let corpus = root.join("fuzz/corpus").join(target);
    let artifacts = root.join("fuzz/artifacts");
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let mut fuzzer = Command::new(folder.join(target));
    fuzzer
        .arg(&corpus)
        .args(LIMITS)
        .arg(format!("-max_total_time={seconds}"));
    fuzzer.arg(format!(
        "-artifact_prefix={}/{target}-",
        artifacts.display()
    ));
    let seeds = root.join("fuzz/seeds").join(target);
    if seeds.is_dir() {
        fuzzer.arg(seeds);
    }
    let output = fuzzer
        .output()
        .with_context(|| format!("cannot start {}", shell::line(&fuzzer)))?;
    judge(
        output.status.success(),
        &String::from_utf8_lossy(&output.stderr),
    )
}

/// Makes one line of libFuzzer's many; fuzzing without coverage is a failure too.
fn judge(success: bool, log: &str) -> Result<String> {
    if !success {
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(40)..)
            .unwrap_or_default();
        bail!("found something:\n{}", tail.join("\n"));
    }
    let done = log
        .lines()
        .find(|line| line.contains("\tDONE "))
        .context("did not say how it ended")?;
    let counters = log
        .lines()
        .any(|line| line.contains("inline 8-bit counters"));
    let coverage = done
        .split_whitespace()
        .skip_while(|word| *word != "cov:")
        .nth(1);
    match coverage {
        Some(covered) if counters && covered.parse() != Ok(0_u64) => {
            Ok(done.split_whitespace().collect::<Vec<_>>().join(" "))
        }
        Some(_) | None => bail!("ran without coverage: {done}"),
    }
}

#[cfg(test)]
mod tests {
    use super::judge;

    const LOADED: &str = "INFO: Loaded 1 modules   (1234 inline 8-bit counters): 1234\n";

    #[test]
    fn a_run_that_ends_well_is_told_in_one_line() {
        let log = format!("{LOADED}#2\tINITED cov: 3\n#900\tDONE   cov: 78 ft: 90 exec/s: 450\n");
        assert_eq!(
            judge(true, &log).unwrap(),
            "#900 DONE cov: 78 ft: 90 exec/s: 450"
        );
    }

    #[test]
    fn a_crash_and_a_run_without_coverage_are_failures() {
        assert!(judge(false, "==1== ERROR: libFuzzer: deadly signal\n").is_err());
        assert!(judge(true, "#900\tDONE   cov: 78 ft: 90 exec/s: 450\n").is_err());
        assert!(
            judge(
                true,
                &format!("{LOADED}#900\tDONE   cov: 0 ft: 1 exec/s: 450\n")
            )
            .is_err()
        );
        assert!(judge(true, "").is_err());
    }
}
