//! The block layer: nodes, the edges between them and the requests that travel along the edges.
//!
//! Pure: no I/O, no clock, no runtime. `drivers` supplies nodes that reach real media, `sim`
//! supplies simulated ones, `engine` puts them together.

#![forbid(unsafe_code)]

mod error;
mod range;

pub use error::{Error, ErrorKind, Op};
pub use range::{ByteRange, align_down};
