//! Comparing every block of a disk with what the ledger allows.

use super::disk::Disk;
use super::ledger::{BLOCK, Window};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// What a disk was found to hold: a version a block.
pub(super) struct Found {
    versions: Vec<u64>,
    /// The first few blocks that broke the rule, in words.
    pub(super) wrong: Vec<String>,
    /// How many blocks broke it.
    pub(super) wrong_count: u64,
}

impl Found {
    fn new() -> Found {
        Found {
            versions: Vec::new(),
            wrong: Vec::new(),
            wrong_count: 0,
        }
    }

    /// The version found in each block, in order.
    pub(super) fn versions(&self) -> &[u64] {
        &self.versions
    }

    /// Bytes compared.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = self.versions.len().saturating_mul(BLOCK);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Judges the blocks in `data`, which follows what was judged before.
    fn judge(&mut self, window: &Window, data: &[u8]) {
        for block in data.chunks(BLOCK) {
            let verdict = window.judge(self.versions.len(), block);
            self.versions.push(*verdict.as_ref().unwrap_or(&0));
            if let Err(message) = verdict {
                self.wrong_count = self.wrong_count.saturating_add(1);
                if self.wrong.len() < 5 {
                    self.wrong.push(message);
                }
            }
        }
    }
}

/// Reads every block of an export and compares it with what `window` allows.
pub(super) fn export(socket: &Path, window: &Window) -> Result<Found, String> {
    Disk::with(socket, async |disk| {
        let mut found = Found::new();
        let mut offset = 0;
        while offset < disk.length() {
            let data = disk.read(offset, CHUNK).await?;
            found.judge(window, &data);
            offset = offset.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        }
        Ok(found)
    })
}

/// Reads every block of an image file and compares it with what `window` allows.
pub(super) fn image(path: &Path, window: &Window) -> Result<Found, String> {
    let said = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut file = File::open(path).map_err(said)?;
    let mut left = file.metadata().map_err(said)?.len();
    let mut found = Found::new();
    let mut data = vec![0; CHUNK];
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let Some(part) = data.get_mut(..length) else {
            break;
        };
        file.read_exact(part).map_err(said)?;
        found.judge(window, part);
        left = left.saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
    }
    Ok(found)
}
