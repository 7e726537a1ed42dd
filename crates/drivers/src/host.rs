//! Errors of the host with its error number *and* what an operator needs to know.
//!
//! `io::Error` carries either a number or a text. A refused lock needs both: the number goes to NBD
//! and QMP, the text names the file and says what would be right.

use block::{Error, ErrorKind};
use std::fmt;
use std::io;

/// An error number with an explanation; travels inside an [`io::Error`].
#[derive(Debug)]
struct HostError {
    errno: i32,
    message: String,
}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for HostError {}

/// The error `errno` with an explanation: lower case, no full stop.
pub fn host_error(errno: i32, message: impl Into<String>) -> io::Error {
    let message = message.into();
    let kind = io::Error::from_raw_os_error(errno).kind();
    io::Error::new(kind, HostError { errno, message })
}

/// Puts `context` before what `error` says and keeps its number.
pub fn explain(error: &io::Error, context: impl fmt::Display) -> io::Error {
    let message = format!("{context}: {}", describe(error));
    match errno_of(error) {
        Some(errno) => host_error(errno, message),
        None => io::Error::new(error.kind(), message),
    }
}

/// The error number, if the host gave one.
pub fn errno_of(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let inner = error.get_ref()?.downcast_ref::<HostError>()?;
        Some(inner.errno)
    })
}

/// The block layer's error for one of a port.
pub fn block_error(error: &io::Error) -> Error {
    match errno_of(error) {
        Some(errno) => Error::from_errno(errno, describe(error)),
        None => Error::with_message(kind_of(error.kind()), describe(error)),
    }
}

/// What the host says, in lower case and without its `(os error 5)`.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    if error.raw_os_error().is_none() {
        return text.to_owned();
    }
    let mut letters = text.chars();
    let first = letters.next();
    // `I/O error` and the like stay as they are.
    let second_is_lower = letters.clone().next().is_some_and(char::is_lowercase);
    match first {
        Some(first) if second_is_lower => first.to_lowercase().chain(letters).collect(),
        _ => text.to_owned(),
    }
}

fn kind_of(kind: io::ErrorKind) -> ErrorKind {
    // `io::ErrorKind` is open-ended: what is not listed is a failed medium.
    if kind == io::ErrorKind::InvalidInput {
        ErrorKind::InvalidRequest
    } else if kind == io::ErrorKind::PermissionDenied {
        ErrorKind::NotPermitted
    } else if kind == io::ErrorKind::Unsupported {
        ErrorKind::Unsupported
    } else if kind == io::ErrorKind::TimedOut {
        ErrorKind::TimedOut
    } else if kind == io::ErrorKind::StorageFull {
        ErrorKind::NoSpace
    } else {
        ErrorKind::Io
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_text_survive_the_way_to_the_block_layer() {
        let error = io::Error::from_raw_os_error(28);
        let error = block_error(&explain(&error, "cannot write '/images/a.raw'"));
        assert_eq!(error.errno(), 28);
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert_eq!(
            error.message(),
            "cannot write '/images/a.raw': no space left on device"
        );
    }

    #[test]
    fn an_error_without_a_number_keeps_its_kind() {
        let error = io::Error::new(io::ErrorKind::TimedOut, "no answer");
        assert_eq!(block_error(&error).kind(), ErrorKind::TimedOut);
        assert_eq!(errno_of(&error), None);
    }
}
