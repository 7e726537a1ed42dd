//! Bytes that have arrived and are not parsed yet, kept in the chunks they were read in.
//!
//! A message that lies inside one chunk is handed out as a slice of it: no copy. Only what spans
//! chunks is copied together.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;

/// The unparsed part of the input.
#[derive(Default)]
pub(crate) struct Inbox {
    /// The chunk that is parsed now; empty only if `rest` is empty too.
    front: Bytes,
    rest: VecDeque<Bytes>,
    /// Bytes in all chunks together.
    length: usize,
}

impl Inbox {
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.length = self.length.saturating_add(chunk.len());
        if self.front.is_empty() {
            self.front = chunk;
        } else {
            self.rest.push_back(chunk);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn clear(&mut self) {
        *self = Inbox::default();
    }

    /// The next `N` bytes, if they are all there. Consumes nothing.
    pub(crate) fn peek<const N: usize>(&self) -> Option<[u8; N]> {
        if let Some(bytes) = self.front.first_chunk::<N>() {
            return Some(*bytes);
        }
        if self.length < N {
            return None;
        }
        let mut bytes = [0; N];
        self.copy_to(&mut bytes);
        Some(bytes)
    }

    /// Copies as much as there is to the start of `target`; says how much. Consumes nothing.
    pub(crate) fn copy_to(&self, target: &mut [u8]) -> usize {
        let mut copied = 0;
        for chunk in std::iter::once(&self.front).chain(&self.rest) {
            let Some(space) = target.get_mut(copied..) else {
                break;
            };
            let count = space.len().min(chunk.len());
            if let (Some(space), Some(bytes)) = (space.get_mut(..count), chunk.get(..count)) {
                space.copy_from_slice(bytes);
            }
            copied = copied.saturating_add(count);
        }
        copied
    }

    /// Removes and returns the next `count` bytes, if they are all there.
    pub(crate) fn take(&mut self, count: usize) -> Option<Bytes> {
        if self.length < count {
            return None;
        }
        if self.front.len() > count {
            self.length = self.length.saturating_sub(count);
            return Some(self.front.split_to(count));
        }
        if self.front.len() == count {
            self.length = self.length.saturating_sub(count);
            let next = self.rest.pop_front().unwrap_or_default();
            return Some(std::mem::replace(&mut self.front, next));
        }
        let mut joined = BytesMut::zeroed(count);
        self.copy_to(&mut joined);
        self.skip(count);
        Some(joined.freeze())
    }

    /// Drops the next `count` bytes, or all if there are fewer; says how many.
    pub(crate) fn skip(&mut self, count: usize) -> usize {
        let count = count.min(self.length);
        let mut left = count;
        while left > 0 {
            let step = left.min(self.front.len());
            self.front.advance(step);
            left = left.saturating_sub(step);
            if self.front.is_empty() {
                self.front = self.rest.pop_front().unwrap_or_default();
            }
        }
        self.length = self.length.saturating_sub(count);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(chunks: &[&'static [u8]]) -> Inbox {
        let mut inbox = Inbox::default();
        for chunk in chunks {
            inbox.push(Bytes::from_static(chunk));
        }
        inbox
    }

    #[test]
    fn what_lies_in_one_chunk_is_not_copied() {
        let chunk = Bytes::from(vec![7; 4096]);
        let mut inbox = Inbox::default();
        inbox.push(chunk.clone());
        inbox.skip(28);
        let payload = inbox.take(512).unwrap();
        assert_eq!(payload.as_ptr(), chunk[28..].as_ptr());
        let rest = inbox.take(4096 - 28 - 512).unwrap();
        assert_eq!(rest.as_ptr(), chunk[540..].as_ptr());
        assert_eq!(inbox.len(), 0);
    }

    #[test]
    fn what_spans_chunks_is_joined() {
        let mut inbox = inbox(&[b"ab", b"c", b"", b"def"]);
        assert_eq!(inbox.peek::<5>(), Some(*b"abcde"));
        assert_eq!(inbox.take(4).unwrap(), "abcd");
        assert_eq!(inbox.peek::<3>(), None);
        assert_eq!(inbox.skip(9), 2);
        assert_eq!(inbox.len(), 0);
        assert_eq!(inbox.take(1), None);
    }
}
