//! The engine: graphs, exports, replication and jobs of one data thread, behind QMP's commands.
//!
//! ```text
//! let engine = Engine::new(drivers::os::ports(), Options::default());
//! engine.execute(command).await      → the command's return, or its error
//! engine.subscribe().next().await    → what happened (events)
//! engine.start_nbd_server(options)   → `--nbd-server`; `--blockdev` and `--export` are commands
//! engine.attach(user, node, shares)  → a root of one's own, to read and write through
//! engine.quit_requested().await      → `quit` was asked for: then
//! engine.shut_down(cause).await      → everything ended in order
//! ```
//!
//! An engine lives on one thread: clones share it, nothing is `Send`. What it needs of the world are
//! [`drivers::ports`]; the same engine runs on the host and in a simulation.
//!
//! Commands that change something are carried out one at a time. A change of the graph is made in a
//! drained section: admission of every user above the nodes is held, what is in flight ends, the
//! change is made as a whole or not at all. Every wait is bounded ([`Options`]).

#![forbid(unsafe_code)]

mod options;

mod engine;

mod commands;

mod nodes;

pub mod exports;

mod replication;

mod jobs;

mod shutdown;

pub mod drain;
mod edits;
mod turns;

mod events;
mod words;

/// The layers below, for those who build on the engine alone.
pub use {block, drivers::os, drivers::ports, qmp};

pub use engine::Engine;
pub use events::{Events, Subscription};
pub use options::Options;
