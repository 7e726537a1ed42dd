//! Citations of `docs/spec` in Rust files: comments that begin with `//=` and `//#`.

use super::spec::plain;
use crate::problem::Problem;
use crate::tree::Tree;

/// What stands below a citation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The code that keeps the promise.
    Code,
    /// A test that fails when it is broken.
    Test,
    /// Code, with the reason why no test can show it.
    Exception,
}

/// One citation.
#[derive(Debug)]
pub(crate) struct Citation {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) page: String,
    pub(crate) anchor: String,
    pub(crate) kind: Kind,
    /// The sentence or its beginning, [`plain`].
    pub(crate) quote: String,
    reason: bool,
}

/// Reads the citations of every Rust file; what is malformed is a problem.
pub(crate) fn read(tree: &Tree, problems: &mut Vec<Problem>) -> Vec<Citation> {
    let mut citations = Vec::new();
    for file in tree
        .texts()
        .filter(|file| file.path.strip_suffix(".rs").is_some())
    {
        read_file(&file.path, &file.text, &mut citations, problems);
    }
    for citation in &mut citations {
        citation.quote = plain(&citation.quote);
    }
    let unreasoned = citations
        .iter()
        .filter(|one| one.kind == Kind::Exception && !one.reason);
    problems.extend(
        unreasoned.map(|one| Problem::at(&one.path, one.line, "is an exception without a reason")),
    );
    citations
}

fn read_file(path: &str, text: &str, citations: &mut Vec<Citation>, problems: &mut Vec<Problem>) {
    let mut is_open = false;
    for (line, content) in (1..).zip(text.lines().map(str::trim)) {
        let current = citations.last_mut().filter(|_| is_open);
        if let Some(quote) = content.strip_prefix("//#") {
            match current {
                Some(citation) => citation.quote = format!("{} {quote}", citation.quote),
                None => problems.push(Problem::at(path, line, "quotes without saying from where")),
            }
        } else if let Some(meta) = content.strip_prefix("//=").map(str::trim) {
            let is_meta = meta.starts_with("type=") || meta.starts_with("reason=");
            let outcome = match current {
                Some(citation) if is_meta => citation.take(meta),
                Some(_) | None => start(path, line, meta).map(|citation| citations.push(citation)),
            };
            is_open = outcome.is_ok();
            problems.extend(outcome.err().map(|what| Problem::at(path, line, what)));
        } else {
            is_open = false;
        }
    }
}

fn start(path: &str, line: usize, address: &str) -> Result<Citation, String> {
    let (page, anchor) = address
        .split_once('#')
        .ok_or_else(|| format!("`{address}` is no address such as docs/spec/page.md#heading"))?;
    Ok(Citation {
        path: path.to_owned(),
        line,
        page: page.to_owned(),
        anchor: anchor.to_owned(),
        kind: Kind::Code,
        quote: String::new(),
        reason: false,
    })
}

impl Citation {
    /// Takes in `type=..` or `reason=..`.
    fn take(&mut self, meta: &str) -> Result<(), String> {
        match meta.split_once('=') {
            Some(("type", "test")) => self.kind = Kind::Test,
            Some(("type", "exception")) => self.kind = Kind::Exception,
            Some(("reason", reason)) => self.reason = !reason.trim().is_empty(),
            Some(_) | None => return Err(format!("`{meta}` is neither a type nor a reason")),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, read};
    use crate::tree::Tree;

    /// `@` stands for the two slashes, so that this file cites nothing.
    fn parse(code: &str) -> (Vec<(Kind, String)>, Vec<String>) {
        let code = code.replace('@', "//");
        let mut problems = Vec::new();
        let citations = read(&Tree::of(&[("a.rs", &code)]), &mut problems);
        let citations = citations
            .into_iter()
            .map(|one| (one.kind, one.quote))
            .collect();
        (
            citations,
            problems.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn a_quotation_may_go_on_over_lines_and_ends_at_the_first_other_one() {
        let (citations, problems) = parse("  @= p.md#a\n  @# It MUST\n  @#   `be`.\n  fn a() {}\n");
        assert_eq!(citations, [(Kind::Code, "It MUST be.".to_owned())]);
        assert_eq!(problems, [""; 0]);
        let (_, problems) = parse("@= p.md#a\n@# It MUST\n\n@# be.\n");
        assert_eq!(problems, ["a.rs:4: quotes without saying from where"]);
    }

    #[test]
    fn two_citations_may_stand_above_one_another() {
        let (citations, _) = parse("@= p.md#a\n@= type=test\n@# One.\n@= p.md#b\n@# Two.\n");
        assert_eq!(
            citations,
            [
                (Kind::Test, "One.".to_owned()),
                (Kind::Code, "Two.".to_owned())
            ]
        );
    }

    #[test]
    fn what_is_malformed_is_reported() {
        assert_eq!(
            parse("@= p.md\n").1,
            ["a.rs:1: `p.md` is no address such as docs/spec/page.md#heading"]
        );
        assert_eq!(
            parse("@= p.md#a\n@= type=tset\n").1,
            ["a.rs:2: `type=tset` is neither a type nor a reason"]
        );
        assert_eq!(
            parse("@= p.md#a\n@= type=exception\n").1,
            ["a.rs:1: is an exception without a reason"]
        );
    }
}
