//! The filter over disks in memory: the old view stays whole, whatever overlaps.

use super::{Filter, OnCopyError, Options};
use crate::ai_overlay::AiOverlay;
use crate::testing::{Disk, Entry, World, edge, node};
use block::{
    ByteRange, ChildRole, Error, ErrorKind, Node, Op, OverlayStage, WriteFlags, ZeroFlags,
};
use bytes::Bytes;
use futures_util::future::{join_all, try_join};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

const BLOCKS: u64 = 8;
const LENGTH: u64 = BLOCKS * 4096;

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start, end)
}

fn fill(length: u64, value: u8) -> Bytes {
    vec![value; usize::try_from(length).unwrap()].into()
}

/// A secondary disk, a hidden disk over it, and the filter between the two.
#[derive(Clone)]
struct Chain {
    disk: Disk,
    hidden_file: Disk,
    hidden: Rc<Node>,
    filter: Rc<Node>,
    reports: Reports,
}

/// The failed copies that were reported.
type Reports = Rc<RefCell<Vec<Error>>>;

fn chain(world: &World, options: Options) -> Chain {
    let (disk, hidden_file) = (
        Disk::new(world, vec![0xcc; usize::try_from(LENGTH).unwrap()]),
        Disk::new(world, vec![]),
    );
    let secondary = node("secondary", disk.clone());
    let file = edge(
        "file",
        ChildRole::Data,
        &node("hidden-file", hidden_file.clone()),
    );
    let backing = edge("backing", ChildRole::Backing, &secondary);
    let ports = world.ports();
    let open = AiOverlay::open(file, backing, ports.clone());
    let hidden = world.run(async move {
        let hidden = node("hidden", open.await.unwrap());
        let overlay = hidden.driver().capabilities().overlay_state.unwrap();
        overlay.set_stage(OverlayStage::Replicating).await.unwrap();
        Rc::clone(&hidden)
    });
    let file = edge("file", ChildRole::Filtered, &secondary);
    let target = edge("target", ChildRole::Data, &hidden);
    let reports = Reports::default();
    let filter = Filter::new(options, file, target, ports).unwrap();
    let told = Rc::clone(&reports);
    let filter = filter.on_failure(move |error| told.borrow_mut().push(error));
    let filter = node("cbw", filter);
    Chain {
        disk,
        hidden_file,
        hidden,
        filter,
        reports,
    }
}

fn options() -> Options {
    Options {
        node: "cbw".into(),
        ..Options::default()
    }
}

impl Chain {
    async fn write(&self, range: ByteRange, value: u8) -> Result<(), Error> {
        let data = fill(range.length(), value);
        self.filter
            .write(range.offset(), data, WriteFlags::default())
            .await
    }

    async fn view(&self) -> Vec<u8> {
        self.hidden.read(range(0, LENGTH)).await.unwrap().to_vec()
    }

    fn saved_bytes(&self) -> u64 {
        let filter = self
            .filter
            .driver()
            .capabilities()
            .copy_before_write
            .unwrap();
        filter.saved_bytes()
    }

    fn first_error(&self) -> Option<Error> {
        let filter = self
            .filter
            .driver()
            .capabilities()
            .copy_before_write
            .unwrap();
        filter.first_error()
    }

    async fn checkpoint(&self) {
        let capabilities = self.filter.driver().capabilities();
        let filter = capabilities.copy_before_write.unwrap();
        filter.settle().await.unwrap();
        let hidden = self.hidden.driver().capabilities().make_empty.unwrap();
        hidden.make_empty().await.unwrap();
        filter.reset();
    }
}

//= docs/spec/replication.md#copy-before-write
//= type=test
//# A write to part of a block MUST leave the rest of the block as the view showed it.
#[test]
fn writes_zeroes_and_discards_of_any_alignment_leave_the_old_view_whole() {
    let world = World::new(1);
    let chain = chain(&world, options());
    let it = chain.clone();
    world.run(async move {
        let old = it.view().await;
        it.write(range(512, 600), 1).await.unwrap();
        it.filter
            .write_zeroes(range(5000, 9000), ZeroFlags::default())
            .await
            .unwrap();
        it.filter.discard(range(16384, 20480)).await.unwrap();
        it.write(range(512, 600), 2).await.unwrap();
        assert_eq!(it.view().await, old);
        assert_eq!(it.saved_bytes(), 4 * 4096);
        it.checkpoint().await;
        assert_eq!(it.saved_bytes(), 0);
        assert_eq!(it.view().await, it.disk.bytes());
    });
    let mut expected = vec![0xcc; usize::try_from(LENGTH).unwrap()];
    expected[512..600].fill(2);
    expected[5000..9000].fill(0);
    expected[16384..20480].fill(0);
    assert_eq!(chain.disk.bytes(), expected);
}

#[test]
fn a_cluster_is_saved_once_and_neighbours_together() {
    let world = World::new(2);
    let chain = chain(&world, options());
    let it = chain.clone();
    chain.hidden_file.clear_log();
    world.run(async move {
        let writes = (1..5).map(|value| it.write(range(100, 12_000), value));
        join_all(writes).await;
    });
    let copies = |entry: &Entry| matches!(entry, Entry::Write(..));
    assert_eq!(
        chain.hidden_file.log().iter().filter(|e| copies(e)).count(),
        1
    );
}

//= docs/spec/replication.md#copy-before-write
//= type=test
//# A copy that fails MUST fail the peer's write with the same error number, leave the secondary
//# disk as it was, and leave the block to be saved again.
//= docs/spec/replication.md#copy-before-write
//= type=test
//# A failed copy MUST be latched in the secondary's status and reported by an event.
#[test]
fn a_failed_copy_fails_the_write_and_leaves_disk_and_view_alone() {
    let world = World::new(3);
    let chain = chain(&world, options());
    let it = chain.clone();
    world.run(async move {
        let old = it.disk.bytes();
        it.hidden_file.fail_next(Op::Write, 28);
        let error = it.write(range(0, 10), 1).await.unwrap_err();
        assert_eq!(error.errno(), 28);
        assert_eq!(error.node(), Some("hidden-file"));
        assert_eq!(it.disk.bytes(), old);
        assert_eq!(it.reports.borrow().first(), Some(&error));
        assert_eq!(it.first_error(), Some(error));
        it.write(range(0, 10), 1).await.unwrap();
        assert_eq!(it.view().await, old);
        it.checkpoint().await;
        assert_eq!(it.first_error(), None);
    });
}

#[test]
fn with_break_snapshot_the_write_goes_on() {
    let world = World::new(4);
    let on_error = OnCopyError::BreakSnapshot;
    let chain = chain(
        &world,
        Options {
            on_error,
            ..options()
        },
    );
    world.run(async move {
        chain.hidden_file.fail_next(Op::Write, 28);
        chain.write(range(0, 10), 1).await.unwrap();
        assert_eq!(
            chain.disk.bytes()[..11],
            [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0xcc]
        );
        assert_eq!(chain.first_error().map(|error| error.errno()), Some(28));
        chain.write(range(8192, 8193), 1).await.unwrap();
        assert_eq!(chain.saved_bytes(), 0);
    });
}

#[test]
fn a_write_that_waits_too_long_fails_and_its_copy_ends_by_itself() {
    let world = World::new(5);
    let timeout = Duration::from_millis(100);
    let chain = chain(
        &world,
        Options {
            timeout,
            ..options()
        },
    );
    world.run(async move {
        chain.hidden_file.hang();
        let error = chain.write(range(0, 10), 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert_eq!(chain.disk.bytes()[0], 0xcc);
        chain.hidden_file.heal();
        chain.checkpoint().await;
        assert_eq!(chain.view().await[0], 0xcc);
    });
}

#[test]
fn the_cluster_follows_the_target_and_the_option() {
    let world = World::new(6);
    let bytes = || vec![0; usize::try_from(LENGTH).unwrap()];
    let cluster = |target: &Rc<Node>, min_cluster| {
        let file = edge(
            "file",
            ChildRole::Filtered,
            &node("disk", Disk::new(&world, bytes())),
        );
        let target = edge("target", ChildRole::Data, target);
        let filter = Filter::new(
            Options {
                min_cluster,
                ..options()
            },
            file,
            target,
            world.ports(),
        );
        filter.map(|filter| filter.cluster())
    };
    let plain = node("plain", Disk::new(&world, bytes()));
    let overlay = chain(&world, options()).hidden;
    assert_eq!(cluster(&plain, 0), Ok(65536));
    assert_eq!(cluster(&overlay, 0), Ok(4096));
    assert_eq!(cluster(&overlay, 8192), Ok(8192));
    let message = |result: Result<u64, Error>| result.unwrap_err().message().to_owned();
    assert_eq!(
        message(cluster(&overlay, 5000)),
        "min-cluster-size 5000 is not a power of two"
    );
    assert_eq!(
        message(cluster(&overlay, 1 << 62)),
        "min-cluster-size 4611686018427387904 is above 33554432: a cluster is copied as a whole"
    );
    let short = node("short", Disk::new(&world, vec![0; 512]));
    assert_eq!(
        message(cluster(&short, 0)),
        "the target has 512 bytes, but 32768 have to be saved in it"
    );
}

//= docs/spec/replication.md#copy-before-write
//= type=test
//# A reader of the view MUST NOT see data that the peer wrote after the last checkpoint, however
//# reads, copies and writes overlap.
/// Writers and readers of the old view at once, with failures: every read shows the state at the
/// last checkpoint, every failed write may have changed nothing but its own range.
#[test]
fn the_old_view_is_the_disk_at_the_last_checkpoint_however_requests_overlap() {
    for seed in 0..300 {
        let world = World::new(seed);
        let chain = chain(&world, options());
        for epoch in 0..3_u8 {
            let old = chain.disk.bytes();
            let (readers, writers) = (chain.clone(), chain.clone());
            let read = (0..6).map(|_| {
                let (start, end) = some_range(&world);
                let (readers, old) = (readers.clone(), old.clone());
                let w = world.clone();
                async move {
                    w.pause().await;
                    let data = readers.hidden.read(range(start, end)).await.unwrap();
                    let (start, end) = (usize::try_from(start), usize::try_from(end));
                    assert_eq!(data[..], old[start.unwrap()..end.unwrap()], "seed {seed}");
                    Ok::<(), ()>(())
                }
            });
            let write = (0..6).map(|n| {
                let (start, end) = some_range(&world);
                let (writers, kind) = (writers.clone(), world.random(4));
                async move {
                    let part = range(start, end);
                    let result = match kind {
                        0 => {
                            writers
                                .filter
                                .write_zeroes(part, ZeroFlags::default())
                                .await
                        }
                        1 => writers.filter.discard(part).await,
                        _ => writers.write(part, 1 + epoch * 10 + n).await,
                    };
                    let _ = result;
                    Ok(())
                }
            });
            if world.random(3) == 0 {
                chain.hidden_file.fail_next(Op::Write, 28);
            }
            let all = try_join(
                futures_util::future::try_join_all(read.collect::<Vec<_>>()),
                futures_util::future::try_join_all(write.collect::<Vec<_>>()),
            );
            world.run(all).unwrap();
            chain.hidden_file.heal();
            let it = chain.clone();
            world.run(async move {
                assert_eq!(it.view().await, old, "seed {seed}");
                it.checkpoint().await;
                assert_eq!(it.view().await, it.disk.bytes(), "seed {seed}");
            });
        }
    }
}

fn some_range(world: &World) -> (u64, u64) {
    let start = world.random(LENGTH - 1);
    let longest = (LENGTH - start).min(3 * 4096);
    (start, start + 1 + world.random(longest))
}

#[test]
fn settling_ends_with_a_write_that_had_nothing_left_to_save() {
    let world = World::new(1);
    let chain = chain(&world, options());
    let runtime = world.ports().runtime;
    world.run(async move {
        chain.write(range(0, 4096), 0x11).await.unwrap();
        chain.disk.hang();
        let writer = chain.clone();
        let write = async move { writer.write(range(0, 4096), 0x22).await.unwrap() };
        let written = runtime.spawn(Box::pin(write));
        let disk = chain.disk.clone();
        let later = runtime.sleep(Duration::from_secs(1));
        let healed = runtime.spawn(Box::pin(async move {
            later.await;
            disk.heal();
        }));
        runtime.sleep(Duration::from_millis(500)).await;
        let capabilities = chain.filter.driver().capabilities();
        capabilities
            .copy_before_write
            .unwrap()
            .settle()
            .await
            .unwrap();
        assert_eq!(chain.disk.bytes()[0], 0x22);
        drop((written, healed));
    });
}
