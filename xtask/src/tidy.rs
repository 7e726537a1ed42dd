//! `cargo xtask tidy`: what neither compiler nor clippy checks.
//!
//! Every check is a pure function from a [`Tree`], a file or a message to problems, and is tested
//! with a bad snippet. A rule that nothing enforces is not written down; to add one, add a check.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "checks pick a few of the many kinds of syntax"
)]

mod drivers;
mod edges;
mod history;
mod os_names;
mod sizes;
mod source;
mod tree;
mod words;

use std::fmt;

use anyhow::{Result, bail};

use crate::shell;
use source::Source;
use tree::Tree;

pub(crate) use words::hash;

/// Something that must be mended before the change can land.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// A file, with its line where there is one, or a commit.
    place: String,
    what: String,
}

impl Problem {
    /// A problem of a whole file, a folder or a commit.
    pub(crate) fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            what: what.into(),
        }
    }

    /// A problem at a line, counted from 1.
    pub(crate) fn at(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self::new(format!("{path}:{line}"), what)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Runs every check over the working tree and the history, prints what they find.
pub(crate) fn run() -> Result<()> {
    let tree = Tree::read(&shell::root())?;
    let mut problems = Vec::new();
    for file in tree.texts() {
        problems.extend(words::check(file));
    }
    let sources = Source::parse_all(&tree, &mut problems);
    for source in &sources {
        problems.extend(sizes::check(source));
        problems.extend(os_names::check(source));
    }
    let summary = sizes::Summary::of(&sources);
    problems.extend(summary.check());
    problems.extend(tree.check_blobs());
    problems.extend(drivers::check(&tree, &sources));
    problems.extend(edges::check(&tree, &edges::read()?));
    problems.extend(history::check(&history::read()?));

    print!("{summary}");
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        number => bail!("{number} problem(s), listed above"),
    }
}
