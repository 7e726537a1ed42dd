//! Runs a script on a subject, with the model as judge of every answer.
//!
//! ```text
//! step ─▶ its actions, at once ─▶ subject
//!            │ begins, ends          │ answers
//!            ▼                       ▼
//!          model ◀───────────── judged at once; after each step the whole view is read
//! ```
//!
//! As long as nothing has gone wrong ([`Mishap`]), every request and command that the stage allows
//! must succeed. Afterwards an error is an answer like any other, but what is read is still judged.

mod command;
mod rare;
mod request;

use crate::executor::Executor;
use crate::layout::Layout;
use crate::model::{Model, Tag, Time, Violation, Writer};
use crate::script::{Action, Command, Mishap, Request, Script, Step, Timed};
use block::RangeLock;
use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, join_all};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a script is run on: a pair, seen from outside.
pub trait Subject {
    /// Carries a request out.
    fn request(&self, from: Writer, request: Request) -> LocalBoxFuture<'_, Answer>;

    /// Carries a command out.
    fn command(&self, command: Command) -> LocalBoxFuture<'_, Result<(), String>>;

    /// Waits until a failover's commit has ended.
    fn settle(&self) -> LocalBoxFuture<'_, ()>;

    /// Lets something go wrong.
    fn mishap(&self, mishap: Mishap) -> LocalBoxFuture<'_, ()>;

    /// How far replication has come.
    fn stage(&self) -> Stage;

    /// The error that status shows, if any.
    fn error(&self) -> LocalBoxFuture<'_, Option<String>>;

    /// If the peer must not notice what happens to the secondary: how long it may wait at most (I5).
    fn peer_limit(&self) -> Option<Duration>;

    /// What the secondary disk holds, as a program on its host would read it.
    fn disk(&self) -> Vec<u8>;
}

/// How a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Done,
    /// It was a read.
    Data(Bytes),
    /// It failed, and nothing more comes of it.
    Failed(String),
    /// Whoever should have answered is gone.
    Lost(String),
}

/// How far replication has come, as far as a user is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not started.
    None,
    /// Replicating.
    Running,
    /// Promoted; the buffers are being committed.
    Failover,
    /// Promoted; the commit failed.
    FailoverFailed,
    /// Stopped, or promoted and committed.
    Done,
    /// Left uncleanly while replicating: the contents are unknown.
    Lost,
}

/// Something that must not happen, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The action after or during which it was noticed.
    pub during: String,
    /// What is wrong.
    pub what: String,
}

/// How often rare things happened.
pub type Counters = BTreeMap<&'static str, u64>;

/// What has happened so far, as far as it decides what may happen next.
#[derive(Default)]
struct SoFar {
    /// Something has gone wrong.
    trouble: Cell<bool>,
    /// When a stop was asked for.
    stopping: Cell<Option<Time>>,
    /// The pair was stopped, not promoted: the view shows what the peer writes.
    stopped: Cell<bool>,
    /// A failover has been asked for.
    promoting: Cell<bool>,
    /// A failover has been answered.
    promoted: Cell<bool>,
    crashes: Cell<u64>,
    /// The peer is dead, or its own disk has failed.
    peer_trouble: Cell<bool>,
}

/// A script on its way.
pub struct Run<'a> {
    subject: &'a dyn Subject,
    executor: &'a Executor,
    layout: &'a Layout,
    model: RefCell<Model>,
    so_far: SoFar,
    manager: RangeLock,
    in_flight: RefCell<Vec<(Writer, Request)>>,
    counters: RefCell<Counters>,
    lines: RefCell<Vec<String>>,
}

impl<'a> Run<'a> {
    /// A run on `subject`, whose disks all hold `first` in every block.
    pub fn new(
        subject: &'a dyn Subject,
        executor: &'a Executor,
        layout: &'a Layout,
        first: Tag,
    ) -> Run<'a> {
        Run {
            subject,
            executor,
            layout,
            model: RefCell::new(Model::new(&vec![first; layout.blocks()])),
            so_far: SoFar::default(),
            manager: RangeLock::new(),
            in_flight: RefCell::default(),
            counters: RefCell::default(),
            lines: RefCell::default(),
        }
    }

    /// Runs the whole script.
    ///
    /// # Errors
    ///
    /// [`Broken`]: a promise was not kept.
    pub async fn script(&self, script: &Script) -> Result<(), Broken> {
        self.look("begin", &[]).await?;
        for step in &script.0 {
            let remarks = self.step(step).await?;
            self.look(&step.to_string(), &remarks).await?;
        }
        if self.subject.stage() != Stage::Done {
            return Ok(());
        }
        self.judge_disk().map_err(|what| Broken {
            during: "the end".to_owned(),
            what,
        })
    }

    /// One line a step: the view, the disk, what was done; below it what failed.
    pub fn transcript(&self) -> String {
        let lines = self.lines.borrow();
        lines.join("\n") + "\n"
    }

    /// How often rare things happened.
    pub fn counters(&self) -> Counters {
        self.counters.borrow().clone()
    }

    /// Runs a step's actions beside each other.
    async fn step(&self, step: &Step) -> Result<Vec<String>, Broken> {
        let actions = step.0.iter().map(|timed| Box::pin(self.timed(timed)));
        let mut remarks = Vec::new();
        for result in join_all(actions).await {
            remarks.extend(result?);
        }
        Ok(remarks)
    }

    async fn timed(&self, timed: &Timed) -> Result<Option<String>, Broken> {
        if timed.after > 0 {
            self.executor
                .sleep(Duration::from_micros(timed.after))
                .await;
        }
        let result = match &timed.action {
            Action::Request(from, request) => self.request(*from, request).await,
            Action::Command(command) => self.command(*command).await,
            Action::Settle => {
                self.subject.settle().await;
                Ok(None)
            }
            Action::Mishap(mishap) => self.mishap(mishap).await,
        };
        result.map_err(|what| Broken {
            during: timed.action.to_string(),
            what,
        })
    }

    /// Reads the whole view, judges it and writes a line of the transcript.
    async fn look(&self, text: &str, remarks: &[String]) -> Result<(), Broken> {
        let blocks = 0..self.layout.blocks();
        let broken = |what| Broken {
            during: text.to_owned(),
            what,
        };
        // The peer first: which of its writes came last decides what a checkpoint shows.
        self.read_all(Writer::Peer).await.map_err(broken)?;
        let view = self.read_all(Writer::Guest).await.map_err(broken)?;
        let disk = self
            .layout
            .print(&self.layout.tags(&blocks, &self.subject.disk()));
        let mut line = format!("{view}  {disk}  {text}");
        if !remarks.is_empty() {
            line = format!("{line}\n    {}", remarks.join("\n    "));
        }
        self.lines.borrow_mut().push(line);
        Ok(())
    }

    /// Reads all blocks, and judges them; as text, dashes where it failed.
    async fn read_all(&self, from: Writer) -> Result<String, String> {
        let blocks = 0..self.layout.blocks();
        let called = self.model.borrow_mut().tick();
        let before = self.subject.stage();
        let read = Request::Read(blocks.clone());
        match self.subject.request(from, read).await {
            Answer::Data(data) => {
                self.judge_data(from, called, &blocks, &data)?;
                Ok(self.layout.print(&self.layout.tags(&blocks, &data)))
            }
            Answer::Done => Err("a read without data".to_owned()),
            Answer::Failed(error) | Answer::Lost(error) => {
                self.judge_failure(from, before, &error)?;
                let nothing = vec![None; self.layout.blocks()];
                Ok(self.layout.print(&nothing).replace('?', "-"))
            }
        }
    }

    /// After a promotion that is over the disk is the view; after a stop it is the peer's.
    fn judge_disk(&self) -> Result<(), String> {
        if !self.so_far.promoted.get() && !self.so_far.stopped.get() {
            return Ok(());
        }
        let blocks = 0..self.layout.blocks();
        let tags = self.layout.tags(&blocks, &self.subject.disk());
        let mut model = self.model.borrow_mut();
        let called = model.tick();
        let verdict = match (self.so_far.stopped.get(), self.so_far.crashes.get()) {
            // What the peer has not flushed may be lost.
            (true, 1..) => Ok(()),
            // Nor does a primary send what its guest writes after the stop.
            (true, 0) if self.subject.peer_limit().is_some() => Ok(()),
            (true, 0) => model.judge_disk(called, 0, &tags),
            (false, _) => model.judge_view(called, 0, &tags),
        };
        verdict.map_err(|Violation(what)| format!("on the disk, {what}"))
    }
}
