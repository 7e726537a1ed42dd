//! What a session needs from the socket next, so that large payloads need not be copied.

/// What a session, of either side, needs from the socket next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Nothing: a bound is reached, an answer is due, or the connection is over.
    Nothing,
    /// Any bytes, given to `handle_bytes`.
    Bytes {
        /// It is of no use to read more than this at once: after a large payload the next is
        /// likely to be large too, and its start would only be copied.
        most: usize,
    },
    /// The rest of a large payload. The caller may take a buffer of `length` bytes, let
    /// `copy_payload` fill the first `received`, read the rest into it and give it to
    /// `handle_payload`. Or it may go on with `handle_bytes`.
    Payload {
        /// Length of the whole payload.
        length: usize,
        /// How much of it has arrived.
        received: usize,
    },
}

/// A payload of which at least this much is missing is read straight into the caller's buffer.
const DIRECT: usize = 32 << 10;

impl Want {
    pub(crate) const ANY: Want = Want::Bytes { most: usize::MAX };

    /// What to read when another large payload is likely to follow.
    pub(crate) const SHORT: Want = Want::Bytes { most: 4 << 10 };

    /// What to read for a payload of `length` bytes of which `received` have arrived.
    pub(crate) fn payload(length: usize, received: usize) -> Want {
        match length.saturating_sub(received) {
            0 => Want::Nothing,
            missing if missing >= DIRECT => Want::Payload { length, received },
            _ => Want::ANY,
        }
    }
}
