//! The protocol's own commands.

use crate::define::{object, words};

object! {
    /// No arguments, or an empty return.
    pub struct Nothing {}
}

object! {
    /// Arguments of `qmp_capabilities`.
    pub struct QmpCapabilities {
        /// What the client wants of what the greeting offers; default nothing.
        "enable" => enable: Option<Vec<Capability>>,
    }
}

words! {
    /// What the greeting offers.
    pub enum Capability {
        /// Commands out of band.
        "oob" => Oob,
    }
}

object! {
    /// What `query-version` returns.
    pub struct VersionInfo {
        /// The version of QEMU whose protocol this is.
        "qemu" => qemu: VersionTriple,
        /// What the daemon is.
        "package" => package: String,
    }
}

object! {
    /// A version.
    pub struct VersionTriple {
        /// The first number.
        "major" => major: i64,
        /// The second number.
        "minor" => minor: i64,
        /// The third number.
        "micro" => micro: i64,
    }
}

impl VersionInfo {
    /// This daemon's version, and the version of QEMU whose protocol it speaks.
    pub fn current() -> Self {
        Self {
            qemu: VersionTriple {
                major: 10,
                minor: 0,
                micro: 2,
            },
            package: concat!("afterimage ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

object! {
    /// A command as `query-commands` shows it.
    pub struct CommandInfo {
        /// Its name.
        "name" => name: String,
    }
}

object! {
    /// Arguments of `human-monitor-command`.
    pub struct HumanMonitorCommand {
        /// The line, as a person would type it.
        "command-line" => command_line: String,
        /// Taken and ignored: there are no CPUs.
        "cpu-index" => cpu_index: Option<i64>,
    }
}

object! {
    /// The wall clock.
    #[derive(Copy, Eq)]
    pub struct Timestamp {
        /// Seconds since 1970.
        "seconds" => seconds: u64,
        /// And microseconds.
        "microseconds" => microseconds: u32,
    }
}

impl Timestamp {
    /// The time `since_epoch` after the start of 1970.
    pub fn new(since_epoch: std::time::Duration) -> Self {
        Self {
            seconds: since_epoch.as_secs(),
            microseconds: since_epoch.subsec_micros(),
        }
    }
}
