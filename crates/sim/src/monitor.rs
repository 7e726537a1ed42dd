//! A manager's line to an engine: QMP text in, its return out.
//!
//! Commands run as tasks of the engine's own process, so that a process that is killed takes them
//! with it.

use drivers::ports::Runtime;
use engine::Engine;
use futures_channel::oneshot;
use qmp::{Command, Session};
use serde_json::Value;
use std::rc::Rc;

/// An engine and the runtime it lives on. Clones share it.
#[derive(Clone)]
pub struct Monitor {
    engine: Engine,
    runtime: Rc<dyn Runtime>,
}

impl Monitor {
    /// A line to `engine`, whose tasks run on `runtime`.
    pub fn new(engine: Engine, runtime: Rc<dyn Runtime>) -> Monitor {
        Monitor { engine, runtime }
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Carries out `name` with `arguments`, both as in QMP.
    ///
    /// # Errors
    ///
    /// The error's text; the process may also have gone.
    pub async fn execute(&self, name: &str, arguments: &Value) -> Result<Value, String> {
        let command = parse(name, arguments)?;
        let engine = self.engine.clone();
        let (answer, answered) = oneshot::channel();
        let _runs_on = self.runtime.spawn(Box::pin(async move {
            let _ = answer.send(engine.execute(command).await);
        }));
        match answered.await {
            Ok(result) => result.map_err(|error| error.desc().to_owned()),
            Err(oneshot::Canceled) => Err("the process has gone".to_owned()),
        }
    }
}

/// The command that a session makes of the text.
fn parse(name: &str, arguments: &Value) -> Result<Command, String> {
    let mut session = Session::new();
    let text = serde_json::json!({ "execute": name, "arguments": arguments });
    session.handle_bytes(b"{\"execute\": \"qmp_capabilities\"}");
    session.handle_bytes(text.to_string().as_bytes());
    let mut output = Vec::new();
    let command = session.poll_command();
    while let Some(bytes) = session.poll_transmit() {
        output.extend_from_slice(&bytes);
    }
    command.ok_or_else(|| String::from_utf8_lossy(&output).into_owned())
}
