//! The `afterimage` binary: flags and verbs in, a running daemon or one answer out.

#![forbid(unsafe_code)]

fn main() {}
