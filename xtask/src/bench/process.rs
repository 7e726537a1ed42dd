//! A server under measurement: how each kind is started, what CPU time it took, its end.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::Bench;

/// Unit of the times in `/proc/PID/stat`; the kernel reports in hundredths on every machine.
const TICK: Duration = Duration::from_millis(10);

/// How long a server may take to open its socket.
const START_LIMIT: Duration = Duration::from_secs(10);

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Software {
    Afterimage,
    QemuNbd,
    QemuStorageDaemon,
    Nbdkit,
    /// QEMU's emulator without a machine: the only one that can replicate.
    QemuSystem,
}

impl Software {
    /// Its name in a table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Afterimage => "afterimage",
            Self::QemuNbd => "qemu-nbd",
            Self::QemuStorageDaemon => "qemu-storage-daemon",
            Self::Nbdkit => "nbdkit",
            Self::QemuSystem => "QEMU",
        }
    }

    /// Serves `disk` at `socket` as the export with the empty name; none if it is no plain server.
    pub(crate) fn plain(self, bench: &Bench, disk: &Path, socket: &Path) -> Option<Command> {
        let mut command = match self {
            Self::Afterimage => {
                storage_daemon(bench.afterimage.to_str()?, Some("daemon"), disk, socket)
            }
            Self::QemuStorageDaemon => storage_daemon("qemu-storage-daemon", None, disk, socket),
            Self::QemuNbd => {
                let mut command = Command::new("qemu-nbd");
                command.args([
                    "--persistent",
                    "--shared=0",
                    "--format=raw",
                    "--cache=writeback",
                ]);
                command.arg("--socket").arg(socket).arg(disk);
                command
            }
            Self::Nbdkit => {
                let mut command = Command::new("nbdkit");
                command
                    .args(["--foreground", "--unix"])
                    .arg(socket)
                    .arg("file")
                    .arg(disk);
                command
            }
            Self::QemuSystem => return None,
        };
        command.stdin(Stdio::null());
        Some(command)
    }

    /// Opens a QMP monitor at `socket` and has no nodes yet; none if it cannot replicate.
    pub(crate) fn monitored(self, bench: &Bench, socket: &Path) -> Option<Command> {
        let socket = socket.display();
        let mut command = match self {
            Self::Afterimage => {
                let mut command = Command::new(&bench.afterimage);
                let chardev = format!("socket,id=monitor,path={socket},server=on,wait=off");
                command.args([
                    "daemon",
                    "--chardev",
                    &chardev,
                    "--monitor",
                    "chardev=monitor",
                ]);
                command
            }
            Self::QemuSystem => {
                let mut command = Command::new("qemu-system-x86_64");
                command.args(["-machine", "none", "-nodefaults", "-display", "none", "-S"]);
                command.args(["-qmp", &format!("unix:{socket},server=on,wait=off")]);
                command
            }
            Self::QemuNbd | Self::QemuStorageDaemon | Self::Nbdkit => return None,
        };
        command.stdin(Stdio::null());
        Some(command)
    }
}

/// A storage daemon, ours or QEMU's: their flags are the same.
fn storage_daemon(program: &str, verb: Option<&str>, disk: &Path, socket: &Path) -> Command {
    let mut command = Command::new(program);
    command.args(verb);
    command.args([
        "--blockdev",
        &format!("driver=file,node-name=disk,filename={}", disk.display()),
    ]);
    command.args([
        "--nbd-server",
        &format!("addr.type=unix,addr.path={}", socket.display()),
    ]);
    command.args([
        "--export",
        "type=nbd,id=export,node-name=disk,name=,writable=on",
    ]);
    command
}

/// A running server; it ends with this value.
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts it and waits until `socket` is there.
    pub(crate) fn start(mut command: Command, socket: &Path) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        if let Err(error) = fs::remove_file(socket)
            && socket.exists()
        {
            return Err(error).with_context(|| format!("cannot remove {}", socket.display()));
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut process = Self { child, name };
        let deadline = Instant::now() + START_LIMIT;
        while !socket.exists() {
            if let Some(status) = process.child.try_wait()? {
                bail!("{} ended with {status} before it served", process.name);
            }
            if Instant::now() > deadline {
                bail!("{} did not open {} in time", process.name, socket.display());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(process)
    }

    /// User and system time of all its threads so far.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(&path).with_context(|| format!("{} is gone", self.name))?;
        let ticks = cpu_ticks(&stat).with_context(|| format!("{path} is not what it was"))?;
        Ok(TICK * ticks)
    }
}

/// Connects to a server's socket, which is there a moment before anybody listens.
pub(crate) fn connect(socket: &Path) -> Result<UnixStream> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match UnixStream::connect(socket) {
            Err(error)
                if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            outcome => {
                return outcome.with_context(|| format!("cannot connect to {}", socket.display()));
            }
        }
    }
}

/// The sum of fields 14 and 15; the second field, a name in brackets, may hold blanks.
fn cpu_ticks(stat: &str) -> Option<u32> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_whitespace().skip(11);
    Some(times.next()?.parse::<u32>().ok()? + times.next()?.parse::<u32>().ok()?)
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing it holds is wanted any more; both calls fail only if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::cpu_ticks;

    #[test]
    fn times_are_found_behind_a_name_with_blanks_and_brackets() {
        let stat = "12 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 31 11 0 0 20 0";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(cpu_ticks("12 (a) S 1"), None);
    }
}
