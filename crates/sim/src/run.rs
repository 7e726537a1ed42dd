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

use crate::executor::Executor;
use crate::layout::Layout;
use crate::model::{Begun, Checkpoint, Model, Outcome, Tag, Time, Violation, Writer};
use crate::script::{Action, Command, Mishap, Request, Script, Step, Timed};
use block::{ByteRange, LockKind, RangeLock};
use bytes::Bytes;
use futures_util::future::{LocalBoxFuture, join_all};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
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
    fn error(&self) -> Option<String>;

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

/// A script on its way.
pub struct Run<'a> {
    subject: &'a dyn Subject,
    executor: &'a Executor,
    layout: &'a Layout,
    model: RefCell<Model>,
    /// Nothing has gone wrong yet.
    calm: Cell<bool>,
    /// The pair was stopped, not promoted: the view shows what the peer writes.
    stopped: Cell<bool>,
    /// A failover has been asked for.
    promoting: Cell<bool>,
    crashes: Cell<u64>,
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
            calm: Cell::new(true),
            stopped: Cell::new(false),
            promoting: Cell::new(false),
            crashes: Cell::new(0),
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
        self.look("begin", "").await?;
        for step in &script.0 {
            let remarks = self.step(step).await?;
            self.look(&step.to_string(), &remarks).await?;
        }
        self.judge_end()
    }

    /// One line a step: its text, the view, the disk, and what failed.
    pub fn transcript(&self) -> String {
        let lines = self.lines.borrow();
        lines.join("\n") + "\n"
    }

    /// How often rare things happened.
    pub fn counters(&self) -> Counters {
        self.counters.borrow().clone()
    }

    /// Runs a step's actions beside each other.
    async fn step(&self, step: &Step) -> Result<String, Broken> {
        let actions = step.0.iter().map(|timed| Box::pin(self.timed(timed)));
        let mut remarks = Vec::new();
        for result in join_all(actions).await {
            remarks.extend(result?);
        }
        Ok(remarks.join("; "))
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

    async fn request(&self, from: Writer, request: &Request) -> Result<Option<String>, String> {
        self.note_neighbours(from, request);
        self.in_flight.borrow_mut().push((from, request.clone()));
        let before = self.subject.stage();
        let called = self.model.borrow_mut().tick();
        let begun = self.begin(from, request);
        let answer = self.subject.request(from, request.clone()).await;
        self.done(from, request);
        let outcome = match &answer {
            Answer::Done | Answer::Data(_) => Outcome::Acknowledged,
            Answer::Failed(_) => Outcome::Failed,
            Answer::Lost(_) => Outcome::Unknown,
        };
        if let Some(begun) = &begun {
            // A discard may leave the old data where it is.
            let vague = matches!(request, Request::Discard(_)) && outcome == Outcome::Acknowledged;
            let outcome = if vague { Outcome::Failed } else { outcome };
            self.model.borrow_mut().end_write(begun, outcome);
        }
        if *request == Request::Flush && from == Writer::Guest && outcome == Outcome::Acknowledged {
            self.model.borrow_mut().flushed(called);
        }
        match answer {
            Answer::Done => Ok(None),
            Answer::Data(data) => self.judge_read(from, called, request, &data).map(|()| None),
            Answer::Failed(error) | Answer::Lost(error) => {
                if outcome == Outcome::Unknown {
                    self.count("request lost");
                }
                self.judge_failure(from, before, &error)?;
                Ok(Some(format!("{request}: {error}")))
            }
        }
    }

    fn begin(&self, from: Writer, request: &Request) -> Option<Begun> {
        let (blocks, tag) = match request {
            Request::Write(blocks, tag) => (blocks, *tag),
            Request::Zero(blocks) | Request::Discard(blocks) => (blocks, 0),
            Request::Flush | Request::Read(_) => return None,
        };
        Some(
            self.model
                .borrow_mut()
                .begin_write(from, blocks.clone(), tag),
        )
    }

    fn done(&self, from: Writer, request: &Request) {
        let mut list = self.in_flight.borrow_mut();
        if let Some(index) = list.iter().position(|(f, r)| *f == from && r == request) {
            list.swap_remove(index);
        }
    }

    fn judge_read(
        &self,
        from: Writer,
        called: Time,
        request: &Request,
        data: &[u8],
    ) -> Result<(), String> {
        let Request::Read(blocks) = request else {
            return Err("data for a request that is no read".to_owned());
        };
        self.judge_data(from, called, blocks, data)
    }

    fn judge_data(
        &self,
        from: Writer,
        called: Time,
        blocks: &Range<usize>,
        data: &[u8],
    ) -> Result<(), String> {
        let tags = self.layout.tags(blocks, data);
        let mut model = self.model.borrow_mut();
        let verdict = match from {
            Writer::Guest => model.judge_view(called, blocks.start, &tags),
            // A failover makes the disk the view; a crash loses what was not flushed.
            Writer::Peer if self.promoting.get() || self.crashes.get() > 0 => Ok(()),
            Writer::Peer => model.judge_disk(called, blocks.start, &tags),
        };
        verdict.map_err(|Violation(what)| what)
    }

    /// Whether a request that was made in stage `before` was allowed to fail.
    fn judge_failure(&self, from: Writer, before: Stage, error: &str) -> Result<(), String> {
        let served = match (from, before) {
            (Writer::Peer, Stage::Running) => !self.promoting.get(),
            (Writer::Peer, Stage::Done) => self.stopped.get(),
            (Writer::Guest, Stage::Running | Stage::Failover | Stage::Done) => true,
            (_, _) => false,
        };
        if served && self.calm.get() {
            return Err(format!("failed though nothing had gone wrong: {error}"));
        }
        Ok(())
    }

    async fn command(&self, command: Command) -> Result<Option<String>, String> {
        // There is one manager, which does one thing at a time, but for a failover.
        let turn = self
            .manager
            .lock(ByteRange::between(0, 1), LockKind::Exclusive);
        let _turn = if command == Command::Failover {
            None
        } else {
            Some(turn.await)
        };
        let before = self.subject.stage();
        self.note_command(command);
        let moves_the_view = matches!(command, Command::Checkpoint | Command::Stop);
        let called = if moves_the_view && before == Stage::Running {
            Some(self.model.borrow_mut().begin_checkpoint())
        } else {
            None
        };
        self.promoting
            .set(self.promoting.get() || command == Command::Failover);
        let result = self.subject.command(command).await;
        if let Some(called) = called {
            let verdict = match &result {
                Err(_) => Checkpoint::Failed,
                // Which of the two came first, nobody was told.
                Ok(()) if self.promoting.get() => Checkpoint::Unknown,
                Ok(()) => Checkpoint::Done,
            };
            let stopped = command == Command::Stop && verdict == Checkpoint::Done;
            let mut model = self.model.borrow_mut();
            model.end_checkpoint(called, verdict);
            if stopped {
                model.stopped();
                self.stopped.set(true);
            }
        }
        self.judge_command(command, before, result)
    }

    /// Whether a command was allowed to end like this.
    fn judge_command(
        &self,
        command: Command,
        before: Stage,
        result: Result<(), String>,
    ) -> Result<Option<String>, String> {
        let Err(error) = result else {
            let unknown = command == Command::Start && before == Stage::Lost;
            return if unknown {
                Err("started over unknown contents".to_owned())
            } else {
                Ok(None)
            };
        };
        self.count(match command {
            Command::Start => "start refused",
            Command::Checkpoint => "checkpoint refused",
            Command::Stop => "stop refused",
            Command::Failover => "failover failed",
        });
        let legal = match command {
            Command::Start => before == Stage::None,
            Command::Checkpoint | Command::Stop | Command::Failover => before == Stage::Running,
        };
        if legal && self.calm.get() {
            return Err(format!("failed though nothing had gone wrong: {error}"));
        }
        Ok(Some(error))
    }

    async fn mishap(&self, mishap: &Mishap) -> Result<Option<String>, String> {
        self.calm.set(false);
        let crash = matches!(mishap, Mishap::Kill | Mishap::PowerCut);
        let before = self.subject.stage();
        self.note_mishap(mishap, before);
        self.subject.mishap(mishap.clone()).await;
        if !crash {
            return Ok(None);
        }
        self.model.borrow_mut().crash();
        let after = self.subject.stage();
        let promised = match (before, after) {
            // Recorded durably before it was answered: it is resumed, or over.
            (Stage::Failover | Stage::FailoverFailed, Stage::Failover | Stage::None) => true,
            (Stage::Running, Stage::Lost) => true,
            (Stage::Running, Stage::Failover) => self.promoting.get(),
            (Stage::Done | Stage::None | Stage::Lost, _) => true,
            (_, _) => false,
        };
        if promised {
            return Ok(Some(format!("{after:?}")));
        }
        Err(format!(
            "was {before:?} before the crash, is {after:?} after it"
        ))
    }

    /// Reads the whole view, judges it and writes a line of the transcript.
    async fn look(&self, text: &str, remarks: &str) -> Result<(), Broken> {
        let blocks = 0..self.layout.blocks();
        let broken = |what| Broken {
            during: text.to_owned(),
            what,
        };
        let called = self.model.borrow_mut().tick();
        let before = self.subject.stage();
        let read = Request::Read(blocks.clone());
        let view = match self.subject.request(Writer::Guest, read).await {
            Answer::Data(data) => {
                let verdict = self.judge_data(Writer::Guest, called, &blocks, &data);
                verdict.map_err(broken)?;
                self.layout.print(&self.layout.tags(&blocks, &data))
            }
            Answer::Done => return Err(broken("a read without data".to_owned())),
            Answer::Failed(error) | Answer::Lost(error) => {
                self.judge_failure(Writer::Guest, before, &error)
                    .map_err(broken)?;
                "-".to_owned()
            }
        };
        let disk = self
            .layout
            .print(&self.layout.tags(&blocks, &self.subject.disk()));
        let remarks = if remarks.is_empty() {
            String::new()
        } else {
            format!("  {remarks}")
        };
        let line = format!("{text:18} {view}  {disk}{remarks}");
        self.lines.borrow_mut().push(line);
        Ok(())
    }

    /// At the end: after a promotion that is over, the disk is the view; after a stop, the peer's.
    fn judge_end(&self) -> Result<(), Broken> {
        if self.subject.stage() != Stage::Done {
            return Ok(());
        }
        let blocks = 0..self.layout.blocks();
        let tags = self.layout.tags(&blocks, &self.subject.disk());
        let mut model = self.model.borrow_mut();
        let called = model.tick();
        let verdict = if self.stopped.get() {
            model.judge_disk(called, 0, &tags)
        } else {
            model.judge_view(called, 0, &tags)
        };
        verdict.map_err(|Violation(what)| Broken {
            during: "the end, reading the disk".to_owned(),
            what,
        })
    }
}

/// Counting rare states.
impl Run<'_> {
    fn count(&self, what: &'static str) {
        let mut counters = self.counters.borrow_mut();
        let counter = counters.entry(what).or_default();
        *counter = counter.saturating_add(1);
    }

    fn writes_in_flight(&self, from: Writer) -> bool {
        let list = self.in_flight.borrow();
        list.iter()
            .any(|(f, request)| *f == from && changed(request).is_some())
    }

    fn note_neighbours(&self, from: Writer, request: &Request) {
        let Request::Read(read) = request else { return };
        if from == Writer::Peer {
            return;
        }
        let passes = self.in_flight.borrow().iter().any(|(other, request)| {
            let changed = changed(request);
            *other == Writer::Peer
                && changed.is_some_and(|c| c.start < read.end && read.start < c.end)
        });
        if passes {
            self.count("guest read of what the peer was writing");
        }
    }

    fn note_command(&self, command: Command) {
        let (peer, guest) = (
            self.writes_in_flight(Writer::Peer),
            self.writes_in_flight(Writer::Guest),
        );
        match command {
            Command::Checkpoint if peer => {
                self.count("checkpoint with the peer's writes in flight");
            }
            Command::Checkpoint if guest => {
                self.count("checkpoint with the guest's writes in flight");
            }
            Command::Stop if peer => self.count("stop with the peer's writes in flight"),
            Command::Failover if peer => self.count("failover with the peer's writes in flight"),
            Command::Failover if self.subject.stage() == Stage::FailoverFailed => {
                self.count("failover retried");
            }
            Command::Start | Command::Checkpoint | Command::Stop | Command::Failover => {}
        }
    }

    fn note_mishap(&self, mishap: &Mishap, before: Stage) {
        match mishap {
            Mishap::Kill | Mishap::PowerCut => {
                let earlier = self.crashes.replace(self.crashes.get().saturating_add(1));
                match before {
                    Stage::Failover if earlier > 0 => self.count("double crash during the commit"),
                    Stage::Failover => self.count("crash during the commit"),
                    Stage::Running if self.promoting.get() => {
                        self.count("crash while failing over");
                    }
                    Stage::Running => self.count("crash while replicating"),
                    Stage::None | Stage::FailoverFailed | Stage::Done | Stage::Lost => {}
                }
            }
            Mishap::Lose(_) if self.writes_in_flight(Writer::Peer) => {
                self.count("connection lost with writes in flight");
            }
            Mishap::Hang(_) if self.writes_in_flight(Writer::Peer) => {
                self.count("secondary hung with writes in flight");
            }
            Mishap::Fault(_)
            | Mishap::Space(_)
            | Mishap::Heal
            | Mishap::Lose(_)
            | Mishap::Silence
            | Mishap::Hang(_) => {}
        }
    }
}

/// The blocks a request changes.
fn changed(request: &Request) -> Option<&Range<usize>> {
    match request {
        Request::Write(blocks, _) | Request::Zero(blocks) | Request::Discard(blocks) => {
            Some(blocks)
        }
        Request::Flush | Request::Read(_) => None,
    }
}
