//! The engine on the host's own files and sockets, driven as a daemon is: by commands.

// All of it is test code, helpers included: `unwrap` and indexing are at home here.
#[cfg(test)]
mod exports;
#[cfg(test)]
mod failover;
#[cfg(test)]
mod filter;
#[cfg(test)]
mod graph;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod peer_cases;
#[cfg(test)]
mod replication;
#[cfg(test)]
mod stages;
#[cfg(test)]
mod support;
