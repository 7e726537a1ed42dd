//! Other programs that tests meet: started, waited for, stopped, and never left behind.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// A program that runs until this is dropped.
pub(crate) struct Program(Child);

impl Program {
    /// Starts a server and waits until it listens on `socket`.
    pub(crate) fn serving(socket: &Path, name: &str, arguments: &[&str]) -> Program {
        let _ = std::fs::remove_file(socket);
        let child = command(name, arguments).spawn();
        let mut program =
            Program(child.unwrap_or_else(|error| panic!("{}", missing(name, &error))));
        while UnixStream::connect(socket).is_err() {
            let ended = program.0.try_wait().unwrap();
            assert_eq!(ended, None, "{name} {arguments:?} has ended early");
            std::thread::sleep(Duration::from_millis(5));
        }
        program
    }

    /// Stops it where it is (`STOP`) or lets it go on (`CONT`).
    pub(crate) fn signal(&self, signal: &str) {
        let process = self.0.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &process]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end.
pub(crate) fn run(name: &str, arguments: &[&str]) -> Output {
    let output = command(name, arguments).output();
    output.unwrap_or_else(|error| panic!("{}", missing(name, &error)))
}

fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn missing(name: &str, error: &std::io::Error) -> String {
    let package = if name.starts_with("qemu-") {
        "qemu-utils"
    } else {
        name
    };
    format!("{name}: {error}; install it with: apt-get install {package}")
}
