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
mod words;

use anyhow::Result;

use crate::problem;
use crate::shell;
use crate::tree::Tree;
use source::Source;

pub(crate) use words::hash;

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
    problem::verdict(&problems)
}
