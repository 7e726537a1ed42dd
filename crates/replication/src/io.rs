//! Which way a request goes, by side and stage.
//!
//! ```text
//! guest ─▶ filter ─▶ active ─▶ hidden ─▶ secondary disk ◀─ copy-before-write ◀─ peer's writes
//!          path()                                          peer_path()
//! ```
//!
//! Discard contract: while the overlays are in place a discard travels as zeroes. What active merely
//! dropped would let older data of the layers below show again.
//!
//! Source: `docs/spec/replication.md`, section "Requests".

use crate::stage::{Role, Stage};

/// A request to a replication filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read data.
    Read,
    /// Write data.
    Write,
    /// Make a range read as zeroes.
    WriteZeroes,
    /// Say that a range is not needed any more.
    Discard,
    /// Make earlier writes durable.
    Flush,
    /// Ask which parts of a range are allocated.
    BlockStatus,
}

/// Where a filter sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Nowhere: it fails with EIO.
    Fail,
    /// To the peer. What the caller is told if that fails stands with it; the filter is told
    /// [`Input::ForwardLost`](crate::Input::ForwardLost) in either case.
    Forward(OnLoss),
    /// Nowhere: it succeeds without effect.
    Drop,
    /// To the active disk; what it does not have comes from the layers below.
    Active,
    /// To the active disk, and where [`Commit`](crate::Commit) says so to the secondary disk too.
    Commit,
    /// To the active disk where active or hidden have the block, else to the secondary disk: see
    /// [`Split`](crate::Split).
    Split,
    /// To the active disk and to the secondary disk, both.
    Both,
    /// To the `file` child, whatever that is now.
    File,
}

/// What a caller is told when a request could not be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    /// That it succeeded.
    Swallow,
    /// The error.
    Report,
}

/// Where a filter of `role` in `stage` sends `request`.
pub fn path(role: Role, stage: Stage, request: Request) -> Path {
    match role {
        Role::Primary => primary(stage, request),
        Role::Secondary => secondary(stage, request),
    }
}

fn primary(stage: Stage, request: Request) -> Path {
    use Request as R;

    match (stage, request) {
        //= docs/spec/replication.md#requests
        //# A primary MUST fail every read with EIO, in every stage.
        // The local child answers reads; a read that comes here has lost its way.
        (_, R::Read) => Path::Fail,
        //= docs/spec/replication.md#requests
        //# A running primary MUST forward writes, zeroes and discards to its child, each as what it
        //# is.
        (Stage::Running, R::Write | R::WriteZeroes | R::Discard) => Path::Forward(OnLoss::Swallow),
        (Stage::Running, R::Flush) => Path::Forward(OnLoss::Report),
        // After a lost write nothing is sent: what came later would tear the replica.
        (Stage::OutOfSync, R::Write | R::WriteZeroes | R::Discard) => Path::Drop,
        (Stage::OutOfSync, R::BlockStatus) => Path::Fail,
        //= docs/spec/replication.md#requests
        //# A primary that is not running, and one that has been stopped, MUST fail writes with EIO
        //# and send nothing.
        (_, R::Write | R::WriteZeroes | R::Discard) => Path::Fail,
        // Nothing of this stage waits to be made durable over there.
        (_, R::Flush) => Path::Drop,
        (_, R::BlockStatus) => Path::File,
    }
}

fn secondary(stage: Stage, request: Request) -> Path {
    use Request as R;
    use Stage as S;

    match (stage, request) {
        (_, R::BlockStatus) => Path::File,
        //= docs/spec/replication.md#requests
        //# After replication has ended a secondary MUST pass every request to its `file` child.
        (S::NotStarted, R::Flush) | (S::Done, _) => Path::File,
        //= docs/spec/replication.md#requests
        //# Before start every read, write, zero and discard through the filter MUST fail with EIO,
        //# in both modes.
        (S::NotStarted, _) => Path::Fail,
        (_, R::Read) => Path::Active,
        (S::Running | S::OutOfSync | S::Unprotected, _) => Path::Active,
        (S::Failover, R::Write | R::WriteZeroes | R::Discard) => Path::Commit,
        (S::FailoverFailed, R::Write | R::WriteZeroes | R::Discard) => Path::Split,
        //= docs/spec/replication.md#commit
        //# A flush during FAILOVER or FAILOVER_FAILED MUST make both the active and the secondary
        //# disk durable.
        // Writes went to both: a flush that reached one of them would promise too much.
        (S::Failover | S::FailoverFailed, R::Flush) => Path::Both,
    }
}

/// What happens to a write, zero or discard that the peer sends to the secondary disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerPath {
    /// It is carried out; nobody depends on the old data.
    Direct,
    /// The old data is saved in hidden first.
    CopyFirst,
    /// It fails with EIO and changes nothing.
    Refuse,
}

/// What a secondary in `stage` does with the peer's writes.
///
/// After a failover the secondary disk's writable exports are closed as well, and stay refused
/// for as long as the filter exists; in [`Stage::Done`] that is all that stands in their way.
//= docs/spec/replication.md#losses
//# If copy-before-write ends unasked, the secondary MUST refuse the peer's writes with EIO and
//# refuse checkpoints; stop and failover stay allowed.
pub fn peer_path(stage: Stage) -> PeerPath {
    match stage {
        Stage::NotStarted | Stage::Done => PeerPath::Direct,
        Stage::Running | Stage::OutOfSync => PeerPath::CopyFirst,
        Stage::Unprotected | Stage::Failover | Stage::FailoverFailed => PeerPath::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::fmt::Write;

    const STAGES: [Stage; 7] = [
        Stage::NotStarted,
        Stage::Running,
        Stage::OutOfSync,
        Stage::Unprotected,
        Stage::Failover,
        Stage::FailoverFailed,
        Stage::Done,
    ];
    const REQUESTS: [Request; 6] = [
        Request::Read,
        Request::Write,
        Request::WriteZeroes,
        Request::Discard,
        Request::Flush,
        Request::BlockStatus,
    ];

    fn table(role: Role, stages: &[Stage]) -> String {
        let mut table = format!("{:14}", "");
        for request in REQUESTS {
            write!(table, " {:16}", format!("{request:?}")).unwrap();
        }
        for &stage in stages {
            table.truncate(table.trim_end().len());
            write!(table, "\n{:14}", format!("{stage:?}")).unwrap();
            for request in REQUESTS {
                let path = format!("{:?}", path(role, stage, request));
                write!(table, " {path:16}").unwrap();
            }
        }
        table.trim_end().to_string() + "\n"
    }

    //= docs/spec/replication.md#losses
    //= type=test
    //# After the first request that could not be forwarded a primary MUST send nothing more, until
    //# it is replaced by a new filter node.
    //= docs/spec/replication.md#requests
    //= type=test
    //# A primary MUST fail every read with EIO, in every stage.
    //= docs/spec/replication.md#requests
    //= type=test
    //# A running primary MUST forward writes, zeroes and discards to its child, each as what it is.
    //= docs/spec/replication.md#requests
    //= type=test
    //# A primary that is not running, and one that has been stopped, MUST fail writes with EIO and
    //# send nothing.
    #[test]
    fn the_way_of_every_request_on_a_primary() {
        let stages = [STAGES[0], STAGES[1], STAGES[2], STAGES[6]];
        expect![[r"
                           Read             Write            WriteZeroes      Discard          Flush            BlockStatus
            NotStarted     Fail             Fail             Fail             Fail             Drop             File
            Running        Fail             Forward(Swallow) Forward(Swallow) Forward(Swallow) Forward(Report)  File
            OutOfSync      Fail             Drop             Drop             Drop             Drop             Fail
            Done           Fail             Fail             Fail             Fail             Drop             File
        "]].assert_eq(&table(Role::Primary, &stages));
    }

    //= docs/spec/replication.md#requests
    //= type=test
    //# After replication has ended a secondary MUST pass every request to its `file` child.
    //= docs/spec/replication.md#requests
    //= type=test
    //# Before start every read, write, zero and discard through the filter MUST fail with EIO, in
    //# both modes.
    //= docs/spec/replication.md#commit
    //= type=test
    //# A flush during FAILOVER or FAILOVER_FAILED MUST make both the active and the secondary disk
    //# durable.
    #[test]
    fn the_way_of_every_request_on_a_secondary() {
        expect![[r"
                           Read             Write            WriteZeroes      Discard          Flush            BlockStatus
            NotStarted     Fail             Fail             Fail             Fail             File             File
            Running        Active           Active           Active           Active           Active           File
            OutOfSync      Active           Active           Active           Active           Active           File
            Unprotected    Active           Active           Active           Active           Active           File
            Failover       Active           Commit           Commit           Commit           Both             File
            FailoverFailed Active           Split            Split            Split            Both             File
            Done           File             File             File             File             File             File
        "]].assert_eq(&table(Role::Secondary, &STAGES));
    }

    //= docs/spec/replication.md#losses
    //= type=test
    //# If copy-before-write ends unasked, the secondary MUST refuse the peer's writes with EIO and
    //# refuse checkpoints; stop and failover stay allowed.
    #[test]
    fn the_peers_writes_are_carried_out_unprotected_only_outside_replication() {
        let direct: Vec<_> = STAGES
            .into_iter()
            .filter(|&stage| peer_path(stage) == PeerPath::Direct)
            .collect();
        assert_eq!(direct, [Stage::NotStarted, Stage::Done]);
        assert_eq!(peer_path(Stage::Unprotected), PeerPath::Refuse);
    }
}
