//! `cargo xtask trace`: every MUST of `docs/spec` is cited by code and by a test.
//!
//! docs/spec/README.md says what counts as a requirement and how it is cited. A citation that fits
//! no requirement is an error too: the page was changed and the code was not.

mod citations;
mod spec;

use anyhow::Result;

use crate::problem::{self, Problem};
use crate::shell;
use crate::tree::Tree;
use citations::{Citation, Kind};
use spec::Requirement;

/// Compares pages and code, prints what is missing.
pub(crate) fn run() -> Result<()> {
    let tree = Tree::read(&shell::root())?;
    let (requirements, problems) = compare(&tree);
    println!("{requirements} requirements");
    problem::verdict(&problems)
}

/// The number of requirements, and all that is missing or wrong.
fn compare(tree: &Tree) -> (usize, Vec<Problem>) {
    let mut problems = Vec::new();
    let requirements = spec::read(tree, &mut problems);
    let mut shown = vec![Shown::default(); requirements.len()];
    for citation in citations::read(tree, &mut problems) {
        match target(&requirements, &citation) {
            Ok(index) => {
                if let Some(shown) = shown.get_mut(index) {
                    shown.add(citation.kind);
                }
            }
            Err(what) => problems.push(Problem::at(&citation.path, citation.line, what)),
        }
    }
    for (requirement, shown) in requirements.iter().zip(shown) {
        if let Some(what) = shown.missing() {
            let what = format!("{what}: {}", requirement.sentence);
            problems.push(Problem::at(&requirement.page, requirement.line, what));
        }
    }
    (requirements.len(), problems)
}

/// The one requirement that a citation quotes.
fn target(requirements: &[Requirement], citation: &Citation) -> Result<usize, String> {
    let fits = |(_, requirement): &(usize, &Requirement)| {
        requirement.page == citation.page
            && requirement.anchor == citation.anchor
            && requirement.sentence.starts_with(&citation.quote)
    };
    let mut found = requirements
        .iter()
        .enumerate()
        .filter(fits)
        .map(|(index, _)| index);
    let address = format!("{}#{}", citation.page, citation.anchor);
    match (found.next(), found.next()) {
        _ if citation.quote.is_empty() => {
            Err(format!("cites {address} without quoting a sentence"))
        }
        (Some(index), None) => Ok(index),
        (Some(_), Some(_)) => Err(format!("fits more than one sentence of {address}")),
        (None, _) => Err(format!("fits no requirement of {address}")),
    }
}

/// By what a requirement is cited.
#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    in_code: bool,
    in_test: bool,
    /// A reason says why no test can show it.
    excepted: bool,
}

impl Shown {
    fn add(&mut self, kind: Kind) {
        match kind {
            Kind::Code => self.in_code = true,
            Kind::Test => self.in_test = true,
            Kind::Exception => self.excepted = true,
        }
    }

    fn missing(self) -> Option<&'static str> {
        match self {
            Self { excepted: true, .. }
            | Self {
                in_code: true,
                in_test: true,
                ..
            } => None,
            Self { in_code: true, .. } => Some("no test shows"),
            Self { in_test: true, .. } => Some("no code cites"),
            Self { .. } => Some("nothing cites"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Tree, compare};

    const PAGE: &str = "\
# Filter

## Check `point`

- A checkpoint MUST empty the *active* disk first. (R50, R52*)
- A checkpoint MUST NOT lose
a word of a sentence that goes on elsewhere.
- It SHOULD be quick.
";

    /// What `compare` says of PAGE and of `code`, in which `@` stands for the two slashes.
    fn said(code: &str) -> Vec<String> {
        let code = code.replace('@', "//");
        let tree = Tree::of(&[
            ("docs/spec/f.md", PAGE),
            ("docs/spec/README.md", PAGE),
            ("a.rs", &code),
        ]);
        let (count, problems) = compare(&tree);
        assert_eq!(count, 2);
        problems.iter().map(ToString::to_string).collect()
    }

    const OTHER: &str = "\
@= docs/spec/f.md#check-point
@= type=exception
@= reason=nothing to see
@# A checkpoint MUST NOT lose
";

    #[test]
    fn a_requirement_that_nothing_cites_is_reported_with_its_line() {
        assert_eq!(
            said(""),
            [
                "docs/spec/f.md:5: nothing cites: A checkpoint MUST empty the active disk first.",
                "docs/spec/f.md:6: nothing cites: A checkpoint MUST NOT lose",
            ]
        );
    }

    #[test]
    fn code_and_a_test_together_satisfy_it() {
        let code = "@= docs/spec/f.md#check-point\n@# A checkpoint MUST empty\n@# the active disk first.\n";
        let expected =
            "docs/spec/f.md:5: no test shows: A checkpoint MUST empty the active disk first.";
        assert_eq!(said(&format!("{OTHER}fn a() {{}}\n{code}")), [expected]);
        let test = "@= docs/spec/f.md#check-point\n@= type=test\n@# A checkpoint MUST empty\n";
        assert_eq!(
            said(&format!("{OTHER}fn a() {{}}\n{code}fn b() {{}}\n{test}")),
            [""; 0]
        );
        let expected =
            "docs/spec/f.md:5: no code cites: A checkpoint MUST empty the active disk first.";
        assert_eq!(said(&format!("{OTHER}{test}")), [expected]);
    }

    #[test]
    fn a_citation_that_fits_none_or_two_is_reported() {
        let none = "@= docs/spec/f.md#check-point\n@# A checkpoint MUST do more.\n";
        assert!(
            said(none)
                .contains(&"a.rs:1: fits no requirement of docs/spec/f.md#check-point".to_owned())
        );
        let two = "@= docs/spec/f.md#check-point\n@# A checkpoint MUST\n";
        let expected = "a.rs:1: fits more than one sentence of docs/spec/f.md#check-point";
        assert!(said(two).contains(&expected.to_owned()));
        let bare = "@= docs/spec/f.md#check-point\nfn a() {}\n";
        let expected = "a.rs:1: cites docs/spec/f.md#check-point without quoting a sentence";
        assert!(said(bare).contains(&expected.to_owned()));
    }
}
