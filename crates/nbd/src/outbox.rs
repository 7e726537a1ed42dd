//! Bytes to be sent: small headers collected in one buffer, payloads passed on as they are.
//!
//! ```text
//!   header, header, header │ payload │ header │ payload │ …
//!   └──────── one ────────┘           one
//! ```
//!
//! Runs of headers without payload between them become one slice, so that thirty-two write
//! acknowledgements are one piece of one `writev`.

use bytes::{Bytes, BytesMut};
use zerocopy::{Immutable, IntoBytes};

/// Headers are cut from blocks of this size, which are reused once they have been sent.
const BLOCK: usize = 16 * 1024;

/// Output that has not been handed to the transport yet.
#[derive(Default)]
pub(crate) struct Outbox {
    parts: Vec<Bytes>,
    headers: BytesMut,
    /// Bytes in all of it together.
    length: usize,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Appends a small message or the fixed part of a larger one.
    pub(crate) fn header(&mut self, message: &(impl IntoBytes + Immutable)) {
        self.bytes(message.as_bytes());
    }

    /// Appends a copy of a few bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if self.headers.capacity().saturating_sub(self.headers.len()) < bytes.len() {
            self.headers.reserve(bytes.len().max(BLOCK));
        }
        self.headers.extend_from_slice(bytes);
        self.length = self.length.saturating_add(bytes.len());
    }

    /// Appends a payload without copying it.
    pub(crate) fn payload(&mut self, payload: Bytes) {
        if payload.is_empty() {
            return;
        }
        self.cut();
        self.length = self.length.saturating_add(payload.len());
        self.parts.push(payload);
    }

    /// Moves everything to the end of `parts`; says whether there was anything.
    pub(crate) fn drain_into(&mut self, parts: &mut Vec<Bytes>) -> bool {
        self.cut();
        let any = !self.parts.is_empty();
        parts.append(&mut self.parts);
        self.length = 0;
        any
    }

    /// Ends the current run of headers.
    fn cut(&mut self) {
        if !self.headers.is_empty() {
            self.parts.push(self.headers.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_headers_become_one_part() {
        let mut outbox = Outbox::default();
        outbox.bytes(b"ab");
        outbox.bytes(b"cd");
        outbox.payload(Bytes::from_static(b"data"));
        outbox.payload(Bytes::new());
        outbox.bytes(b"ef");
        assert_eq!(outbox.len(), 10);
        let mut parts = Vec::new();
        assert!(outbox.drain_into(&mut parts));
        assert_eq!(parts, ["abcd", "data", "ef"]);
        assert!(outbox.is_empty());
        assert!(!outbox.drain_into(&mut parts));
    }
}
