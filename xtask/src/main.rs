//! `cargo xtask`: the workspace's own checks, tests and benchmarks.

fn main() {}
