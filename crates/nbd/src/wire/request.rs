//! The request header of the transmission phase.
//!
//! Source: NBD protocol, "Request message" and "Request types".

use super::{CommandFlags, Malformed};
use std::fmt;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

const REQUEST_MAGIC: u32 = 0x2560_9513;

/// What the client calls a request; opaque to the server.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cookie(pub u64);

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:x}", self.0)
    }
}

/// The kind of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum CommandCode {
    /// `NBD_CMD_READ`
    Read,
    /// `NBD_CMD_WRITE`
    Write,
    /// `NBD_CMD_DISC`
    Disc,
    /// `NBD_CMD_FLUSH`
    Flush,
    /// `NBD_CMD_TRIM`
    Trim,
    /// `NBD_CMD_CACHE`
    Cache,
    /// `NBD_CMD_WRITE_ZEROES`
    WriteZeroes,
    /// `NBD_CMD_BLOCK_STATUS`
    BlockStatus,
    /// A command this implementation does not have.
    Unknown(u16),
}

impl CommandCode {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        match self {
            CommandCode::Read => 0,
            CommandCode::Write => 1,
            CommandCode::Disc => 2,
            CommandCode::Flush => 3,
            CommandCode::Trim => 4,
            CommandCode::Cache => 5,
            CommandCode::WriteZeroes => 6,
            CommandCode::BlockStatus => 7,
            CommandCode::Unknown(code) => code,
        }
    }

    /// The command with this number.
    pub fn from_code(code: u16) -> CommandCode {
        match code {
            0 => CommandCode::Read,
            1 => CommandCode::Write,
            2 => CommandCode::Disc,
            3 => CommandCode::Flush,
            4 => CommandCode::Trim,
            5 => CommandCode::Cache,
            6 => CommandCode::WriteZeroes,
            7 => CommandCode::BlockStatus,
            unknown => CommandCode::Unknown(unknown),
        }
    }
}

impl fmt::Debug for CommandCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CommandCode::Read => "READ",
            CommandCode::Write => "WRITE",
            CommandCode::Disc => "DISC",
            CommandCode::Flush => "FLUSH",
            CommandCode::Trim => "TRIM",
            CommandCode::Cache => "CACHE",
            CommandCode::WriteZeroes => "WRITE_ZEROES",
            CommandCode::BlockStatus => "BLOCK_STATUS",
            CommandCode::Unknown(code) => return write!(f, "command {code}"),
        })
    }
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RawRequest {
    magic: U32,
    flags: U16,
    kind: U16,
    cookie: U64,
    offset: U64,
    length: U32,
}

/// The fixed part of every request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// How it is to be executed.
    pub flags: CommandFlags,
    /// What is to be done.
    pub command: CommandCode,
    /// The client's name for it.
    pub cookie: Cookie,
    /// First byte of the export it touches.
    pub offset: u64,
    /// How many bytes it touches.
    pub length: u32,
}

impl RequestHeader {
    /// Length on the wire.
    pub const LENGTH: usize = 28;

    /// # Errors
    ///
    /// [`Malformed`] if the magic number is wrong: the stream is out of step.
    #[inline]
    pub fn parse(bytes: [u8; Self::LENGTH]) -> Result<RequestHeader, Malformed> {
        let raw: RawRequest = zerocopy::transmute!(bytes);
        if raw.magic.get() != REQUEST_MAGIC {
            return Err(Malformed("a request does not begin with its magic number"));
        }
        Ok(RequestHeader {
            flags: CommandFlags::from_bits(raw.flags.get()),
            command: CommandCode::from_code(raw.kind.get()),
            cookie: Cookie(raw.cookie.get()),
            offset: raw.offset.get(),
            length: raw.length.get(),
        })
    }

    /// The bytes to send.
    #[inline]
    pub fn encode(self) -> impl IntoBytes + Immutable {
        RawRequest {
            magic: REQUEST_MAGIC.into(),
            flags: self.flags.bits().into(),
            kind: self.command.code().into(),
            cookie: self.cookie.0.into(),
            offset: self.offset.into(),
            length: self.length.into(),
        }
    }
}

/// `READ #1 4096+512 FUA`
impl fmt::Debug for RequestHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RequestHeader {
            flags,
            command,
            cookie,
            offset,
            length,
        } = self;
        write!(f, "{command:?} {cookie:?} {offset}+{length} {flags:?}")
    }
}
