//! The command language of `qemu-io`: reading a command, and wording what became of it.
//!
//! Scripts look for `wrote N/N bytes at offset O`, `read N/N bytes at offset O` and `Pattern
//! verification failed at offset O`; these are as in `qemu-io`. Lines end as in the human monitor.

mod report;

pub use report::report_length;

use crate::size::{parse_integer, parse_size};

/// Longest read or write with data; zeroes and discards may be longer.
pub const MAX_BYTES: u64 = 64 << 20;

/// What a write writes unless told otherwise.
const DEFAULT_PATTERN: u8 = 0xCD;

/// What a command asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Read and perhaps verify.
    Read(Read),
    /// Write.
    Write(Write),
    /// Discard.
    Discard(Extent),
    /// Make earlier writes durable.
    Flush,
    /// Tell the node's length.
    Length,
    /// Wait for requests begun before: there are none, each is waited for.
    Wait,
}

/// A range, and whether to tell that it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Whether success is silent.
    pub quiet: bool,
}

/// A read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// What to read.
    pub extent: Extent,
    /// What should be there.
    pub expected: Option<Expected>,
    /// Whether the data is shown.
    pub dump: bool,
}

/// What a read should find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The byte.
    pub pattern: u8,
    /// Where in the read, in bytes.
    pub start: u64,
    /// How many bytes.
    pub length: u64,
}

/// A write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// What to write.
    pub extent: Extent,
    /// With what.
    pub content: Content,
    /// Whether it must be durable when it returns.
    pub fua: bool,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// This byte, again and again.
    Pattern(u8),
    /// Zeroes, without sending them.
    Zeroes {
        /// Whether the space may be given back.
        may_unmap: bool,
        /// Whether to fail rather than be slow.
        no_fallback: bool,
    },
}

/// Reads a command.
///
/// # Errors
///
/// What is wrong with it, for the person who typed it.
pub fn parse(command: &str) -> Result<Job, String> {
    let mut words = command.split_ascii_whitespace();
    let name = words.next().unwrap_or_default();
    let verb = VERBS.iter().find(|verb| verb.names.contains(&name));
    let verb = verb.ok_or_else(|| format!("command \"{name}\" not found"))?;
    let arguments = Arguments::read(verb, words)?;
    (verb.job)(&arguments)
}

/// A command of the language.
struct Verb {
    names: &'static [&'static str],
    /// The letters of its switches.
    switches: &'static str,
    /// The letters of its options that take a value.
    options: &'static str,
    /// How many words it takes besides.
    operands: std::ops::RangeInclusive<usize>,
    job: fn(&Arguments<'_>) -> Result<Job, String>,
}

const MANY: usize = 1024;

const VERBS: &[Verb] = &[
    Verb {
        names: &["read", "r", "aio_read"],
        switches: "Cpqv",
        options: "Psl",
        operands: 2..=2,
        job: read,
    },
    Verb {
        names: &["readv", "rv"],
        switches: "Cqv",
        options: "P",
        operands: 2..=MANY,
        job: read,
    },
    Verb {
        names: &["write", "w", "aio_write"],
        switches: "Cfnpquz",
        options: "P",
        operands: 2..=2,
        job: write,
    },
    Verb {
        names: &["writev", "wv"],
        switches: "Cfq",
        options: "P",
        operands: 2..=MANY,
        job: write,
    },
    Verb {
        names: &["discard", "d"],
        switches: "Cq",
        options: "",
        operands: 2..=2,
        job: discard,
    },
    Verb {
        names: &["flush", "f"],
        switches: "",
        options: "",
        operands: 0..=0,
        job: |_| Ok(Job::Flush),
    },
    Verb {
        names: &["length", "l"],
        switches: "",
        options: "",
        operands: 0..=0,
        job: |_| Ok(Job::Length),
    },
    Verb {
        names: &["aio_flush"],
        switches: "",
        options: "",
        operands: 0..=0,
        job: |_| Ok(Job::Wait),
    },
];

/// The words of a command, sorted.
struct Arguments<'a> {
    switches: String,
    options: Vec<(char, &'a str)>,
    operands: Vec<&'a str>,
}

impl<'a> Arguments<'a> {
    fn read(verb: &Verb, mut words: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let name = verb.names.first().copied().unwrap_or_default();
        let mut sorted = Self {
            switches: String::new(),
            options: Vec::new(),
            operands: Vec::new(),
        };
        while let Some(word) = words.next() {
            let Some(letters) = word.strip_prefix('-') else {
                sorted.operands.push(word);
                continue;
            };
            for (at, letter) in letters.char_indices() {
                if verb.options.contains(letter) {
                    let attached = letters.get(at + letter.len_utf8()..).unwrap_or_default();
                    let value = if attached.is_empty() {
                        words.next()
                    } else {
                        Some(attached)
                    };
                    let value = value.ok_or_else(|| format!("{name}: -{letter} wants a value"))?;
                    sorted.options.push((letter, value));
                    break;
                }
                if !verb.switches.contains(letter) {
                    return Err(format!("{name}: invalid option -- '{letter}'"));
                }
                sorted.switches.push(letter);
            }
        }
        let count = sorted.operands.len();
        if !verb.operands.contains(&count) {
            let (least, most) = (verb.operands.start(), verb.operands.end());
            let expected = match (least, most) {
                (least, most) if least == most => format!("exactly {least} arguments"),
                (least, _) => format!("at least {least} arguments"),
            };
            return Err(format!(
                "bad argument count {count} to {name}, expected {expected}"
            ));
        }
        Ok(sorted)
    }

    fn has(&self, switch: char) -> bool {
        self.switches.contains(switch)
    }

    fn option(&self, letter: char) -> Option<&'a str> {
        let given = self
            .options
            .iter()
            .rev()
            .find(|(given, _)| *given == letter);
        given.map(|(_, value)| *value)
    }

    fn pattern(&self) -> Result<Option<u8>, String> {
        let byte = |text: &str| {
            let byte = parse_integer(text).and_then(|number| u8::try_from(number).ok());
            byte.ok_or_else(|| format!("{text} is not a valid pattern byte"))
        };
        self.option('P').map(byte).transpose()
    }

    /// The range of the operands: an offset, and lengths that are added.
    fn extent(&self, most: u64) -> Result<Extent, String> {
        let mut numbers = self.operands.iter().map(|operand| size(operand));
        let offset = numbers.next().unwrap_or(Ok(0))?;
        let mut length = 0u64;
        for number in numbers {
            length = length.saturating_add(number?);
        }
        if length > most {
            return Err(format!("length cannot exceed {most}, given {length}"));
        }
        if offset
            .checked_add(length)
            .is_none_or(|end| i64::try_from(end).is_err())
        {
            return Err(format!(
                "offset {offset} and length {length} are beyond any disk"
            ));
        }
        Ok(Extent {
            offset,
            length,
            quiet: self.has('q'),
        })
    }
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| {
        format!("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- {text}")
    })
}

fn read(arguments: &Arguments<'_>) -> Result<Job, String> {
    let extent = arguments.extent(MAX_BYTES)?;
    let pattern = arguments.pattern()?;
    let start = arguments.option('s').map(size).transpose()?;
    let length = arguments.option('l').map(size).transpose()?;
    if pattern.is_none() && (start.is_some() || length.is_some()) {
        return Err("-s and -l say where a pattern is expected: they need -P".to_owned());
    }
    let start = start.unwrap_or(0);
    let rest = extent.length.checked_sub(start);
    let length = rest
        .map(|rest| length.unwrap_or(rest))
        .filter(|length| Some(*length) <= rest);
    let length = length.ok_or("pattern verification range exceeds end of read data")?;
    let expected = pattern.map(|pattern| Expected {
        pattern,
        start,
        length,
    });
    Ok(Job::Read(Read {
        extent,
        expected,
        dump: arguments.has('v'),
    }))
}

fn write(arguments: &Arguments<'_>) -> Result<Job, String> {
    let pattern = arguments.pattern()?;
    let zeroes = arguments.has('z');
    let (may_unmap, no_fallback) = (arguments.has('u'), arguments.has('n'));
    if zeroes && pattern.is_some() {
        return Err("-z and -P cannot be specified at the same time".to_owned());
    }
    for (given, letter) in [(may_unmap, 'u'), (no_fallback, 'n')] {
        if given && !zeroes {
            return Err(format!("-{letter} requires -z to be specified"));
        }
    }
    let (content, most) = if zeroes {
        (
            Content::Zeroes {
                may_unmap,
                no_fallback,
            },
            u64::MAX,
        )
    } else {
        (
            Content::Pattern(pattern.unwrap_or(DEFAULT_PATTERN)),
            MAX_BYTES,
        )
    };
    let extent = arguments.extent(most)?;
    Ok(Job::Write(Write {
        extent,
        content,
        fua: arguments.has('f'),
    }))
}

fn discard(arguments: &Arguments<'_>) -> Result<Job, String> {
    arguments.extent(u64::MAX).map(Job::Discard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(commands: &[&str], expected: &Expect) {
        let lines = commands.iter().map(|command| match parse(command) {
            Ok(job) => format!("{command} => {job:?}\n"),
            Err(said) => format!("{command} => {said}\n"),
        });
        expected.assert_eq(&lines.collect::<Vec<_>>().concat());
    }

    #[test]
    fn reads_are_read() {
        check(
            &[
                "read 0 64k",
                "r 0x1000 010",
                "aio_read 1M 512",
                "readv 0 4k 4k 1",
                "read -v 0 16",
                "read -P 0xab 0 4k",
                "read -P7 -s 8 0 4k",
                "read 0 4k -qP 7 -s 8 -l 16",
            ],
            &expect![[r"
                read 0 64k => Read(Read { extent: Extent { offset: 0, length: 65536, quiet: false }, expected: None, dump: false })
                r 0x1000 010 => Read(Read { extent: Extent { offset: 4096, length: 10, quiet: false }, expected: None, dump: false })
                aio_read 1M 512 => Read(Read { extent: Extent { offset: 1048576, length: 512, quiet: false }, expected: None, dump: false })
                readv 0 4k 4k 1 => Read(Read { extent: Extent { offset: 0, length: 8193, quiet: false }, expected: None, dump: false })
                read -v 0 16 => Read(Read { extent: Extent { offset: 0, length: 16, quiet: false }, expected: None, dump: true })
                read -P 0xab 0 4k => Read(Read { extent: Extent { offset: 0, length: 4096, quiet: false }, expected: Some(Expected { pattern: 171, start: 0, length: 4096 }), dump: false })
                read -P7 -s 8 0 4k => Read(Read { extent: Extent { offset: 0, length: 4096, quiet: false }, expected: Some(Expected { pattern: 7, start: 8, length: 4088 }), dump: false })
                read 0 4k -qP 7 -s 8 -l 16 => Read(Read { extent: Extent { offset: 0, length: 4096, quiet: true }, expected: Some(Expected { pattern: 7, start: 8, length: 16 }), dump: false })
            "]],
        );
    }

    #[test]
    fn writes_and_the_rest_are_read() {
        check(
            &[
                "write 0 4k",
                "w -fP 255 4k 1",
                "writev -P 3 0 4k 4k",
                "write -z 0 8G",
                "write -zu -n 0 1k",
                "aio_write -qz 0 0",
                "discard 4k 1T",
                "flush",
                "f",
                "length",
                "l",
                "aio_flush",
            ],
            &expect![[r"
                write 0 4k => Write(Write { extent: Extent { offset: 0, length: 4096, quiet: false }, content: Pattern(205), fua: false })
                w -fP 255 4k 1 => Write(Write { extent: Extent { offset: 4096, length: 1, quiet: false }, content: Pattern(255), fua: true })
                writev -P 3 0 4k 4k => Write(Write { extent: Extent { offset: 0, length: 8192, quiet: false }, content: Pattern(3), fua: false })
                write -z 0 8G => Write(Write { extent: Extent { offset: 0, length: 8589934592, quiet: false }, content: Zeroes { may_unmap: false, no_fallback: false }, fua: false })
                write -zu -n 0 1k => Write(Write { extent: Extent { offset: 0, length: 1024, quiet: false }, content: Zeroes { may_unmap: true, no_fallback: true }, fua: false })
                aio_write -qz 0 0 => Write(Write { extent: Extent { offset: 0, length: 0, quiet: true }, content: Zeroes { may_unmap: false, no_fallback: false }, fua: false })
                discard 4k 1T => Discard(Extent { offset: 4096, length: 1099511627776, quiet: false })
                flush => Flush
                f => Flush
                length => Length
                l => Length
                aio_flush => Wait
            "]],
        );
    }

    #[test]
    fn mistakes_are_told() {
        check(
            &[
                "",
                "nope",
                "write",
                "w 0 4k 4k",
                "readv 0",
                "flush now",
                "write a 4k",
                "write 0 4x",
                "write -x 0 4k",
                "write -c 0 4k",
                "write -1 4k",
                "write 0 4k -P",
                "write -P 256 0 4k",
                "write -P -1 0 4k",
                "write -z -P 1 0 4k",
                "write -u 0 4k",
                "write -n 0 4k",
                "write 0 65M",
                "readv 0 15E 15E",
                "discard 7E 1E",
                "read -l 8 0 4k",
                "read -P 1 -s 4097 0 4k",
                "read -P 1 -s 1 -l 4k 0 4k",
            ],
            &expect![[r#"
                 => command "" not found
                nope => command "nope" not found
                write => bad argument count 0 to write, expected exactly 2 arguments
                w 0 4k 4k => bad argument count 3 to write, expected exactly 2 arguments
                readv 0 => bad argument count 1 to readv, expected at least 2 arguments
                flush now => bad argument count 1 to flush, expected exactly 0 arguments
                write a 4k => Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- a
                write 0 4x => Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- 4x
                write -x 0 4k => write: invalid option -- 'x'
                write -c 0 4k => write: invalid option -- 'c'
                write -1 4k => write: invalid option -- '1'
                write 0 4k -P => write: -P wants a value
                write -P 256 0 4k => 256 is not a valid pattern byte
                write -P -1 0 4k => -1 is not a valid pattern byte
                write -z -P 1 0 4k => -z and -P cannot be specified at the same time
                write -u 0 4k => -u requires -z to be specified
                write -n 0 4k => -n requires -z to be specified
                write 0 65M => length cannot exceed 67108864, given 68157440
                readv 0 15E 15E => length cannot exceed 67108864, given 18446744073709551615
                discard 7E 1E => offset 8070450532247928832 and length 1152921504606846976 are beyond any disk
                read -l 8 0 4k => -s and -l say where a pattern is expected: they need -P
                read -P 1 -s 4097 0 4k => pattern verification range exceeds end of read data
                read -P 1 -s 1 -l 4k 0 4k => pattern verification range exceeds end of read data
            "#]],
        );
    }
}
