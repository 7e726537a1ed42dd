//! Numbers as people write them: `65536`, `0x10000`, `64k`, `1.5G`; and as they read them: `64 KiB`.

/// Units of 1024, by their suffix letter.
const SUFFIXES: [(char, u32); 7] = [
    ('B', 0),
    ('K', 10),
    ('M', 20),
    ('G', 30),
    ('T', 40),
    ('P', 50),
    ('E', 60),
];

/// Parses a decimal number, or a hexadecimal one after `0x`.
pub(crate) fn parse_integer(text: &str) -> Option<u64> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = hexadecimal.map_or((text, 10), |digits| (digits, 16));
    // `from_str_radix` would take a sign.
    let plain = digits.chars().all(|digit| digit.is_digit(radix));
    if plain {
        u64::from_str_radix(digits, radix).ok()
    } else {
        None
    }
}

/// Parses a number of bytes: an integer, or a decimal with an optional fraction and a suffix.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    if let Some(number) = parse_integer(text) {
        return Some(number);
    }
    let last = text.chars().next_back()?.to_ascii_uppercase();
    let (number, shift) = match SUFFIXES.iter().find(|(suffix, _)| *suffix == last) {
        Some((_, shift)) => (text.get(..text.len() - 1)?, *shift),
        None => (text, 0),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.starts_with("0x") || whole.starts_with("0X") {
        return None;
    }
    let whole = parse_integer(whole)?.checked_mul(1 << shift)?;
    whole.checked_add(scaled_fraction(fraction, shift)?)
}

/// `0.fraction` of `1 << shift`, rounded down; only where the unit is more than a byte.
fn scaled_fraction(fraction: &str, shift: u32) -> Option<u64> {
    let digits = u32::try_from(fraction.len())
        .ok()
        .filter(|digits| (1..=15).contains(digits))?;
    let numerator = fraction
        .chars()
        .all(|digit| digit.is_ascii_digit())
        .then_some(fraction)?;
    let numerator: u64 = numerator.parse().ok()?;
    if shift == 0 && numerator != 0 {
        return None;
    }
    let scaled = (u128::from(numerator) << shift) / 10u128.pow(digits);
    u64::try_from(scaled).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_a_suffix_and_a_fraction() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("0x1000", 4096),
            ("010", 10),
            ("4k", 4096),
            ("4K", 4096),
            ("7b", 7),
            ("1.5k", 1536),
            ("2M", 2 << 20),
            ("1.5G", 3 << 29),
            ("1T", 1 << 40),
            ("3P", 3 << 50),
            ("7E", 7 << 60),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "k",
            "a",
            "4x",
            "-1",
            "+1",
            "1.5",
            "1.",
            ".5k",
            "16E",
            "18446744073709551616",
            "0x",
            "0x4k",
            "4kk",
            " 4",
            "4 k",
            "1.2.3k",
            "1.0000000000000000k",
            "é",
        ] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
