//! `cargo xtask test`: the tools, the unit and integration tests, the documentation's tests.
//!
//! `cargo nextest` runs them where it is present, plain `cargo test` elsewhere; both must come to
//! the same result. The last line printed is the count over all suites: `N passed, N failed`.

use std::fmt;
use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::packages::Policy;
use crate::{packages, shell};

/// A variable that says how much a test does, and its value.
pub(crate) type Size = (&'static str, String);

/// Runs the tests that `runner_args` select, all without any; the last line printed is the count.
pub(crate) fn run(policy: Policy, runner_args: &[String]) -> ExitCode {
    let outcome = count(policy, runner_args, &[]);
    let verdict = outcome
        .as_ref()
        .map_err(ToString::to_string)
        .and_then(|count| count.verdict().map_err(|error| error.to_string()));
    if let Err(error) = &verdict {
        eprintln!("error: {error}");
    }
    println!("{}", outcome.unwrap_or_default());
    match verdict {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Installs the tools that are missing, runs the tests with `sizes` in their environment, adds up
/// the results.
pub(crate) fn count(policy: Policy, runner_args: &[String], sizes: &[Size]) -> Result<Count> {
    packages::provide(policy)?;
    let mut sum = Count::default();
    for mut suite in suites(runner_args) {
        let heard = shell::listen(suite.envs(sizes.iter().cloned()))?;
        let mut count = Count::of(&heard.lines);
        count.broken |= !heard.success;
        sum.add(&count);
    }
    Ok(sum)
}

/// The commands to run, in order. Documentation tests run only when nothing was selected.
fn suites(runner_args: &[String]) -> Vec<Command> {
    let has_nextest = shell::capture(&mut shell::cargo(&["nextest", "--version"])).is_ok();
    let mut unit = if has_nextest {
        shell::cargo(&["nextest", "run", "--no-fail-fast"])
    } else {
        shell::cargo(&["test", "--no-fail-fast", "--all-targets"])
    };
    let selects_package = runner_args
        .iter()
        .any(|arg| arg.starts_with("-p") || arg.starts_with("--package"));
    if !selects_package {
        unit.arg("--workspace");
    }
    unit.args(runner_args);
    let mut suites = vec![unit];
    if runner_args.is_empty() {
        suites.push(shell::cargo(&[
            "test",
            "--workspace",
            "--doc",
            "--no-fail-fast",
        ]));
    }
    suites
}

/// How many tests ended which way.
#[derive(Debug, Default)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    /// A runner was not content: a test failed, or the tests did not even compile.
    broken: bool,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl Count {
    /// An error unless tests ran and all passed.
    pub(crate) fn verdict(&self) -> Result<()> {
        match self {
            Self { broken: true, .. } | Self { failed: 1.., .. } => bail!("the tests failed"),
            Self { passed: 0, .. } => bail!("no test ran"),
            Self { .. } => Ok(()),
        }
    }

    /// Adds up the result lines of one suite.
    ///
    /// Where nextest has summed up, that counts alone: it repeats what failed tests printed, and
    /// among that is a result line of each.
    pub(crate) fn of(lines: &[String]) -> Self {
        let mut summaries = lines.iter().filter_map(|line| {
            line.trim_start()
                .strip_prefix("Summary [")?
                .split_once(" run: ")
                .map(|(_, words)| words)
        });
        if let Some(words) = summaries.next_back() {
            return Self::of_words(words);
        }
        let mut sum = Self::default();
        for words in lines
            .iter()
            .filter_map(|line| line.strip_prefix("test result: "))
        {
            sum.add(&Self::of_words(words));
        }
        sum
    }

    /// Reads pairs such as `3 passed` or `1 timed out`.
    fn of_words(result: &str) -> Self {
        let mut count = Self::default();
        let words: Vec<&str> = result
            .split([' ', ',', ';', '(', ')'])
            .filter(|w| !w.is_empty())
            .collect();
        for pair in words.windows(2) {
            let [number, what] = pair else { continue };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match *what {
                "passed" => count.passed += number,
                "failed" | "timed" => count.failed += number,
                _ => {}
            }
        }
        count
    }

    fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.broken |= other.broken;
    }
}

#[cfg(test)]
mod tests {
    use super::Count;

    #[test]
    fn nothing_run_is_not_a_success() {
        assert!(Count::default().verdict().is_err());
        assert!(
            Count {
                passed: 3,
                failed: 0,
                broken: false
            }
            .verdict()
            .is_ok()
        );
        assert!(
            Count {
                passed: 3,
                failed: 1,
                broken: false
            }
            .verdict()
            .is_err()
        );
        assert!(
            Count {
                passed: 3,
                failed: 0,
                broken: true
            }
            .verdict()
            .is_err()
        );
    }

    fn count(output: &str) -> (u64, u64) {
        let lines: Vec<String> = output.lines().map(str::to_owned).collect();
        let count = Count::of(&lines);
        (count.passed, count.failed)
    }

    #[test]
    fn result_lines_are_added_up() {
        let output = "\
running 3 tests
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(count(output), (4, 2));
    }

    #[test]
    fn a_summary_counts_alone() {
        let output = "\
    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 10 filtered out
     Summary [   0.005s] 9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 0 skipped";
        assert_eq!(count(output), (6, 3));
    }

    #[test]
    fn a_line_that_a_test_prints_is_not_a_result() {
        assert_eq!(
            count("wrote 5 passed blocks\n12 failed attempts, as planned"),
            (0, 0)
        );
    }
}
