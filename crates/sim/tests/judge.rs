//! The judge judged: a pair so simple that it is right by inspection passes every random script,
//! and each way of breaking it is found out.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "in a test an unexpected error is a failure"
)]

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use sim::layout::Layout;
use sim::model::{Tag, Writer};
use sim::random::{self, Mood};
use sim::rng::Rng;
use sim::run::{Answer, Broken, Run, Stage, Subject};
use sim::script::{Command, Mishap, Request, Script};
use sim::world::{Options, World};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::time::Duration;

const FIRST: Tag = 67;

/// How a pair may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Nothing,
    /// A peer's write overwrites what was not saved, now and then.
    SavesNotAll,
    /// A checkpoint keeps what the guest wrote.
    KeepsActive,
    /// A checkpoint keeps what was saved.
    KeepsHidden,
    /// A write is answered before it has taken effect.
    AnswersEarly,
    /// A failover commits only what the guest wrote.
    CommitsNotHidden,
    /// A checkpoint empties active, and a little later hidden.
    EmptiesSlowly,
    /// A read takes its bytes one after the other.
    TearsReads,
}

/// Three layers, as in the picture of the specification; every request takes effect at one instant.
struct Layers<'a> {
    world: &'a World,
    rng: Rng,
    layout: &'a Layout,
    flaw: Flaw,
    active: RefCell<Vec<Option<Tag>>>,
    hidden: RefCell<Vec<Option<Tag>>>,
    disk: RefCell<Vec<Tag>>,
    stage: Cell<Stage>,
    committed: Cell<bool>,
}

impl Layers<'_> {
    async fn a_moment(&self) {
        let time = Duration::from_micros(self.rng.below(300));
        self.world.executor().sleep(time).await;
    }

    fn shown(&self, block: usize) -> Tag {
        let above = self.active.borrow()[block].or(self.hidden.borrow()[block]);
        above.unwrap_or(self.disk.borrow()[block])
    }

    fn change(&self, from: Writer, blocks: Range<usize>, tag: Tag) {
        for block in blocks {
            match from {
                Writer::Guest if self.committed.get() => self.overwrite(block, tag),
                Writer::Peer => self.overwrite(block, tag),
                Writer::Guest => self.active.borrow_mut()[block] = Some(tag),
            }
        }
    }

    fn overwrite(&self, block: usize, tag: Tag) {
        let forgets = self.flaw == Flaw::SavesNotAll && self.rng.percent(2);
        let old = self.disk.borrow()[block];
        let saved = &mut self.hidden.borrow_mut()[block];
        if self.stage.get() == Stage::Running && saved.is_none() && !forgets {
            *saved = Some(old);
        }
        self.disk.borrow_mut()[block] = tag;
    }

    async fn read(&self, from: Writer, blocks: Range<usize>) -> Answer {
        let mut data = Vec::new();
        for block in blocks {
            let tag = match from {
                Writer::Guest => self.shown(block),
                Writer::Peer => self.disk.borrow()[block],
            };
            data.extend(self.layout.data(&(block..block + 1), tag));
            if self.flaw == Flaw::TearsReads {
                self.a_moment().await;
            }
        }
        Answer::Data(Bytes::from(data))
    }

    async fn empty(&self) {
        if self.flaw != Flaw::KeepsActive {
            self.active.borrow_mut().fill(None);
        }
        if self.flaw == Flaw::EmptiesSlowly {
            self.a_moment().await;
        }
        if self.flaw != Flaw::KeepsHidden {
            self.hidden.borrow_mut().fill(None);
        }
    }

    fn commit(&self) {
        if self.flaw == Flaw::CommitsNotHidden {
            self.hidden.borrow_mut().fill(None);
        }
        for block in 0..self.layout.blocks() {
            let tag = self.shown(block);
            self.disk.borrow_mut()[block] = tag;
        }
        self.active.borrow_mut().fill(None);
        self.hidden.borrow_mut().fill(None);
        self.stage.set(Stage::Done);
        self.committed.set(true);
    }
}

impl Subject for Layers<'_> {
    fn request(&self, from: Writer, request: Request) -> LocalBoxFuture<'_, Answer> {
        Box::pin(async move {
            if self.flaw != Flaw::AnswersEarly {
                self.a_moment().await;
            }
            let promoted = self.stage.get() == Stage::Failover || self.committed.get();
            if from == Writer::Peer && promoted {
                return Answer::Lost("cut off".into());
            }
            match request {
                Request::Flush => {}
                Request::Read(blocks) => return self.read(from, blocks).await,
                Request::Zero(blocks) | Request::Discard(blocks) => self.change(from, blocks, 0),
                Request::Write(blocks, tag) if self.flaw == Flaw::AnswersEarly => {
                    if self.rng.percent(90) {
                        self.change(from, blocks, tag);
                    }
                }
                Request::Write(blocks, tag) => self.change(from, blocks, tag),
            }
            self.a_moment().await;
            Answer::Done
        })
    }

    fn command(&self, command: Command) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            self.a_moment().await;
            if self.stage.get() != Stage::Running {
                return Ok(());
            }
            match command {
                Command::Start => return Err("started".into()),
                Command::Checkpoint => self.empty().await,
                Command::Stop => {
                    self.empty().await;
                    self.stage.set(Stage::Done);
                }
                Command::Failover => self.stage.set(Stage::Failover),
            }
            self.a_moment().await;
            Ok(())
        })
    }

    fn settle(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            self.a_moment().await;
            if self.stage.get() == Stage::Failover {
                self.commit();
            }
        })
    }

    fn mishap(&self, _: Mishap) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn stage(&self) -> Stage {
        self.stage.get()
    }

    fn error(&self) -> LocalBoxFuture<'_, Option<String>> {
        Box::pin(async { None })
    }

    fn peer_limit(&self) -> Option<Duration> {
        None
    }

    fn disk(&self) -> Vec<u8> {
        let disk = self.disk.borrow();
        let blocks = disk.iter().enumerate();
        let data = blocks.flat_map(|(block, tag)| self.layout.data(&(block..block + 1), *tag));
        data.collect()
    }
}

fn judge(seed: u64, flaw: Flaw, script: &Script, layout: &Layout) -> Result<(), Broken> {
    let world = World::new(seed, Options::unruly());
    let layers = Layers {
        world: &world,
        rng: Rng::new(seed),
        layout,
        flaw,
        active: RefCell::new(vec![None; layout.blocks()]),
        hidden: RefCell::new(vec![None; layout.blocks()]),
        disk: RefCell::new(vec![FIRST; layout.blocks()]),
        stage: Cell::new(Stage::Running),
        committed: Cell::new(false),
    };
    let run = Run::new(&layers, world.executor(), layout, FIRST);
    world.run(run.script(script)).unwrap()
}

/// The first seed whose script finds the flaw.
fn found(flaw: Flaw, seeds: Range<u64>) -> Option<(u64, Broken)> {
    let layout = Layout::untearable(8 << 10);
    seeds.into_iter().find_map(|seed| {
        let (mood, script) = random::script(&Rng::new(seed), &layout);
        if mood != Mood::Calm {
            return None;
        }
        let broken = judge(seed, flaw, &script, &layout).err()?;
        Some((seed, broken))
    })
}

#[test]
fn a_pair_that_is_right_by_inspection_passes() {
    assert_eq!(found(Flaw::Nothing, 0..1000), None);
}

#[test]
fn every_flaw_is_found_out() {
    let flaws = [
        Flaw::SavesNotAll,
        Flaw::KeepsActive,
        Flaw::KeepsHidden,
        Flaw::AnswersEarly,
        Flaw::CommitsNotHidden,
        Flaw::EmptiesSlowly,
        Flaw::TearsReads,
    ];
    for flaw in flaws {
        assert!(found(flaw, 0..1000).is_some(), "{flaw:?} was not found");
    }
}
