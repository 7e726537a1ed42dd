//! The requirements of `docs/spec`: list items of one line that hold the word MUST.

use crate::problem::Problem;
use crate::tree::Tree;

const FOLDER: &str = "docs/spec/";

/// One sentence that must be kept.
#[derive(Debug)]
pub(crate) struct Requirement {
    pub(crate) page: String,
    pub(crate) line: usize,
    /// Of the heading above it, as GitHub spells it.
    pub(crate) anchor: String,
    /// [`plain`], without the behaviours in brackets at its end.
    pub(crate) sentence: String,
}

/// Reads every page but the README, which explains the form.
pub(crate) fn read(tree: &Tree, problems: &mut Vec<Problem>) -> Vec<Requirement> {
    let mut requirements = Vec::new();
    for page in tree.texts() {
        let name = page
            .path
            .strip_prefix(FOLDER)
            .and_then(|name| name.strip_suffix(".md"));
        if name.is_none_or(|name| name == "README") {
            continue;
        }
        let first = requirements.len();
        requirements.extend(read_page(&page.path, &page.text));
        let of_page = requirements.get(first..).unwrap_or_default();
        problems.extend(ambiguous(of_page));
    }
    requirements
}

fn read_page(path: &str, text: &str) -> Vec<Requirement> {
    let mut requirements = Vec::new();
    let mut heading = String::new();
    for (line, content) in (1..).zip(text.lines()) {
        if content.starts_with('#') {
            heading = anchor(content.trim_start_matches('#'));
        } else if let Some(item) = content
            .strip_prefix("- ")
            .filter(|item| item.contains("MUST"))
        {
            requirements.push(Requirement {
                page: path.to_owned(),
                line,
                anchor: heading.clone(),
                sentence: without_behaviours(&plain(item)).to_owned(),
            });
        }
    }
    requirements
}

/// A sentence that is the beginning of another could not be cited.
fn ambiguous(requirements: &[Requirement]) -> Vec<Problem> {
    let mut sorted: Vec<&Requirement> = requirements.iter().collect();
    sorted.sort_by(|a, b| a.sentence.cmp(&b.sentence));
    let pairs = sorted.windows(2).filter_map(|pair| match pair {
        [short, long] if long.sentence.starts_with(&short.sentence) => Some((short, long)),
        _ => None,
    });
    pairs
        .map(|(short, long)| {
            let what = format!("is the beginning of the sentence at line {}", long.line);
            Problem::at(&short.page, short.line, what)
        })
        .collect()
}

/// Without Markdown's marks, every run of white space one blank.
pub(crate) fn plain(text: &str) -> String {
    let unmarked: String = text
        .chars()
        .filter(|c| !matches!(c, '`' | '*' | '_'))
        .collect();
    unmarked.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Takes `(R50, R52)` off the end.
fn without_behaviours(sentence: &str) -> &str {
    let Some((before, brackets)) = sentence.rsplit_once('(') else {
        return sentence;
    };
    let list = brackets
        .trim_end_matches('.')
        .strip_suffix(')')
        .unwrap_or_default();
    let is_behaviour = |word: &str| {
        let number = word.trim().strip_prefix('R').unwrap_or_default();
        !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
    };
    if list.split(',').all(is_behaviour) {
        before.trim_end()
    } else {
        sentence
    }
}

/// Lower case, blanks to `-`, punctuation dropped.
fn anchor(heading: &str) -> String {
    let kept = heading
        .trim()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| {
        if c == ' ' {
            '-'
        } else {
            c.to_ascii_lowercase()
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::{anchor, plain, read, without_behaviours};
    use crate::tree::Tree;

    #[test]
    fn an_anchor_is_spelled_as_github_does() {
        assert_eq!(anchor(" Copy before write"), "copy-before-write");
        assert_eq!(
            anchor(" `ai-overlay`: the form, on disk"),
            "ai-overlay-the-form-on-disk"
        );
    }

    #[test]
    fn behaviours_at_the_end_are_no_part_of_the_sentence() {
        assert_eq!(
            without_behaviours(&plain("It MUST be. (R5, R50*)")),
            "It MUST be."
        );
        assert_eq!(
            without_behaviours("It MUST be (at last)."),
            "It MUST be (at last)."
        );
        assert_eq!(without_behaviours("It MUST be."), "It MUST be.");
    }

    #[test]
    fn a_sentence_that_begins_another_is_reported() {
        let page = "# P\n- It MUST be so and so.\n- It MUST be so\n";
        let mut problems = Vec::new();
        read(&Tree::of(&[("docs/spec/p.md", page)]), &mut problems);
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            ["docs/spec/p.md:3: is the beginning of the sentence at line 2"]
        );
    }
}
