//! The daemon against those who mean it no good: whatever they send, it answers the others.

#![expect(clippy::unwrap_used, reason = "a test that meets an error has failed")]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Bound on a wait: far above what is needed, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running daemon with a control socket in a directory of its own. Killed when dropped.
struct Daemon {
    process: Child,
    dir: TempDir,
}

impl Daemon {
    fn start() -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_afterimage"))
            .args(["daemon", "--control", "control"])
            .current_dir(dir.path())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while UnixStream::connect(dir.path().join("control")).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
        Daemon { process, dir }
    }

    fn connect(&self) -> Client {
        Client::connect(&self.dir.path().join("control"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A client of the control socket that has negotiated.
struct Client {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
}

impl Client {
    fn connect(path: &Path) -> Client {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let lines = BufReader::new(stream.try_clone().unwrap());
        let mut client = Client { stream, lines };
        client.read();
        client.execute("qmp_capabilities", &json!({}));
        client
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn execute(&mut self, command: &str, arguments: &Value) -> Value {
        let message = json!({ "execute": command, "arguments": arguments });
        // In one piece, as managers send it: the line's end comes with the command.
        let line = format!("{message}\r\n");
        self.stream.write_all(line.as_bytes()).unwrap();
        self.read()
    }
}

#[test]
fn a_long_answer_does_not_silence_the_monitor() {
    let daemon = Daemon::start();
    let mut client = daemon.connect();
    // It comes back in the answer, which is longer than what makes a session pause.
    let line = "x".repeat(200_000);
    let arguments = json!({ "command-line": line });
    let answer = client.execute("human-monitor-command", &arguments);
    assert_eq!(answer["return"], format!("unknown command: '{line}'\r\n"));
    let answer = client.execute("query-block", &json!({}));
    assert_eq!(answer, json!({ "return": [] }));
}

#[test]
fn a_client_that_reads_nothing_is_closed_and_nobody_else_waits() {
    let daemon = Daemon::start();
    let mut deaf = daemon.connect();
    let mut other = daemon.connect();
    // Each answer is short of what pauses a session; the events that nobody reads pile up, first in
    // the socket, which may hold megabytes.
    let node = json!({ "driver": "null-co", "node-name": "n", "size": 4096 });
    let said = other.execute("blockdev-add", &node);
    assert_eq!(said, json!({ "return": {} }));
    let address = json!({ "type": "unix", "data": { "path": "nbd" } });
    let said = other.execute("nbd-server-start", &json!({ "addr": address }));
    assert_eq!(said, json!({ "return": {} }));
    let id = "e".repeat(60_000);
    let export = json!({ "type": "nbd", "id": id, "node-name": "n" });
    for _ in 0..200 {
        let said = other.execute("block-export-add", &export);
        assert_eq!(said, json!({ "return": {} }));
        // The event and the answer, in either order.
        let said = [
            other.execute("block-export-del", &json!({ "id": id })),
            other.read(),
        ];
        assert!(said.contains(&json!({ "return": {} })), "{said:?}");
    }
    // What had been sent to it can still be read; then comes the end of the stream.
    let mut line = Vec::new();
    while deaf.lines.read_until(b'\n', &mut line).unwrap() > 0 {}
    assert!(
        deaf.stream
            .write_all(b"{\"execute\":\"query-block\"}")
            .is_err()
    );
}
