//! Words what became of a command.

use super::{Expected, Extent, Job, Read, Write};
use std::fmt;
use std::time::Duration;

impl Read {
    /// What to say about the data read in `elapsed`.
    pub fn report(&self, data: &[u8], elapsed: Duration) -> String {
        let mut out = String::new();
        if let Some(expected) = self.expected.filter(|expected| !expected.is_in(data)) {
            let at = self.extent.offset + expected.start;
            let length = expected.length;
            out += &line(format_args!(
                "Pattern verification failed at offset {at}, {length} bytes"
            ));
        }
        if self.extent.quiet {
            return out;
        }
        if self.dump {
            out += &dump(self.extent.offset, data);
        }
        out + &self.extent.report("read", elapsed)
    }
}

impl Expected {
    fn is_in(&self, data: &[u8]) -> bool {
        let range = || {
            let start = usize::try_from(self.start).ok()?;
            let end = start.checked_add(usize::try_from(self.length).ok()?)?;
            data.get(start..end)
        };
        range().is_some_and(|data| data.iter().all(|byte| *byte == self.pattern))
    }
}

impl Write {
    /// What to say about a write done in `elapsed`.
    pub fn report(&self, elapsed: Duration) -> String {
        if self.extent.quiet {
            String::new()
        } else {
            self.extent.report("wrote", elapsed)
        }
    }
}

impl Extent {
    /// What to say about a discard done in `elapsed`.
    pub fn report_discard(&self, elapsed: Duration) -> String {
        if self.quiet {
            String::new()
        } else {
            self.report("discard", elapsed)
        }
    }

    fn report(&self, verb: &str, elapsed: Duration) -> String {
        let Self { offset, length, .. } = self;
        let nanos = elapsed.as_nanos().max(1);
        let rate = u128::from(*length) * 1_000_000_000 / nanos;
        let rate = Human(u64::try_from(rate).unwrap_or(u64::MAX));
        let ops = 10_000_000_000_000 / nanos;
        let done = line(format_args!(
            "{verb} {length}/{length} bytes at offset {offset}"
        ));
        let (seconds, hundredths) = (elapsed.as_secs(), elapsed.subsec_millis() / 10);
        done + &line(format_args!(
            "{}, 1 ops; {seconds:02}.{hundredths:02} sec ({rate}/sec and {}.{:04} ops/sec)",
            Human(*length),
            ops / 10_000,
            ops % 10_000,
        ))
    }
}

impl Job {
    /// What to say when the job failed because of `reason`, the system's text.
    pub fn report_failure(&self, reason: &str) -> String {
        let name = match self {
            Self::Read(_) => "read",
            Self::Write(_) => "write",
            Self::Discard(_) => "discard",
            Self::Flush => "flush",
            Self::Length => "getlength",
            Self::Wait => "wait",
        };
        line(format_args!("{name} failed: {reason}"))
    }
}

/// What to say about a length.
pub fn report_length(bytes: u64) -> String {
    line(format_args!("{}", Human(bytes)))
}

fn line(text: fmt::Arguments<'_>) -> String {
    format!("{text}\r\n")
}

fn dump(offset: u64, data: &[u8]) -> String {
    let mut out = String::new();
    for (at, row) in (offset..).step_by(16).zip(data.chunks(16)) {
        let hex: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let hex = hex.join(" ");
        let text = row.iter().map(|byte| {
            if byte.is_ascii_graphic() {
                char::from(*byte)
            } else {
                '.'
            }
        });
        let text: String = text.collect();
        out += &line(format_args!("{at:08x}:  {hex:<47}  {text}"));
    }
    out
}

/// A number of bytes as people read it: `64 KiB`, `1.465 KiB`, `10 bytes`.
struct Human(u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [
            (60, "EiB"),
            (50, "PiB"),
            (40, "TiB"),
            (30, "GiB"),
            (20, "MiB"),
            (10, "KiB"),
        ];
        let Some((shift, unit)) = units.iter().find(|(shift, _)| self.0 >> shift != 0) else {
            return write!(f, "{} bytes", self.0);
        };
        let thousandths = (u128::from(self.0) * 1000 + (1 << (shift - 1))) >> shift;
        match (thousandths / 1000, thousandths % 1000) {
            (whole, 0) if self.0.trailing_zeros() >= *shift => write!(f, "{whole} {unit}"),
            (whole, rest) => write!(f, "{whole}.{rest:03} {unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use expect_test::expect;

    #[test]
    fn results_read_as_those_of_qemu_io() {
        let Ok(Job::Write(write)) = parse("write 4k 64k") else {
            panic!()
        };
        let Ok(Job::Read(read)) = parse("read -v -P 0x41 1k 20") else {
            panic!()
        };
        let Ok(Job::Discard(discard)) = parse("discard 0 1536") else {
            panic!()
        };
        let mut data = [0x41; 20];
        data[19] = 0;
        let said = [
            write.report(Duration::from_micros(762)),
            read.report(&[0x41; 20], Duration::from_millis(1250)),
            read.report(&data, Duration::from_nanos(1)),
            discard.report_discard(Duration::ZERO),
            Job::Write(write).report_failure("Input/output error"),
            report_length(1 << 20),
            report_length(1500),
        ];
        expect![[r"
            wrote 65536/65536 bytes at offset 4096
            64 KiB, 1 ops; 00.00 sec (82.021 MiB/sec and 1312.3359 ops/sec)
            00000400:  41 41 41 41 41 41 41 41 41 41 41 41 41 41 41 41  AAAAAAAAAAAAAAAA
            00000410:  41 41 41 41                                      AAAA
            read 20/20 bytes at offset 1024
            20 bytes, 1 ops; 01.25 sec (16 bytes/sec and 0.8000 ops/sec)
            Pattern verification failed at offset 1024, 20 bytes
            00000400:  41 41 41 41 41 41 41 41 41 41 41 41 41 41 41 41  AAAAAAAAAAAAAAAA
            00000410:  41 41 41 00                                      AAA.
            read 20/20 bytes at offset 1024
            20 bytes, 1 ops; 00.00 sec (18.626 GiB/sec and 1000000000.0000 ops/sec)
            discard 1536/1536 bytes at offset 0
            1.500 KiB, 1 ops; 00.00 sec (1.397 TiB/sec and 1000000000.0000 ops/sec)
            write failed: Input/output error
            1 MiB
            1.465 KiB
        "]]
        .assert_eq(&said.concat().replace("\r\n", "\n"));
    }

    #[test]
    fn quiet_commands_tell_only_mistakes() {
        let Ok(Job::Read(read)) = parse("read -qv -P 1 0 2") else {
            panic!()
        };
        assert_eq!(read.report(&[1, 1], Duration::ZERO), "");
        let failed = "Pattern verification failed at offset 0, 2 bytes\r\n";
        assert_eq!(read.report(&[1, 2], Duration::ZERO), failed);
        let Ok(Job::Write(write)) = parse("write -q 0 2") else {
            panic!()
        };
        assert_eq!(write.report(Duration::ZERO), "");
    }
}
