//! Power cuts of an `ai-overlay` on a simulated disk, at every moment of its life.
//!
//! Goal: after a power cut an overlay shows everything that was flushed, and of the rest the old or
//! the new; its stage is the one recorded, or the one being recorded.
//! Method: guests write, zero and flush at once; the power goes at a random moment; the overlay is
//! opened again and the model judges what it shows.

#![expect(
    clippy::unwrap_used,
    reason = "in a test an unexpected error is a failure"
)]

use block::{ByteRange, Child, ChildRole, Node, NodeOptions, OverlayStage, WriteFlags, ZeroFlags};
use drivers::ai_overlay::AiOverlay;
use drivers::file::{self, FileDriver};
use drivers::ports::Ports;
use futures_util::future::{join_all, select};
use sim::layout::Layout;
use sim::medium::Medium;
use sim::model::{Model, Outcome, Tag, Writer};
use sim::rng::Rng;
use sim::world::{Options, World};
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

const FIRST: Tag = 67;
const BLOCKS: usize = 36;

/// What a run has come across.
#[derive(Debug, Default)]
struct Seen {
    failover: Cell<u64>,
    unknown: Cell<u64>,
    clean: Cell<u64>,
    cut_while_recording: Cell<u64>,
}

#[test]
fn what_was_flushed_survives_a_power_cut_at_any_moment() {
    let counters = Seen::default();
    for seed in 0..1000 {
        run(seed, &counters);
    }
    for counter in [
        &counters.failover,
        &counters.unknown,
        &counters.clean,
        &counters.cut_while_recording,
    ] {
        assert!(
            counter.get() > 10,
            "a state was hardly ever reached: {counters:?}"
        );
    }
}

fn run(seed: u64, counters: &Seen) {
    let world = World::new(seed, Options::unruly());
    let host = world.host("host");
    let case = Case {
        rng: Rng::new(seed ^ 0x0a11),
        layout: Layout::untearable(12 << 10),
        model: RefCell::new(Model::new(&[FIRST; BLOCKS])),
        recording: Cell::new(None),
        recorded: Cell::new(OverlayStage::Clean),
    };
    let whole = case.layout.data(&(0..BLOCKS), FIRST);
    host.disks().put("backing", Medium::with_contents(&whole));
    host.disks().put("overlay", Medium::default());
    let run = world.run(async {
        let node = open(&host.ports()).await;
        let time = Duration::from_micros(case.rng.between(1, 6000));
        let cut = pin!(world.executor().sleep(time));
        select(cut, pin!(case.work(node))).await;
        case.model.borrow_mut().crash();
        host.power_cut();
        host.power_on();
        let node = open(&host.ports()).await;
        case.judge(&node, counters).await;
    });
    run.unwrap_or_else(|stuck| panic!("seed {seed}: {stuck:?}"));
}

async fn open(ports: &Ports) -> Rc<Node> {
    let data = file_node(ports, "overlay", ChildRole::Data).await;
    let backing = file_node(ports, "backing", ChildRole::Backing).await;
    let overlay = AiOverlay::open(data, backing, ports.clone()).await.unwrap();
    Node::new("view", Box::new(overlay), NodeOptions::default())
}

async fn file_node(ports: &Ports, path: &str, role: ChildRole) -> Rc<Child> {
    let options = file::Options {
        path: path.into(),
        ..file::Options::default()
    };
    let driver = FileDriver::open(ports, &options).await.unwrap();
    let node = Node::new(path, Box::new(driver), NodeOptions::default());
    Child::unrestricted(path, role, node)
}

struct Case {
    rng: Rng,
    layout: Layout,
    model: RefCell<Model>,
    /// The stage that is being recorded.
    recording: Cell<Option<OverlayStage>>,
    /// The stage that was recorded last.
    recorded: Cell<OverlayStage>,
}

impl Case {
    /// Several guests at once, and somebody who records stages.
    async fn work(&self, node: Rc<Node>) {
        let guests = (0..4).map(|number| self.guest(&node, number));
        let record = self.record(&node);
        futures_util::future::join(join_all(guests), record).await;
    }

    async fn guest(&self, node: &Node, number: Tag) {
        for write in 0..8 {
            let first = self.rng.index(BLOCKS);
            let blocks = first..first + 1 + self.rng.index(BLOCKS - first);
            let range = self.layout.range(&blocks);
            match self.rng.below(4) {
                0 => {
                    let called = self.model.borrow_mut().tick();
                    node.flush().await.unwrap();
                    self.model.borrow_mut().flushed(Writer::Guest, called);
                }
                1 => {
                    let begun = self.begin(blocks, 0);
                    node.write_zeroes(range, ZeroFlags::default())
                        .await
                        .unwrap();
                    self.end(&begun);
                }
                _ => {
                    let tag = 100 + number * 10 + write;
                    let data = self.layout.data(&blocks, tag);
                    let begun = self.begin(blocks, tag);
                    node.write(range.offset(), data, WriteFlags::default())
                        .await
                        .unwrap();
                    self.end(&begun);
                }
            }
        }
    }

    fn begin(&self, blocks: std::ops::Range<usize>, tag: Tag) -> sim::model::Begun {
        self.model
            .borrow_mut()
            .begin_write(Writer::Guest, blocks, tag)
    }

    fn end(&self, begun: &sim::model::Begun) {
        self.model
            .borrow_mut()
            .end_write(begun, Outcome::Acknowledged);
    }

    /// Records a stage now and then; that flushes, too.
    async fn record(&self, node: &Node) {
        let overlay = node.driver().capabilities().overlay_state.unwrap();
        let stages = [
            OverlayStage::Replicating,
            OverlayStage::Failover,
            OverlayStage::Clean,
        ];
        for stage in stages {
            if self.rng.percent(50) {
                continue;
            }
            let called = self.model.borrow_mut().tick();
            self.recording.set(Some(stage));
            overlay.set_stage(stage).await.unwrap();
            self.recording.set(None);
            self.recorded.set(stage);
            self.model.borrow_mut().flushed(Writer::Guest, called);
        }
    }

    async fn judge(&self, node: &Node, counters: &Seen) {
        let overlay = node.driver().capabilities().overlay_state.unwrap();
        let (found, counter) = match overlay.stage() {
            OverlayStage::Failover => (OverlayStage::Failover, &counters.failover),
            OverlayStage::Clean => (OverlayStage::Clean, &counters.clean),
            OverlayStage::ContentsUnknown | OverlayStage::Replicating => {
                (OverlayStage::Replicating, &counters.unknown)
            }
        };
        let allowed = [Some(self.recorded.get()), self.recording.get()];
        assert!(allowed.contains(&Some(found)), "{found:?} of {allowed:?}");
        count(counter);
        if self.recording.get().is_some() {
            count(&counters.cut_while_recording);
        }
        let called = self.model.borrow_mut().tick();
        let data = node
            .read(ByteRange::between(0, self.layout.length()))
            .await
            .unwrap();
        let tags = self.layout.tags(&(0..BLOCKS), &data);
        let verdict = self.model.borrow_mut().judge_view(called, 0, &tags);
        assert_eq!(verdict, Ok(()), "{}", self.layout.print(&tags));
    }
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}
