//! A QMP client over a unix socket: what the verbs and the demo talk to a daemon with.
//!
//! Blocking, with a bound on every wait. Events that arrive between answers are skipped.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest line accepted from a daemon, in bytes.
const LINE_LIMIT: u64 = 64 << 20;

/// A connected session, past its negotiation.
pub(crate) struct QmpClient {
    reader: BufReader<UnixStream>,
}

/// Why a command has no return.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QmpFailure {
    /// The daemon answered with an error.
    #[error("{desc}")]
    Refused {
        /// QMP's error class.
        class: String,
        /// What the daemon said.
        desc: String,
    },
    /// The time ran out.
    #[error("no answer from the daemon within {0:?}")]
    TimedOut(Duration),
    /// The socket failed, or what came was no QMP.
    #[error("{0}")]
    Connection(String),
}

impl QmpClient {
    /// Connects to the daemon at `path` and negotiates; each wait is bounded by `timeout`.
    pub(crate) fn connect(path: &Path, timeout: Duration) -> Result<QmpClient, QmpFailure> {
        let said = |what: std::io::Error| {
            let path = path.display();
            QmpFailure::Connection(format!("cannot reach a daemon at {path}: {what}"))
        };
        let stream = UnixStream::connect(path).map_err(said)?;
        stream.set_read_timeout(Some(timeout)).map_err(said)?;
        stream.set_write_timeout(Some(timeout)).map_err(said)?;
        let mut client = QmpClient {
            reader: BufReader::new(stream),
        };
        let greeting = client.receive(timeout)?;
        if greeting.get("QMP").is_none() {
            let path = path.display();
            return Err(QmpFailure::Connection(format!(
                "what answers at {path} speaks no QMP"
            )));
        }
        client.execute("qmp_capabilities", &json!({}), timeout)?;
        Ok(client)
    }

    /// Runs `command` and returns what it returned.
    pub(crate) fn execute(
        &mut self,
        command: &str,
        arguments: &Value,
        timeout: Duration,
    ) -> Result<Value, QmpFailure> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        let stream = self.reader.get_mut();
        let sent = stream
            .set_read_timeout(Some(timeout))
            .and_then(|()| stream.write_all(line.as_bytes()));
        sent.map_err(|what| QmpFailure::Connection(format!("the daemon went away: {what}")))?;
        loop {
            let answer = self.receive(timeout)?;
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                let text = |key: &str| {
                    error
                        .get(key)
                        .and_then(Value::as_str)
                        .unwrap_or("")
                        .to_owned()
                };
                return Err(QmpFailure::Refused {
                    class: text("class"),
                    desc: text("desc"),
                });
            }
        }
    }

    /// The next message of any kind.
    fn receive(&mut self, timeout: Duration) -> Result<Value, QmpFailure> {
        let mut line = Vec::new();
        let mut limited = std::io::Read::take(&mut self.reader, LINE_LIMIT);
        let count = limited.read_until(b'\n', &mut line).map_err(|what| {
            if matches!(what.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
                return QmpFailure::TimedOut(timeout);
            }
            QmpFailure::Connection(format!("the daemon went away: {what}"))
        })?;
        if count == 0 {
            return Err(QmpFailure::Connection(
                "the daemon closed the connection".to_owned(),
            ));
        }
        serde_json::from_slice(&line)
            .map_err(|what| QmpFailure::Connection(format!("the daemon sent no JSON: {what}")))
    }
}
