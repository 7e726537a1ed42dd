//! A world in which the real drivers and the real engine run: disks that lose power, a network
//! that loses connections, a clock nobody waits for, all decided by one seed; and the model that
//! judges what they do there.
//!
//! ```text
//!   script or seed ──▶ world: hosts, clients, faults
//!                        │ requests          ▲ answers
//!                        ▼                   │
//!        engine + drivers on simulated `Ports`      model: what each answer may be
//! ```
//!
//! Dev only: nothing depends on it, tests that use it live in its `tests`.

#![forbid(unsafe_code)]

pub mod rng;

pub mod executor;

pub mod disk;
pub mod medium;

pub mod network;

pub mod model;

pub mod layout;
pub mod script;

pub mod world;

pub mod run;

pub mod minimise;
pub mod random;

pub mod monitor;
pub mod pair;
pub mod play;
