//! What the black-box tests share: a daemon in a directory of its own, a QMP session, tools.
//!
//! A test whose tool is missing fails with the line that installs it. Processes are ended by their
//! pid when the test ends, however it ends.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::needless_pass_by_value,
    clippy::print_stderr,
    reason = "a module of several test programs, each of which uses a part of it"
)]

pub mod colo;

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Bound on every wait of a test: far above what is needed, so that only a hang meets it.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// A directory for one test's images and sockets, short enough for socket paths.
pub fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix("ai-")
        .tempdir_in("/tmp")
        .unwrap()
}

/// Creates a file of `size` bytes filled with `byte`.
pub fn image(path: &Path, size: u64, byte: u8) {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(size).unwrap();
    if byte != 0 {
        std::fs::write(path, vec![byte; usize::try_from(size).unwrap()]).unwrap();
    }
}

/// A running daemon. Killed when dropped.
pub struct Daemon {
    pub process: Child,
    pub qmp: Qmp,
    pub dir: PathBuf,
    pub name: String,
}

impl Daemon {
    /// Starts `afterimage daemon` with `flags`, an NBD server at `NAME.nbd` and a control socket at
    /// `NAME.qmp` in `dir`, and waits until it answers.
    pub fn start(dir: &Path, name: &str, flags: &[&str]) -> Daemon {
        let nbd = format!(
            "addr.type=unix,addr.path={}",
            dir.join(format!("{name}.nbd")).display()
        );
        let mut all = vec!["--nbd-server", &nbd];
        all.extend(flags);
        Daemon::start_plain(dir, name, &all)
    }

    /// As [`Daemon::start`], without an NBD server.
    pub fn start_plain(dir: &Path, name: &str, flags: &[&str]) -> Daemon {
        let qmp_path = dir.join(format!("{name}.qmp"));
        let log = std::fs::File::create(dir.join(format!("{name}.log"))).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_afterimage"))
            .arg("daemon")
            .args(flags)
            .arg("--control")
            .arg(&qmp_path)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + PATIENCE;
        let qmp = loop {
            if let Some(qmp) = Qmp::connect(&qmp_path) {
                break qmp;
            }
            let ended = process.try_wait().unwrap();
            let said = || std::fs::read_to_string(dir.join(format!("{name}.log"))).unwrap();
            assert!(
                ended.is_none(),
                "the daemon ended with {ended:?}: {}",
                said()
            );
            assert!(
                Instant::now() < deadline,
                "the daemon does not answer: {}",
                said()
            );
            std::thread::sleep(Duration::from_millis(5));
        };
        Daemon {
            process,
            qmp,
            dir: dir.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn ok(&mut self, command: &str, arguments: Value) -> Value {
        match self.qmp.execute(command, arguments) {
            Ok(value) => value,
            Err(error) => panic!("{command}: {error}"),
        }
    }

    /// Runs a command that must be refused; returns class and text.
    #[track_caller]
    pub fn refused(&mut self, command: &str, arguments: Value) -> (String, String) {
        match self.qmp.execute(command, arguments) {
            Ok(value) => panic!("{command} returned {value}"),
            Err(error) => {
                let text = |key: &str| error[key].as_str().unwrap().to_owned();
                (text("class"), text("desc"))
            }
        }
    }

    /// The NBD URI of one of its exports.
    pub fn uri(&self, export: &str) -> String {
        let socket = self.dir.join(format!("{}.nbd", self.name));
        format!("nbd+unix:///{export}?socket={}", socket.display())
    }

    /// The path of its NBD socket.
    pub fn nbd(&self) -> PathBuf {
        self.dir.join(format!("{}.nbd", self.name))
    }

    /// Ends it with `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Sends it a signal by number.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.process.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// Asks it to quit and waits; it must end with status 0.
    pub fn quit(mut self) {
        self.ok("quit", json!({}));
        self.ends_well();
    }

    /// Waits for its end; status must be 0.
    #[track_caller]
    pub fn ends_well(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                assert!(
                    status.success(),
                    "the daemon ended with {status}: {}",
                    self.log()
                );
                return;
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it still answers: hostile input must leave it so.
    #[track_caller]
    pub fn is_well(&mut self) {
        self.ok("query-version", json!({}));
    }

    /// What it wrote to stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join(format!("{}.log", self.name))).unwrap()
    }

    /// The stage of its replication node.
    pub fn stage(&mut self) -> String {
        let nodes = self.ok("x-ai-query-replication", json!({}));
        nodes[0]["stage"].as_str().unwrap().to_owned()
    }

    /// Waits until its replication node is in `stage`.
    #[track_caller]
    pub fn wait_for_stage(&mut self, stage: &str) {
        wait_until(&format!("stage {stage}"), || self.stage() == stage);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("--- {}.log ---\n{}", self.name, self.log());
        }
    }
}

/// Waits until `condition` holds.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A QMP session.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    /// Events received so far, in order.
    pub events: Vec<Value>,
}

impl Qmp {
    /// Connects and negotiates; `None` while nobody listens.
    pub fn connect(path: &Path) -> Option<Qmp> {
        let stream = UnixStream::connect(path).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut qmp = Qmp {
            reader: BufReader::new(stream),
            events: Vec::new(),
        };
        qmp.receive();
        qmp.execute("qmp_capabilities", json!({})).unwrap();
        Some(qmp)
    }

    /// Runs a command: its return or its error object.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, Value> {
        self.send(&json!({"execute": command, "arguments": arguments}).to_string());
        loop {
            let mut answer = self.receive();
            if answer.get("event").is_some() {
                self.events.push(answer);
            } else if let Some(error) = answer.get_mut("error") {
                return Err(error.take());
            } else {
                return Ok(answer["return"].take());
            }
        }
    }

    /// Sends text as it is.
    pub fn send(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next message of any kind.
    pub fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Waits for an event of the given name and returns its data.
    pub fn wait_event(&mut self, name: &str) -> Value {
        loop {
            if let Some(index) = self.events.iter().position(|event| event["event"] == name) {
                return self.events.remove(index)["data"].take();
            }
            let message = self.receive();
            self.events.push(message);
        }
    }
}

/// The Debian package of a tool.
fn package(tool: &str) -> &'static str {
    match tool {
        "qemu-img" | "qemu-io" | "qemu-nbd" | "qemu-storage-daemon" => "qemu-utils",
        "nbdinfo" | "nbdcopy" => "libnbd-bin",
        "nbdsh" => "python3-libnbd libnbd-bin",
        "qemu-system-x86_64" => "qemu-system-x86",
        "nbdkit" => "nbdkit",
        "fio" => "fio",
        _ => "?",
    }
}

/// A tool of the distribution. Tools that are scripts find the distribution's interpreters first,
/// for its packages are installed for those.
fn command(tool: &str) -> Command {
    let mut command = Command::new(tool);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("/usr/bin:/bin:{path}"));
    command
}

/// Runs a tool to its end.
#[track_caller]
pub fn run(tool: &str, arguments: &[&str]) -> Output {
    match command(tool).args(arguments).stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!(
            "{tool}: {error}; install it: apt-get install {}",
            package(tool)
        ),
    }
}

/// Runs a tool that must succeed; returns what it printed on stdout.
#[track_caller]
pub fn tool(tool: &str, arguments: &[&str]) -> String {
    let output = run(tool, arguments);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{tool} {arguments:?}: {}\n{out}{err}",
        output.status
    );
    out
}

/// Starts a tool that keeps running.
#[track_caller]
pub fn spawn(tool: &str, arguments: &[&str]) -> Running {
    let child = command(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    match child {
        Ok(child) => Running(Some(child)),
        Err(error) => panic!(
            "{tool}: {error}; install it: apt-get install {}",
            package(tool)
        ),
    }
}

/// A process of a test. Killed when dropped.
pub struct Running(pub Option<Child>);

impl Running {
    /// Waits for its end.
    pub fn finish(mut self) -> Output {
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `qemu-io` commands against an NBD URI (raw); all must succeed.
#[track_caller]
pub fn qemu_io(uri: &str, commands: &[&str]) -> String {
    let mut arguments = vec!["-f", "raw"];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(uri);
    let out = tool("qemu-io", &arguments);
    assert!(!out.contains("failed"), "{commands:?}: {out}");
    out
}

/// `qemu-io` commands of which some fail; returns all it printed.
#[track_caller]
pub fn qemu_io_any(uri: &str, commands: &[&str]) -> String {
    let mut arguments = vec!["-f", "raw"];
    for command in commands {
        arguments.extend(["-c", command]);
    }
    arguments.push(uri);
    let output = run("qemu-io", &arguments);
    text(&output.stdout) + &text(&output.stderr)
}
