//! `--daemonize`: the same program again in a session of its own, and word from it when it is up.
//!
//! The parent waits for one line on the child's stdout: that everything is set up. What the
//! child says on stderr before that is seen; afterwards both go to the null device.

use super::StartError;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// Tells the child that it is one.
const VARIABLE: &str = "AFTERIMAGE_BACKGROUND";
/// What the child says when it is up.
const READY: &str = "ready";

/// Whether this process is the one in the background.
pub(super) fn is_background() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts this program in the background and waits until it is up.
pub(super) fn start() -> Result<(), StartError> {
    let system = |error: std::io::Error| StartError::System(format!("--daemonize: {error}"));
    let mut child = Command::new(std::env::current_exe().map_err(system)?)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(system)?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout)
            .read_line(&mut line)
            .map_err(system)?;
    }
    if line.trim_end() == READY {
        return Ok(());
    }
    let status = child.wait().map_err(system)?;
    Err(StartError::System(format!(
        "--daemonize: the daemon did not come up ({status})"
    )))
}

/// Tells whoever waits that everything is set up: the parent, and the service manager.
pub(super) fn ready() {
    // Nobody to tell is no reason to stop.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    if !is_background() {
        return;
    }
    let _ = rustix::process::setsid();
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{READY}").and_then(|()| stdout.flush());
    if let Ok(null) = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
    {
        let _ = rustix::stdio::dup2_stdout(&null);
        let _ = rustix::stdio::dup2_stderr(&null);
    }
}
