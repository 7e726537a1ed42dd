//! The flag fields. Bits outside the protocol document survive, so that whoever must reject them
//! can see them.

use std::fmt;
use std::ops::BitOr;

macro_rules! flags {
    (
        $(#[$doc:meta])*
        $name:ident: $raw:ty { $($(#[$flag_doc:meta])* $flag:ident = $bit:literal;)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name($raw);

        impl $name {
            $($(#[$flag_doc])* pub const $flag: $name = $name(1 << $bit);)*

            /// No flag set.
            pub const NONE: $name = $name(0);

            /// Every flag of the protocol document.
            pub const ALL: $name = $name(0 $(| 1 << $bit)*);

            /// The field as it was on the wire.
            pub const fn from_bits(bits: $raw) -> $name {
                $name(bits)
            }

            /// The field as it goes on the wire.
            pub const fn bits(self) -> $raw {
                self.0
            }

            /// Whether all of `flags` are set.
            pub const fn contains(self, flags: $name) -> bool {
                self.0 & flags.0 == flags.0
            }

            /// Whether a flag is set that `allowed` lacks.
            pub const fn exceeds(self, allowed: $name) -> bool {
                self.0 & !allowed.0 != 0
            }

            /// These flags and `more`.
            #[must_use]
            pub const fn with(self, more: $name) -> $name {
                $name(self.0 | more.0)
            }

            /// These flags except those in `fewer`.
            #[must_use]
            pub const fn without(self, fewer: $name) -> $name {
                $name(self.0 & !fewer.0)
            }
        }

        impl BitOr for $name {
            type Output = $name;

            fn bitor(self, other: $name) -> $name {
                self.with(other)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let names: &[($name, &str)] = &[$(($name::$flag, stringify!($flag)),)*];
                let mut set: Vec<&str> = Vec::new();
                for (flag, name) in names {
                    if self.contains(*flag) {
                        set.push(name);
                    }
                }
                let unknown = self.0 & !$name::ALL.0;
                match (set.is_empty(), unknown) {
                    (true, 0) => f.write_str("-"),
                    (true, _) => write!(f, "{unknown:#x}"),
                    (false, 0) => f.write_str(&set.join("|")),
                    (false, _) => write!(f, "{}|{unknown:#x}", set.join("|")),
                }
            }
        }
    };
}

flags! {
    /// What the server's greeting offers (NBD protocol, "Handshake flags").
    HandshakeFlags: u16 {
        /// Options get replies.
        FIXED_NEWSTYLE = 0;
        /// The padding after an export's description can be left out.
        NO_ZEROES = 1;
    }
}

flags! {
    /// What the client accepts of it (NBD protocol, "Client flags").
    ClientFlags: u32 {
        /// Options get replies.
        FIXED_NEWSTYLE = 0;
        /// The padding after an export's description is left out.
        NO_ZEROES = 1;
    }
}

flags! {
    /// What an export can do (NBD protocol, "Transmission flags").
    TransmissionFlags: u16 {
        /// Always set.
        HAS_FLAGS = 0;
        /// Writing requests fail.
        READ_ONLY = 1;
        /// `NBD_CMD_FLUSH` may be sent.
        SEND_FLUSH = 2;
        /// `NBD_CMD_FLAG_FUA` may be set.
        SEND_FUA = 3;
        /// The medium rotates.
        ROTATIONAL = 4;
        /// `NBD_CMD_TRIM` may be sent.
        SEND_TRIM = 5;
        /// `NBD_CMD_WRITE_ZEROES` may be sent, with or without `NBD_CMD_FLAG_NO_HOLE`.
        SEND_WRITE_ZEROES = 6;
        /// `NBD_CMD_FLAG_DF` may be set.
        SEND_DF = 7;
        /// A flush on one connection covers the writes answered on all.
        CAN_MULTI_CONN = 8;
        /// Of an extension: the size may change.
        SEND_RESIZE = 9;
        /// `NBD_CMD_CACHE` is understood.
        SEND_CACHE = 10;
        /// `NBD_CMD_FLAG_FAST_ZERO` may be set.
        SEND_FAST_ZERO = 11;
        /// Of an extension: block status takes a payload.
        BLOCK_STATUS_PAYLOAD = 12;
    }
}

flags! {
    /// How a request is to be executed (NBD protocol, "Command flags").
    CommandFlags: u16 {
        /// The reply waits until the data is on stable storage.
        FUA = 0;
        /// Zeroes must be allocated.
        NO_HOLE = 1;
        /// One content chunk at most.
        DF = 2;
        /// One extent a metadata context.
        REQ_ONE = 3;
        /// Fail rather than write zeroes slowly.
        FAST_ZERO = 4;
        /// Of an extension: the request carries a payload.
        PAYLOAD_LEN = 5;
    }
}

flags! {
    /// Where a chunk stands in its reply (NBD protocol, "Structured reply flags").
    ChunkFlags: u16 {
        /// The last chunk of this reply.
        DONE = 0;
    }
}

flags! {
    /// The state of an extent (NBD protocol, "`base:allocation` metadata context").
    StatusFlags: u32 {
        /// Nothing is allocated here: writing may fail for lack of space.
        HOLE = 0;
        /// Reads as zeroes.
        ZERO = 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_print_their_names_and_the_bits_without_one() {
        let flags = CommandFlags::FUA | CommandFlags::NO_HOLE | CommandFlags::from_bits(0x8000);
        assert_eq!(format!("{flags:?}"), "FUA|NO_HOLE|0x8000");
        assert_eq!(format!("{:?}", CommandFlags::NONE), "-");
        assert_eq!(format!("{:?}", ClientFlags::from_bits(4)), "0x4");
        assert!(flags.exceeds(CommandFlags::ALL));
    }
}
