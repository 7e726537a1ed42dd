//! The files that belong to the project: tracked by git, or about to be.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::problem::Problem;
use crate::shell;

/// What git keeps is kept for ever, in every clone.
const BLOB_LIMIT_BYTES: usize = 256 * 1024;

/// One file that is text.
pub(crate) struct Text {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// All files of the project.
#[derive(Default)]
pub(crate) struct Tree {
    texts: Vec<Text>,
    sizes: Vec<(String, usize)>,
}

impl Tree {
    /// Reads every file below `root` that git tracks or would track.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut tree = Self::default();
        for path in listed(root)? {
            let full = root.join(&path);
            if !full.is_file() {
                continue; // Deleted, and not yet so in the index.
            }
            let bytes = fs::read(&full).with_context(|| format!("cannot read {path}"))?;
            tree.sizes.push((path.clone(), bytes.len()));
            if let Ok(text) = String::from_utf8(bytes) {
                tree.texts.push(Text { path, text });
            }
        }
        Ok(tree)
    }

    /// The text files, in the order of their paths.
    pub(crate) fn texts(&self) -> impl Iterator<Item = &Text> {
        self.texts.iter()
    }

    /// The text of one file.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.texts
            .iter()
            .find(|file| file.path == path)
            .map(|file| file.text.as_str())
    }

    /// The files below `folder`, which ends with `/`, by the rest of their paths.
    pub(crate) fn below(&self, folder: &str) -> impl Iterator<Item = &str> {
        self.sizes
            .iter()
            .filter_map(move |(path, _)| path.strip_prefix(folder))
    }

    /// Finds files too large to be kept for ever.
    pub(crate) fn check_blobs(&self) -> Vec<Problem> {
        let large = self
            .sizes
            .iter()
            .filter(|(_, size)| *size > BLOB_LIMIT_BYTES);
        large
            .map(|(path, size)| {
                let limit = BLOB_LIMIT_BYTES / 1024;
                Problem::new(
                    path,
                    format!("has {} KiB; at most {limit}", size.div_ceil(1024)),
                )
            })
            .collect()
    }
}

/// The paths git tracks, and those it would: not ignored.
pub(crate) fn listed(root: &Path) -> Result<Vec<String>> {
    let args = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let mut list = shell::tool("git", &args);
    let list = shell::capture(list.current_dir(root))?;
    let mut paths: Vec<String> = list
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}

#[cfg(test)]
impl Tree {
    /// A tree made of paths and their texts.
    pub(crate) fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.sizes.push(((*path).to_owned(), text.len()));
            tree.texts.push(Text {
                path: (*path).to_owned(),
                text: (*text).to_owned(),
            });
        }
        tree
    }
}

#[cfg(test)]
mod tests {
    use super::Tree;

    #[test]
    fn a_large_file_is_reported_with_its_size() {
        let large = "x".repeat(256 * 1024 + 1);
        let problems =
            Tree::of(&[("a.bin", &large), ("b.bin", large.trim_end_matches('x'))]).check_blobs();
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(said, ["a.bin: has 257 KiB; at most 256"]);
    }
}
