//! The `afterimage` binary: flags and verbs in, a running daemon or one answer out.

#![forbid(unsafe_code)]

mod cli;
mod daemon;
mod demo;
mod qmp_client;
mod verbs;

use clap::Parser;
use cli::{Cli, Verb};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(&cli.verb);
    let control = cli.control.as_deref();
    let exit = match &cli.verb {
        Verb::Status(args) => verbs::status::run(args, control, cli.json),
        Verb::Qmp(args) => verbs::qmp::run(args, control, cli.json),
        Verb::Demo(args) => demo::run(args, cli.json),
        Verb::Daemon(args) => daemon::run(args, control),
    };
    exit.into()
}

/// What `RUST_LOG` asks for; without it, warnings and worse of a daemon. The demo kills a server
/// on purpose: what its client says about that is no news.
fn log_to_stderr(verb: &Verb) {
    use tracing_subscriber::EnvFilter;
    let default = if matches!(verb, Verb::Demo(_)) {
        "off"
    } else {
        "warn"
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
