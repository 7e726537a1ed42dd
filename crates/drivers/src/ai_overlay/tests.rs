//! The overlay over disks in memory: what it shows, what survives, what it refuses.

use super::AiOverlay;
use super::format::{Header, PageTag};
use crate::ports::Runtime;
use crate::testing::{Disk, Entry, World, after_power_cut, edge, node};
use block::{
    BlockMap, ByteRange, ChildRole, Error, ErrorKind, Extent, Node, NodeOptions, Op, OverlayStage,
    WriteFlags, ZeroFlags,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

/// Length of the test disks: five blocks and a bit.
const LENGTH: u64 = 5 * 4096 + 1536;

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(start, end)
}

fn backing_bytes() -> Vec<u8> {
    vec![0xbb; usize::try_from(LENGTH).unwrap()]
}

async fn open_on(world: &World, file: &Disk, backing: &Disk) -> Result<Rc<Node>, Error> {
    let file = edge("file", ChildRole::Data, &node("file", file.clone()));
    let backing = edge(
        "backing",
        ChildRole::Backing,
        &node("backing", backing.clone()),
    );
    let overlay = AiOverlay::open(file, backing, world.ports()).await?;
    Ok(node("overlay", overlay))
}

fn overlay(world: &World) -> (Rc<Node>, Disk, Disk) {
    let (file, backing) = (Disk::new(world, vec![]), Disk::new(world, backing_bytes()));
    let (w, f, b) = (world.clone(), file.clone(), backing.clone());
    let overlay = world.run(async move { open_on(&w, &f, &b).await.unwrap() });
    (overlay, file, backing)
}

fn reopen(world: &World, file: Vec<u8>) -> Result<Rc<Node>, Error> {
    let (file, backing) = (Disk::new(world, file), Disk::new(world, backing_bytes()));
    let w = world.clone();
    world.run(async move { open_on(&w, &file, &backing).await })
}

fn fill(length: u64, value: u8) -> Bytes {
    vec![value; usize::try_from(length).unwrap()].into()
}

async fn write(overlay: &Node, range: ByteRange, value: u8) {
    let data = fill(range.length(), value);
    overlay
        .write(range.offset(), data, WriteFlags::default())
        .await
        .unwrap();
}

async fn read_all(overlay: &Node) -> Vec<u8> {
    overlay.read(range(0, LENGTH)).await.unwrap().to_vec()
}

async fn make_empty(overlay: &Node) {
    let empty = overlay.driver().capabilities().make_empty.unwrap();
    empty.make_empty().await.unwrap();
}

async fn set_stage(overlay: &Node, stage: OverlayStage) -> Result<(), Error> {
    let overlay = overlay.driver().capabilities().overlay_state.unwrap();
    overlay.set_stage(stage).await
}

fn stage(overlay: &Node) -> OverlayStage {
    overlay
        .driver()
        .capabilities()
        .overlay_state
        .unwrap()
        .stage()
}

//= docs/spec/ai-overlay.md#requests
//= type=test
//# Where the overlay holds a block it MUST show its own data, elsewhere its backing node's.
//= docs/spec/ai-overlay.md#requests
//= type=test
//# The first write of a part of a block MUST keep the rest as the backing node shows it.
#[test]
fn a_first_write_of_part_of_a_block_keeps_the_rest_from_the_backing_node() {
    let world = World::new(1);
    let (overlay, _, backing) = overlay(&world);
    let node = Rc::clone(&overlay);
    let shown = world.run(async move {
        write(&node, range(1000, 9000), 1).await;
        write(&node, range(LENGTH - 10, LENGTH), 2).await;
        read_all(&node).await
    });
    let mut expected = backing_bytes();
    expected[1000..9000].fill(1);
    let end = expected.len();
    expected[end - 10..].fill(2);
    assert_eq!(shown, expected);
    assert_eq!(backing.bytes(), backing_bytes());
    let empty = overlay.driver().capabilities().make_empty.unwrap();
    assert_eq!(empty.allocated_bytes(), 4 * 4096);
}

//= docs/spec/ai-overlay.md#requests
//= type=test
//# A block that was zeroed or discarded MUST read as zeroes and never as the backing node again.
#[test]
fn zeroes_and_discards_never_show_the_backing_node_and_leave_holes() {
    let world = World::new(2);
    let (overlay, file, _) = overlay(&world);
    file.clear_log();
    let shown = world.run(async move {
        let flags = ZeroFlags::default();
        overlay.write_zeroes(range(100, 8192), flags).await.unwrap();
        overlay.discard(range(12288, LENGTH)).await.unwrap();
        read_all(&overlay).await
    });
    let mut expected = backing_bytes();
    expected[100..8192].fill(0);
    expected[12288..].fill(0);
    assert_eq!(shown, expected);
    let log = file.log();
    let holes = log.iter().filter(|e| matches!(e, Entry::Zero(_)));
    assert_eq!(holes.count(), 2);
}

#[test]
fn the_allocation_names_the_layer_and_the_holes_of_long_runs() {
    let world = World::new(2);
    let file = Disk::new(&world, vec![]);
    let backing = Disk::new(&world, vec![0xbb; 256 << 10]);
    let w = world.clone();
    let extents = world.run(async move {
        let overlay = open_on(&w, &file, &backing).await.unwrap();
        write(&overlay, range(0, 4096), 1).await;
        let flags = ZeroFlags::default();
        let zeroed = range(65536, 196_608);
        overlay.write_zeroes(zeroed, flags).await.unwrap();
        overlay.block_status(range(0, 256 << 10)).await.unwrap()
    });
    let below = |start, end| Extent {
        depth: 2,
        ..Extent::data(range(start, end))
    };
    assert_eq!(
        extents,
        [
            Extent::data(range(0, 4096)),
            below(4096, 65536),
            Extent::hole(range(65536, 196_608)),
            below(196_608, 262_144),
        ]
    );
}

//= docs/spec/ai-overlay.md#emptying
//= type=test
//# Emptying MUST take effect at once and MUST NOT write anything.
//= docs/spec/ai-overlay.md#emptying
//= type=test
//# Space MUST NOT be given back where a block is held again.
//= docs/spec/replication.md#checkpoint
//= type=test
//# A checkpoint MUST cost the same whatever the overlays hold, given overlays that are emptied at
//# once; space is given back in the background.
#[test]
fn an_emptied_overlay_shows_its_backing_node_at_once_and_gives_the_space_back_later() {
    let world = World::new(3);
    let (overlay, file, _) = overlay(&world);
    file.clear_log();
    let (node, disk) = (Rc::clone(&overlay), file.clone());
    let shown = world.run(async move {
        write(&node, range(0, 16384), 7).await;
        let written = disk.log().len();
        make_empty(&node).await;
        assert_eq!(disk.log().len(), written);
        write(&node, range(4096, 8192), 8).await;
        read_all(&node).await
    });
    let mut expected = backing_bytes();
    expected[4096..8192].fill(8);
    assert_eq!(shown, expected);
    world.run_out();
    let data = file.bytes().len() - 6 * 4096;
    let kept: Vec<u8> = file.bytes()[data..]
        .chunks(4096)
        .map(|block| block[0])
        .collect();
    assert_eq!(kept, [0, 8, 0, 0, 0, 0]);
    assert_eq!(world.run(async move { read_all(&overlay).await }), expected);
}

#[test]
fn a_write_just_where_space_is_being_given_back_is_kept() {
    for seed in 0..200 {
        let world = World::new(seed);
        let (overlay, _, _) = overlay(&world);
        let (node, clock) = (Rc::clone(&overlay), world.clone());
        world.run(async move {
            write(&node, range(0, 4096), 7).await;
            make_empty(&node).await;
            clock.sleep(super::reclaim::FIRST_PAUSE).await;
            write(&node, range(0, 4096), 8).await;
        });
        world.run_out();
        let shown = world.run(async move { read_all(&overlay).await });
        assert_eq!(shown[..4096], [8; 4096], "seed {seed}");
    }
}

//= docs/spec/ai-overlay.md#emptying
//= type=test
//# Space MUST be given back only when the present epoch is durable, or while the contents would be
//# unknown after a power cut anyway.
#[test]
fn space_is_given_back_only_once_the_new_epoch_is_durable() {
    let world = World::new(4);
    let (overlay, file, _) = overlay(&world);
    let node = Rc::clone(&overlay);
    world.run(async move {
        write(&node, range(0, 4096), 7).await;
        node.flush().await.unwrap();
        make_empty(&node).await;
    });
    file.clear_log();
    world.run_out();
    let log = file.log();
    let header = |e: &Entry| matches!(e, Entry::Write(0 | 4096, d) if Header::parse(d).is_ok());
    let header = log.iter().position(header).unwrap();
    let freed = log
        .iter()
        .position(|e| matches!(e, Entry::Zero(_)))
        .unwrap();
    assert!(
        header < freed && matches!(log[freed - 1], Entry::FlushEnd(_)),
        "{log:?}"
    );
}

//= docs/spec/ai-overlay.md#stages
//= type=test
//# Closing MUST make data and map durable and record the stage clean, except that failover stays
//# failover.
#[test]
fn what_was_flushed_or_closed_is_there_when_it_is_opened_again() {
    let world = World::new(5);
    let (overlay, file, _) = overlay(&world);
    let shown = world.run(async move {
        write(&overlay, range(0, 5000), 1).await;
        overlay.driver().close().await.unwrap();
        read_all(&overlay).await
    });
    let again = reopen(&world, file.bytes()).unwrap();
    assert_eq!(world.run(async move { read_all(&again).await }), shown);
}

//= docs/spec/ai-overlay.md#opening
//= type=test
//# An overlay that is found replicating MUST open with contents unknown: it can be read, and
//# everything that would change it fails.
//= docs/spec/ai-overlay.md#stages
//= type=test
//# A stage MUST be durable, with data and map as they were when it was set, before setting it is
//# answered.
#[test]
fn an_overlay_left_in_use_by_replication_opens_for_inspection_only() {
    let world = World::new(6);
    let (overlay, file, _) = overlay(&world);
    let node = Rc::clone(&overlay);
    world.run(async move { set_stage(&node, OverlayStage::Replicating).await.unwrap() });
    let left = reopen(&world, file.bytes()).unwrap();
    assert_eq!(stage(&left), OverlayStage::ContentsUnknown);
    let (refused, again) = world.run(async move {
        let data = fill(1, 1);
        let refused = left.write(0, data, WriteFlags::default()).await;
        read_all(&left).await;
        left.driver().close().await.unwrap();
        (
            refused.unwrap_err(),
            set_stage(&left, OverlayStage::Clean).await,
        )
    });
    assert_eq!(refused.kind(), ErrorKind::NotPermitted);
    assert_eq!(again.unwrap_err().kind(), ErrorKind::NotPermitted);

    world.run(async move {
        write(&overlay, range(0, 10), 4).await;
        set_stage(&overlay, OverlayStage::Failover).await.unwrap();
        write(&overlay, range(0, 10), 5).await;
        overlay.driver().close().await.unwrap();
    });
    let resumable = reopen(&world, file.bytes()).unwrap();
    assert_eq!(stage(&resumable), OverlayStage::Failover);
    assert_eq!(world.run(async move { read_all(&resumable).await[0] }), 5);
}

//= docs/spec/ai-overlay.md#opening
//= type=test
//# An empty or all-zero file MUST become an empty overlay, and a file that is neither that nor an
//# overlay MUST be refused by its node's name.
//= docs/spec/ai-overlay.md#opening
//= type=test
//# An overlay made for a disk of another length MUST be refused with both lengths.
#[test]
fn what_is_not_an_overlay_of_this_disk_is_refused_by_name() {
    let world = World::new(7);
    let refuse = |bytes: Vec<u8>| match reopen(&world, bytes) {
        Ok(_) => panic!("opened"),
        Err(error) => error.message().to_owned(),
    };
    let foreign = "'file' holds something else than an overlay: give an empty file";
    assert_eq!(refuse(vec![1; 100]), foreign);
    let mut late = vec![0; 1 << 20];
    late[900_000] = 1;
    assert_eq!(refuse(late), foreign);
    let (_, file, _) = overlay(&world);
    assert_eq!(
        refuse(file.bytes()[..70_000].to_vec()),
        "the overlay's file 'file' was cut off: it has 70000 bytes instead of 90112"
    );
    let header = Header {
        sequence: 1,
        identity: [0; 16],
        length: 999,
        epoch: 1,
        stage: OverlayStage::Clean,
    };
    let mut other = file.bytes();
    other[4096..8192].copy_from_slice(
        &Header {
            sequence: 9,
            ..header
        }
        .encode(),
    );
    assert_eq!(
        refuse(other),
        format!("the overlay was made for a disk of 999 bytes, its backing node has {LENGTH}")
    );
    let mut damaged = file.bytes();
    damaged[100] = 1;
    assert_eq!(refuse(damaged), foreign);
}

//= docs/spec/ai-overlay.md#durability
//= type=test
//# A flush that fails MUST poison the overlay until it is opened again.
#[test]
fn a_failed_flush_poisons_until_it_is_opened_again() {
    let world = World::new(8);
    let (overlay, file, _) = overlay(&world);
    let errors = world.run(async move {
        write(&overlay, range(0, 10), 1).await;
        file.fail_next(Op::Flush, 5);
        let first = overlay.flush().await.unwrap_err();
        let second = overlay.flush().await.unwrap_err();
        let data = fill(1, 1);
        let third = overlay
            .write(0, data, WriteFlags::default())
            .await
            .unwrap_err();
        assert_eq!(read_all(&overlay).await[0], 1);
        [first, second, third].map(|error| error.kind())
    });
    assert_eq!(
        errors,
        [ErrorKind::Io, ErrorKind::Poisoned, ErrorKind::Poisoned]
    );
}

//= docs/spec/ai-overlay.md#durability
//= type=test
//# Flushes that are asked for together MUST share one, and a flush with nothing new to cover MUST
//# NOT touch the file.
#[test]
fn concurrent_flushes_share_one_and_an_idle_one_touches_nothing() {
    let world = World::new(9);
    let (overlay, file, _) = overlay(&world);
    let node = Rc::clone(&overlay);
    world.run(async move { write(&node, range(0, 4096), 1).await });
    file.clear_log();
    let node = Rc::clone(&overlay);
    world.run(async move {
        let flushes = (0..10).map(|_| node.flush());
        futures_util::future::try_join_all(flushes).await.unwrap();
    });
    let flushes = |file: &Disk| {
        let log = file.log();
        log.iter()
            .filter(|e| matches!(e, Entry::FlushEnd(_)))
            .count()
    };
    assert_eq!(flushes(&file), 2, "data, then the map");
    world.run(async move { overlay.flush().await.unwrap() });
    assert_eq!(flushes(&file), 2);
}

#[test]
fn a_flush_that_was_given_up_is_finished_by_the_next() {
    for seed in 0..50 {
        let world = World::new(seed);
        let (overlay, file, _) = overlay(&world);
        let node = Rc::clone(&overlay);
        world.run(async move { write(&node, range(0, 4096), 1).await });
        let node = Rc::clone(&overlay);
        let w = world.clone();
        world.run(async move {
            let given_up = Box::pin(node.flush());
            let enough = Box::pin(async move {
                for _ in 0..w.random(8) {
                    crate::testing::yield_now().await;
                }
            });
            drop(futures_util::future::select(given_up, enough).await);
            write(&node, range(4096, 8192), 2).await;
            node.flush().await.unwrap();
        });
        let again = reopen(&world, file.bytes()).unwrap();
        let shown = world.run(async move { read_all(&again).await });
        assert_eq!((shown[0], shown[4096]), (1, 2), "seed {seed}");
    }
}

/// What each sector of the disk may show after a power cut.
struct Allowed(Vec<BTreeSet<u8>>);

impl Allowed {
    fn new() -> Allowed {
        let sectors = usize::try_from(LENGTH / 512).unwrap();
        Allowed(vec![BTreeSet::from([0xbb]); sectors])
    }

    fn change(&mut self, range: ByteRange, value: u8) {
        for sector in range.offset() / 512..range.end().div_ceil(512) {
            self.0[usize::try_from(sector).unwrap()].insert(value);
        }
    }

    /// Only the newest value is left.
    fn flushed(&mut self, newest: &[u8]) {
        for (allowed, newest) in self.0.iter_mut().zip(newest) {
            *allowed = BTreeSet::from([*newest]);
        }
    }
}

/// One random history, and after every write to the file every power cut.
fn survives_power_cuts(seed: u64) {
    let world = World::new(seed);
    let (file, backing) = (
        Disk::new(&world, vec![]),
        Disk::new(&world, backing_bytes()),
    );
    let sectors = usize::try_from(LENGTH / 512).unwrap();
    let mut newest = vec![0xbb_u8; sectors];
    // What is allowed from each mark of the log on.
    let mut allowed = Allowed::new();
    let mut history = BTreeMap::from([(0, allowed.0.clone())]);
    let (w, f, b) = (world.clone(), file.clone(), backing);
    let overlay = world.run(async move { open_on(&w, &f, &b).await.unwrap() });
    for step in 1..9_u64 {
        let start = world.random(LENGTH / 512);
        let end = (start + 1 + world.random(20)).min(LENGTH / 512);
        let part = range(start * 512, end * 512);
        let value = u8::try_from(step).unwrap();
        let node = Rc::clone(&overlay);
        let action = world.random(10);
        let to = match action {
            0..=4 => Some((part, value)),
            5 => Some((part, 0)),
            6 => Some((range(0, LENGTH), 0xbb)),
            _ => None,
        };
        if let Some((part, value)) = to {
            // From now until it is flushed: old or new.
            allowed.change(part, value);
            newest[usize::try_from(part.offset() / 512).unwrap()
                ..usize::try_from(part.end() / 512).unwrap()]
                .fill(value);
        }
        history.insert(step * 2 - 1, allowed.0.clone());
        file.mark(step * 2 - 1);
        // Sometimes just as long as it takes until space is given back beside it.
        let later = world.sleep(Duration::from_millis(10 * world.random(3)));
        world.run(async move {
            later.await;
            match action {
                0..=4 => write(&node, part, value).await,
                5 => node.write_zeroes(part, ZeroFlags::default()).await.unwrap(),
                6 => make_empty(&node).await,
                _ => node.flush().await.unwrap(),
            }
        });
        if action > 6 {
            allowed.flushed(&newest);
        }
        history.insert(step * 2, allowed.0.clone());
        file.mark(step * 2);
    }
    world.run_out();
    check_all_cuts(&world, &file.log(), &history, seed);
}

fn check_all_cuts(
    world: &World,
    log: &[Entry],
    history: &BTreeMap<u64, Vec<BTreeSet<u8>>>,
    seed: u64,
) {
    let mut known = BTreeSet::new();
    for cut in 0..=log.len() {
        let marks = log[..cut].iter().rev().find_map(|entry| {
            if let Entry::Mark(number) = entry {
                return Some(*number);
            }
            None
        });
        let mark = marks.unwrap_or(0);
        for left in after_power_cut(&[], &log[..cut], 6, world) {
            if !known.insert((mark, crc32c::crc32c(&left))) {
                continue;
            }
            let opened = reopen(world, left);
            let opened = opened.unwrap_or_else(|error| panic!("seed {seed}, cut {cut}: {error}"));
            let shown = world.run(async move { read_all(&opened).await });
            for (index, sector) in shown.chunks(512).enumerate() {
                let value = sector[0];
                assert!(
                    sector.iter().all(|byte| *byte == value)
                        && history[&mark][index].contains(&value),
                    "seed {seed}, cut {cut} of {log:?}: sector {index} shows {value:#x}, \
                     allowed {:?}",
                    history[&mark][index]
                );
            }
        }
    }
}

//= docs/spec/ai-overlay.md#durability
//= type=test
//# A flush MUST make data durable before it writes map pages, and map pages before it writes the
//# header.
//= docs/spec/ai-overlay.md#durability
//= type=test
//# After a power cut the overlay MUST show everything that was flushed, and of what came later,
//# sector by sector, the old or the new.
#[test]
fn after_a_power_cut_at_any_write_each_sector_is_what_was_flushed_or_newer() {
    for seed in 0..40 {
        survives_power_cuts(seed);
    }
}

//= docs/spec/ai-overlay.md#emptying
//= type=test
//# An epoch MUST NOT be used a second time, not even one whose header was lost in a power cut.
#[test]
fn a_second_life_after_a_cut_does_not_bring_a_lost_epoch_back() {
    // The page of the lost epoch lands, its header does not; the next emptying must not reuse it.
    let world = World::new(11);
    let (overlay, file, _) = overlay(&world);
    let node = Rc::clone(&overlay);
    world.run(async move {
        write(&node, range(0, 4096), 1).await;
        node.flush().await.unwrap();
        make_empty(&node).await;
        write(&node, range(8192, 12288), 2).await;
        node.flush().await.unwrap();
    });
    let log = file.log();
    let header = |e: &Entry| matches!(e, Entry::Write(0 | 4096, d) if Header::parse(d).is_ok());
    let header = log.iter().rposition(header).unwrap();
    // Everything before the header landed.
    let flushed = Entry::FlushEnd(u64::MAX);
    let whole = [&log[..header], &[Entry::FlushBegin(u64::MAX), flushed]].concat();
    let mut lost = after_power_cut(&[], &whole, 0, &world);
    let (file, backing) = (
        Disk::new(&world, lost.swap_remove(0)),
        Disk::new(&world, backing_bytes()),
    );
    let (w, f) = (world.clone(), file.clone());
    world.run(async move {
        let second = open_on(&w, &f, &backing).await.unwrap();
        assert_eq!(read_all(&second).await[0], 1);
        make_empty(&second).await;
        second.flush().await.unwrap();
    });
    let third = reopen(&world, file.bytes()).unwrap();
    assert_eq!(
        world.run(async move { read_all(&third).await }),
        backing_bytes()
    );
}

//= docs/spec/ai-overlay.md#requests
//= type=test
//# A read MUST hold its range until its read of the backing node has ended, so that a serialised
//# write waits for it and excludes later ones.
#[test]
fn a_serialised_write_waits_for_readers_on_their_way_down() {
    for seed in 0..200 {
        let world = World::new(seed);
        let (overlay, _, backing) = overlay(&world);
        let (reader, copier) = (Rc::clone(&overlay), Rc::clone(&overlay));
        let disk = node("disk", backing);
        let read = async move { reader.read(range(0, 4096)).await.unwrap() };
        // Copy before write: save the old data, then write the new.
        let save = async move {
            let flags = WriteFlags {
                serialise: true,
                ..WriteFlags::default()
            };
            copier.write(0, fill(4096, 0xbb), flags).await.unwrap();
            disk.write(0, fill(4096, 1), WriteFlags::default())
                .await
                .unwrap();
        };
        let (data, ()) = world.run(futures_util::future::join(read, save));
        assert_eq!(data[..], [0xbb; 4096], "seed {seed}");
    }
}

#[test]
fn a_read_only_file_is_initialised_when_it_becomes_writable() {
    let world = World::new(12);
    let file = Disk::new(&world, vec![]);
    let options = NodeOptions {
        read_only: true,
        ..NodeOptions::default()
    };
    let file = Node::new("file", Box::new(file), options);
    let backing = node("backing", Disk::new(&world, backing_bytes()));
    let data = edge("file", ChildRole::Data, &file);
    let backing = edge("backing", ChildRole::Backing, &backing);
    let ports = world.ports();
    world.run(async move {
        let overlay = node(
            "overlay",
            AiOverlay::open(data, backing, ports).await.unwrap(),
        );
        let error = overlay
            .write(0, fill(1, 1), WriteFlags::default())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotPermitted);
        file.set_read_only(false);
        overlay.driver().set_writable(true).await.unwrap();
        write(&overlay, range(0, 1), 9).await;
        assert_eq!(read_all(&overlay).await[..2], [9, 0xbb]);
    });
}

//= docs/spec/ai-overlay.md#opening
//= type=test
//# Nothing in the file MUST make the program read, write or allocate beyond what the length of the
//# disk asks for.
#[test]
fn a_map_full_of_bits_holds_no_more_than_the_disk() {
    let world = World::new(13);
    let (_, file, _) = overlay(&world);
    let header = Header {
        sequence: 5,
        identity: [1; 16],
        length: LENGTH,
        epoch: 3,
        stage: OverlayStage::Clean,
    };
    let mut everything = BlockMap::new(40_000);
    everything.insert(0..40_000);
    let tag = PageTag {
        identity: [1; 16],
        page: 0,
        epoch: 3,
        sequence: u64::MAX,
    };
    let mut bytes = file.bytes();
    bytes[..4096].copy_from_slice(&header.encode());
    bytes[8192..12288].copy_from_slice(&tag.encode(&everything));
    let error = reopen(&world, bytes.clone()).err().unwrap();
    assert_eq!(
        error.message(),
        format!("the overlay's epoch or sequence {} is impossible", u64::MAX)
    );
    let tag = PageTag { sequence: 9, ..tag };
    bytes[8192..12288].copy_from_slice(&tag.encode(&everything));
    let opened = reopen(&world, bytes).unwrap();
    let overlay = opened.driver().capabilities().make_empty.unwrap();
    assert_eq!(overlay.allocated_bytes(), 6 * 4096);
}
