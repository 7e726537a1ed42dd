//! What replication says of itself: `query-xen-replication-status`, `x-ai-query-replication`.

use super::{Group, Member};
use drivers::replication::Latched;
use qmp::event::ReplicationError;
use qmp::types::{
    JobProgress, LatchedError, ReplicationInfo, ReplicationMode, ReplicationStage,
    ReplicationStatus,
};
use qmp::{Event, Timestamp};
use replication::{Role, Stage};
use std::rc::Rc;

impl Group {
    //= docs/spec/replication.md#commands
    //# `query-xen-replication-status` MUST answer with `error` true and a description if any
    //# replication node has an error, and with `error` false otherwise.
    /// Whether any filter has an error: the newest first, as QEMU does (R78 to R80).
    pub(crate) fn status(&self) -> ReplicationStatus {
        let members = self.members();
        let error = members.iter().rev().find_map(error_of);
        ReplicationStatus {
            error: error.is_some(),
            desc: error,
        }
    }

    /// The filter's latched error as an event.
    pub(crate) fn error_event(&self, node: &str) -> Option<Event> {
        let members = self.members();
        let member = members.iter().find(|member| member.name() == node)?;
        let error = latched(member, &member.driver().first_error()?);
        Some(Event::ReplicationError(ReplicationError {
            node_name: node.to_owned(),
            mode: mode(member.role()),
            error,
        }))
    }

    /// All filters, oldest first.
    pub(crate) fn infos(&self) -> Vec<ReplicationInfo> {
        let members = self.members();
        members.iter().map(|member| self.info(member)).collect()
    }

    fn info(&self, member: &Rc<Member>) -> ReplicationInfo {
        let driver = member.driver();
        let (active, hidden) = held_bytes(member);
        let jobs = self.inner.jobs.of(member.name());
        let job = jobs.last().map(|job| {
            let (kind, offset, len) = job.progress();
            JobProgress { kind, offset, len }
        });
        ReplicationInfo {
            node_name: member.name().to_owned(),
            mode: mode(member.role()),
            stage: stage(member.stage()),
            active_bytes: active,
            hidden_bytes: hidden,
            error: driver.first_error().map(|e| latched(member, &e)).into(),
            job: job.into(),
        }
    }
}

fn error_of(member: &Rc<Member>) -> Option<String> {
    if member.stage() == Stage::NotStarted {
        let name = member.name();
        return Some(format!("Block replication is not running on node '{name}'"));
    }
    let latched = member.driver().first_error()?;
    Some(format!("I/O error occurred: {}", latched.error))
}

/// Bytes that active and hidden hold.
fn held_bytes(member: &Rc<Member>) -> (u64, u64) {
    let Ok(chain) = member.chain() else {
        return (0, 0);
    };
    let held = |overlay: &Rc<block::Node>| {
        let overlay = overlay.driver().capabilities().make_empty;
        overlay.map_or(0, block::MakeEmpty::allocated_bytes)
    };
    (held(&chain.active), held(&chain.hidden))
}

/// A latched error as it is shown (I11).
pub(crate) fn latched(member: &Rc<Member>, latched: &Latched) -> LatchedError {
    let error = &latched.error;
    let operation = error.op().map_or_else(String::new, |op| op.to_string());
    LatchedError {
        node_name: error.node().unwrap_or(member.name()).to_owned(),
        operation,
        offset: error.range().map_or(0, block::ByteRange::offset),
        errno: i64::from(error.errno()),
        message: error.to_string(),
        time: Timestamp::new(latched.time),
    }
}

/// The side as QMP names it.
pub(super) fn mode(role: Role) -> ReplicationMode {
    match role {
        Role::Primary => ReplicationMode::Primary,
        Role::Secondary => ReplicationMode::Secondary,
    }
}

/// The stage as QMP names it; that a running pair has an error stands beside it.
pub(super) fn stage(stage: Stage) -> ReplicationStage {
    match stage {
        Stage::NotStarted => ReplicationStage::None,
        Stage::Running | Stage::OutOfSync | Stage::Unprotected => ReplicationStage::Running,
        Stage::Failover => ReplicationStage::Failover,
        Stage::FailoverFailed => ReplicationStage::FailoverFailed,
        Stage::Done => ReplicationStage::Done,
    }
}
