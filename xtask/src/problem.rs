//! What a check found.

use std::fmt;

use anyhow::{Result, bail};

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

/// Prints every problem; an error if there is one.
pub(crate) fn verdict(problems: &[Problem]) -> Result<()> {
    for problem in problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        1 => bail!("1 problem, named above"),
        number => bail!("{number} problems, listed above"),
    }
}
