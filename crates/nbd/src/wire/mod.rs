//! Every message of the protocol as a type that cannot be wrong.
//!
//! ```text
//!   client ─▶ server                          server ─▶ client
//!   ClientHello       4 bytes                 ServerHello        18 bytes
//!   OptionHeader     16 bytes + OptionRequest ReplyHeader        20 bytes + OptionReply
//!                                             ExportNameReply    10 or 134 bytes
//!   RequestHeader    28 bytes + payload       SimpleReply        16 bytes + payload
//!                                             ChunkHeader        20 bytes + Chunk
//! ```
//!
//! All numbers are big-endian. A header is parsed from an array of its length, so there is no
//! "too short"; a body from a slice whose length the header announced and the session bounded.
//! `Debug` prints a message on one line: a packet log for free.
//!
//! Source: NBD protocol, "Protocol phases" and "Values".

mod context;
mod flags;
mod hello;
mod option;
mod reply;
mod request;
mod response;
mod text;

#[cfg(test)]
mod tests;

pub use context::{ContextQuery, ContextSet, MetaContext};
pub use flags::{
    ChunkFlags, ClientFlags, CommandFlags, HandshakeFlags, StatusFlags, TransmissionFlags,
};
pub use hello::{ClientHello, ExportNameReply, ServerHello};
pub use option::{InfoKind, InfoRequest, MetaRequest, OptionCode, OptionHeader, OptionRequest};
pub use reply::{BlockSizes, Info, OptionReply, RepError, ReplyHeader};
pub use request::{CommandCode, Cookie, RequestHeader};
pub use response::{
    Chunk, ChunkHeader, ChunkKind, ContextExtents, Extent, ReplyMagic, SimpleReply,
};
pub use text::{ExportName, MAX_STRING, display_text};

pub(crate) use reply::bounded;
pub(crate) use response::RawChunk;

/// A message that breaks the protocol; the text says what would be right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// The rest of a body that is being parsed from its start.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(SHORT)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(SHORT)?;
        self.0 = tail;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A length of 32 bits and as many bytes.
    fn sized(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| SHORT)?)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed("the message is longer than its fields"))
        }
    }
}

const SHORT: Malformed = Malformed("the message is shorter than its fields");
