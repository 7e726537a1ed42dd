//! Simple replies and structured reply chunks.
//!
//! Source: NBD protocol, "Simple reply message", "Structured reply chunk message" and
//! "Structured reply types".

use super::{ChunkFlags, Cookie, Fields, MAX_STRING, Malformed, MetaContext, display_text};
use crate::Errno;
use std::fmt;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, Unaligned};

const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Which of the two kinds of reply the next four bytes announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyMagic {
    /// A [`SimpleReply`] follows.
    Simple,
    /// A [`ChunkHeader`] follows.
    Structured,
}

impl ReplyMagic {
    /// Length on the wire.
    pub const LENGTH: usize = 4;

    /// # Errors
    ///
    /// [`Malformed`] if it is neither: the stream is out of step.
    pub fn parse(bytes: [u8; Self::LENGTH]) -> Result<ReplyMagic, Malformed> {
        match u32::from_be_bytes(bytes) {
            SIMPLE_REPLY_MAGIC => Ok(ReplyMagic::Simple),
            STRUCTURED_REPLY_MAGIC => Ok(ReplyMagic::Structured),
            _ => Err(Malformed("a reply does not begin with its magic number")),
        }
    }
}

#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RawSimpleReply {
    magic: U32,
    error: U32,
    cookie: U64,
}

/// A reply of one piece; the data of a read follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    /// The request it answers.
    pub cookie: Cookie,
    /// Why it failed, if it failed.
    pub error: Option<Errno>,
}

impl SimpleReply {
    /// Length on the wire.
    pub const LENGTH: usize = 16;

    /// The reply in `bytes`, whose magic number has been looked at.
    #[inline]
    pub fn parse(bytes: [u8; Self::LENGTH]) -> SimpleReply {
        let raw: RawSimpleReply = zerocopy::transmute!(bytes);
        SimpleReply {
            cookie: Cookie(raw.cookie.get()),
            error: Errno::from_value(raw.error.get()),
        }
    }

    /// The bytes to send.
    #[inline]
    pub fn encode(self) -> impl IntoBytes + Immutable {
        RawSimpleReply {
            magic: SIMPLE_REPLY_MAGIC.into(),
            error: self.error.map_or(0, Errno::value).into(),
            cookie: self.cookie.0.into(),
        }
    }
}

/// The type of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkKind {
    /// `NBD_REPLY_TYPE_NONE`
    None,
    /// `NBD_REPLY_TYPE_OFFSET_DATA`
    OffsetData,
    /// `NBD_REPLY_TYPE_OFFSET_HOLE`
    OffsetHole,
    /// `NBD_REPLY_TYPE_BLOCK_STATUS`
    BlockStatus,
    /// `NBD_REPLY_TYPE_ERROR`
    Error,
    /// `NBD_REPLY_TYPE_ERROR_OFFSET`
    ErrorOffset,
    /// An error type newer than this list: it fails the request.
    UnknownError(u16),
}

impl ChunkKind {
    /// Set in every error.
    const ERROR: u16 = 1 << 15;

    /// The number on the wire.
    pub fn code(self) -> u16 {
        match self {
            ChunkKind::None => 0,
            ChunkKind::OffsetData => 1,
            ChunkKind::OffsetHole => 2,
            ChunkKind::BlockStatus => 5,
            ChunkKind::Error => 1 | ChunkKind::ERROR,
            ChunkKind::ErrorOffset => 2 | ChunkKind::ERROR,
            ChunkKind::UnknownError(code) => code,
        }
    }

    /// # Errors
    ///
    /// [`Malformed`] if the type is unknown and no error.
    pub fn from_code(code: u16) -> Result<ChunkKind, Malformed> {
        Ok(match code {
            0 => ChunkKind::None,
            1 => ChunkKind::OffsetData,
            2 => ChunkKind::OffsetHole,
            5 => ChunkKind::BlockStatus,
            0x8001 => ChunkKind::Error,
            0x8002 => ChunkKind::ErrorOffset,
            error if error & ChunkKind::ERROR != 0 => ChunkKind::UnknownError(error),
            _ => return Err(Malformed("a structured reply has an unknown type")),
        })
    }
}

/// The chunk header as it lies on the wire.
#[derive(FromBytes, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct RawChunk {
    magic: U32,
    flags: U16,
    kind: U16,
    cookie: U64,
    length: U32,
}

/// What precedes the payload of every chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Whether it is the last of its reply.
    pub flags: ChunkFlags,
    /// What the payload is.
    pub kind: ChunkKind,
    /// The request it answers.
    pub cookie: Cookie,
    /// Length of the payload in bytes.
    pub length: u32,
}

impl ChunkHeader {
    /// Length on the wire.
    pub const LENGTH: usize = 20;

    /// The header in `bytes`, whose magic number has been looked at.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the type is unknown and no error.
    #[inline]
    pub fn parse(bytes: [u8; Self::LENGTH]) -> Result<ChunkHeader, Malformed> {
        let raw: RawChunk = zerocopy::transmute!(bytes);
        Ok(ChunkHeader {
            flags: ChunkFlags::from_bits(raw.flags.get()),
            kind: ChunkKind::from_code(raw.kind.get())?,
            cookie: Cookie(raw.cookie.get()),
            length: raw.length.get(),
        })
    }

    #[inline]
    pub(crate) fn raw(self) -> RawChunk {
        RawChunk {
            magic: STRUCTURED_REPLY_MAGIC.into(),
            flags: self.flags.bits().into(),
            kind: self.kind.code().into(),
            cookie: self.cookie.0.into(),
            length: self.length.into(),
        }
    }

    /// The bytes to send.
    pub fn encode(self) -> impl IntoBytes + Immutable {
        self.raw()
    }
}

/// A run of bytes with one status.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Length in bytes.
    pub length: u64,
    /// The status; what it means is the metadata context's affair. For `base:allocation` it
    /// holds [`StatusFlags`](super::StatusFlags).
    pub flags: u32,
}

impl fmt::Debug for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:#x}", self.length, self.flags)
    }
}

/// What one metadata context says about a range, from its start on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextExtents {
    /// The context.
    pub context: MetaContext,
    /// Consecutive extents; fewer than the range holds are enough, but at least one.
    pub extents: Vec<Extent>,
}

/// The payload of a chunk, except the bytes of a read: those are never copied into a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk {
    /// Nothing: the reply ends.
    None,
    /// Zeroes: first byte and number of bytes, which is not zero.
    OffsetHole(u64, u32),
    /// Extents of one metadata context: its number, and at least one extent, none empty.
    BlockStatus(u32, Vec<Extent>),
    /// The request failed; with text for people.
    Error(Errno, String),
}

impl Chunk {
    /// Length of the fixed part of `NBD_REPLY_TYPE_OFFSET_DATA`'s payload: the offset.
    pub const DATA_HEADER: usize = 8;

    /// The chunk of type `kind` in `payload`, whose length has been bounded by the caller. Of
    /// block status the first `most` extents are kept.
    ///
    /// # Errors
    ///
    /// [`Malformed`] if the payload does not fit the type; also for `OffsetData`, which the
    /// caller handles.
    pub fn parse(kind: ChunkKind, payload: &[u8], most: usize) -> Result<Chunk, Malformed> {
        let mut fields = Fields(payload);
        let chunk = match kind {
            ChunkKind::None => Chunk::None,
            ChunkKind::OffsetData => return Err(Malformed("a data chunk is no control chunk")),
            ChunkKind::OffsetHole => match (fields.u64()?, fields.u32()?) {
                (_, 0) => return Err(Malformed("a hole has at least one byte")),
                (offset, length) => Chunk::OffsetHole(offset, length),
            },
            ChunkKind::BlockStatus => {
                let context = fields.u32()?;
                Chunk::BlockStatus(context, extents(fields.rest(), most)?)
            }
            ChunkKind::Error | ChunkKind::ErrorOffset | ChunkKind::UnknownError(_) => {
                error(&mut fields, kind)?
            }
        };
        fields.finish()?;
        Ok(chunk)
    }
}

fn extents(payload: &[u8], most: usize) -> Result<Vec<Extent>, Malformed> {
    if payload.is_empty() || !payload.len().is_multiple_of(8) {
        return Err(Malformed(
            "a block status chunk holds whole extents, at least one",
        ));
    }
    let mut extents = Vec::new();
    let mut fields = Fields(payload);
    while !fields.0.is_empty() && extents.len() < most {
        let length = u64::from(fields.u32()?);
        if length == 0 {
            return Err(Malformed("an extent has at least one byte"));
        }
        let flags = fields.u32()?;
        extents.push(Extent { length, flags });
    }
    Ok(extents)
}

fn error(fields: &mut Fields<'_>, kind: ChunkKind) -> Result<Chunk, Malformed> {
    let errno = Errno::from_value(fields.u32()?).ok_or(Malformed(
        "an error chunk must carry an error that is not zero",
    ))?;
    let length = usize::from(fields.u16()?);
    if length > MAX_STRING {
        return Err(Malformed("the text of an error has at most 4096 bytes"));
    }
    let text = display_text(fields.take(length)?);
    if kind == ChunkKind::ErrorOffset {
        fields.u64()?;
    } else if matches!(kind, ChunkKind::UnknownError(_)) {
        // What else a newer type of error carries is for newer clients.
        fields.rest();
    }
    Ok(Chunk::Error(errno, text))
}
