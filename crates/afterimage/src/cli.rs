//! The command line: verbs and flags, with examples at every level.
//!
//! Help, shell completions and man pages come from these definitions, and nothing else describes
//! them. Exit codes: [`Exit`].

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Fault-tolerant disks for virtual machines.
#[derive(Debug, Parser)]
#[command(
    name = "afterimage",
    version,
    after_help = "Examples:\n  \
        afterimage demo                       see a pair at work, from start to failover\n  \
        afterimage daemon --help              serve disks, driven by QMP\n  \
        afterimage status --watch             follow what the daemon replicates\n  \
        afterimage qmp query-block-exports    one QMP command, its return as JSON"
)]
pub(crate) struct Cli {
    /// The daemon's control socket.
    ///
    /// Without it: `$AFTERIMAGE_CONTROL`, else `$XDG_RUNTIME_DIR/afterimage/control.sock`, else
    /// `/run/afterimage/control.sock`.
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,

    /// Print JSON, one object a line, instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// See a pair at work: two processes, a checking workload, checkpoints, kill -9, failover.
    Demo(DemoArgs),
    /// Serve disks until told to stop.
    Daemon(Box<DaemonArgs>),
    /// Show what the daemon replicates, and how far it has come.
    Status(StatusArgs),
    /// Send one QMP command and print its return as JSON.
    Qmp(QmpArgs),
}

/// `afterimage demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    afterimage demo\n  \
    afterimage demo --size 256M --seconds 5 --json\n  \
    afterimage demo --dir /var/tmp/demo        keep the images and logs\n\n\
    Exit status 0 only if every block was verified.")]
pub(crate) struct DemoArgs {
    /// Use the COLO graph (the only engine of this version).
    #[arg(long)]
    pub(crate) colo: bool,

    /// Where images, sockets and logs go; kept afterwards. Default: a temporary directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// Size of the disk, with a unit: 64M to 64G.
    #[arg(long, default_value = "1G", value_parser = parse_size)]
    pub(crate) size: u64,

    /// How long the workload writes before the primary is killed, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
}

/// `afterimage daemon`: the flags of `qemu-storage-daemon`, with its syntax.
#[derive(Debug, Args)]
#[command(
    version,
    display_name = "afterimage",
    after_help = "Each flag takes key=value,dotted.key=value,... or JSON, and may be repeated.\n\n\
    Examples:\n  \
    afterimage daemon \\\n    \
      --blockdev driver=file,node-name=disk0,filename=disk.raw \\\n    \
      --nbd-server addr.type=unix,addr.path=nbd.sock \\\n    \
      --export type=nbd,id=exp0,node-name=disk0,writable=on \\\n    \
      --chardev socket,id=qmp,path=qmp.sock,server=on,wait=off --monitor chardev=qmp\n  \
    afterimage daemon --control /run/afterimage/control.sock"
)]
pub(crate) struct DaemonArgs {
    /// Add a block node.
    #[arg(long, value_name = "OPTIONS")]
    pub(crate) blockdev: Vec<String>,

    /// Start the NBD server: addr.type=unix,addr.path=... or addr.type=inet,addr.host=...,addr.port=...
    #[arg(long, value_name = "OPTIONS")]
    pub(crate) nbd_server: Vec<String>,

    /// Export a node: type=nbd,id=...,node-name=...; also name=... and writable=on or off.
    #[arg(long, value_name = "OPTIONS")]
    pub(crate) export: Vec<String>,

    /// A socket for a monitor: socket,id=...,path=...,server=on,wait=off
    #[arg(long, value_name = "OPTIONS")]
    pub(crate) chardev: Vec<String>,

    /// Speak QMP on a chardev: chardev=ID
    #[arg(long, value_name = "OPTIONS")]
    pub(crate) monitor: Vec<String>,

    /// A user-creatable object.
    #[arg(long, value_name = "OPTIONS")]
    pub(crate) object: Vec<String>,

    /// Write the process id to this file; refused while another daemon holds it.
    #[arg(long, value_name = "PATH")]
    pub(crate) pidfile: Option<PathBuf>,

    /// Go to the background once everything is set up.
    #[arg(long)]
    pub(crate) daemonize: bool,
}

/// `afterimage status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    afterimage status\n  \
    afterimage status --json\n  \
    afterimage --control qmp.sock status --watch")]
pub(crate) struct StatusArgs {
    /// Print again whenever something has changed, until interrupted.
    #[arg(long)]
    pub(crate) watch: bool,

    /// Show what is normal, too.
    #[arg(long)]
    pub(crate) verbose: bool,
}

/// `afterimage qmp`.
#[derive(Debug, Args)]
#[command(
    after_help = "Values are parsed as JSON, else taken as strings; dotted keys nest.\n\n\
    Examples:\n  \
    afterimage qmp query-block-exports\n  \
    afterimage qmp xen-set-replication enable=true primary=false\n  \
    afterimage qmp nbd-server-start addr.type=unix addr.data.path=/run/nbd.sock"
)]
pub(crate) struct QmpArgs {
    /// The command's name.
    pub(crate) command: String,

    /// Its arguments.
    #[arg(value_name = "KEY=VALUE")]
    pub(crate) arguments: Vec<String>,
}

/// How the process ends. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Ok,
    /// It was tried and failed.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// The time given was not enough.
    TimedOut,
    /// The system said no: a file, a socket, a process.
    System,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::TimedOut => 5,
            Exit::System => 20,
        })
    }
}

/// Bytes from a number with an optional unit: `512M`, `1G`, `1GiB`.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number
        .parse()
        .map_err(|_| format!("'{text}' does not start with a number"))?;
    let factor: u64 = match unit.trim_end_matches("iB") {
        "" => 1,
        "k" | "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        "T" => 1 << 40,
        _ => return Err(format!("unknown unit '{unit}': use K, M, G or T")),
    };
    let size = number
        .checked_mul(factor)
        .ok_or_else(|| format!("'{text}' is too large"))?;
    if (64 << 20..=64 << 30).contains(&size) && size.is_multiple_of(1 << 20) {
        return Ok(size);
    }
    Err(format!(
        "'{text}' is not a whole number of MiB between 64M and 64G"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn control_and_json_stand_before_or_after_the_verb() {
        for words in [
            ["afterimage", "--control", "c", "--json", "status"],
            ["afterimage", "status", "--json", "--control", "c"],
        ] {
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!((cli.control, cli.json), (Some(PathBuf::from("c")), true));
        }
    }

    #[test]
    fn sizes_carry_units_and_bounds() {
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        assert_eq!(parse_size("256MiB"), Ok(256 << 20));
        assert_eq!(
            parse_size("12parsecs").unwrap_err(),
            "unknown unit 'parsecs': use K, M, G or T"
        );
        assert!(parse_size("1K").is_err());
        assert!(parse_size("G").is_err());
    }
}
