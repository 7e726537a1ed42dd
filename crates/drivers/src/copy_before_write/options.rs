//! Options of copy-before-write, by their names in `blockdev-add`.

use std::time::Duration;

/// What a failed copy breaks (`on-cbw-error`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnCopyError {
    /// The write fails; the old view stays whole.
    #[default]
    BreakGuestWrite,
    /// The write goes on; the old view is lost.
    BreakSnapshot,
}

/// Options of the filter.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Its `node-name`, for errors.
    pub node: String,
    /// `on-cbw-error`.
    pub on_error: OnCopyError,
    /// `cbw-timeout`: how long a write waits for its copies; zero is for ever.
    pub timeout: Duration,
    /// `min-cluster-size` in bytes; zero leaves it to the target.
    pub min_cluster: u64,
}
