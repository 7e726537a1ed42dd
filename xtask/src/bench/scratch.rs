//! Where the measured disks and sockets lie, for as long as they are needed.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::shell;

/// What the disk is stored on.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Storage {
    /// Memory: `/dev/shm`.
    Tmpfs,
    /// The file system of the build folder.
    Disk,
}

impl Storage {
    /// Its name in a table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tmpfs => "tmpfs",
            Self::Disk => "disk",
        }
    }
}

/// A folder that goes away with this value.
pub(crate) struct Scratch {
    folder: PathBuf,
    sockets: PathBuf,
}

impl Scratch {
    /// A new folder on `storage`.
    pub(crate) fn new(storage: Storage) -> Result<Self> {
        let base = match storage {
            Storage::Tmpfs => PathBuf::from("/dev/shm"),
            Storage::Disk => shell::target()?,
        };
        let name = format!("afterimage-bench-{}", process::id());
        // Socket paths have a short bound; the build folder's may be long.
        let scratch = Self {
            folder: base.join(&name),
            sockets: env::temp_dir().join(name),
        };
        for folder in [&scratch.folder, &scratch.sockets] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        Ok(scratch)
    }

    /// A path for a file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A path for a socket.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.sockets.join(name)
    }

    /// A disk of `bytes` all of which have been written.
    pub(crate) fn disk(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        let path = self.file(name);
        let mut file =
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let block = vec![0x5a; 1 << 20];
        for _ in 0..bytes >> 20 {
            file.write_all(&block)
                .with_context(|| format!("cannot fill {}", path.display()))?;
        }
        file.sync_all()?;
        Ok(path)
    }
}

/// Waits until what was written to `file` is on its medium, so that the next one starts level.
pub(crate) fn settle(file: &Path) -> Result<()> {
    File::open(file)?
        .sync_all()
        .with_context(|| format!("cannot flush {}", file.display()))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for folder in [&self.folder, &self.sockets] {
            if let Err(error) = fs::remove_dir_all(folder) {
                eprintln!("warning: {} is left behind: {error}", folder.display());
            }
        }
    }
}
