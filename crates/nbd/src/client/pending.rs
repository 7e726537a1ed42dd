//! Requests in flight, and what has arrived of their replies.

use super::Reply;
use crate::Errno;
use crate::wire::{
    ChunkFlags, ChunkHeader, ChunkKind, CommandCode, CommandFlags, ContextExtents, Cookie,
    Malformed, RequestHeader,
};
use block::ByteRange;
use bytes::{Bytes, BytesMut};
use slab::Slab;
use std::collections::BTreeMap;

/// All requests in flight on one connection.
#[derive(Default)]
pub(super) struct Table {
    slots: Slab<Pending>,
    /// Numbers the requests, so that a late reply is never taken for one of another request.
    serial: u64,
    bytes: u64,
}

/// A request in flight.
pub(super) struct Pending {
    pub(super) header: RequestHeader,
    /// Chunks seen so far.
    pub(super) chunks: u64,
    /// The first error the server reported.
    pub(super) error: Option<(Errno, String)>,
    pub(super) read: Assembly,
    pub(super) status: Vec<ContextExtents>,
}

/// A cookie is the serial number and, in the lowest bits, the slot.
const SLOT_BITS: u32 = 16;

impl Table {
    /// Most requests a cookie can tell apart.
    pub(super) const MOST: usize = 1 << SLOT_BITS;

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Payload bytes of all requests.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes a request; its cookie is chosen here.
    pub(super) fn insert(&mut self, header: RequestHeader) -> RequestHeader {
        self.serial = self.serial.wrapping_add(1);
        let slot = self.slots.vacant_entry();
        let key = u64::try_from(slot.key()).expect("bounded by MOST");
        let cookie = Cookie(self.serial << SLOT_BITS | key);
        let header = RequestHeader { cookie, ..header };
        self.bytes = self.bytes.saturating_add(payload(&header));
        slot.insert(Pending {
            header,
            chunks: 0,
            error: None,
            read: Assembly::Nothing,
            status: Vec::new(),
        });
        header
    }

    /// The request a reply names.
    pub(super) fn get(&mut self, cookie: Cookie) -> Result<&mut Pending, Malformed> {
        self.slots
            .get_mut(slot(cookie))
            .filter(|pending| pending.header.cookie == cookie)
            .ok_or(Malformed("a reply names a request that is not in flight"))
    }

    /// Ends a request that [`Table::get`] has found.
    pub(super) fn remove(&mut self, cookie: Cookie) -> Result<Pending, Malformed> {
        self.get(cookie)?;
        let pending = self.slots.remove(slot(cookie));
        self.bytes = self.bytes.saturating_sub(payload(&pending.header));
        Ok(pending)
    }

    /// All of them, the newest first.
    pub(super) fn cookies(&self) -> Vec<Cookie> {
        let mut cookies: Vec<Cookie> = self
            .slots
            .iter()
            .map(|(_, pending)| pending.header.cookie)
            .collect();
        cookies.sort_unstable_by(|a, b| b.cmp(a));
        cookies
    }
}

fn slot(cookie: Cookie) -> usize {
    usize::try_from(cookie.0 & ((1 << SLOT_BITS) - 1)).unwrap_or(usize::MAX)
}

/// Bytes the request makes this side hold.
pub(super) fn payload(header: &RequestHeader) -> u64 {
    match header.command {
        CommandCode::Read | CommandCode::Write => u64::from(header.length),
        CommandCode::Disc
        | CommandCode::Flush
        | CommandCode::Trim
        | CommandCode::Cache
        | CommandCode::WriteZeroes
        | CommandCode::BlockStatus
        | CommandCode::Unknown(_) => 0,
    }
}

impl Pending {
    pub(super) fn range(&self) -> ByteRange {
        let RequestHeader { offset, length, .. } = self.header;
        ByteRange::between(offset, offset.saturating_add(u64::from(length)))
    }

    /// Counts a chunk. A server should cut at multiples of 512 bytes (NBD protocol, "Request
    /// types"); twice as many chunks as that allows are too many.
    pub(super) fn count_chunk(&mut self) -> Result<(), Malformed> {
        self.chunks = self.chunks.saturating_add(1);
        let most = payload(&self.header) / 256;
        if self.chunks > most.saturating_add(64) {
            return Err(Malformed("a reply consists of too many chunks"));
        }
        Ok(())
    }
}

/// What its reply must fulfil.
impl Pending {
    /// Whether a chunk without data fits, before its payload is waited for.
    pub(super) fn check_control(&self, header: &ChunkHeader) -> Result<(), Malformed> {
        let is = |command| self.header.command == command;
        let req_one = self.header.flags.contains(CommandFlags::REQ_ONE);
        let last = header.flags.contains(ChunkFlags::DONE);
        let (fits, most) = match header.kind {
            ChunkKind::None => (last, 0),
            ChunkKind::OffsetHole => (is(CommandCode::Read), 12),
            ChunkKind::BlockStatus if req_one => (is(CommandCode::BlockStatus), 4 + 8),
            ChunkKind::BlockStatus => (is(CommandCode::BlockStatus), 4 + (8 << 20)),
            ChunkKind::Error => (true, 6 + 4096),
            ChunkKind::ErrorOffset => (true, 6 + 4096 + 8),
            ChunkKind::UnknownError(_) => (true, 64 << 10),
            ChunkKind::OffsetData => (false, 0),
        };
        match (fits, header.length <= most) {
            (false, _) => Err(Malformed("a chunk's type or flags do not fit its request")),
            (true, false) => Err(Malformed("a chunk is longer than its type allows")),
            (true, true) => Ok(()),
        }
    }

    /// How many bytes of data a data chunk carries, before its payload is waited for.
    pub(super) fn data_length(&self, header: &ChunkHeader) -> Result<u64, Malformed> {
        if self.header.command != CommandCode::Read {
            return Err(Malformed("a chunk's type or flags do not fit its request"));
        }
        match header.length.checked_sub(8) {
            None | Some(0) => Err(Malformed("a data chunk has at least one byte")),
            Some(length) => Ok(u64::from(length)),
        }
    }

    /// The range at `offset`, if it lies in the request.
    pub(super) fn inside(&self, offset: u64, length: u64) -> Result<ByteRange, Malformed> {
        ByteRange::new(offset, length)
            .filter(|range| self.range().contains(*range))
            .ok_or(Malformed("a chunk reaches beyond its request"))
    }

    /// What the request returns, if all of it has arrived and there was no error.
    pub(super) fn reply(&mut self, contexts: usize) -> Result<Reply, Malformed> {
        let request = self.range();
        match self.header.command {
            CommandCode::Read => {
                let data = std::mem::replace(&mut self.read, Assembly::Nothing);
                Ok(Reply::Data(data.finish(request)?))
            }
            CommandCode::BlockStatus if self.status.len() == contexts => {
                Ok(Reply::BlockStatus(std::mem::take(&mut self.status)))
            }
            CommandCode::BlockStatus => Err(Malformed("a block status lacks a context")),
            CommandCode::Write
            | CommandCode::Disc
            | CommandCode::Flush
            | CommandCode::Trim
            | CommandCode::Cache
            | CommandCode::WriteZeroes
            | CommandCode::Unknown(_) => Ok(Reply::Done),
        }
    }
}

/// The data of a read, as far as it has arrived.
pub(super) enum Assembly {
    Nothing,
    /// All, in one piece.
    Whole(Bytes),
    /// Pieces.
    Parts(Parts),
}

/// Pieces of a read's data. What is a hole or missing is zero.
pub(super) struct Parts {
    buffer: BytesMut,
    /// What has arrived: start and end of each run, relative to the request; joined.
    runs: BTreeMap<u64, u64>,
}

impl Assembly {
    /// Adds `data`, or zeroes, at `range` of the request.
    pub(super) fn put(
        &mut self,
        request: ByteRange,
        range: ByteRange,
        data: Option<Bytes>,
    ) -> Result<(), Malformed> {
        match (&mut *self, data) {
            (Assembly::Nothing, Some(data)) if range == request => {
                *self = Assembly::Whole(data);
                Ok(())
            }
            (Assembly::Nothing, data) => {
                let length = usize::try_from(request.length()).expect("bounded by the maximum");
                let mut parts = Parts {
                    buffer: BytesMut::zeroed(length),
                    runs: BTreeMap::new(),
                };
                let put = parts.put(request, range, data);
                *self = Assembly::Parts(parts);
                put
            }
            (Assembly::Whole(_), _) => Err(OVERLAP),
            (Assembly::Parts(parts), data) => parts.put(request, range, data),
        }
    }

    /// The data, if every byte has arrived.
    pub(super) fn finish(self, request: ByteRange) -> Result<Bytes, Malformed> {
        match self {
            Assembly::Whole(data) => Ok(data),
            Assembly::Parts(parts) if parts.runs.get(&0) == Some(&request.length()) => {
                Ok(parts.buffer.freeze())
            }
            Assembly::Nothing | Assembly::Parts(_) => {
                Err(Malformed("a read succeeds without all of its data"))
            }
        }
    }
}

const OVERLAP: Malformed = Malformed("two chunks of a read overlap");

impl Parts {
    fn put(
        &mut self,
        request: ByteRange,
        range: ByteRange,
        data: Option<Bytes>,
    ) -> Result<(), Malformed> {
        let start = range.offset().saturating_sub(request.offset());
        let end = start.saturating_add(range.length());
        self.cover(start, end)?;
        if let Some(data) = data {
            let (start, end) = (usize::try_from(start), usize::try_from(end));
            let target = start
                .ok()
                .zip(end.ok())
                .and_then(|(s, e)| self.buffer.get_mut(s..e));
            target
                .filter(|target| target.len() == data.len())
                .expect("the range lies in the request and is as long as the data")
                .copy_from_slice(&data);
        }
        Ok(())
    }

    /// Adds a run, joined with its neighbours.
    fn cover(&mut self, mut start: u64, mut end: u64) -> Result<(), Malformed> {
        if let Some((&before, &before_end)) = self.runs.range(..end).next_back() {
            if before_end > start {
                return Err(OVERLAP);
            }
            if before_end == start {
                start = before;
            }
        }
        if let Some(after_end) = self.runs.remove(&end) {
            end = after_end;
        }
        self.runs.insert(start, end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, end: u64) -> (ByteRange, Option<Bytes>) {
        let length = usize::try_from(end - start).unwrap();
        (
            ByteRange::between(start, end),
            Some(Bytes::from(vec![b'x'; length])),
        )
    }

    fn assemble(pieces: &[(u64, u64)]) -> Result<Bytes, Malformed> {
        let request = ByteRange::between(100, 110);
        let mut assembly = Assembly::Nothing;
        for (start, end) in pieces {
            let (range, data) = piece(*start, *end);
            assembly.put(request, range, data)?;
        }
        assembly.finish(request)
    }

    #[test]
    fn pieces_may_come_in_any_order() {
        assert_eq!(assemble(&[(100, 110)]).unwrap(), "xxxxxxxxxx");
        assert_eq!(
            assemble(&[(105, 110), (100, 103), (103, 105)]).unwrap(),
            "xxxxxxxxxx"
        );
    }

    #[test]
    fn a_gap_or_an_overlap_is_never_success() {
        let gap = Malformed("a read succeeds without all of its data");
        for pieces in [
            &[][..],
            &[(100, 109)],
            &[(101, 110)],
            &[(100, 104), (105, 110)],
        ] {
            assert_eq!(assemble(pieces), Err(gap), "{pieces:?}");
        }
        for pieces in [
            &[(100, 110), (100, 110)][..],
            &[(100, 105), (104, 110)],
            &[(104, 110), (100, 105)],
            &[(100, 102), (108, 110), (101, 109)],
            &[(100, 102), (104, 106), (100, 110)],
        ] {
            assert_eq!(assemble(pieces), Err(OVERLAP), "{pieces:?}");
        }
    }
}
