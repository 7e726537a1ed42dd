//! Lines of the human monitor, as `human-monitor-command` carries them: `qemu-io NODE "COMMAND"`.
//!
//! A mistake is an answer, not an error: QMP returns the text.

pub mod qemu_io;

use qemu_io::Job;

/// What a line asks for: `qemu-io` on a node or export.
#[derive(Clone, Debug, PartialEq)]
pub struct QemuIo {
    /// The node or export.
    pub device: String,
    /// What to do there.
    pub job: Job,
}

/// Reads a line.
///
/// # Errors
///
/// The text to return instead.
pub fn parse(line: &str) -> Result<QemuIo, String> {
    let words = words(line)?;
    let mut words = words.iter().map(String::as_str);
    match words.next() {
        Some("qemu-io") => {}
        Some(name) => return Err(format!("unknown command: '{name}'\r\n")),
        None => return Err(String::new()),
    }
    let mut device = words.next();
    if device == Some("-d") {
        return Err("qemu-io: there are no devices, name a node or an export\r\n".to_owned());
    }
    let (Some(device), Some(command), None) = (device.take(), words.next(), words.next()) else {
        return Err("usage: qemu-io NODE \"COMMAND\"\r\n".to_owned());
    };
    let job = qemu_io::parse(command).map_err(|error| format!("{error}\r\n"))?;
    Ok(QemuIo {
        device: device.to_owned(),
        job,
    })
}

/// Splits a line at blanks, except in double quotes, where a backslash escapes.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut rest = line.chars();
    while let Some(char) = rest.next() {
        match (char, quoted) {
            ('"', _) => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ('\\', true) => {
                let escaped = match rest.next() {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some(escaped @ ('\\' | '\'' | '"')) => escaped,
                    other => {
                        let other = other.map(String::from).unwrap_or_default();
                        return Err(format!("unsupported escape code: '\\{other}'\r\n"));
                    }
                };
                word.get_or_insert_default().push(escaped);
            }
            (blank, false) if blank.is_ascii_whitespace() => words.extend(word.take()),
            (char, _) => word.get_or_insert_default().push(char),
        }
    }
    if quoted {
        return Err("unterminated string\r\n".to_owned());
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_node_and_a_command() {
        for line in [
            r#"qemu-io disk0 "flush""#,
            "qemu-io disk0 flush",
            "  qemu-io   \"disk0\"  \"fl\"\"ush\" ",
            r#"qemu-io disk0 "  f  ""#,
        ] {
            let QemuIo { device, job } = parse(line).unwrap();
            assert_eq!((device.as_str(), job), ("disk0", Job::Flush), "{line}");
        }
    }

    #[test]
    fn a_mistake_is_told() {
        for (line, said) in [
            ("", ""),
            ("info block", "unknown command: 'info'\r\n"),
            ("qemu-io", "usage: qemu-io NODE \"COMMAND\"\r\n"),
            ("qemu-io n", "usage: qemu-io NODE \"COMMAND\"\r\n"),
            (
                "qemu-io n write 0 4k",
                "usage: qemu-io NODE \"COMMAND\"\r\n",
            ),
            (
                "qemu-io -d n f",
                "qemu-io: there are no devices, name a node or an export\r\n",
            ),
            ("qemu-io n \"f", "unterminated string\r\n"),
            (r#"qemu-io n "\q""#, "unsupported escape code: '\\q'\r\n"),
            ("qemu-io n nope", "command \"nope\" not found\r\n"),
        ] {
            assert_eq!(parse(line), Err(said.to_owned()), "{line}");
        }
    }
}
