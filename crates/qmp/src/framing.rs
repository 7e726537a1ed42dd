//! Cuts a byte stream into JSON values, however the values are split, joined or broken.
//!
//! ```text
//! bytes ─▶ Lexer ─tokens─▶ Builder ─▶ Ok(Value) | Err(FramingError)
//!             └── a stray byte: error, forget the open value, skip to a structural byte
//! ```
//!
//! What is accepted is what QEMU accepts: JSON, and strings in single quotes. Values need no
//! separator. A duplicate key is an error.
//!
//! Resynchronisation contract: each broken value costs one error, and the next value is read
//! normally. A syntax error inside balanced brackets ends with the value's last bracket. A byte
//! that cannot stand where it stands throws away the value begun so far; what follows is skipped
//! up to the next structural byte or control character. The byte `0xFF` therefore always brings
//! the stream back to a known state. A value beyond a bound throws away the rest of its line.
//!
//! Bounds: a value has at most [`MAX_VALUE_BYTES`] bytes and [`MAX_DEPTH`] levels. Each level lives
//! on the heap until the value is complete.

mod builder;
mod lexer;

use builder::Builder;
use lexer::{Lexer, Step};
use serde_json::Value;

/// Longest value in bytes, from its first byte to its last.
pub const MAX_VALUE_BYTES: usize = 256 << 10;

/// Deepest nesting of a value; QEMU's own limit.
pub const MAX_DEPTH: usize = 1024;

/// Why a piece of the stream is not a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// The bytes are not JSON.
    #[error("JSON parse error, {0}")]
    Syntax(String),
    /// The value is deeper than [`MAX_DEPTH`].
    #[error("JSON nesting depth limit exceeded")]
    TooDeep,
    /// The value is longer than [`MAX_VALUE_BYTES`].
    #[error("JSON value is longer than {MAX_VALUE_BYTES} bytes")]
    TooLong,
}

impl FramingError {
    fn syntax(what: impl Into<String>) -> Self {
        Self::Syntax(what.into())
    }
}

/// The incremental splitter: bytes in, values and errors out.
#[derive(Debug, Default)]
pub struct Framer {
    lexer: Lexer,
    builder: Builder,
    /// Bytes of the value begun so far; 0 between values.
    length: usize,
    /// The value was too long: its line is being thrown away.
    skipping_line: bool,
}

impl Framer {
    /// Reads from `input` until a value or an error is complete or `input` is used up.
    ///
    /// Returns how many bytes were used, and the value or error if there is one. A number or
    /// word at the top level is complete only with the byte after it.
    pub fn advance(&mut self, input: &[u8]) -> (usize, Option<Result<Value, FramingError>>) {
        let mut used = 0;
        for byte in input.iter().copied() {
            loop {
                let (consumed, outcome) = self.step(byte);
                used += usize::from(consumed);
                if outcome.is_some() {
                    return (used, outcome);
                }
                if consumed {
                    break;
                }
            }
        }
        (used, None)
    }

    fn step(&mut self, byte: u8) -> (bool, Option<Result<Value, FramingError>>) {
        if self.skipping_line {
            self.skipping_line = !matches!(byte, b'\n' | 0xFF);
            return (true, None);
        }
        if self.length >= MAX_VALUE_BYTES {
            return (false, Some(Err(self.skip_line(FramingError::TooLong))));
        }
        let (consumed, token) = match self.lexer.step(byte) {
            Step::Consumed => (true, None),
            Step::Token(token) => (true, Some(token)),
            Step::TokenBefore(token) => (false, Some(token)),
            Step::Stray(error) => {
                self.builder = Builder::default();
                self.length = 0;
                return (true, Some(Err(error)));
            }
        };
        let outcome = token.and_then(|token| self.builder.push(token));
        if let Some(Err(FramingError::TooDeep)) = outcome {
            return (consumed, Some(Err(self.skip_line(FramingError::TooDeep))));
        }
        let idle = self.lexer.is_idle() && self.builder.is_idle();
        self.length = if idle {
            0
        } else {
            self.length + usize::from(consumed)
        };
        (consumed, outcome)
    }

    /// Forgets the value begun and the rest of its line.
    fn skip_line(&mut self, error: FramingError) -> FramingError {
        *self = Self {
            skipping_line: true,
            ..Self::default()
        };
        error
    }
}

/// Parses a text that holds exactly one value.
///
/// # Errors
///
/// The text is not JSON, ends early, or holds more than one value.
pub fn parse(text: &str) -> Result<Value, FramingError> {
    let mut framer = Framer::default();
    // The line end completes a number or word.
    let input = [text.as_bytes(), b"\n"].concat();
    let (used, outcome) = framer.advance(&input);
    let value = outcome.unwrap_or_else(|| Err(FramingError::syntax("premature end")))?;
    let rest = input.get(used..).unwrap_or_default();
    if rest.iter().all(u8::is_ascii_whitespace) {
        Ok(value)
    } else {
        Err(FramingError::syntax("expecting exactly one value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use proptest::prelude::*;
    use std::fmt::Write;

    /// All that comes out of `input`, one line each, fed `step` bytes at a time.
    fn transcript(input: &[u8], step: usize) -> String {
        let mut framer = Framer::default();
        let mut out = String::new();
        for mut chunk in input.chunks(step) {
            while !chunk.is_empty() {
                let (used, outcome) = framer.advance(chunk);
                chunk = &chunk[used..];
                match outcome {
                    Some(Ok(value)) => writeln!(out, "{value}").unwrap(),
                    Some(Err(error)) => writeln!(out, "error: {error}").unwrap(),
                    None => assert!(chunk.is_empty(), "no outcome, yet bytes are left"),
                }
            }
        }
        out
    }

    fn check(input: impl AsRef<[u8]>, expected: &Expect) {
        let whole = transcript(input.as_ref(), usize::MAX);
        expected.assert_eq(&whole);
        assert_eq!(transcript(input.as_ref(), 1), whole, "byte by byte");
    }

    #[test]
    fn values_need_no_separator_and_may_be_split_anywhere() {
        check(
            "{\"a\":1}{'b':[true,null]}\r\n[] \"x\"{\"c\"\n:\t-2.5e1}",
            &expect![[r#"
                {"a":1}
                {"b":[true,null]}
                []
                "x"
                {"c":-25.0}
            "#]],
        );
    }

    #[test]
    fn strings_take_both_quotes_and_all_escapes() {
        check(
            r#"'a"b\'c' "a'b\"c" "\/\\\b\f\n\r\t" "\u00e9\ud83d\ude00" "é" "#,
            &expect![[r#"
                "a\"b'c"
                "a'b\"c"
                "/\\\b\f\n\r\t"
                "é😀"
                "é"
            "#]],
        );
    }

    #[test]
    fn numbers_keep_their_kind() {
        check(
            "0 -0 7 18446744073709551615 -9223372036854775808 18446744073709551616 1.50 2E+3 1e999 ",
            &expect![[r"
                0
                0
                7
                18446744073709551615
                -9223372036854775808
                1.8446744073709552e+19
                1.5
                2000.0
                error: JSON parse error, number 1e999 is out of range
            "]],
        );
    }

    #[test]
    fn a_syntax_error_costs_one_error_and_the_next_value_is_read() {
        for (input, error) in [
            (r#"{"a" 1}"#, "missing : in object pair"),
            (r#"{"a":1 "b":2}"#, "expecting a comma or }"),
            ("[1 2]", "expecting a comma or ]"),
            ("[1,]", "expecting value"),
            (r#"{"a":1,}"#, "expecting a string as key"),
            ("{1:2}", "expecting a string as key"),
            (r#"{"a":}"#, "expecting value"),
            (r#"{"a":[{"b":,}]}"#, "expecting value"),
            (r#"{"a":1,"a":2}"#, "duplicate key \"a\""),
            ("[nul]", "invalid keyword 'nul'"),
            (r#"["\q"]"#, "invalid escape sequence in string"),
            (r#"["\u12g4"]"#, "invalid escape sequence in string"),
            (r#"["\ud800"]"#, "\\ud800 is not a valid Unicode character"),
            (
                r#"["\ud800\u0041"]"#,
                "\\ud800 is not a valid Unicode character",
            ),
            (r#"["\udc00"]"#, "\\udc00 is not a valid Unicode character"),
            ("}", "expecting value"),
            (",", "expecting value"),
            ("[}", "} closes no {"),
            ("{]", "] closes no ["),
        ] {
            assert_eq!(
                transcript(format!("{input}{{\"ok\":1}}").as_bytes(), usize::MAX),
                format!("error: JSON parse error, {error}\n{{\"ok\":1}}\n"),
                "{input}"
            );
        }
    }

    #[test]
    fn a_stray_byte_throws_the_open_value_away() {
        for (input, error) in [
            (&b"{\"a\":\xff"[..], r"stray '\xff'"),
            (b"\xff", r"stray '\xff'"),
            (b"\xfe", r"stray '\xfe'"),
            (b"\x00", r"stray '\x00'"),
            (b"\"a\nb", r#"stray '"a\n'"#),
            (b"\"a\xff", r#"stray '"a\xff'"#),
            (b"[%d", "stray '%'"),
            (b"// a comment\n", "stray '/'"),
            (b"True false", "stray 'T'"),
            (b"01 ", "stray '01'"),
            (b"--1 ", "stray '--'"),
            (b"1.x", "stray '1.x'"),
            (b"1ex", "stray '1ex'"),
            (b"+1", "stray '+'"),
            (b"\xef\xbb\xbf", r"stray '\xef'"),
        ] {
            assert_eq!(
                transcript(&[input, b"{\"ok\":1}"].concat(), usize::MAX),
                format!("error: JSON parse error, {error}\n{{\"ok\":1}}\n"),
                "{input:?}"
            );
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_an_error_of_its_value_only() {
        check(
            b"[\"\xc3(\"][1]",
            &expect![[r"
                error: JSON parse error, invalid UTF-8 sequence in string
                [1]
            "]],
        );
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        let deepest = transcript(nested(MAX_DEPTH).as_bytes(), usize::MAX);
        assert_eq!(deepest.trim_end(), nested(MAX_DEPTH));
        let deeper = nested(MAX_DEPTH + 1) + "\n{}";
        let expected = "error: JSON nesting depth limit exceeded\n{}\n";
        assert_eq!(transcript(deeper.as_bytes(), usize::MAX), expected);
    }

    #[test]
    fn length_is_bounded_and_the_rest_of_the_line_is_skipped() {
        let string = |length: usize| format!("\"{}\"", "a".repeat(length - 2));
        let longest = string(MAX_VALUE_BYTES);
        assert_eq!(transcript(longest.as_bytes(), 4096).trim_end(), longest);
        let longer = string(MAX_VALUE_BYTES + 1);
        for end in [&b"\n"[..], b"\xff"] {
            let input = [longer.as_bytes(), b"{\"no\":1}", end, b"{}"].concat();
            let expected = "error: JSON value is longer than 262144 bytes\n{}\n";
            assert_eq!(transcript(&input, 4096), expected);
        }
    }

    #[test]
    fn a_text_is_exactly_one_value() {
        assert_eq!(parse(" {'a': 1} ").unwrap(), serde_json::json!({"a": 1}));
        assert_eq!(parse("7").unwrap(), 7);
        for (text, error) in [
            ("", "JSON parse error, premature end"),
            ("{\"driver\"", "JSON parse error, premature end"),
            ("{}x", "JSON parse error, expecting exactly one value"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), error, "{text}");
        }
    }

    /// Pieces that put many broken and unbroken values next to each other.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop::sample::select(vec![
            &b"{"[..],
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\"a\"",
            b"'b'",
            b"1",
            b"-",
            b"true",
            b"nul",
            b" ",
            b"\n",
            b"\xff",
            b"\\",
            b"\"",
            b"{\"a\":1}",
            b"[1,2]",
            b"\xc3",
            b"\t",
        ]);
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_split_yields_the_same(input in pieces(), step in 1usize..9) {
            prop_assert_eq!(transcript(&input, step), transcript(&input, usize::MAX));
        }

        #[test]
        fn bytes_after_a_resync_are_read_as_from_the_start(input in pieces()) {
            let all = [&input[..], b"\xff{\"ok\":1}"].concat();
            let ends_well = transcript(&all, usize::MAX).ends_with("{\"ok\":1}\n");
            prop_assert!(ends_well);
        }

        #[test]
        fn what_serde_prints_is_read_back(text in ".*", number: i64, float: f64) {
            prop_assume!(float.is_finite());
            let value = serde_json::json!({ text.clone(): [number, float, text, null, true] });
            prop_assert_eq!(parse(&value.to_string()).unwrap(), value);
        }
    }
}
