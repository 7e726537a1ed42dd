//! `--pidfile`: the process id in a file that is locked while the process lives.

use super::StartError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

/// A pid file of this process. Dropping it removes the file.
pub(super) struct Pidfile {
    path: PathBuf,
    /// Holds the lock.
    _file: File,
}

impl Pidfile {
    /// Writes this process's id to `path`, unless another process holds it.
    pub(super) fn create(path: &Path) -> Result<Pidfile, StartError> {
        let shown = path.display();
        let system = |error| StartError::System(format!("--pidfile {shown}: {error}"));
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .write(true)
            .truncate(false)
            .open(path)
            .map_err(system)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message = format!("--pidfile {shown}: another daemon holds it");
                return Err(StartError::System(message));
            }
            Err(TryLockError::Error(error)) => return Err(system(error)),
        }
        let id = std::process::id();
        file.set_len(0)
            .and_then(|()| writeln!(file, "{id}"))
            .map_err(system)?;
        Ok(Pidfile {
            path: path.to_owned(),
            _file: file,
        })
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Nobody is left to hear of it.
        let _ = std::fs::remove_file(&self.path);
    }
}
