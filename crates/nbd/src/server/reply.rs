//! Replies: simple where they may be, structured where they must be or can say more.
//!
//! Source: NBD protocol, "Simple reply message", "Structured reply chunk message", "Request
//! types".

use super::Ticket;
use super::transmission::Transmission;
use crate::Errno;
use crate::extents::clip;
use crate::outbox::Outbox;
use crate::wire::{
    ChunkFlags, ChunkHeader, ChunkKind, CommandCode, CommandFlags, ContextExtents, Cookie, Extent,
    MetaContext, RawChunk, SimpleReply, bounded,
};
use bytes::Bytes;
use zerocopy::big_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// A part of what a read returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Data(Bytes),
    /// As many zeroes.
    Zeroes(u64),
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Piece::Data(data) => u64::try_from(data.len()).unwrap_or(u64::MAX),
            Piece::Zeroes(length) => *length,
        }
    }
}

/// A data chunk up to its data.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct DataChunk {
    chunk: RawChunk,
    offset: U64,
}

/// A whole hole chunk.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct HoleChunk {
    chunk: RawChunk,
    offset: U64,
    length: U32,
}

/// An error chunk up to its text.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct ErrorChunk {
    chunk: RawChunk,
    error: U32,
    text_length: U16,
}

/// A block status chunk up to its extents.
#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct StatusChunk {
    chunk: RawChunk,
    context: U32,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct RawExtent {
    length: U32,
    flags: U32,
}

/// Zeroes for clients that cannot be told of a hole.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

impl Transmission {
    pub(super) fn reply_ok(&mut self, outbox: &mut Outbox, ticket: Ticket) {
        let read = ticket.code == CommandCode::Read;
        if ticket.code == CommandCode::BlockStatus || (read && ticket.length > 0) {
            return self.reply_error(outbox, ticket, Errno::Io, "the server had no data to send");
        }
        if self.agreed.structured && read {
            outbox.header(&done(ChunkKind::None, ticket.cookie, 0));
        } else {
            outbox.header(&simple(ticket.cookie, None));
        }
        self.flow.answer(ticket);
    }

    pub(super) fn reply_data(&mut self, outbox: &mut Outbox, ticket: Ticket, data: Bytes) {
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        if ticket.code != CommandCode::Read || ticket.length != length || length == 0 {
            return self.reply_pieces(outbox, ticket, vec![Piece::Data(data)]);
        }
        self.content_header(outbox, &ticket);
        outbox.payload(data);
        self.flow.answer(ticket);
    }

    pub(super) fn reply_pieces(
        &mut self,
        outbox: &mut Outbox,
        ticket: Ticket,
        mut pieces: Vec<Piece>,
    ) {
        pieces.retain(|piece| piece.length() > 0);
        let total = pieces
            .iter()
            .fold(0_u64, |sum, piece| sum.saturating_add(piece.length()));
        if ticket.code != CommandCode::Read || total != u64::from(ticket.length) {
            let message = format!("the server read {total} bytes instead of {}", ticket.length);
            return self.reply_error(outbox, ticket, Errno::Io, &message);
        }
        if total == 0 {
            return self.reply_ok(outbox, ticket);
        }
        if self.agreed.structured && !ticket.flags.contains(CommandFlags::DF) {
            chunks(outbox, &ticket, pieces);
        } else {
            self.content_header(outbox, &ticket);
            for piece in pieces {
                put_whole(outbox, piece);
            }
        }
        self.flow.answer(ticket);
    }

    /// What precedes the data of a read that is sent in one piece.
    fn content_header(&self, outbox: &mut Outbox, ticket: &Ticket) {
        let (cookie, offset, length) = (ticket.cookie, ticket.offset, ticket.length);
        if self.agreed.structured {
            outbox.header(&data_chunk(cookie, ChunkFlags::DONE, offset, length));
        } else {
            outbox.header(&simple(cookie, None));
        }
    }

    pub(super) fn reply_error(
        &mut self,
        outbox: &mut Outbox,
        ticket: Ticket,
        errno: Errno,
        message: &str,
    ) {
        let (cookie, flags) = (ticket.cookie, ticket.flags);
        self.flow.answer(ticket);
        // ENOTSUP has a meaning for fast zeroes only.
        let misplaced = errno == Errno::NotSup && !flags.contains(CommandFlags::FAST_ZERO);
        let errno = if misplaced { Errno::Inval } else { errno };
        if !self.agreed.structured {
            outbox.header(&simple(cookie, Some(errno)));
            return;
        }
        let text = bounded(message);
        let text_length = u16::try_from(text.len()).expect("bounded to 4096 bytes");
        let length = u32::from(text_length).saturating_add(6);
        outbox.header(&ErrorChunk {
            chunk: done(ChunkKind::Error, cookie, length),
            error: errno.value().into(),
            text_length: text_length.into(),
        });
        outbox.bytes(text.as_bytes());
    }

    pub(super) fn reply_block_status(
        &mut self,
        outbox: &mut Outbox,
        ticket: Ticket,
        contexts: &[ContextExtents],
        most: usize,
    ) {
        if ticket.code != CommandCode::BlockStatus {
            return self.reply_error(outbox, ticket, Errno::Io, "this was no block status");
        }
        let most = if ticket.flags.contains(CommandFlags::REQ_ONE) {
            1
        } else {
            most
        };
        let mut left = self.agreed.contexts.iter().count();
        for context in self.agreed.contexts.iter() {
            left = left.saturating_sub(1);
            let flags = if left == 0 {
                ChunkFlags::DONE
            } else {
                ChunkFlags::NONE
            };
            let extents = contexts
                .iter()
                .find(|answer| answer.context == context)
                .map_or(&[][..], |answer| &answer.extents);
            status_chunk(
                outbox,
                &ticket,
                flags,
                context,
                &clip(extents, ticket.length, most),
            );
        }
        self.flow.answer(ticket);
    }
}

fn simple(cookie: Cookie, error: Option<Errno>) -> impl IntoBytes + Immutable {
    SimpleReply { cookie, error }.encode()
}

/// The header of a chunk that ends its reply.
fn done(kind: ChunkKind, cookie: Cookie, length: u32) -> RawChunk {
    chunk(kind, cookie, ChunkFlags::DONE, length)
}

fn chunk(kind: ChunkKind, cookie: Cookie, flags: ChunkFlags, length: u32) -> RawChunk {
    ChunkHeader {
        flags,
        kind,
        cookie,
        length,
    }
    .raw()
}

fn data_chunk(cookie: Cookie, flags: ChunkFlags, offset: u64, length: u32) -> DataChunk {
    // A payload is at most 32 MiB: the sum fits.
    let length = length.saturating_add(8);
    DataChunk {
        chunk: chunk(ChunkKind::OffsetData, cookie, flags, length),
        offset: offset.into(),
    }
}

/// One chunk for each piece; the last ends the reply.
fn chunks(outbox: &mut Outbox, ticket: &Ticket, pieces: Vec<Piece>) {
    let mut offset = ticket.offset;
    let mut left = pieces.len();
    for piece in pieces {
        left = left.saturating_sub(1);
        let flags = if left == 0 {
            ChunkFlags::DONE
        } else {
            ChunkFlags::NONE
        };
        let length = u32::try_from(piece.length()).expect("no longer than the request");
        match piece {
            Piece::Data(data) => {
                outbox.header(&data_chunk(ticket.cookie, flags, offset, length));
                outbox.payload(data);
            }
            Piece::Zeroes(_) => outbox.header(&HoleChunk {
                chunk: chunk(ChunkKind::OffsetHole, ticket.cookie, flags, 12),
                offset: offset.into(),
                length: length.into(),
            }),
        }
        offset = offset.saturating_add(u64::from(length));
    }
}

/// The bytes of a piece, zeroes written out.
fn put_whole(outbox: &mut Outbox, piece: Piece) {
    let mut left = match piece {
        Piece::Data(data) => return outbox.payload(data),
        Piece::Zeroes(length) => usize::try_from(length).expect("no longer than the request"),
    };
    while let Some(zeroes) = ZEROES.get(..left.min(ZEROES.len()))
        && left > 0
    {
        outbox.payload(Bytes::from_static(zeroes));
        left = left.saturating_sub(zeroes.len());
    }
}

fn status_chunk(
    outbox: &mut Outbox,
    ticket: &Ticket,
    flags: ChunkFlags,
    context: MetaContext,
    extents: &[Extent],
) {
    let raw: Vec<RawExtent> = extents
        .iter()
        .map(|extent| RawExtent {
            length: u32::try_from(extent.length)
                .expect("clipped to the request")
                .into(),
            flags: extent.flags.into(),
        })
        .collect();
    let raw = raw.as_slice().as_bytes();
    let length = u32::try_from(raw.len()).expect("bounded by Limits::extents");
    outbox.header(&StatusChunk {
        chunk: chunk(
            ChunkKind::BlockStatus,
            ticket.cookie,
            flags,
            length.saturating_add(4),
        ),
        context: context.id().into(),
    });
    outbox.payload(Bytes::copy_from_slice(raw));
}
