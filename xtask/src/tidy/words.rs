//! Words that do not belong in the project: unfinished work, and where it was made.
//!
//! The project speaks of itself alone: no names of machines, registries, tools or programs that
//! happened to be around when it was written. Those names are kept as hashes, so that the list
//! does not put into the tree what it keeps out of it. `cargo xtask tidy --hash NAME` prints the
//! line to add.

use crate::problem::Problem;
use crate::tree::Text;

/// Texts that are not ours to word.
const FOREIGN: &[&str] = &[
    "Cargo.lock",
    "fuzz/Cargo.lock",
    "LICENSE-APACHE",
    "LICENSE-MIT",
];

/// Folders of machines: a path that begins with one is true on one machine only.
const MACHINE_FOLDERS: &[&str] = &["home", "root", "work", "Users"];

/// What would stand here for later; the tracker is the place for it.
const UNFINISHED: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// [`hash`]es of words, of host names, and of the first two parts of paths.
const BANNED: &[u64] = &[
    0x0702_bf46_1365_8751,
    0x089c_3b07_b545_891f,
    0x092a_c59e_6d01_8f41,
    0x125b_6919_1db9_4ab8,
    0x2391_9480_3edf_98f7,
    0x2524_b426_1996_11b3,
    0x2d25_2c8a_a560_c4fc,
    0x3bb5_64bd_a052_6bab,
    0x4622_376f_a414_0cb3,
    0x7f7a_7547_86a6_64b8,
    0x8a1b_8f4a_0a91_3503,
    0x8d2a_dc28_564d_5167,
    0xa113_d274_5d70_6ce3,
    0xa233_cd01_de1d_da83,
    0xaae1_75ad_baa6_5333,
    0xbb63_a61b_2614_aeba,
    0xc550_f37d_20f6_ca83,
    0xca83_44c0_6d53_1884,
    0xd4c8_0b5a_1bd0_7e8e,
    0xd523_5518_fae1_f922,
    0xde35_e608_c3c2_ca95,
    0xea9e_60ad_81da_16f1,
    0xef56_4579_16c2_0119,
];

/// Finds such words in a file.
pub(crate) fn check(file: &Text) -> Vec<Problem> {
    if FOREIGN.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let mut problems = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        problems.extend(find(line).map(|what| Problem::at(&file.path, number, what)));
    }
    problems
}

/// What is wrong with one line of text, if anything is.
pub(crate) fn find(line: &str) -> Option<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    line.split(|c| !is_part(c))
        .filter(|word| !word.is_empty())
        .find_map(find_in_word)
}

/// Looks at a run of letters, digits and `-_./`: a word, a name, a host or a path.
fn find_in_word(word: &str) -> Option<String> {
    let mut parts = word.split('/');
    let (first, second) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    if first.is_empty() && MACHINE_FOLDERS.contains(&second) && parts.next().is_some() {
        return Some(format!("`{word}` is a path of one machine"));
    }
    let host = word
        .split('/')
        .map(|part| part.trim_matches('.'))
        .find(|part| is_banned(part));
    if host.is_some() || is_banned(&format!("{first}/{second}")) {
        return Some(format!("`{word}` does not belong in the project"));
    }
    let mut start = 0;
    for token in word.split(|c: char| !c.is_ascii_alphanumeric()) {
        let rest = word.get(start..).unwrap_or_default();
        start += token.len() + 1;
        if UNFINISHED.contains(&token) {
            return Some(format!("`{token}`: finish it, or put it into the tracker"));
        }
        if is_banned(token) && !is_own_prefix(word, rest) {
            return Some(format!("`{token}` does not belong in the project"));
        }
    }
    None
}

/// True where `rest`, the end of `word`, begins as the names of our own drivers, commands and
/// files do.
fn is_own_prefix(word: &str, rest: &str) -> bool {
    let before = word.strip_suffix(rest).unwrap_or_default();
    let is_ending = rest.len() == 2 && rest == rest.to_ascii_lowercase() && before.ends_with('.');
    is_ending || rest.starts_with("ai-") || rest.starts_with("ai_") || word.starts_with("X_AI_")
}

fn is_banned(word: &str) -> bool {
    !word.is_empty() && BANNED.contains(&hash(word))
}

/// FNV-1a of the word in lower case.
pub(crate) fn hash(word: &str) -> u64 {
    word.to_ascii_lowercase()
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
}

#[cfg(test)]
mod tests {
    use super::{Problem, Text, UNFINISHED, check, find, hash};

    /// Made of parts, so that this file passes its own check.
    fn host() -> String {
        ["crates", "io"].join(".")
    }

    #[test]
    fn the_hash_ignores_case() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("A"), hash("a"));
    }

    #[test]
    fn a_banned_host_is_found_in_a_sentence_and_in_an_address() {
        let host = host();
        let expected = format!("`{host}` does not belong in the project");
        assert_eq!(
            find(&format!("it comes from {host}, as usual")),
            Some(expected)
        );
        let sentence_end = format!("It comes from {host}.");
        assert!(find(&sentence_end).is_some());
        assert!(find(&format!("https://{host}/serde")).is_some());
        assert_eq!(find("crates and io"), None);
    }

    #[test]
    fn our_own_prefix_is_no_banned_word_and_the_bare_word_is() {
        for own in [
            "ai-overlay",
            "x-ai-query-replication",
            "X_AI_STAGE_CHANGE",
            "ai_overlay",
            "`ai-`",
            "hidden.ai",
        ] {
            assert_eq!(find(own), None, "{own}");
        }
        let bare = ["A", "I"].concat();
        for word in [
            bare.clone(),
            format!("{bare}-written"),
            bare.to_ascii_lowercase(),
        ] {
            assert!(find(&word).is_some(), "{word}");
        }
    }

    #[test]
    fn a_path_of_one_machine_is_found_and_a_relative_or_common_one_is_not() {
        let path = ["", "home", "user", "disk.raw"].join("/");
        assert_eq!(
            find(&path),
            Some(format!("`{path}` is a path of one machine"))
        );
        for good in [
            "/run/afterimage/control.sock",
            "nbd+unix:///root?socket=s",
            "target/work/x",
        ] {
            assert_eq!(find(good), None, "{good}");
        }
    }

    #[test]
    fn unfinished_work_is_found_with_its_line() {
        for word in UNFINISHED {
            let text = format!("//! Good.\n// {word}: later\n");
            let file = Text {
                path: "a.rs".to_owned(),
                text,
            };
            let what = format!("`{word}`: finish it, or put it into the tracker");
            assert_eq!(check(&file), [Problem::at("a.rs", 2, what)]);
        }
    }
}
