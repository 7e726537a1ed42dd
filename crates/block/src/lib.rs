//! The block layer: nodes, the edges between them and the requests that travel along the edges.
//!
//! ```text
//! Root (export, job) ─▶ Child ─▶ Node ─▶ Driver ─▶ Child ─▶ Node ─▶ Driver ─▶ medium
//!   Gate: admission      edge     rules    behaviour
//! ```
//!
//! Pure: no I/O, no clock, no runtime. `drivers` supplies nodes that reach real media, `sim`
//! supplies simulated ones, `engine` puts them together. Everything here lives on one thread.

#![forbid(unsafe_code)]

mod range;

mod request;

mod error;

mod buffer;
mod driver;
mod permissions;

mod block_map;
mod child;
pub mod copy_plan;
mod gate;
mod node;
mod range_lock;
mod root;

pub mod graph;

pub use block_map::BlockMap;
pub use buffer::{BUFFER_ALIGNMENT, Buffer, is_zero, zeroes};
pub use child::Child;
pub use copy_plan::CopyPlan;
pub use driver::{
    Answer, Capabilities, CopyBeforeWrite, Driver, DynamicChildren, ImageLocks, Limits, MakeEmpty,
    OverlayStage, OverlayState, PunchHole, ReplicationFilter, Resize, Yank,
    default_child_permissions,
};
pub use error::{Error, ErrorKind, Op};
pub use gate::{Gate, Hold, Pass};
pub use graph::{Edge, Edit, Graph, Owner, Parent};
pub use node::{DetectZeroes, Node, NodeOptions};
pub use permissions::{ChildRole, Permissions, Shares};
pub use range::{ByteRange, align_down};
pub use range_lock::{Acquire, LockKind, RangeGuard, RangeLock};
pub use request::{Extent, WriteFlags, ZeroFlags, coalesce};
pub use root::Root;
