//! The NBD protocol: wire types, a server session, a client session.
//!
//! ```text
//!   wire      bytes ⇄ types that cannot be wrong; nothing else sees raw fields
//!   server    one connection of an export's client: handshake, then requests in, replies out
//!   client    one connection to somebody else's export: the same from the other side
//!   uri       nbd://host/export and its relatives → an address
//! ```
//!
//! Both sessions are sans-IO and have four families of methods: getters, `handle_*` (what has
//! happened: bytes, end of stream, time), commands (replies on the server, requests on the
//! client) and `poll_*` (work for the caller: events, bytes to send, what to read next, the next
//! deadline). Time is an argument: a [`std::time::Duration`] since any fixed instant.
//!
//! Pure: no sockets, no clock, no runtime. `engine` drives the server, `drivers` the client.
//!
//! Source: the NBD project's protocol document, `doc/proto.md`, cited below as "NBD protocol"
//! with the title of the section.

#![forbid(unsafe_code)]

mod check;
pub mod client;
mod errno;
mod extents;
mod inbox;
mod outbox;
#[cfg(test)]
mod pair;
pub mod server;
#[cfg(test)]
mod testing;
pub mod uri;
mod want;
pub mod wire;

pub use errno::Errno;
pub use want::Want;
