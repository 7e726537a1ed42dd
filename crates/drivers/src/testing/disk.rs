//! A disk in memory that logs, waits, fails on request and can lose power.

use super::World;
use block::{
    Answer, ByteRange, Capabilities, Driver, Error, ErrorKind, Extent, Limits, Op, PunchHole,
    Resize, WriteFlags, Yank, ZeroFlags, coalesce,
};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Sectors are written whole, whatever happens.
const SECTOR: usize = 512;

/// What reached the disk, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Write(u64, Bytes),
    Zero(ByteRange),
    Discard(ByteRange),
    Length(u64),
    FlushBegin(u64),
    FlushEnd(u64),
    /// Put there by a test.
    Mark(u64),
}

/// The disk. Clones share it.
#[derive(Clone)]
pub(crate) struct Disk(Rc<Inner>);

struct Inner {
    world: World,
    bytes: RefCell<Vec<u8>>,
    log: RefCell<Vec<Entry>>,
    failures: RefCell<Vec<(Op, i32)>>,
    flushes: Cell<u64>,
    /// Never answers.
    hung: Cell<bool>,
    yanks: Cell<u64>,
}

impl Disk {
    pub(crate) fn new(world: &World, bytes: Vec<u8>) -> Disk {
        Disk(Rc::new(Inner {
            world: world.clone(),
            bytes: RefCell::new(bytes),
            log: RefCell::default(),
            failures: RefCell::default(),
            flushes: Cell::new(0),
            hung: Cell::new(false),
            yanks: Cell::new(0),
        }))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.bytes.borrow().clone()
    }

    pub(crate) fn log(&self) -> Vec<Entry> {
        self.0.log.borrow().clone()
    }

    pub(crate) fn clear_log(&self) {
        self.0.log.borrow_mut().clear();
    }

    pub(crate) fn mark(&self, number: u64) {
        self.0.log.borrow_mut().push(Entry::Mark(number));
    }

    /// The next request of this kind fails with `errno`.
    pub(crate) fn fail_next(&self, op: Op, errno: i32) {
        self.0.failures.borrow_mut().push((op, errno));
    }

    /// From now on nothing is answered, until a yank.
    pub(crate) fn hang(&self) {
        self.0.hung.set(true);
    }

    /// Answers again, and does not fail any more.
    pub(crate) fn heal(&self) {
        self.0.hung.set(false);
        self.0.failures.borrow_mut().clear();
    }

    pub(crate) fn yanks(&self) -> u64 {
        self.0.yanks.get()
    }

    async fn enter(&self, op: Op) -> Result<(), Error> {
        self.0.world.pause().await;
        while self.0.hung.get() {
            super::yield_now().await;
            self.0.world.sleep_a_little().await;
        }
        let mut failures = self.0.failures.borrow_mut();
        if let Some(index) = failures.iter().position(|(failing, _)| *failing == op) {
            let (_, errno) = failures.remove(index);
            return Err(Error::from_errno(errno, "injected"));
        }
        Ok(())
    }

    fn apply(&self, entry: Entry) {
        apply(&mut self.0.bytes.borrow_mut(), &entry);
        self.0.log.borrow_mut().push(entry);
    }
}

impl Driver for Disk {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn limits(&self) -> Limits {
        Limits::of_length(self.0.bytes.borrow().len().try_into().unwrap())
    }

    fn read(&self, range: ByteRange) -> Answer<'_, Bytes> {
        Box::pin(async move {
            self.enter(Op::Read).await?;
            let data = Bytes::copy_from_slice(&self.0.bytes.borrow()[indexes(range)]);
            self.0.world.pause().await;
            Ok(data)
        })
    }

    fn write(&self, offset: u64, data: Bytes, _: WriteFlags) -> Answer<'_, ()> {
        Box::pin(async move {
            self.enter(Op::Write).await?;
            self.apply(Entry::Write(offset, data));
            self.0.world.pause().await;
            Ok(())
        })
    }

    fn write_zeroes(&self, range: ByteRange, _: ZeroFlags) -> Answer<'_, ()> {
        Box::pin(async move {
            self.enter(Op::WriteZeroes).await?;
            self.apply(Entry::Zero(range));
            self.0.world.pause().await;
            Ok(())
        })
    }

    fn discard(&self, range: ByteRange) -> Answer<'_, ()> {
        Box::pin(async move {
            self.enter(Op::Discard).await?;
            self.apply(Entry::Discard(range));
            Ok(())
        })
    }

    fn flush(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.enter(Op::Flush).await?;
            let number = self.0.flushes.get();
            self.0.flushes.set(number + 1);
            self.0.log.borrow_mut().push(Entry::FlushBegin(number));
            self.0.world.pause().await;
            self.0.log.borrow_mut().push(Entry::FlushEnd(number));
            Ok(())
        })
    }

    fn block_status(&self, range: ByteRange) -> Answer<'_, Vec<Extent>> {
        Box::pin(async move {
            self.enter(Op::BlockStatus).await?;
            let bytes = self.0.bytes.borrow();
            let extents = range.pieces(4096).map(|piece| {
                if block::is_zero(&bytes[indexes(piece)]) {
                    Extent::hole(piece)
                } else {
                    Extent::data(piece)
                }
            });
            Ok(coalesce(extents))
        })
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            punch_hole: Some(self),
            resize: Some(self),
            yank: Some(self),
            ..Capabilities::default()
        }
    }
}

impl PunchHole for Disk {
    fn punch_hole(&self, range: ByteRange) -> Answer<'_, ()> {
        self.write_zeroes(range, ZeroFlags::default())
    }
}

impl Resize for Disk {
    fn resize(&self, length: u64) -> Answer<'_, ()> {
        self.apply(Entry::Length(length));
        Box::pin(async { Ok(()) })
    }
}

impl Yank for Disk {
    fn yank(&self) {
        self.0.yanks.set(self.0.yanks.get() + 1);
        self.0.hung.set(false);
        for op in [Op::Write, Op::Write, Op::Write, Op::Write] {
            self.fail_next(op, ErrorKind::Io.errno());
        }
    }
}

/// What the disk holds after `entries`.
fn apply(bytes: &mut Vec<u8>, entry: &Entry) {
    match entry {
        Entry::Write(offset, data) => {
            let start = usize::try_from(*offset).unwrap();
            bytes[start..start + data.len()].copy_from_slice(data);
        }
        Entry::Zero(range) | Entry::Discard(range) => bytes[indexes(*range)].fill(0),
        Entry::Length(length) => bytes.resize(usize::try_from(*length).unwrap(), 0),
        Entry::FlushBegin(_) | Entry::FlushEnd(_) | Entry::Mark(_) => {}
    }
}

/// Everything that may be left of a disk that held `start`, when the power goes after `log`:
/// what was flushed, and any part of what was not; one write may be cut at any sector.
/// More than `2^bound` parts are not listed but drawn.
pub(crate) fn after_power_cut(
    start: &[u8],
    log: &[Entry],
    bound: u32,
    world: &World,
) -> Vec<Vec<u8>> {
    let ended = log.iter().rev().find_map(|entry| {
        if let Entry::FlushEnd(number) = entry {
            return Some(*number);
        }
        None
    });
    let begun = |entry: &Entry| ended.is_some_and(|n| *entry == Entry::FlushBegin(n));
    let durable = log.iter().position(begun).unwrap_or(0);
    let (durable, loose) = log.split_at(durable);
    let loose: Vec<&Entry> = loose
        .iter()
        .filter(|entry| {
            matches!(
                entry,
                Entry::Write(..) | Entry::Zero(_) | Entry::Length(_) | Entry::Discard(_)
            )
        })
        .collect();
    let mut base = start.to_vec();
    for entry in durable {
        apply(&mut base, entry);
    }
    let count = u32::try_from(loose.len()).unwrap();
    let subsets: Vec<u64> = if count <= bound {
        (0..1 << count).collect()
    } else {
        (0..1 << bound)
            .map(|_| world.random(1 << 31) | world.random(1 << 31) << 31)
            .collect()
    };
    let mut found = Vec::new();
    for subset in subsets {
        let landed = |index: usize| subset >> (index % 62) & 1 == 1;
        found.push(part(&base, &loose, landed, None));
        // The last write that landed did so in part only.
        let last = (0..loose.len()).rev().find(|i| landed(*i));
        if let Some(last) = last
            && let Entry::Write(_, data) = loose[last]
        {
            let sectors = data.len().div_ceil(SECTOR);
            let cut = usize::try_from(world.random(sectors.try_into().unwrap())).unwrap();
            found.push(part(&base, &loose, landed, Some((last, cut * SECTOR))));
        }
    }
    found
}

fn part(
    base: &[u8],
    loose: &[&Entry],
    landed: impl Fn(usize) -> bool,
    torn: Option<(usize, usize)>,
) -> Vec<u8> {
    let mut bytes = base.to_vec();
    // A length is metadata: it lands with whatever lies behind it.
    for entry in loose {
        if let Entry::Length(length) = entry {
            bytes.resize(usize::try_from(*length).unwrap(), 0);
        }
    }
    for (index, entry) in loose.iter().enumerate().filter(|(index, _)| landed(*index)) {
        match (entry, torn) {
            (Entry::Write(offset, data), Some((cut, at))) if cut == index => {
                apply(&mut bytes, &Entry::Write(*offset, data.slice(..at)));
            }
            _ => apply(&mut bytes, entry),
        }
    }
    bytes
}

fn indexes(range: ByteRange) -> std::ops::Range<usize> {
    usize::try_from(range.offset()).unwrap()..usize::try_from(range.end()).unwrap()
}
