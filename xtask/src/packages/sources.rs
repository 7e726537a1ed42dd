//! Adding a suite to a source of packages that is configured already.
//!
//! Both forms of `apt`'s configuration are edited: stanzas of `*.sources` and the one-line entries
//! of `*.list`. The entry is found by what `apt-get indextargets` says of it, so that a foreign
//! source which happens to use the release's code name is left alone, and no host is named here.

use anyhow::{Context, Result, bail};

/// Where `apt` says a source is configured: a file, and which entry of it, counted from 1.
///
/// In a `*.sources` file the entry is a stanza, in a `*.list` file a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) file: String,
    pub(crate) number: usize,
}

/// Which fields of an index we ask `apt-get indextargets` for, and their order.
pub(crate) const INDEX_FORMAT: &str = "$(ORIGIN)|$(RELEASE)|$(SOURCESENTRY)";

/// The entry that brings Debian's release `codename` itself, from lines of [`INDEX_FORMAT`].
pub(crate) fn debian_entry(indexes: &str, codename: &str) -> Option<Entry> {
    indexes.lines().find_map(|line| {
        let (origin, rest) = line.split_once('|')?;
        let (release, entry) = rest.split_once('|')?;
        let (file, number) = entry.rsplit_once(':')?;
        let is_it = origin == "Debian" && release == codename;
        is_it.then_some(Entry {
            file: file.to_owned(),
            number: number.parse().ok()?,
        })
    })
}

/// True if one of Debian's own sources has `suite` already.
pub(crate) fn has_suite(indexes: &str, suite: &str) -> bool {
    indexes
        .lines()
        .any(|line| line.starts_with(&format!("Debian|{suite}|")))
}

/// One change of one line of a file, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    /// Puts `suite` at the end of the line.
    Append { line: usize, suite: String },
    /// Repeats the line below itself with `suite` in the place of `codename`.
    Repeat {
        line: usize,
        codename: String,
        suite: String,
    },
}

impl Edit {
    /// What brings `suite` into the file at `entry`, which holds `text` and names `codename`.
    pub(crate) fn find(text: &str, entry: &Entry, codename: &str, suite: &str) -> Result<Self> {
        let suite = suite.to_owned();
        let edit = if entry.file.ends_with(".sources") {
            suites_line(text, entry.number, codename).map(|line| Self::Append { line, suite })
        } else {
            let codename = codename.to_owned();
            let line = entry.number;
            names_suite(text, line, &codename).then_some(Self::Repeat {
                line,
                codename,
                suite,
            })
        };
        edit.with_context(|| {
            format!(
                "entry {} of {} does not name the suite {codename}",
                entry.number, entry.file
            )
        })
    }

    /// The text after the change; all else is kept as it was.
    pub(crate) fn apply(&self, text: &str) -> String {
        let mut lines = Vec::new();
        for (number, content) in (1..).zip(text.lines()) {
            match self {
                Self::Append { line, suite } if *line == number => {
                    lines.push(format!("{} {suite}\n", content.trim_end()));
                }
                Self::Repeat {
                    line,
                    codename,
                    suite,
                } if *line == number => {
                    let repeated = content.replace(&format!(" {codename} "), &format!(" {suite} "));
                    lines.push(format!("{content}\n{repeated}\n"));
                }
                Self::Append { .. } | Self::Repeat { .. } => lines.push(format!("{content}\n")),
            }
        }
        lines.concat()
    }

    /// The same change as a command to type.
    pub(crate) fn command(&self, file: &str) -> String {
        match self {
            Self::Append { line, suite } => format!("sed -i '{line}s/$/ {suite}/' {file}"),
            Self::Repeat {
                line,
                codename,
                suite,
            } => {
                format!("sed -i '{line}{{p;s/ {codename} / {suite} /}}' {file}")
            }
        }
    }
}

/// The line of the `number`th stanza that lists its suites, if `codename` is among them.
fn suites_line(text: &str, number: usize, codename: &str) -> Option<usize> {
    let mut stanza = 0;
    let mut in_stanza = false;
    for (line, content) in (1..).zip(text.lines()) {
        if content.starts_with('#') {
            continue;
        }
        let is_blank = content.trim().is_empty();
        if !is_blank && !in_stanza {
            stanza += 1;
        }
        in_stanza = !is_blank;
        let Some((key, list)) = content.split_once(':') else {
            continue;
        };
        let is_it =
            key.eq_ignore_ascii_case("suites") && list.split_whitespace().any(|s| s == codename);
        if stanza == number && is_it {
            return Some(line);
        }
    }
    None
}

/// True if line `number` is an entry for `codename`.
fn names_suite(text: &str, number: usize, codename: &str) -> bool {
    let line = number
        .checked_sub(1)
        .and_then(|index| text.lines().nth(index));
    line.is_some_and(|line| line.starts_with("deb ") && line.contains(&format!(" {codename} ")))
}

/// The release's code name, from the text of `/etc/os-release`.
pub(crate) fn codename(os_release: &str) -> Result<String> {
    let line = os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    match line.map(|name| name.trim_matches('"')) {
        Some(name) if !name.is_empty() => Ok(name.to_owned()),
        _ => bail!("this Debian release has no code name, so no backports suite either"),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::{Edit, Entry, codename, debian_entry, has_suite};

    const INDEXES: &str = "\
Debian|bookworm-security|/etc/apt/sources.list.d/debian.sources:2
Elsewhere|bookworm|/etc/apt/sources.list.d/elsewhere.list:1
Debian|bookworm|/etc/apt/sources.list.d/debian.sources:1
Debian|bookworm-updates|/etc/apt/sources.list.d/debian.sources:1";

    const STANZAS: &str = "\
# A comment of its own is no stanza.

Types: deb
# where the image came from
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
";

    fn entry(file: &str, number: usize) -> Entry {
        Entry {
            file: file.to_owned(),
            number,
        }
    }

    #[test]
    fn the_release_itself_is_found_and_neither_security_nor_a_foreign_source() {
        let found = debian_entry(INDEXES, "bookworm");
        assert_eq!(
            found,
            Some(entry("/etc/apt/sources.list.d/debian.sources", 1))
        );
        assert_eq!(debian_entry(INDEXES, "trixie"), None);
        assert!(has_suite(INDEXES, "bookworm-updates"));
        assert!(!has_suite(INDEXES, "bookworm-backports"));
    }

    fn edit(text: &str, entry: &Entry) -> Result<Edit> {
        Edit::find(text, entry, "bookworm", "bookworm-backports")
    }

    #[test]
    fn a_stanza_gains_the_suite_and_nothing_else_changes() {
        let edit = edit(STANZAS, &entry("debian.sources", 1)).unwrap();
        let expected = STANZAS.replace("bookworm-updates", "bookworm-updates bookworm-backports");
        assert_eq!(edit.apply(STANZAS), expected);
        assert_eq!(
            edit.command("d.sources"),
            "sed -i '6s/$/ bookworm-backports/' d.sources"
        );
    }

    #[test]
    fn a_stanza_that_does_not_hold_the_release_is_refused_by_name() {
        let refused = edit(STANZAS, &entry("debian.sources", 2));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "entry 2 of debian.sources does not name the suite bookworm"
        );
    }

    #[test]
    fn a_line_is_repeated_with_the_suite() {
        let list = "# Debian\ndeb [arch=amd64] http://mirror.example/debian bookworm main\n";
        let edit = edit(list, &entry("sources.list", 2)).unwrap();
        let added = "deb [arch=amd64] http://mirror.example/debian bookworm-backports main\n";
        assert_eq!(edit.apply(list), format!("{list}{added}"));
        assert_eq!(
            edit.command("sources.list"),
            "sed -i '2{p;s/ bookworm / bookworm-backports /}' sources.list"
        );
    }

    #[test]
    fn the_code_name_is_read_with_or_without_quotes() {
        assert_eq!(
            codename("ID=debian\nVERSION_CODENAME=bookworm\n").unwrap(),
            "bookworm"
        );
        assert_eq!(codename("VERSION_CODENAME=\"trixie\"\n").unwrap(), "trixie");
        assert!(codename("ID=debian\n").is_err());
    }
}
