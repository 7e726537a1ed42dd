//! The commands that drive replication on all filters.

use crate::replication::Group;
use ::replication::{Input, Role};
use qmp::Error;
use qmp::types::{ReplicationMode, ReplicationRequest, XenSetReplication};

/// `xen-set-replication`. A failover proceeds on every disk and returns all errors.
pub(super) async fn set(group: &Group, arguments: &XenSetReplication) -> Result<(), Error> {
    let input = match arguments.request()? {
        ReplicationRequest::Start(ReplicationMode::Primary) => Input::Start(Role::Primary),
        ReplicationRequest::Start(ReplicationMode::Secondary) => Input::Start(Role::Secondary),
        ReplicationRequest::Stop => Input::Stop,
        ReplicationRequest::Failover => Input::Failover,
    };
    group.command(input).await
}

/// `xen-colo-do-checkpoint`.
pub(super) async fn checkpoint(group: &Group) -> Result<(), Error> {
    group.command(Input::Checkpoint).await
}
