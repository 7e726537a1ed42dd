//! A quorum over disks in memory: votes, events, children that come and go.

use super::{Options, Quorum, ReadPattern};
use crate::event::Event;
use crate::replication::{self, Replication};
use crate::testing::{Disk, World, edge, node};
use ::replication::{Role, Stage};
use block::{ByteRange, Child, ChildRole, Error, ErrorKind, Node, Op, WriteFlags, ZeroFlags};
use bytes::Bytes;
use futures_util::future::join_all;
use std::rc::Rc;

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start, end)
}

fn disk(world: &World, value: u8) -> Disk {
    Disk::new(world, vec![value; 4096])
}

fn child(index: u64, target: &Rc<Node>) -> Rc<Child> {
    edge(&super::child_name(index), ChildRole::Filtered, target)
}

/// A quorum of nodes called `a`, `b`, … over `disks`.
fn quorum(
    world: &World,
    disks: &[Disk],
    vote_threshold: usize,
    read_pattern: ReadPattern,
) -> Result<Rc<Node>, Error> {
    let names = ["a", "b", "c"];
    let nodes = disks
        .iter()
        .zip(names)
        .map(|(disk, name)| node(name, disk.clone()));
    let children = (0..).zip(nodes).map(|(index, node)| child(index, &node));
    let options = Options {
        node: "top".into(),
        vote_threshold,
        read_pattern,
    };
    let quorum = Quorum::new(options, children.collect(), world.sink())?;
    Ok(node("top", quorum))
}

/// A local disk and a filter that forwards to a remote one.
fn pair(world: &World, local: &Disk, remote: &Disk) -> (Rc<Node>, Rc<Node>) {
    let options = replication::Options {
        node: "rep".into(),
        role: Role::Primary,
        top_id: None,
        writable: true,
        forward_timeout: replication::FORWARD_TIMEOUT,
    };
    let file = edge("file", ChildRole::Filtered, &node("remote", remote.clone()));
    let filter = Replication::new(options, file, world.ports(), world.sink());
    filter.set_stage(Stage::Running);
    let filter = node("rep", filter);
    let top = quorum(world, std::slice::from_ref(local), 1, ReadPattern::Fifo).unwrap();
    let children = top.driver().capabilities().dynamic_children.unwrap();
    children.add_child(child(1, &filter)).unwrap();
    (Rc::clone(&top), filter)
}

/// Operation, node, length and error number of a report.
type Report = (Op, String, u64, Option<i32>);

fn bad(op: Op, node: &str, length: u64, errno: Option<i32>) -> Report {
    (op, node.into(), length, errno)
}

/// The bad children and the failures that were reported.
fn reports(world: &World) -> (Vec<Report>, usize) {
    let mut found = (Vec::new(), 0);
    for event in world.events() {
        match event {
            Event::QuorumReportBad {
                op,
                node,
                length,
                error,
                ..
            } => {
                found.0.push((op, node, length, error.map(|e| e.errno())));
            }
            Event::QuorumFailure { node, .. } => {
                assert_eq!(node, "top");
                found.1 += 1;
            }
            Event::ReplicationError { .. } => {}
        }
    }
    found
}

fn write(value: u8) -> (Bytes, WriteFlags) {
    (vec![value; 512].into(), WriteFlags::default())
}

#[test]
fn writes_zeroes_and_discards_reach_every_child_as_what_they_are() {
    let world = World::new(1);
    let (a, b) = (disk(&world, 9), disk(&world, 9));
    let top = quorum(&world, &[a.clone(), b.clone()], 2, ReadPattern::Fifo).unwrap();
    let expected = world.run(async move {
        let (data, flags) = write(1);
        top.write(512, data, flags).await.unwrap();
        top.write_zeroes(range(1024, 2048), ZeroFlags::default())
            .await
            .unwrap();
        top.discard(range(2048, 4096)).await.unwrap();
        top.flush().await.unwrap();
        top.read(range(0, 4096)).await.unwrap()
    });
    assert_eq!(a.bytes(), expected);
    assert_eq!(b.log(), a.log());
    assert_eq!(reports(&world), (vec![], 0));
}

#[test]
fn a_write_fails_with_the_most_common_error_when_too_few_succeed() {
    let world = World::new(2);
    let disks = [disk(&world, 9), disk(&world, 9), disk(&world, 9)];
    let top = quorum(&world, &disks, 2, ReadPattern::Fifo).unwrap();
    let fail = |errnos: [i32; 3]| {
        for (disk, errno) in disks.iter().zip(errnos) {
            if errno > 0 {
                disk.fail_next(Op::Write, errno);
            }
        }
        let top = Rc::clone(&top);
        let (data, flags) = write(1);
        world.run(async move { top.write(0, data, flags).await.map_err(|e| e.errno()) })
    };
    assert_eq!(fail([5, 0, 0]), Ok(()));
    assert_eq!(
        reports(&world),
        (vec![bad(Op::Write, "a", 512, Some(5))], 0)
    );
    assert_eq!(fail([5, 28, 28]), Err(28));
    let (reported, failures) = reports(&world);
    assert_eq!((reported.len(), failures), (3, 1));
}

//= docs/spec/replication.md#losses
//= type=test
//# A child in mode `primary` MUST NOT count towards a quorum's vote: a write that fails on the
//# local disk fails for the guest.
#[test]
fn a_local_write_that_fails_fails_whatever_the_peer_did() {
    let world = World::new(3);
    let (local, remote) = (disk(&world, 9), disk(&world, 9));
    let (top, filter) = pair(&world, &local, &remote);
    local.fail_next(Op::Write, 28);
    let it = Rc::clone(&top);
    let (data, flags) = write(1);
    let error = world.run(async move { it.write(0, data, flags).await.unwrap_err() });
    assert_eq!((error.errno(), error.node()), (28, Some("a")));
    assert_eq!(
        reports(&world),
        (vec![bad(Op::Write, "a", 512, Some(28))], 1)
    );

    // And both ways round: the peer's loss is nobody's error.
    remote.fail_next(Op::Write, 5);
    let it = Rc::clone(&top);
    let (data, flags) = write(2);
    world.run(async move { it.write(0, data, flags).await.unwrap() });
    assert_eq!(Replication::of(&filter).unwrap().stage(), Stage::OutOfSync);
    assert_eq!(local.bytes()[..512], [2; 512]);
}

#[test]
fn a_filter_that_is_not_started_is_reported_but_fails_nothing() {
    let world = World::new(4);
    let (local, remote) = (disk(&world, 9), disk(&world, 9));
    let (top, filter) = pair(&world, &local, &remote);
    Replication::of(&filter)
        .unwrap()
        .set_stage(Stage::NotStarted);
    let (data, flags) = write(1);
    world.run(async move { top.write(0, data, flags).await.unwrap() });
    assert_eq!(
        reports(&world),
        (vec![bad(Op::Write, "rep", 512, Some(5))], 0)
    );
    assert_eq!(remote.bytes(), vec![9; 4096]);
}

#[test]
fn fifo_reads_skip_a_primarys_filter_and_go_on_after_an_error() {
    let world = World::new(5);
    let (local, remote) = (disk(&world, 1), disk(&world, 2));
    let (top, _) = pair(&world, &local, &remote);
    let third = node("third", disk(&world, 3));
    let children = top.driver().capabilities().dynamic_children.unwrap();
    children.add_child(child(2, &third)).unwrap();
    local.fail_next(Op::Read, 5);
    let it = Rc::clone(&top);
    let data = world.run(async move { it.read(range(0, 512)).await.unwrap() });
    assert_eq!(data[..], [3; 512]);
    assert_eq!(reports(&world), (vec![bad(Op::Read, "a", 512, Some(5))], 0));
}

#[test]
fn a_vote_on_contents_outvotes_the_odd_one_and_refuses_a_draw() {
    let world = World::new(6);
    let disks = [disk(&world, 1), disk(&world, 2), disk(&world, 2)];
    let read = |disks: &[Disk]| {
        let top = quorum(&world, disks, 2, ReadPattern::Quorum).unwrap();
        world.run(async move { top.read(range(0, 512)).await })
    };
    assert_eq!(read(&disks).unwrap()[..], [2; 512]);
    assert_eq!(reports(&world), (vec![bad(Op::Read, "a", 512, None)], 0));
    assert_eq!(read(&disks[..2]).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(reports(&world), (vec![], 1));
}

#[test]
fn children_come_and_go_by_name_and_the_threshold_stays() {
    let world = World::new(7);
    let (local, remote) = (disk(&world, 9), disk(&world, 9));
    let (top, _) = pair(&world, &local, &remote);
    let children = top.driver().capabilities().dynamic_children.unwrap();
    assert_eq!(children.next_child_name(), "children.2");
    let third = node("third", disk(&world, 3));
    children.add_child(child(2, &third)).unwrap();
    children.remove_child("children.1").unwrap();
    assert_eq!(children.next_child_name(), "children.3");
    children.remove_child("children.2").unwrap();
    assert_eq!(children.next_child_name(), "children.2");
    let message = |name| {
        children
            .remove_child(name)
            .unwrap_err()
            .message()
            .to_owned()
    };
    assert_eq!(
        message("children.7"),
        "Node 'top' does not have child 'children.7'"
    );
    assert_eq!(
        message("children.0"),
        "The number of children cannot be lower than the vote threshold 1"
    );
    let short = node("short", Disk::new(&world, vec![0; 512]));
    let error = children.add_child(child(2, &short)).unwrap_err();
    assert_eq!(
        error.message(),
        "the children of a quorum must have one length: 4096 bytes and 512"
    );
    assert!(quorum(&world, &[local], 2, ReadPattern::Fifo).is_err());
}

#[test]
fn there_are_at_most_64_children() {
    let world = World::new(1);
    let disk = node("disk", disk(&world, 0));
    let make = |count: u64| {
        let options = Options {
            node: "top".into(),
            vote_threshold: 1,
            read_pattern: ReadPattern::Fifo,
        };
        let children = (0..count).map(|index| child(index, &disk)).collect();
        Quorum::new(options, children, world.sink())
    };
    let said = "a quorum has at most 64 children, not 65";
    assert_eq!(make(65).err().unwrap().message(), said);
    let top = node("top", make(64).unwrap());
    let children = top.driver().capabilities().dynamic_children.unwrap();
    let error = children.add_child(child(64, &disk)).unwrap_err();
    assert_eq!(error.message(), said);
}

#[test]
fn overlapping_writes_leave_every_child_the_same() {
    for seed in 0..200 {
        let world = World::new(seed);
        let (a, b) = (disk(&world, 9), disk(&world, 9));
        let top = quorum(&world, &[a.clone(), b.clone()], 2, ReadPattern::Fifo).unwrap();
        world.run(async move {
            let writes = (0..6).map(|value| {
                let (data, flags) = write(value);
                top.write(u64::from(value % 3) * 256, data, flags)
            });
            join_all(writes).await;
        });
        assert_eq!(a.bytes(), b.bytes(), "seed {seed}");
    }
}
