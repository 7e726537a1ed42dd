//! Messages of commits: `crate: Imperative subject`, a blank line, a body that says why.

use anyhow::Result;

use super::words;
use crate::problem::Problem;
use crate::shell;

const SUBJECT_CHARS: usize = 72;

/// Messages that were on the main branch before anything checked them; they cannot be changed any
/// more. The list does not grow: what is not landed yet can still be worded.
const FORGIVEN: &[&str] = &["4c4fe48", "70785e1", "358af92", "5e61f07", "22d98b0"];

/// One commit's message.
pub(crate) struct Commit {
    id: String,
    message: String,
}

/// Reads the messages of all commits that lead to the present one.
pub(crate) fn read() -> Result<Vec<Commit>> {
    let args = ["log", "--no-merges", "--format=%h%x00%B%x01", "HEAD"];
    let log = shell::capture(&mut shell::tool("git", &args))?;
    let commits = log
        .split('\u{1}')
        .filter_map(|entry| entry.trim_start().split_once('\0'));
    Ok(commits
        .map(|(id, message)| Commit {
            id: id.to_owned(),
            message: message.to_owned(),
        })
        .collect())
}

/// Checks every message.
pub(crate) fn check(commits: &[Commit]) -> Vec<Problem> {
    let forgiven = |commit: &&Commit| FORGIVEN.iter().any(|id| commit.id.starts_with(id));
    let problems = commits
        .iter()
        .filter(|commit| !forgiven(commit))
        .flat_map(|commit| {
            complaints(&commit.message)
                .into_iter()
                .map(|what| Problem::new(format!("commit {}", commit.id), what))
        });
    problems.collect()
}

fn complaints(message: &str) -> Vec<String> {
    let (subject, rest) = message.split_once('\n').unwrap_or((message, ""));
    let mut complaints = Vec::new();
    let chars = subject.chars().count();
    if chars > SUBJECT_CHARS {
        complaints.push(format!(
            "the subject has {chars} characters; at most {SUBJECT_CHARS}"
        ));
    }
    complaints.extend(complaint_of_form(subject));
    if rest.trim().is_empty() {
        complaints.push(
            "has no body: say what was wrong or missing, and why this is the answer".to_owned(),
        );
    } else if !rest.starts_with('\n') {
        complaints.push("has no blank line between subject and body".to_owned());
    }
    complaints.extend(message.lines().find_map(words::find));
    complaints
}

/// What keeps `subject` from being `crate: Imperative ..`.
fn complaint_of_form(subject: &str) -> Option<String> {
    let form = "the subject is not of the form `crate: Imperative`";
    let Some((place, what)) = subject.split_once(": ") else {
        return Some(form.to_owned());
    };
    let is_place = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_/., ".contains(c);
    if place.is_empty() || !place.chars().all(is_place) {
        return Some(form.to_owned());
    }
    let verb = what.split_whitespace().next().unwrap_or_default();
    if !verb.starts_with(|c: char| c.is_ascii_uppercase()) {
        return Some(format!("{form}: `{verb}` has no capital"));
    }
    if subject.ends_with('.') {
        return Some("the subject ends with a full stop".to_owned());
    }
    (!is_imperative(verb)).then(|| format!("{form}: `{verb}` is no imperative"))
}

/// A guess by the ending: `Adds`, `Added` and `Adding` are told from `Add`, `Pass` and `Embed`.
fn is_imperative(verb: &str) -> bool {
    const VERBS: &[&str] = &[
        "bring", "embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "string",
        "swing",
    ];
    let verb = verb.to_ascii_lowercase();
    let third_person =
        verb.ends_with('s') && !["ss", "us", "is"].iter().any(|end| verb.ends_with(end));
    VERBS.contains(&verb.as_str())
        || !(third_person || verb.ends_with("ed") || verb.ends_with("ing"))
}

#[cfg(test)]
mod tests {
    use super::complaints;

    #[test]
    fn a_good_message_passes() {
        for subject in [
            "block: Add ranges",
            "docs, nbd: Pass the length",
            "xtask/tidy: Embed the table",
        ] {
            assert_eq!(
                complaints(&format!("{subject}\n\nIt was missing.\n")),
                [""; 0],
                "{subject}"
            );
        }
    }

    #[test]
    fn a_bad_subject_is_told_what_is_wrong_with_it() {
        let form = "the subject is not of the form `crate: Imperative`";
        for (subject, complaint) in [
            ("Add ranges", form.to_owned()),
            ("Block: Add ranges", form.to_owned()),
            ("block: add ranges", format!("{form}: `add` has no capital")),
            (
                "block: Adds ranges",
                format!("{form}: `Adds` is no imperative"),
            ),
            (
                "block: Added ranges",
                format!("{form}: `Added` is no imperative"),
            ),
            (
                "block: Adding ranges",
                format!("{form}: `Adding` is no imperative"),
            ),
            (
                "block: Add ranges.",
                "the subject ends with a full stop".to_owned(),
            ),
        ] {
            assert_eq!(
                complaints(&format!("{subject}\n\nWhy.\n")),
                [complaint],
                "{subject}"
            );
        }
    }

    #[test]
    fn a_subject_of_73_characters_is_too_long() {
        let subject = |length: usize| format!("block: A{}", "d".repeat(length - 8));
        assert_eq!(complaints(&format!("{}\n\nWhy.\n", subject(72))), [""; 0]);
        let complaint = "the subject has 73 characters; at most 72";
        assert_eq!(
            complaints(&format!("{}\n\nWhy.\n", subject(73))),
            [complaint]
        );
    }

    #[test]
    fn a_message_without_a_body_or_without_the_blank_line_is_reported() {
        let no_body = "has no body: say what was wrong or missing, and why this is the answer";
        assert_eq!(complaints("block: Add ranges"), [no_body]);
        let no_blank = "has no blank line between subject and body";
        assert_eq!(complaints("block: Add ranges\nWhy.\n"), [no_blank]);
    }

    #[test]
    fn words_that_do_not_belong_are_found_in_messages_too() {
        let word = ["work", "place"].concat();
        let complaint = format!("`{word}` does not belong in the project");
        assert_eq!(
            complaints(&format!("ci: Fit the host\n\nAs this {word} has it.\n")),
            [complaint]
        );
    }
}
