//! QEMU's machine protocol (QMP) as afterimage speaks it, and the flag syntax of its storage daemon.
//!
//! ```text
//! bytes ─▶ framing ─▶ session ─▶ command ─▶ (the daemon) ─▶ reply, event ─▶ json ─▶ bytes
//!                                   │ check
//! flags ─▶ keyval ──────────────────┴──▶ types ◀── define ──▶ shape ──▶ schema
//! ```
//!
//! Every type of the wire is declared once; the checks of what arrives and `query-qmp-schema`
//! follow from the declaration.
//!
//! Pure: no I/O, no clock, no runtime, and no knowledge of the block layer. Bytes and option
//! strings go in, typed commands come out; typed replies and events go in, bytes come out.

#![forbid(unsafe_code)]

pub mod event;
pub mod flags;
pub mod framing;
pub mod hmp;
pub mod keyval;
pub mod session;
pub mod types;

mod check;
mod command;
mod define;
mod error;
mod json;
mod limit;
mod schema;
mod shape;
mod size;

pub use command::Command;
pub use error::{Error, ErrorClass};
pub use event::Event;
pub use limit::EventLimiter;
pub use session::Session;
pub use shape::Size;
pub use types::Timestamp;
