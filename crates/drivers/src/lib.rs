//! The drivers of the block graph, one file or folder each, and the ports they reach the world by.
//!
//! A driver's file is named as its `driver` string of `blockdev-add` (`-` written `_`). Only
//! `os` knows tokio, `io_uring`, sockets and files; the drivers know [`ports`].

#![deny(unsafe_code)]

pub mod event;
pub mod host;
pub mod os;
pub mod ports;

pub mod ai_overlay;
pub mod blkdebug;
pub mod copy_before_write;
pub mod file;
pub mod nbd;
pub mod null_co;
pub mod quorum;
pub mod raw;
pub mod replication;

#[cfg(test)]
mod testing;
