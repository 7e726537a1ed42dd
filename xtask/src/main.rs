//! `cargo xtask`: the workspace's own checks, tests and benchmarks.
//!
//! What runs here and what a continuous integration host runs is the same program, so a green
//! `cargo xtask ci` at a desk means a green one elsewhere. Nothing is skipped in silence: what
//! cannot run fails and says which command would make it run.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "printing is what this program is for"
)]
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod deny;
mod fuzz;
mod mutants;
mod packages;
mod problem;
mod shell;
mod suites;
mod tidy;
mod trace;
mod tree;

use std::process::ExitCode;

use clap::Parser;

use crate::packages::Policy;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Checks, tests and benchmarks of this workspace"
)]
enum Command {
    /// Runs every check and every test, as a continuous integration host does.
    Ci {
        /// Fail with the lines to type instead of installing missing Debian packages.
        #[arg(long)]
        no_install: bool,
    },
    /// Installs the tools the tests need, builds, and runs all tests.
    ///
    /// Further arguments go to the test runner: `cargo xtask test -p nbd`, or a part of a name.
    Test {
        /// Fail with the lines to type instead of installing missing Debian packages.
        #[arg(long)]
        no_install: bool,
        /// Arguments of the test runner: packages, name filters.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        runner_args: Vec<String>,
    },
    /// Checks what compilers do not: sizes, headers, layers, words, commit messages.
    Tidy {
        /// Print the line that keeps a word out of the project, and check nothing.
        #[arg(long, value_name = "WORD")]
        hash: Option<String>,
    },
    /// Finds every MUST of docs/spec that no code or no test cites.
    Trace,
    /// Checks licences, duplicates and sources of dependencies.
    Deny,
    /// Plants the faults of mutants/ and sees that the named test finds each.
    Mutants {
        /// Only this one: the name of its patch, without the ending.
        name: Option<String>,
    },
    /// Feeds the parsers of hostile bytes.
    Fuzz {
        /// How long each target runs.
        #[arg(long, env = "FUZZ_SECONDS", default_value_t = fuzz::SECONDS)]
        seconds: u32,
        /// Only this one.
        target: Option<String>,
    },
    /// Measures afterimage beside its peers and prints Markdown tables.
    Bench(bench::Options),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Ci { no_install } => ci::run(Policy::from_flag(no_install)),
        Command::Test {
            no_install,
            runner_args,
        } => suites::run(Policy::from_flag(no_install), &runner_args),
        Command::Tidy { hash: Some(word) } => {
            println!("    {:#018x},", tidy::hash(&word));
            ExitCode::SUCCESS
        }
        Command::Tidy { hash: None } => report(&tidy::run()),
        Command::Trace => report(&trace::run()),
        Command::Deny => report(&deny::run()),
        Command::Mutants { name } => report(&mutants::run(name.as_deref())),
        Command::Bench(options) => report(&bench::run(&options)),
        Command::Fuzz { seconds, target } => report(&fuzz::run(target.as_deref(), seconds)),
    }
}

/// Prints an error, if there is one, and turns it into the exit code.
fn report(outcome: &anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
