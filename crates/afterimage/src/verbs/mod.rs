//! The verbs that ask a running daemon: `status` and `qmp`.

pub(crate) mod qmp;
pub(crate) mod status;

use crate::cli::Exit;
use crate::qmp_client::{QmpClient, QmpFailure};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a verb waits for the daemon.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// The control socket's path: the flag, the environment, the runtime directory, the system's.
pub(crate) fn control_path(flag: Option<&Path>) -> PathBuf {
    if let Some(path) = flag {
        return path.to_owned();
    }
    if let Some(path) = std::env::var_os("AFTERIMAGE_CONTROL") {
        return path.into();
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| "/run".into(), PathBuf::from);
    runtime.join("afterimage/control.sock")
}

/// Connects to the daemon that the flag or the environment names.
pub(crate) fn connect(flag: Option<&Path>) -> Result<QmpClient, QmpFailure> {
    QmpClient::connect(&control_path(flag), TIMEOUT)
}

/// Says on stderr why there is no answer, as JSON if wished, and picks the exit code.
#[expect(
    clippy::print_stderr,
    reason = "the place where a verb reports its failure"
)]
pub(crate) fn report(failure: &QmpFailure, as_json: bool) -> Exit {
    let (exit, code) = match failure {
        QmpFailure::Refused { .. } => (Exit::Failed, 1),
        QmpFailure::TimedOut(_) => (Exit::TimedOut, 5),
        QmpFailure::Connection(_) => (Exit::System, 20),
    };
    if as_json {
        let rule = match failure {
            QmpFailure::Refused { class, .. } => class.as_str(),
            QmpFailure::TimedOut(_) => "timeout",
            QmpFailure::Connection(_) => "connection",
        };
        let error = json!({"error": {"code": code, "message": failure.to_string(), "rule": rule}});
        eprintln!("{error}");
    } else {
        eprintln!("afterimage: {failure}");
    }
    exit
}
