//! The first error of a filter: what `query-xen-replication-status` says.
//!
//! One error is kept, the first, because later ones are mostly its consequences. It is cleared by
//! a start, a stop, a failover and a commit that ends well; when, stands in the stage table.
//!
//! Source: `docs/spec/replication.md`, section "Errors".

use crate::stage::{ErrorChange, Stage};
use block::{Error, Op};
use std::fmt;
use std::time::Duration;

/// A failure as it is shown to operators: disk, operation, offset and cause.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The node that failed.
    pub node: String,
    /// What it was asked, where that is known.
    pub operation: Option<Op>,
    /// First byte of the request, where that is known.
    pub offset: Option<u64>,
    /// The error number.
    pub errno: i32,
    /// The whole error in words.
    pub message: String,
    /// When, as time since 1970 (for display only).
    pub at: Duration,
}

impl Failure {
    /// What `error` says; `node` is named where the error names none.
    pub fn new(error: &Error, node: &str, at: Duration) -> Failure {
        Failure {
            node: error.node().unwrap_or(node).to_string(),
            operation: error.op(),
            offset: error.range().map(block::ByteRange::offset),
            errno: error.errno(),
            message: error.to_string(),
            at,
        }
    }
}

/// The first failure since the last clearing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latch {
    first: Option<Failure>,
}

impl Latch {
    /// Keeps `failure`, unless one is kept already. Says whether it was kept.
    //= docs/spec/replication.md#errors
    //# The first error MUST be latched with disk, operation, offset, error number and cause, and
    //# later ones MUST NOT replace it.
    pub fn set(&mut self, failure: Failure) -> bool {
        let is_first = self.first.is_none();
        self.first.get_or_insert(failure);
        is_first
    }

    /// Does what a transition asks for; `failure` is what led to it, if anything did.
    pub fn change(&mut self, change: ErrorChange, failure: Option<Failure>) {
        match (change, failure) {
            (ErrorChange::Clear, _) => self.first = None,
            (ErrorChange::Latch, Some(failure)) => {
                self.set(failure);
            }
            (ErrorChange::Latch, None) | (ErrorChange::Keep, _) => {}
        }
    }

    /// The kept failure.
    pub fn first(&self) -> Option<&Failure> {
        self.first.as_ref()
    }

    /// What a filter in `stage` reports of itself.
    pub fn status(&self, stage: Stage) -> Status<'_> {
        match (stage, &self.first) {
            //= docs/spec/replication.md#errors
            //# The status of a filter that was not started MUST be the error that replication is
            //# not running.
            (Stage::NotStarted, _) => Status::NotRunning,
            (_, Some(failure)) => Status::Failed(failure),
            //= docs/spec/replication.md#errors
            //# The status of a filter that is in failover or done without a latched error MUST be
            //# no error.
            (_, None) => Status::Fine,
        }
    }
}

/// The health of one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<'a> {
    /// No error: replication runs, or has ended well.
    Fine,
    /// It has not been started. An error to those who ask, since nothing is protected.
    NotRunning,
    /// The first thing that went wrong.
    Failed(&'a Failure),
}

impl fmt::Display for Status<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Fine => f.write_str("no error"),
            Status::NotRunning => f.write_str("replication is not running"),
            Status::Failed(failure) => f.write_str(&failure.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block::ByteRange;

    fn failure(errno: i32) -> Failure {
        let error = Error::from_errno(errno, "").at("nbd0", Op::Write, ByteRange::between(512, 99));
        Failure::new(&error, "colo0", Duration::from_secs(1))
    }

    //= docs/spec/replication.md#errors
    //= type=test
    //# The first error MUST be latched with disk, operation, offset, error number and cause, and
    //# later ones MUST NOT replace it.
    #[test]
    fn the_first_error_stays_until_it_is_cleared() {
        let mut latch = Latch::default();
        assert!(latch.set(failure(28)));
        assert!(!latch.set(failure(5)));
        latch.change(ErrorChange::Keep, None);
        latch.change(ErrorChange::Latch, Some(failure(5)));
        assert_eq!(latch.first(), Some(&failure(28)));
        latch.change(ErrorChange::Clear, None);
        assert_eq!(latch.status(Stage::Running), Status::Fine);
    }

    #[test]
    fn status_names_disk_operation_offset_and_cause() {
        let mut latch = Latch::default();
        latch.set(failure(28));
        assert_eq!(
            latch.status(Stage::OutOfSync).to_string(),
            "write of 0 bytes at offset 512 on node 'nbd0': no space left on device"
        );
    }

    //= docs/spec/replication.md#errors
    //= type=test
    //# The status of a filter that was not started MUST be the error that replication is not
    //# running.
    #[test]
    fn a_filter_that_was_not_started_says_so_whatever_went_wrong() {
        let mut latch = Latch::default();
        latch.set(failure(5));
        assert_eq!(latch.status(Stage::NotStarted), Status::NotRunning);
    }
}
