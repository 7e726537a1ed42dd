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
