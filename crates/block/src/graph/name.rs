//! Which names a user may give a node: QEMU's rules, so that a name works on both.

use super::Error;

/// Longest node name in bytes.
pub const LONGEST_NODE_NAME: usize = 31;

/// Checks a name a user gives: a letter, then letters, digits, `-`, `.`, `_`.
///
/// # Errors
///
/// [`Error::InvalidName`]. Names that are generated start with `#` and never collide.
pub fn check_node_name(name: &str) -> Result<(), Error> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic());
    let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if first && rest && name.len() <= LONGEST_NODE_NAME {
        return Ok(());
    }
    Err(Error::InvalidName {
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_qemus_rules() {
        let longest = "x".repeat(LONGEST_NODE_NAME);
        for good in ["a", "disk0", "colo-disk_0.raw", longest.as_str()] {
            assert_eq!(check_node_name(good), Ok(()), "{good}");
        }
        let too_long = "x".repeat(LONGEST_NODE_NAME + 1);
        for bad in [
            "",
            "0a",
            "-a",
            "#block0",
            "a b",
            "a/b",
            "ä",
            too_long.as_str(),
        ] {
            assert!(check_node_name(bad).is_err(), "{bad}");
        }
    }
}
