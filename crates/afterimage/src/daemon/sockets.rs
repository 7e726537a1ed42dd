//! The sockets on which managers and verbs reach the daemon: monitors and the control socket.
//!
//! Mode 0600, so that only the daemon's user may drive it. A directory that is made for the socket
//! is 0700; one that is there is left alone.

use super::StartError;
use super::data::Handle;
use super::monitor;
use engine::ports::{Address, Ports, Task};
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Pause after an accept that failed, for want of descriptors for example.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// A listening socket and the task that takes its clients. Dropping it closes the socket.
pub(super) struct Socket {
    task: Task,
}

impl Socket {
    /// Listens at `path` and serves everybody who comes.
    pub(super) async fn open(
        ports: &Ports,
        path: &Path,
        handle: Handle,
    ) -> Result<Socket, StartError> {
        let system = |error: std::io::Error| StartError::System(error.to_string());
        make_directory(path).map_err(system)?;
        let address = Address::Unix(path.to_owned());
        let listener = ports.network.listen(&address).await.map_err(system)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(system)?;
        let ports_of_task = ports.clone();
        let task = ports.runtime.spawn(Box::pin(async move {
            loop {
                match listener.accept().await {
                    Ok(stream) => {
                        let runtime = Rc::clone(&ports_of_task.runtime);
                        let client = monitor::serve(stream, handle.clone(), runtime);
                        drop(ports_of_task.runtime.spawn(Box::pin(client)));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a monitor's client could not be accepted");
                        ports_of_task.runtime.sleep(AFTER_FAILURE).await;
                    }
                }
            }
        }));
        Ok(Socket { task })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes the directory of a socket, for its owner alone, if it is not there.
fn make_directory(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.exists() => {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)
        }
        _ => Ok(()),
    }
}
