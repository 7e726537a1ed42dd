//! A QMP client that sends a command and waits for its answer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::process;

/// A monitor that answers no sooner has failed.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);

/// A session past its greeting and capabilities.
pub(crate) struct Qmp {
    reader: BufReader<UnixStream>,
}

impl Qmp {
    pub(crate) fn connect(socket: &Path) -> Result<Self> {
        let stream = process::connect(socket)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        let mut qmp = Self {
            reader: BufReader::new(stream),
        };
        if qmp.message()?.get("QMP").is_none() {
            bail!("the monitor does not greet");
        }
        qmp.execute("qmp_capabilities", &json!({}))?;
        Ok(qmp)
    }

    /// Runs one command and returns what it returns; events in between are passed over.
    pub(crate) fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let line = format!("{}\n", json!({"execute": command, "arguments": arguments}));
        self.reader.get_mut().write_all(line.as_bytes())?;
        loop {
            let mut message = self
                .message()
                .with_context(|| format!("{command} is not answered"))?;
            if let Some(error) = message.get("error") {
                let text = error
                    .get("desc")
                    .and_then(Value::as_str)
                    .unwrap_or("no reason given");
                bail!("{command} {arguments}: {text}");
            }
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    fn message(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("the monitor closed the connection");
        }
        Ok(serde_json::from_str(&line)?)
    }
}
