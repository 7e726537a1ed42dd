//! Bytes to tokens, one byte at a time.

use super::FramingError;
use serde_json::{Number, Value};

/// One token; a scalar is already a value.
#[derive(Debug, PartialEq)]
pub(super) enum Token {
    /// `{` or `[`.
    Open(Bracket),
    /// `}` or `]`.
    Close(Bracket),
    /// `,`
    Comma,
    /// `:`
    Colon,
    /// A string, number or word; an error if it is well delimited but means nothing.
    Scalar(Result<Value, FramingError>),
}

/// The two kinds of bracket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bracket {
    /// `{}`
    Curly,
    /// `[]`
    Square,
}

/// What a byte did.
#[derive(Debug)]
pub(super) enum Step {
    /// The byte was taken; no token is complete.
    Consumed,
    /// The byte was taken and completes a token.
    Token(Token),
    /// The byte ends the token before it and has yet to be lexed.
    TokenBefore(Token),
    /// The byte was taken, and cannot stand here; the lexer skips to a promising place.
    Stray(FramingError),
}

/// The lexer's state.
#[derive(Debug, Default)]
pub(super) struct Lexer {
    state: State,
    /// The bytes of the token begun so far, quotes excluded.
    token: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Between,
    String {
        quote: u8,
        escaped: bool,
    },
    Number(Part),
    Word,
    /// After a stray byte.
    Skipping,
}

/// The part of a number that was read last: what may follow depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Part {
    /// The part that `byte` begins or continues after `self`, if it may.
    fn then(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0') => Some(Self::Zero),
            (Self::Minus | Self::Digits, b'0'..=b'9') => Some(Self::Digits),
            (Self::Zero | Self::Digits, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Digits | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::ExponentSign),
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                Some(Self::ExponentDigits)
            }
            _ => None,
        }
    }

    /// Whether a number may end after `self` because `byte` follows.
    fn ends_before(self, byte: u8) -> bool {
        let complete = match self {
            Self::Zero | Self::Digits | Self::Fraction | Self::ExponentDigits => true,
            Self::Minus | Self::Point | Self::Exponent | Self::ExponentSign => false,
        };
        complete && !(self == Self::Zero && byte.is_ascii_digit())
    }
}

impl Lexer {
    /// Whether no token has been begun.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Between | State::Skipping)
    }

    /// Lexes one byte.
    pub(super) fn step(&mut self, byte: u8) -> Step {
        match self.state {
            State::Between => self.begin(byte),
            State::String { quote, escaped } => self.string(quote, escaped, byte),
            State::Number(part) => self.number(part, byte),
            State::Word if byte.is_ascii_lowercase() => self.take(byte),
            State::Word => {
                let word = word(&self.token);
                self.end_before(word)
            }
            State::Skipping => self.skip(byte),
        }
    }

    fn begin(&mut self, byte: u8) -> Step {
        self.token.clear();
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => Step::Consumed,
            b'{' => Step::Token(Token::Open(Bracket::Curly)),
            b'}' => Step::Token(Token::Close(Bracket::Curly)),
            b'[' => Step::Token(Token::Open(Bracket::Square)),
            b']' => Step::Token(Token::Close(Bracket::Square)),
            b',' => Step::Token(Token::Comma),
            b':' => Step::Token(Token::Colon),
            b'"' | b'\'' => {
                self.state = State::String {
                    quote: byte,
                    escaped: false,
                };
                Step::Consumed
            }
            b'-' => self.enter(State::Number(Part::Minus), byte),
            b'0' => self.enter(State::Number(Part::Zero), byte),
            b'1'..=b'9' => self.enter(State::Number(Part::Digits), byte),
            b'a'..=b'z' => self.enter(State::Word, byte),
            _ => self.stray(byte),
        }
    }

    fn string(&mut self, quote: u8, escaped: bool, byte: u8) -> Step {
        // Control characters and the two bytes UTF-8 never holds are where a client resynchronises.
        if matches!(byte, 0..=0x1F | 0xFE | 0xFF) {
            self.token.insert(0, quote);
            return self.stray(byte);
        }
        if byte == quote && !escaped {
            self.state = State::Between;
            return Step::Token(Token::Scalar(unescape(&self.token)));
        }
        let escaped = byte == b'\\' && !escaped;
        self.enter(State::String { quote, escaped }, byte)
    }

    fn number(&mut self, part: Part, byte: u8) -> Step {
        if let Some(next) = part.then(byte) {
            return self.enter(State::Number(next), byte);
        }
        if part.ends_before(byte) {
            let number = number(&self.token);
            return self.end_before(number);
        }
        self.stray(byte)
    }

    fn skip(&mut self, byte: u8) -> Step {
        match byte {
            b'{' | b'}' | b'[' | b']' | b',' | b':' => {
                self.state = State::Between;
                self.begin(byte)
            }
            0xFE | 0xFF => {
                self.state = State::Between;
                Step::Consumed
            }
            _ => {
                if byte.is_ascii_control() && byte != b'\t' && byte != 0x7F {
                    self.state = State::Between;
                }
                Step::Consumed
            }
        }
    }

    fn enter(&mut self, state: State, byte: u8) -> Step {
        self.state = state;
        self.take(byte)
    }

    fn take(&mut self, byte: u8) -> Step {
        self.token.push(byte);
        Step::Consumed
    }

    fn end_before(&mut self, scalar: Result<Value, FramingError>) -> Step {
        self.state = State::Between;
        Step::TokenBefore(Token::Scalar(scalar))
    }

    fn stray(&mut self, byte: u8) -> Step {
        /// As much of a stray token as a message quotes.
        const QUOTED: usize = 32;
        self.token.push(byte);
        let from = self.token.len().saturating_sub(QUOTED);
        let quoted = self.token.split_off(from);
        self.token.clear();
        self.state = State::Skipping;
        let quoted: String = quoted.escape_ascii().to_string().replace("\\\"", "\"");
        Step::Stray(FramingError::syntax(format!("stray '{quoted}'")))
    }
}

fn word(token: &[u8]) -> Result<Value, FramingError> {
    match token {
        b"true" => Ok(Value::Bool(true)),
        b"false" => Ok(Value::Bool(false)),
        b"null" => Ok(Value::Null),
        _ => {
            let word: String = String::from_utf8_lossy(token).chars().take(32).collect();
            Err(FramingError::syntax(format!("invalid keyword '{word}'")))
        }
    }
}

fn number(token: &[u8]) -> Result<Value, FramingError> {
    let text = String::from_utf8_lossy(token);
    let integer = text.parse::<i64>().map(Number::from);
    let number = integer
        .or_else(|_| text.parse::<u64>().map(Number::from))
        .ok();
    let number = number.or_else(|| Number::from_f64(text.parse().ok()?));
    let number = number.ok_or_else(|| {
        let text: String = text.chars().take(32).collect();
        FramingError::syntax(format!("number {text} is out of range"))
    });
    number.map(Value::Number)
}

fn unescape(token: &[u8]) -> Result<Value, FramingError> {
    let text = str::from_utf8(token)
        .map_err(|_| FramingError::syntax("invalid UTF-8 sequence in string"))?;
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        let decoded = match char {
            '\\' => escape(&mut rest)?,
            _ => char,
        };
        out.push(decoded);
    }
    Ok(Value::String(out))
}

/// Decodes what follows a backslash.
fn escape(rest: &mut std::str::Chars<'_>) -> Result<char, FramingError> {
    match rest.next() {
        Some(char @ ('"' | '\'' | '\\' | '/')) => Ok(char),
        Some('b') => Ok('\u{8}'),
        Some('f') => Ok('\u{c}'),
        Some('n') => Ok('\n'),
        Some('r') => Ok('\r'),
        Some('t') => Ok('\t'),
        Some('u') => unicode(rest),
        _ => Err(FramingError::syntax("invalid escape sequence in string")),
    }
}

/// Decodes the four digits after `\u`, and the second half of a surrogate pair.
fn unicode(rest: &mut std::str::Chars<'_>) -> Result<char, FramingError> {
    let first = code_unit(rest)?;
    let mut units = vec![first];
    if (0xD800..0xDC00).contains(&first) {
        let mut ahead = rest.clone();
        if ahead.next() == Some('\\') && ahead.next() == Some('u') {
            units.push(code_unit(&mut ahead)?);
            *rest = ahead;
        }
    }
    let mut decoded = char::decode_utf16(units);
    match (decoded.next(), decoded.next()) {
        (Some(Ok(char)), None) => Ok(char),
        _ => Err(FramingError::syntax(format!(
            "\\u{first:04x} is not a valid Unicode character"
        ))),
    }
}

fn code_unit(rest: &mut std::str::Chars<'_>) -> Result<u16, FramingError> {
    let mut unit = 0;
    for _ in 0..4 {
        let digit = rest.next().and_then(|char| char.to_digit(16));
        let digit = digit.and_then(|digit| u16::try_from(digit).ok());
        let digit =
            digit.ok_or_else(|| FramingError::syntax("invalid escape sequence in string"))?;
        unit = unit << 4 | digit;
    }
    Ok(unit)
}
