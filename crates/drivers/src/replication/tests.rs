//! The filter over disks in memory: forwarding, the view, failover, its failure and resumption.

use super::{FORWARD_TIMEOUT, HIDDEN_DISK, Options, Replication, SECONDARY_DISK};
use crate::ai_overlay::AiOverlay;
use crate::copy_before_write::{self, Filter};
use crate::event::Event;
use crate::testing::{Disk, Entry, World, edge, node};
use ::replication::{Role, Stage};
use block::{
    ByteRange, ChildRole, Error, ErrorKind, Node, Op, OverlayStage, WriteFlags, ZeroFlags,
};
use bytes::Bytes;
use futures_util::future::join_all;
use std::rc::Rc;
use std::time::Duration;

const BLOCKS: u64 = 8;
const LENGTH: u64 = BLOCKS * 4096;

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start, end)
}

fn fill(length: u64, value: u8) -> Bytes {
    vec![value; index(length)].into()
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

fn options(role: Role) -> Options {
    Options {
        node: "rep".into(),
        role,
        top_id: None,
        writable: true,
        forward_timeout: FORWARD_TIMEOUT,
    }
}

fn primary(world: &World) -> (Rc<Node>, Disk) {
    let remote = Disk::new(world, vec![0; 4096]);
    let file = edge("file", ChildRole::Filtered, &node("remote", remote.clone()));
    let filter = Replication::new(options(Role::Primary), file, world.ports(), world.sink());
    (node("rep", filter), remote)
}

fn filter(node: &Node) -> &Replication {
    Replication::of(node).unwrap()
}

async fn write(node: &Node, range: ByteRange, value: u8) -> Result<(), Error> {
    let data = fill(range.length(), value);
    node.write(range.offset(), data, WriteFlags::default())
        .await
}

#[test]
fn a_primary_forwards_changes_as_what_they_are_and_is_never_read() {
    let world = World::new(1);
    let (rep, remote) = primary(&world);
    let it = Rc::clone(&rep);
    let errors = world.run(async move {
        let read = range(0, 512);
        let mut errors = vec![it.read(read).await.unwrap_err()];
        errors.push(write(&it, read, 1).await.unwrap_err());
        filter(&it).set_stage(Stage::Running);
        errors.push(it.read(read).await.unwrap_err());
        write(&it, read, 2).await.unwrap();
        it.write_zeroes(range(512, 1024), ZeroFlags::default())
            .await
            .unwrap();
        it.discard(range(1024, 2048)).await.unwrap();
        it.flush().await.unwrap();
        filter(&it).set_stage(Stage::Done);
        errors.push(write(&it, read, 3).await.unwrap_err());
        errors
    });
    assert!(errors.iter().all(|error| error.errno() == 5), "{errors:?}");
    let log = remote.log();
    assert_eq!(
        log[..3],
        [
            Entry::Write(0, fill(512, 2)),
            Entry::Zero(range(512, 1024)),
            Entry::Discard(range(1024, 2048)),
        ]
    );
}

//= docs/spec/replication.md#requests
//= type=test
//# A write that the primary could not forward MUST be answered with success, and the error
//# latched.
#[test]
fn after_a_lost_forward_nothing_is_sent_and_the_first_error_is_kept() {
    let world = World::new(2);
    let (rep, remote) = primary(&world);
    filter(&rep).set_stage(Stage::Running);
    remote.fail_next(Op::Write, 28);
    let it = Rc::clone(&rep);
    world.run(async move {
        write(&it, range(512, 1024), 1).await.unwrap();
        write(&it, range(0, 512), 2).await.unwrap();
        it.flush().await.unwrap();
    });
    assert_eq!(remote.log(), []);
    assert_eq!(filter(&rep).stage(), Stage::OutOfSync);
    let first = filter(&rep).first_error().unwrap().error;
    assert_eq!(first.node(), Some("remote"));
    assert_eq!(first.range(), Some(range(512, 1024)));
    assert_eq!((first.op(), first.errno()), (Some(Op::Write), 28));
    let node = "rep".to_owned();
    assert_eq!(
        world.events(),
        [Event::ReplicationError { node, error: first }]
    );
}

//= docs/spec/replication.md#losses
//= type=test
//# A forward MUST be answered within the filter's forward timeout, whatever the peer does.
#[test]
fn a_peer_that_does_not_answer_is_cut_off_and_holds_nobody_up() {
    let world = World::new(3);
    let (rep, remote) = primary(&world);
    filter(&rep).set_stage(Stage::Running);
    remote.hang();
    let it = Rc::clone(&rep);
    world.run(async move {
        let writes = (0..3).map(|n| write(&it, range(n * 512, n * 512 + 512), 1));
        let answers = join_all(writes).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    });
    assert_eq!(crate::ports::Runtime::now(&world), FORWARD_TIMEOUT);
    assert!(remote.yanks() > 0);
    let first = filter(&rep).first_error().unwrap().error;
    assert_eq!(first.kind(), ErrorKind::TimedOut);
    assert_eq!(first.node(), Some("rep"));
}

//= docs/spec/replication.md#requests
//= type=test
//# A flush that the primary could not forward MUST be answered with its error, and the error
//# latched.
#[test]
fn a_flush_that_cannot_be_forwarded_is_reported_and_ends_forwarding() {
    let world = World::new(4);
    let (rep, remote) = primary(&world);
    filter(&rep).set_stage(Stage::Running);
    remote.fail_next(Op::Flush, 5);
    let it = Rc::clone(&rep);
    world.run(async move {
        assert_eq!(it.flush().await.unwrap_err().errno(), 5);
        it.flush().await.unwrap();
    });
    assert_eq!(filter(&rep).stage(), Stage::OutOfSync);
}

/// A secondary with everything around it.
#[derive(Clone)]
struct Secondary {
    world: World,
    disks: Disks,
    disk: Rc<Node>,
    hidden: Rc<Node>,
    active: Rc<Node>,
    copying: Rc<Node>,
    rep: Rc<Node>,
}

/// The media: what a crash leaves.
#[derive(Clone)]
struct Disks {
    disk: Disk,
    hidden: Disk,
    active: Disk,
}

impl Secondary {
    fn new(world: &World) -> Secondary {
        let disk = (0..LENGTH).map(|n| u8::try_from(n / 4096).unwrap() | 0xc0);
        let disks = Disks {
            disk: Disk::new(world, disk.collect()),
            hidden: Disk::new(world, vec![]),
            active: Disk::new(world, vec![]),
        };
        let secondary = Secondary::open(world, disks);
        secondary.mark(OverlayStage::Replicating);
        filter(&secondary.rep).set_stage(Stage::Running);
        secondary
    }

    /// The same machine's disks after a crash.
    fn reopened(&self) -> Secondary {
        let copy = |disk: &Disk| Disk::new(&self.world, disk.bytes());
        let disks = Disks {
            disk: copy(&self.disks.disk),
            hidden: copy(&self.disks.hidden),
            active: copy(&self.disks.active),
        };
        Secondary::open(&self.world, disks)
    }

    fn open(world: &World, disks: Disks) -> Secondary {
        let ports = world.ports();
        let disk = node("secondary", disks.disk.clone());
        let overlay = |name: &str, file: &Disk, below: &Rc<Node>| {
            let file = edge("file", ChildRole::Data, &node("file", file.clone()));
            let backing = edge("backing", ChildRole::Backing, below);
            let open = AiOverlay::open(file, backing, ports.clone());
            node(name, world.run(async move { open.await.unwrap() }))
        };
        let hidden = overlay("hidden", &disks.hidden, &disk);
        let active = overlay("active", &disks.active, &hidden);
        let file = edge("file", ChildRole::Filtered, &disk);
        let target = edge("target", ChildRole::Data, &hidden);
        let options = copy_before_write::Options::default();
        let copying = Filter::new(options, file, target, ports.clone()).unwrap();
        let file = edge("file", ChildRole::Filtered, &active);
        let rep = Replication::new(self::options(Role::Secondary), file, ports, world.sink());
        rep.attach(
            edge(HIDDEN_DISK, ChildRole::Data, &hidden),
            edge(SECONDARY_DISK, ChildRole::Data, &disk),
        );
        Secondary {
            world: world.clone(),
            disks,
            disk,
            hidden,
            active,
            copying: node("cbw", copying),
            rep: node("rep", rep),
        }
    }

    fn mark(&self, stage: OverlayStage) {
        let it = self.clone();
        self.world.run(async move {
            for overlay in [&it.hidden, &it.active] {
                let overlay = overlay.driver().capabilities().overlay_state.unwrap();
                overlay.set_stage(stage).await.unwrap();
            }
        });
    }

    fn view(&self) -> Vec<u8> {
        let rep = Rc::clone(&self.rep);
        self.world
            .run(async move { rep.read(range(0, LENGTH)).await.unwrap().to_vec() })
    }

    fn checkpoint(&self) {
        let it = self.clone();
        self.world.run(async move {
            let copying = it
                .copying
                .driver()
                .capabilities()
                .copy_before_write
                .unwrap();
            copying.settle().await.unwrap();
            for overlay in [&it.active, &it.hidden] {
                let overlay = overlay.driver().capabilities().make_empty.unwrap();
                overlay.make_empty().await.unwrap();
            }
            copying.reset();
        });
    }

    fn failover(&self) {
        let it = self.clone();
        self.world.run(async move {
            filter(&it.rep).record_failover().await.unwrap();
            filter(&it.rep).set_stage(Stage::Failover);
        });
    }

    /// What the engine does when a commit has ended well.
    async fn finish(&self) {
        let rep = filter(&self.rep);
        assert_eq!(rep.commit_remaining(), 0);
        rep.record_done().await.unwrap();
        for overlay in [&self.hidden, &self.active] {
            let can = overlay.driver().capabilities();
            assert_eq!(
                can.make_empty.unwrap().allocated_bytes(),
                0,
                "it would mask the disk"
            );
            assert_eq!(can.overlay_state.unwrap().stage(), OverlayStage::Clean);
        }
        rep.file().set_target(Some(Rc::clone(&self.disk)));
        rep.detach();
        rep.set_stage(Stage::Done);
    }

    /// Guest and peer at once; every read of the guest is checked. Returns the view afterwards.
    fn mix(&self, guests: u8, peers: u8) -> Vec<u8> {
        let before = Rc::new(self.view());
        let mut plan = Vec::new();
        for n in 0..guests {
            plan.push((some_range(&self.world), 0x10 + n));
        }
        let plan = Rc::new(plan);
        let mut tasks = Vec::new();
        for n in 0..usize::from(guests) {
            let (it, (part, value)) = (self.clone(), plan[n]);
            let kind = self.world.random(3);
            tasks.push(self.task(async move {
                match kind {
                    0 => it.rep.write_zeroes(part, ZeroFlags::default()).await,
                    _ => write(&it.rep, part, value).await,
                }
                .unwrap();
            }));
            let (it, plan, before) = (self.clone(), Rc::clone(&plan), Rc::clone(&before));
            let part = some_range(&self.world);
            tasks.push(self.task(async move {
                let data = it.rep.read(part).await.unwrap();
                check_bytes(part, &data, &before, &plan);
            }));
        }
        for n in 0..peers {
            let (it, part, kind) = (self.clone(), some_range(&self.world), self.world.random(4));
            tasks.push(self.task(async move {
                match kind {
                    0 => it.copying.write_zeroes(part, ZeroFlags::default()).await,
                    1 => it.copying.discard(part).await,
                    _ => write(&it.copying, part, 0x80 + n).await,
                }
                .unwrap();
            }));
        }
        self.world.run(join_all(tasks));
        let after = self.view();
        check_bytes(range(0, LENGTH), &after, &before, &plan);
        after
    }

    /// Starts a task a little later.
    fn task(
        &self,
        task: impl Future<Output = ()> + 'static,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()>>> {
        let world = self.world.clone();
        Box::pin(async move {
            world.pause().await;
            task.await;
        })
    }
}

/// Every byte is what was there before, or what one of the guest's writes put there.
fn check_bytes(part: ByteRange, data: &[u8], before: &[u8], plan: &[(ByteRange, u8)]) {
    for (at, byte) in (part.offset()..).zip(data) {
        let here = range(at, at + 1);
        let mut written = plan.iter().filter(|(range, _)| range.overlaps(here));
        let known =
            before[index(at)] == *byte || written.any(|(_, value)| value == byte || *byte == 0);
        assert!(
            known,
            "byte {at} is {byte:#x}, was {:#x}",
            before[index(at)]
        );
    }
}

#[track_caller]
fn same(left: &[u8], right: &[u8], seed: u64) {
    let differ = left.iter().zip(right).position(|(a, b)| a != b);
    assert_eq!((differ, left.len()), (None, right.len()), "seed {seed}");
}

fn some_range(world: &World) -> ByteRange {
    let start = world.random(LENGTH - 1);
    let longest = (LENGTH - start).min(3 * 4096);
    range(start, start + 1 + world.random(longest))
}

//= docs/spec/replication.md#requests
//= type=test
//# A running secondary MUST serve reads from the active disk, then hidden, then the secondary disk.
#[test]
fn the_view_shows_the_last_checkpoint_and_the_guests_own_writes() {
    for seed in 0..150 {
        let world = World::new(seed);
        let secondary = Secondary::new(&world);
        for _ in 0..3 {
            secondary.mix(3, 4);
            secondary.checkpoint();
            same(&secondary.view(), &secondary.disks.disk.bytes(), seed);
        }
    }
}

//= docs/spec/replication.md#requests
//= type=test
//# A discard by the secondary's guest MUST NOT let older data of a lower layer show again: while
//# the overlays are in place it counts as zeroes.
//= docs/spec/replication.md#requests
//= type=test
//# An error of the secondary's own disks MUST be returned to the guest unchanged.
//= docs/spec/replication.md#requests
//= type=test
//# A running secondary MUST send its guest's writes and zeroes to the active disk and to nothing
//# else.
#[test]
fn a_discard_of_the_guest_reads_as_zeroes_and_its_errors_are_its_own() {
    let world = World::new(10);
    let secondary = Secondary::new(&world);
    let it = secondary.clone();
    let disk = secondary.disks.disk.bytes();
    let error = world.run(async move {
        write(&it.rep, range(0, 8192), 1).await.unwrap();
        it.rep.discard(range(4096, 12288)).await.unwrap();
        it.disks.active.fail_next(Op::Write, 28);
        write(&it.rep, range(20480, 20481), 2).await.unwrap_err()
    });
    let mut expected = disk.clone();
    expected[..4096].fill(1);
    expected[4096..12288].fill(0);
    same(&secondary.view(), &expected, 10);
    same(&secondary.disks.disk.bytes(), &disk, 10);
    assert_eq!(error.errno(), 28);
    let first = filter(&secondary.rep).first_error().unwrap();
    assert_eq!(first.error, error);
}

//= docs/spec/replication.md#failover
//= type=test
//# In FAILOVER the guest MUST be able to read and write throughout.
//= docs/spec/replication.md#commit
//= type=test
//# A commit MUST copy what active or hidden hold into the secondary disk, reading what the guest
//# sees.
#[test]
fn a_failover_changes_nothing_the_guest_reads_and_ends_in_the_disk() {
    for seed in 0..150 {
        let world = World::new(seed);
        let secondary = Secondary::new(&world);
        let view = secondary.mix(3, 5);
        secondary.failover();
        same(&secondary.view(), &view, seed);
        let it = secondary.clone();
        let ended = Rc::new(std::cell::Cell::new(None));
        let end = Rc::clone(&ended);
        let commit = async move { end.set(Some(filter(&it.rep).commit().await)) };
        drop(crate::ports::Runtime::spawn(&world, Box::pin(commit)));
        secondary.mix(4, 0);
        let view = secondary.mix(4, 0);
        world.settle();
        assert_eq!(ended.take(), Some(Ok(())), "seed {seed}");
        let it = secondary.clone();
        world.run(async move {
            it.finish().await;
        });
        same(&secondary.disks.disk.bytes(), &view, seed);
        same(&secondary.view(), &view, seed);
    }
}

//= docs/spec/replication.md#after-a-failed-failover
//= type=test
//# A write in FAILOVER_FAILED MUST NOT take new space in an overlay; reads go on through the
//# chain.
//= docs/spec/replication.md#commit
//= type=test
//# A commit that fails MUST end in FAILOVER_FAILED with the error latched, the chain in place and
//# what the guest sees unchanged.
#[test]
fn a_commit_that_fails_keeps_the_view_takes_no_new_space_and_can_be_retried() {
    for seed in 0..150 {
        let world = World::new(seed);
        let secondary = Secondary::new(&world);
        secondary.mix(3, 5);
        // At least one block to copy.
        let it = secondary.clone();
        world.run(async move { write(&it.rep, range(0, 10), 7).await.unwrap() });
        secondary.failover();
        let failing = [Op::Read, Op::Write][index(world.random(2))];
        let disk = if failing == Op::Read {
            &secondary.disks.active
        } else {
            &secondary.disks.disk
        };
        disk.fail_next(failing, 5);
        let it = secondary.clone();
        let failed = world.run(async move { filter(&it.rep).commit().await });
        assert_eq!(failed.unwrap_err().errno(), 5, "seed {seed}");
        filter(&secondary.rep).set_stage(Stage::FailoverFailed);
        let held = || {
            [&secondary.hidden, &secondary.active].map(|overlay| {
                let overlay = overlay.driver().capabilities().make_empty.unwrap();
                overlay.allocated_bytes()
            })
        };
        let before = held();
        secondary.mix(4, 0);
        // A run goes to active where hidden holds it; that moves it up, but takes no new blocks
        // of the disk.
        assert!(before.iter().sum::<u64>() <= held().iter().sum());
        filter(&secondary.rep).set_stage(Stage::Failover);
        let it = secondary.clone();
        world.run(async move { filter(&it.rep).commit().await.unwrap() });
        let view = secondary.mix(2, 0);
        let it = secondary.clone();
        world.run(async move { it.finish().await });
        same(&secondary.disks.disk.bytes(), &view, seed);
    }
}

#[test]
fn what_is_written_after_a_failed_finish_is_copied_by_the_retry() {
    let world = World::new(8);
    let secondary = Secondary::new(&world);
    let it = secondary.clone();
    world.run(async move { write(&it.rep, range(0, 8192), 1).await.unwrap() });
    secondary.failover();
    let it = secondary.clone();
    world.run(async move {
        let rep = filter(&it.rep);
        rep.commit().await.unwrap();
        rep.set_stage(Stage::FailoverFailed);
        // Half in active, half past it.
        write(&it.rep, range(4096, 12288), 2).await.unwrap();
        rep.set_stage(Stage::Failover);
        rep.commit().await.unwrap();
        it.finish().await;
    });
    assert_eq!(secondary.disks.disk.bytes()[4096..12288], [2; 8192]);
}

#[test]
fn a_commit_that_a_crash_interrupts_is_resumed() {
    for seed in 0..150 {
        let world = World::new(seed);
        let secondary = Secondary::new(&world);
        secondary.mix(3, 5);
        secondary.failover();
        let it = secondary.clone();
        let commit = async move {
            let _ = filter(&it.rep).commit().await;
        };
        let task = crate::ports::Runtime::spawn(&world, Box::pin(commit));
        let view = secondary.mix(2, 0);
        let it = secondary.clone();
        world.run(async move { it.rep.flush().await.unwrap() });
        // Some more turns, then the end comes.
        for _ in 0..world.random(30) {
            world.run(crate::testing::yield_now());
        }
        task.abort();
        let again = secondary.reopened();
        let stage = |overlay: &Node| {
            overlay
                .driver()
                .capabilities()
                .overlay_state
                .unwrap()
                .stage()
        };
        assert_eq!(stage(&again.active), OverlayStage::Failover);
        filter(&again.rep).set_stage(Stage::Failover);
        same(&again.view(), &view, seed);
        let it = again.clone();
        world.run(async move {
            filter(&it.rep).commit().await.unwrap();
            it.finish().await;
        });
        same(&again.disks.disk.bytes(), &view, seed);
        assert_eq!(stage(&again.active), OverlayStage::Clean);
    }
}

#[test]
fn a_cancelled_commit_ends_and_goes_on_later() {
    for seed in 0..60 {
        let world = World::new(seed);
        let secondary = Secondary::new(&world);
        let view = secondary.mix(4, 4);
        secondary.failover();
        let it = secondary.clone();
        let w = world.clone();
        let ended = world.run(async move {
            let cancel = async {
                for _ in 0..w.random(20) {
                    crate::testing::yield_now().await;
                }
                filter(&it.rep).cancel_commit();
            };
            futures_util::future::join(filter(&it.rep).commit(), cancel)
                .await
                .0
        });
        if let Err(error) = ended {
            assert_eq!(error.kind(), ErrorKind::ShuttingDown);
        }
        let it = secondary.clone();
        world.run(async move {
            filter(&it.rep).commit().await.unwrap();
            it.finish().await;
        });
        same(&secondary.disks.disk.bytes(), &view, seed);
    }
}

//= docs/spec/replication.md#permissions
//= type=test
//# The filter MUST ask for consistent read on its `file` child, for nothing on its other children,
//# and for write on all of them if the node is writable.
//= docs/spec/replication.md#permissions
//= type=test
//# The filter MUST let others read and write its children, but never resize them.
#[test]
fn children_are_shared_for_everything_but_resize() {
    let world = World::new(9);
    let secondary = Secondary::new(&world);
    let rep = filter(&secondary.rep);
    let above = block::Shares {
        used: block::Permissions::NONE,
        shared: block::Permissions::ALL,
    };
    let driver: &dyn block::Driver = rep;
    let shares = driver.children();
    let shares = shares.iter().map(|child| {
        let shares = driver.child_permissions(child, above);
        format!("{}: {} | {}", child.name(), shares.used, shares.shared)
    });
    assert_eq!(
        shares.collect::<Vec<_>>(),
        [
            "file: consistent read, write | consistent read, write, write unchanged",
            "hidden disk: write | consistent read, write, write unchanged",
            "secondary disk: write | consistent read, write, write unchanged",
        ]
    );
    assert_eq!(Duration::from_secs(5), FORWARD_TIMEOUT);
}

//= docs/spec/replication.md#options
//= type=test
//# The driver MUST be called `replication` and count as a filter: it has one filtered child,
//# `file`, and passes its length and block status through.
#[test]
fn a_filter_has_one_filtered_child_and_shows_its_length_and_allocation() {
    let world = World::new(11);
    let secondary = Secondary::new(&world);
    let it = secondary.clone();
    world.run(async move {
        write(&it.rep, range(4096, 8192), 1).await.unwrap();
        let whole = range(0, LENGTH);
        let shown = it.rep.block_status(whole).await.unwrap();
        assert_eq!(shown, it.active.block_status(whole).await.unwrap());
        assert_eq!(shown.len(), 3, "{shown:?}");
    });
    let driver = secondary.rep.driver();
    let children = driver.children();
    let filtered = children.iter().filter(|c| c.role() == ChildRole::Filtered);
    let filtered: Vec<&str> = filtered.map(|child| child.name()).collect();
    assert_eq!((driver.name(), filtered), ("replication", vec!["file"]));
    assert_eq!(secondary.rep.length(), LENGTH);
}

//= docs/spec/replication.md#requests
//= type=test
//# A FUA write MUST be carried out as a write followed by a flush where the child has no FUA of its
//# own.
#[test]
fn a_fua_write_is_followed_by_a_flush_where_the_peer_has_no_fua() {
    let world = World::new(12);
    let (rep, remote) = primary(&world);
    filter(&rep).set_stage(Stage::Running);
    world.run(async move {
        let flags = WriteFlags {
            fua: true,
            ..WriteFlags::default()
        };
        rep.write(512, fill(512, 1), flags).await.unwrap();
    });
    assert_eq!(
        remote.log(),
        [
            Entry::Write(512, fill(512, 1)),
            Entry::FlushBegin(0),
            Entry::FlushEnd(0),
        ]
    );
}

//= docs/spec/replication.md#after-a-failed-failover
//= type=test
//# The first run that fails MUST end the write with its error; runs before it stay written.
#[test]
fn the_first_run_that_fails_ends_a_write_and_those_before_it_stay() {
    let world = World::new(13);
    let secondary = Secondary::new(&world);
    let mut expected = secondary.view();
    let it = secondary.clone();
    world.run(async move {
        write(&it.rep, range(0, 4096), 1).await.unwrap();
        write(&it.rep, range(8192, 12288), 1).await.unwrap();
    });
    secondary.failover();
    filter(&secondary.rep).set_stage(Stage::FailoverFailed);
    secondary.disks.disk.fail_next(Op::Write, 28);
    let it = secondary.clone();
    let error = world.run(async move { write(&it.rep, range(0, 12288), 2).await.unwrap_err() });
    assert_eq!((error.errno(), error.node()), (28, Some("secondary")));
    expected[..4096].fill(2);
    expected[8192..12288].fill(1);
    same(&secondary.view(), &expected, 13);
}
