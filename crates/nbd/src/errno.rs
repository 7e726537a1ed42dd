//! The error values of a reply, and their relation to the block layer's errors.

use std::fmt;

/// Why a request failed, in the protocol's vocabulary (NBD protocol, "Error values").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errno {
    /// `NBD_EPERM`: the export is read-only.
    Perm,
    /// `NBD_EIO`: the medium or the connection to it failed.
    Io,
    /// `NBD_ENOMEM`: out of memory.
    NoMem,
    /// `NBD_EINVAL`: the request breaks a rule.
    Inval,
    /// `NBD_ENOSPC`: no space left, or a write past the end.
    NoSpc,
    /// `NBD_EOVERFLOW`: the request is too long to be answered.
    Overflow,
    /// `NBD_ENOTSUP`: this cannot be zeroed fast.
    NotSup,
    /// `NBD_ESHUTDOWN`: the server is going away.
    Shutdown,
}

impl Errno {
    /// The value on the wire; on Linux also the operating system's number.
    pub fn value(self) -> u32 {
        match self {
            Errno::Perm => 1,
            Errno::Io => 5,
            Errno::NoMem => 12,
            Errno::Inval => 22,
            Errno::NoSpc => 28,
            Errno::Overflow => 75,
            Errno::NotSup => 95,
            Errno::Shutdown => 108,
        }
    }

    /// The error a peer means by `value`. A value outside the list counts as `NBD_EINVAL`
    /// (NBD protocol, "Error values"); zero is no error.
    pub fn from_value(value: u32) -> Option<Errno> {
        Some(match value {
            0 => return None,
            1 => Errno::Perm,
            5 => Errno::Io,
            12 => Errno::NoMem,
            28 => Errno::NoSpc,
            75 => Errno::Overflow,
            95 => Errno::NotSup,
            108 => Errno::Shutdown,
            _ => Errno::Inval,
        })
    }

    /// The block layer's error for an answer of this kind; `message` says who answered what.
    pub fn into_block_error(self, message: String) -> block::Error {
        let number = i32::try_from(self.value()).expect("every value is below 2^31");
        block::Error::from_errno(number, message)
    }

    /// The protocol's name without its prefix.
    pub fn name(self) -> &'static str {
        match self {
            Errno::Perm => "EPERM",
            Errno::Io => "EIO",
            Errno::NoMem => "ENOMEM",
            Errno::Inval => "EINVAL",
            Errno::NoSpc => "ENOSPC",
            Errno::Overflow => "EOVERFLOW",
            Errno::NotSup => "ENOTSUP",
            Errno::Shutdown => "ESHUTDOWN",
        }
    }
}

impl From<&block::Error> for Errno {
    /// The value that tells a client most; numbers the protocol lacks become `NBD_EIO`, so that
    /// a failing medium is never mistaken for a mistake of the client.
    fn from(error: &block::Error) -> Errno {
        match error.errno() {
            1 | 13 | 30 => Errno::Perm,    // EPERM, EACCES, EROFS
            12 => Errno::NoMem,            // ENOMEM
            22 => Errno::Inval,            // EINVAL
            27 | 28 | 122 => Errno::NoSpc, // EFBIG, ENOSPC, EDQUOT
            75 => Errno::Overflow,         // EOVERFLOW
            95 => Errno::NotSup,           // EOPNOTSUPP
            108 => Errno::Shutdown,        // ESHUTDOWN
            _ => Errno::Io,
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_survives_the_wire() {
        for value in [1, 5, 12, 22, 28, 75, 95, 108] {
            assert_eq!(Errno::from_value(value).map(Errno::value), Some(value));
        }
    }

    #[test]
    fn an_unknown_value_counts_as_an_invalid_request() {
        assert_eq!(Errno::from_value(4711), Some(Errno::Inval));
        assert_eq!(Errno::from_value(0), None);
    }

    #[test]
    fn a_full_or_too_large_medium_is_no_space() {
        for number in [27, 28, 122] {
            let error = block::Error::from_errno(number, "");
            assert_eq!(Errno::from(&error), Errno::NoSpc);
        }
        let poisoned = block::Error::new(block::ErrorKind::Poisoned);
        assert_eq!(Errno::from(&poisoned), Errno::Io);
    }
}
