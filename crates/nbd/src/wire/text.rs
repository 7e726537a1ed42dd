//! Strings: names of exports, and text meant for people.

use super::Malformed;
use std::fmt;

/// The longest string the protocol allows, in bytes (NBD protocol, "Conventions").
pub const MAX_STRING: usize = 4096;

/// How much of a peer's text is shown, in characters.
const MAX_SHOWN: usize = 256;

/// The name of an export: at most 4096 bytes of UTF-8 without NUL. Empty means the default export.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExportName(String);

impl ExportName {
    /// The name in `bytes`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if it is too long, not UTF-8 or holds a NUL.
    pub fn parse(bytes: &[u8]) -> Result<ExportName, Malformed> {
        if bytes.len() > MAX_STRING {
            return Err(Malformed("an export name has at most 4096 bytes"));
        }
        let name =
            str::from_utf8(bytes).map_err(|_| Malformed("an export name must be valid UTF-8"))?;
        if name.contains('\0') {
            return Err(Malformed("an export name must not contain NUL"));
        }
        Ok(ExportName(name.to_owned()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for ExportName {
    type Error = Malformed;

    fn try_from(name: &str) -> Result<ExportName, Malformed> {
        ExportName::parse(name.as_bytes())
    }
}

/// Prints at most 256 characters, quoted and escaped: a name is a stranger's text.
impl fmt::Debug for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", display_text(self.0.as_bytes()))
    }
}

impl fmt::Display for ExportName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a peer wrote for people: at most 256 characters, control characters escaped.
pub fn display_text(bytes: &[u8]) -> String {
    let bytes = bytes.get(..MAX_STRING).unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::new();
    for character in text.chars().take(MAX_SHOWN) {
        if character.is_control() {
            shown.extend(character.escape_debug());
        } else {
            shown.push(character);
        }
    }
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_bounded_utf8_without_nul() {
        assert!(ExportName::parse(&[b'a'; 4096]).is_ok());
        for (bytes, why) in [
            (&[b'a'; 4097][..], "an export name has at most 4096 bytes"),
            (b"a\xff", "an export name must be valid UTF-8"),
            (b"a\0b", "an export name must not contain NUL"),
        ] {
            assert_eq!(ExportName::parse(bytes), Err(Malformed(why)));
        }
    }

    #[test]
    fn a_strangers_text_is_cut_and_escaped() {
        let name = ExportName::parse("\x1b[2Jä".repeat(100).as_bytes()).unwrap();
        let shown = name.to_string();
        assert!(shown.starts_with("'\\u{1b}[2Jä"), "{shown}");
        assert!(shown.ends_with("…'"), "{shown}");
        assert_eq!(display_text(b"\xff\n"), "\u{fffd}\\n");
    }
}
