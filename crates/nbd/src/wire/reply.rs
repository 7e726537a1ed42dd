//! Option replies: what a server answers during the handshake.
//!
//! Source: NBD protocol, "Option reply types" and "Size constraints".

use super::option::{length_of, put_sized};
use super::{
    ExportName, Fields, InfoKind, MAX_STRING, Malformed, OptionCode, TransmissionFlags,
    display_text,
};
use std::fmt;
use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

const REP_MAGIC: u64 = 0x0003_e889_0455_65a9;

/// The numbers of the reply types that are no errors.
mod rep {
    pub(super) const ACK: u32 = 1;
    pub(super) const SERVER: u32 = 2;
    pub(super) const INFO: u32 = 3;
    pub(super) const META_CONTEXT: u32 = 4;
    /// Set in every error.
    pub(super) const ERROR: u32 = 1 << 31;
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RawReplyHeader {
    magic: U64,
    option: U32,
    kind: U32,
    length: U32,
}

/// What precedes the data of every option reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The option this replies to.
    pub option: OptionCode,
    /// The reply type.
    pub kind: u32,
    /// Length of the data in bytes.
    pub length: u32,
}

impl ReplyHeader {
    /// Length on the wire.
    pub const LENGTH: usize = 20;

    /// # Errors
    ///
    /// [`Malformed`] if the magic number is wrong: the stream is out of step.
    pub fn parse(bytes: [u8; Self::LENGTH]) -> Result<ReplyHeader, Malformed> {
        let raw: RawReplyHeader = zerocopy::transmute!(bytes);
        if raw.magic.get() != REP_MAGIC {
            return Err(Malformed(
                "an option reply does not begin with its magic number",
            ));
        }
        Ok(ReplyHeader {
            option: OptionCode(raw.option.get()),
            kind: raw.kind.get(),
            length: raw.length.get(),
        })
    }

    /// The bytes to send.
    pub fn encode(self) -> impl IntoBytes + Immutable {
        RawReplyHeader {
            magic: REP_MAGIC.into(),
            option: self.option.0.into(),
            kind: self.kind.into(),
            length: self.length.into(),
        }
    }
}

/// Why a server refuses an option.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum RepError {
    /// `NBD_REP_ERR_UNSUP`: the server does not have this option.
    Unsup,
    /// `NBD_REP_ERR_POLICY`: it is switched off.
    Policy,
    /// `NBD_REP_ERR_INVALID`: the option is malformed or comes at the wrong time.
    Invalid,
    /// `NBD_REP_ERR_PLATFORM`: not on this platform.
    Platform,
    /// `NBD_REP_ERR_TLS_REQD`: only over TLS.
    TlsReqd,
    /// `NBD_REP_ERR_UNKNOWN`: there is no such export.
    Unknown,
    /// `NBD_REP_ERR_SHUTDOWN`: the server is going away.
    Shutdown,
    /// `NBD_REP_ERR_BLOCK_SIZE_REQD`: the client must ask for the block sizes.
    BlockSizeReqd,
    /// `NBD_REP_ERR_TOO_BIG`: the request or its reply is too long.
    TooBig,
    /// `NBD_REP_ERR_EXT_HEADER_REQD`: only with extended headers.
    ExtHeaderReqd,
    /// An error newer than this list.
    Other(u32),
}

/// Every error with its number on the wire, without bit 31, and its name.
const ERRORS: [(RepError, u32, &str); 10] = [
    (RepError::Unsup, 1, "ERR_UNSUP"),
    (RepError::Policy, 2, "ERR_POLICY"),
    (RepError::Invalid, 3, "ERR_INVALID"),
    (RepError::Platform, 4, "ERR_PLATFORM"),
    (RepError::TlsReqd, 5, "ERR_TLS_REQD"),
    (RepError::Unknown, 6, "ERR_UNKNOWN"),
    (RepError::Shutdown, 7, "ERR_SHUTDOWN"),
    (RepError::BlockSizeReqd, 8, "ERR_BLOCK_SIZE_REQD"),
    (RepError::TooBig, 9, "ERR_TOO_BIG"),
    (RepError::ExtHeaderReqd, 10, "ERR_EXT_HEADER_REQD"),
];

impl RepError {
    fn from_kind(kind: u32) -> RepError {
        let number = kind & !rep::ERROR;
        ERRORS
            .iter()
            .find(|(_, known, _)| *known == number)
            .map_or(RepError::Other(number), |(error, _, _)| *error)
    }

    fn kind(self) -> u32 {
        let known = ERRORS.iter().find(|(error, _, _)| *error == self);
        let number = match (known, self) {
            (Some((_, number, _)), _) => *number,
            (None, error) => error.other(),
        };
        number | rep::ERROR
    }

    fn other(self) -> u32 {
        if let RepError::Other(number) = self {
            number
        } else {
            0
        }
    }
}

impl fmt::Debug for RepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match ERRORS.iter().find(|(error, _, _)| error == self) {
            Some((_, _, name)) => f.write_str(name),
            None => write!(f, "error {:#x}", self.kind()),
        }
    }
}

/// The size constraints of an export, which satisfy the rules of "Size constraints".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSizes {
    minimum: u32,
    preferred: u32,
    maximum: u32,
}

impl BlockSizes {
    /// What holds when nothing is announced: any alignment, 4 KiB preferred, 32 MiB at most.
    pub const DEFAULT: BlockSizes = BlockSizes {
        minimum: 1,
        preferred: 4096,
        maximum: 32 << 20,
    };

    /// What is safe when nothing is announced: whole sectors, and the rest as usual.
    pub const SECTORS: BlockSizes = BlockSizes {
        minimum: 512,
        ..BlockSizes::DEFAULT
    };

    /// # Errors
    ///
    /// [`Malformed`] if the sizes break a rule of the protocol.
    pub fn new(minimum: u32, preferred: u32, maximum: u32) -> Result<BlockSizes, Malformed> {
        if !minimum.is_power_of_two() || minimum > 65536 {
            return Err(Malformed(
                "the minimum block size must be a power of two, at most 65536",
            ));
        }
        if !preferred.is_power_of_two() || preferred < minimum.max(512) {
            return Err(Malformed(
                "the preferred block size must be a power of two, at least 512 and the minimum",
            ));
        }
        if maximum < preferred {
            return Err(Malformed(
                "the maximum payload must not be below the preferred block size",
            ));
        }
        Ok(BlockSizes {
            minimum,
            preferred,
            maximum,
        })
    }

    /// Offsets and lengths must be multiples of this many bytes.
    pub fn minimum(self) -> u32 {
        self.minimum
    }

    /// Multiples of this many bytes are served best.
    pub fn preferred(self) -> u32 {
        self.preferred
    }

    /// No payload may be longer than this many bytes.
    pub fn maximum(self) -> u32 {
        self.maximum
    }

    /// The same sizes with a maximum of at most `bytes`, but never below the preferred size.
    #[must_use]
    pub fn capped(self, bytes: u32) -> BlockSizes {
        BlockSizes {
            maximum: self.maximum.min(bytes).max(self.preferred),
            ..self
        }
    }
}

/// One item of information about an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Info {
    /// Size in bytes and abilities.
    Export(u64, TransmissionFlags),
    /// The server's own name for the export.
    Name(ExportName),
    /// Text for people.
    Description(String),
    /// Size constraints.
    BlockSize(BlockSizes),
    /// An item newer than this list; to be ignored.
    Other(u16),
}

impl Info {
    fn parse(data: &[u8]) -> Result<Info, Malformed> {
        let mut fields = Fields(data);
        let code = fields.u16()?;
        let info = match InfoKind::from_code(code) {
            Some(InfoKind::Export) => {
                let size = fields.u64()?;
                Info::Export(size, TransmissionFlags::from_bits(fields.u16()?))
            }
            Some(InfoKind::Name) => Info::Name(ExportName::parse(fields.rest())?),
            Some(InfoKind::Description) => Info::Description(display_text(fields.rest())),
            Some(InfoKind::BlockSize) => {
                let (minimum, preferred) = (fields.u32()?, fields.u32()?);
                Info::BlockSize(BlockSizes::new(minimum, preferred, fields.u32()?)?)
            }
            None => {
                fields.rest();
                Info::Other(code)
            }
        };
        fields.finish()?;
        Ok(info)
    }

    fn encode(&self) -> Vec<u8> {
        let code = match self {
            Info::Export(..) => InfoKind::Export.code(),
            Info::Name(_) => InfoKind::Name.code(),
            Info::Description(_) => InfoKind::Description.code(),
            Info::BlockSize(_) => InfoKind::BlockSize.code(),
            Info::Other(code) => *code,
        };
        let mut data = code.to_be_bytes().to_vec();
        match self {
            Info::Export(size, flags) => {
                data.extend_from_slice(&size.to_be_bytes());
                data.extend_from_slice(&flags.bits().to_be_bytes());
            }
            Info::Name(name) => data.extend_from_slice(name.as_str().as_bytes()),
            Info::Description(text) => data.extend_from_slice(bounded(text).as_bytes()),
            Info::BlockSize(sizes) => {
                for size in [sizes.minimum, sizes.preferred, sizes.maximum] {
                    data.extend_from_slice(&size.to_be_bytes());
                }
            }
            Info::Other(_) => {}
        }
        data
    }
}

/// One reply to an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionReply {
    /// The option is done.
    Ack,
    /// An export, with text for people.
    Server(ExportName, String),
    /// Something about an export.
    Info(Info),
    /// A metadata context: its number for this connection, and its name.
    MetaContext(u32, String),
    /// The option is refused; with text for people.
    Error(RepError, String),
}

impl OptionReply {
    /// The reply of type `kind` in `data`, whose length has been bounded by the caller.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the data does not fit the type, or the type is unknown and no error.
    pub fn parse(kind: u32, data: &[u8]) -> Result<OptionReply, Malformed> {
        match kind {
            rep::ACK if data.is_empty() => Ok(OptionReply::Ack),
            rep::ACK => Err(Malformed("an acknowledgement carries no data")),
            rep::SERVER => {
                let mut fields = Fields(data);
                let name = ExportName::parse(fields.sized()?)?;
                Ok(OptionReply::Server(name, display_text(fields.rest())))
            }
            rep::INFO => Info::parse(data).map(OptionReply::Info),
            rep::META_CONTEXT => {
                let mut fields = Fields(data);
                let id = fields.u32()?;
                Ok(OptionReply::MetaContext(id, display_text(fields.rest())))
            }
            error if error & rep::ERROR != 0 => {
                let text = display_text(data);
                Ok(OptionReply::Error(RepError::from_kind(error), text))
            }
            _ => Err(Malformed("an option reply has an unknown type")),
        }
    }

    /// Header and data of this reply to `option`, to be sent.
    pub fn encode(&self, option: OptionCode) -> Vec<u8> {
        let mut data = Vec::new();
        let kind = match self {
            OptionReply::Ack => rep::ACK,
            OptionReply::Server(name, description) => {
                put_sized(&mut data, name.as_str().as_bytes());
                data.extend_from_slice(bounded(description).as_bytes());
                rep::SERVER
            }
            OptionReply::Info(info) => {
                data = info.encode();
                rep::INFO
            }
            OptionReply::MetaContext(id, name) => {
                data.extend_from_slice(&id.to_be_bytes());
                data.extend_from_slice(bounded(name).as_bytes());
                rep::META_CONTEXT
            }
            OptionReply::Error(error, text) => {
                data.extend_from_slice(bounded(text).as_bytes());
                error.kind()
            }
        };
        let header = ReplyHeader {
            option,
            kind,
            length: length_of(&data),
        };
        let mut message = header.encode().as_bytes().to_vec();
        message.append(&mut data);
        message
    }
}

/// At most the longest string the protocol allows, cut at a character.
pub(crate) fn bounded(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_STRING))
        .unwrap_or("")
}
