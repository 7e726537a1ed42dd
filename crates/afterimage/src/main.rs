//! The `afterimage` binary: flags and verbs in, a running daemon or one answer out.

fn main() {}
