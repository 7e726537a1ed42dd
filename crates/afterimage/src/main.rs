//! The `afterimage` binary: flags and verbs in, a running daemon or one answer out.

#![forbid(unsafe_code)]

mod cli;
mod qmp_client;
mod verbs;

use clap::Parser;
use cli::{Cli, Exit, Verb};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let control = cli.control.as_deref();
    let exit = match &cli.verb {
        Verb::Status(args) => verbs::status::run(args, control, cli.json),
        Verb::Qmp(args) => verbs::qmp::run(args, control, cli.json),
        Verb::Demo(_) | Verb::Daemon(_) => Exit::Failed,
    };
    exit.into()
}
