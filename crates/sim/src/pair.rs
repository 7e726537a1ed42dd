//! A secondary run by the real engine, a peer and a guest that reach it by the real NBD client.
//!
//! ```text
//!                      secondary
//!  peer ════nbd═════▶ export "disk" ─▶ disk ◀─ hidden ◀─ active ◀─ filter ◀─ top
//!                                                                              ▲
//!                                                  guest ════nbd═════▶ export "view"
//! ```
//!
//! The peer is a client of its own, or the guest of a primary that the real engine runs, too:
//!
//! ```text
//!           primary
//!  peer ══▶ export "root" ─▶ quorum ─┬▶ local
//!                                    └▶ forward ─▶ link ════nbd════▶ export "disk"
//! ```
//!
//! Each has a host of its own; everything crosses the simulated network.

mod mishap;
mod set_up;

use crate::layout::Layout;
use crate::medium::Medium;
use crate::model::{Tag, Writer};
use crate::monitor::Monitor;
use crate::run::{Answer, Stage, Subject};
use crate::script::{Command, Mishap, Request};
use crate::world::{Host, World};
use block::{Error, Node, WriteFlags, ZeroFlags};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// The primary's disk.
pub const LOCAL: &str = "local";
/// How long a commit may take, in simulated time.
const COMMIT: Duration = Duration::from_mins(1);

/// What sits between the replication node and its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// Nothing: the filter is the root.
    Plain,
    /// A quorum with one child, as the documents have it.
    Quorum,
}

/// Who writes to the secondary disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A client that is told of every failure.
    Client,
    /// A primary, whose guest must not notice any.
    Primary,
}

/// How a pair is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// What the guest's requests come through.
    pub top: Top,
    /// Who writes to the secondary disk.
    pub peer: Peer,
}

/// The primary's host, which is dead in the end, and the line to its daemon.
struct Primary {
    host: Host,
    monitor: Monitor,
}

/// The secondary's daemon.
struct Daemon {
    monitor: RefCell<Monitor>,
    /// As of the last time anybody looked.
    stage: Cell<Stage>,
    /// How often it was started again.
    starts: Cell<u64>,
    is_up: Cell<bool>,
}

/// The pair.
pub struct Pair<'a> {
    world: &'a World,
    layout: &'a Layout,
    build: Build,
    secondary: Host,
    primary: Option<Primary>,
    /// The others' hosts live as long as the pair does.
    _hosts: [Host; 2],
    daemon: Daemon,
    peer: Rc<Node>,
    guest: Rc<Node>,
    /// Failed requests may yet take effect.
    cut_off: Cell<bool>,
}

impl<'a> Pair<'a> {
    /// A pair whose disks hold `first` in every block; not started.
    ///
    /// # Errors
    ///
    /// The first command that failed.
    pub async fn new(
        world: &'a World,
        layout: &'a Layout,
        build: Build,
        first: Tag,
    ) -> Result<Pair<'a>, String> {
        let secondary = world.host("secondary");
        let whole = layout.data(&(0..layout.blocks()), first);
        secondary.disks().put("disk", Medium::with_contents(&whole));
        secondary.disks().put("hidden", Medium::default());
        secondary.disks().put("active", Medium::default());
        let monitor = set_up::secondary(&secondary.ports(), build.top).await?;
        let hosts = [world.host("peer"), world.host("guest")];
        let [peer, guest] = &hosts;
        let guest = set_up::client(&guest.ports(), "secondary", "view").await?;
        let (primary, peer) = match build.peer {
            Peer::Client => {
                let disk = set_up::client(&peer.ports(), "secondary", "disk").await?;
                (None, disk)
            }
            Peer::Primary => {
                let host = world.host("primary");
                host.disks().put("local", Medium::with_contents(&whole));
                let monitor = set_up::primary(&host.ports()).await?;
                let root = set_up::client(&peer.ports(), "primary", "root").await?;
                (Some(Primary { host, monitor }), root)
            }
        };
        Ok(Pair {
            world,
            layout,
            build,
            secondary,
            primary,
            peer,
            guest,
            _hosts: hosts,
            daemon: Daemon {
                monitor: RefCell::new(monitor),
                stage: Cell::new(Stage::None),
                starts: Cell::new(0),
                is_up: Cell::new(true),
            },
            cut_off: Cell::new(false),
        })
    }

    /// The secondary's host.
    pub fn secondary(&self) -> &Host {
        &self.secondary
    }

    /// Carries a QMP command out on the secondary.
    ///
    /// # Errors
    ///
    /// The error's text.
    pub async fn execute(&self, name: &str, arguments: Value) -> Result<Value, String> {
        let monitor = self.daemon.monitor.borrow().clone();
        monitor.execute(name, &arguments).await
    }

    /// Looks at the stage; `Lost` is for ever.
    async fn look(&self) -> Option<Value> {
        let infos = self
            .execute("x-ai-query-replication", json!({}))
            .await
            .ok()?;
        let info = infos.get(0)?.clone();
        let stage = match info.get("stage").and_then(Value::as_str) {
            Some("running") => Stage::Running,
            Some("failover") => Stage::Failover,
            Some("failover-failed") => Stage::FailoverFailed,
            Some("done") => Stage::Done,
            _ => Stage::None,
        };
        if self.daemon.is_up.get() && self.daemon.stage.get() != Stage::Lost {
            self.daemon.stage.set(stage);
        }
        Some(info)
    }

    async fn send(&self, from: Writer, request: Request) -> Result<Option<Bytes>, Error> {
        let node = match from {
            Writer::Peer => &self.peer,
            Writer::Guest => &self.guest,
        };
        let zero = ZeroFlags {
            may_unmap: true,
            ..ZeroFlags::default()
        };
        match request {
            Request::Write(blocks, tag) => {
                let data = self.layout.data(&blocks, tag);
                let offset = self.layout.range(&blocks).offset();
                node.write(offset, data, WriteFlags::default()).await?;
            }
            Request::Zero(blocks) => node.write_zeroes(self.layout.range(&blocks), zero).await?,
            Request::Discard(blocks) => node.discard(self.layout.range(&blocks)).await?,
            Request::Flush => node.flush().await?,
            Request::Read(blocks) => return node.read(self.layout.range(&blocks)).await.map(Some),
        }
        Ok(None)
    }

    /// What a manager does. It moves the view only while the primary has lost nothing, and stops the
    /// primary first.
    async fn carry_out(&self, command: Command) -> Result<(), String> {
        let replication = "xen-set-replication";
        let result = match command {
            Command::Start => {
                let started = self.execute(replication, json!({"enable": true, "primary": false}));
                started.await?;
                let arguments = json!({"enable": true, "primary": true});
                self.execute_on_primary(replication, arguments).await
            }
            Command::Checkpoint => {
                self.check_primary().await?;
                self.execute("xen-colo-do-checkpoint", json!({})).await
            }
            Command::Stop => {
                self.check_primary().await?;
                let arguments = json!({"enable": false, "primary": true});
                self.execute_on_primary(replication, arguments).await?;
                let arguments = json!({"enable": false, "primary": false});
                self.execute(replication, arguments).await
            }
            Command::Failover => {
                self.cut_off.set(true);
                let arguments = json!({"enable": false, "primary": false, "failover": true});
                self.execute(replication, arguments).await
            }
        };
        self.look().await;
        result.map(drop)
    }

    async fn execute_on_primary(&self, name: &str, arguments: Value) -> Result<Value, String> {
        match &self.primary {
            None => Ok(Value::Null),
            Some(primary) => primary.monitor.execute(name, &arguments).await,
        }
    }

    async fn check_primary(&self) -> Result<(), String> {
        let status = self.execute_on_primary("query-xen-replication-status", json!({}));
        let status = status.await?;
        match status.get("error").and_then(Value::as_bool) {
            Some(true) => Err(format!("the primary has lost writes: {status}")),
            Some(false) | None => Ok(()),
        }
    }
}

impl Subject for Pair<'_> {
    fn request(&self, from: Writer, request: Request) -> LocalBoxFuture<'_, Answer> {
        Box::pin(async move {
            match self.send(from, request).await {
                Ok(Some(data)) => Answer::Data(data),
                Ok(None) => Answer::Done,
                Err(error) if self.cut_off.get() => Answer::Lost(error.to_string()),
                Err(error) => Answer::Failed(error.to_string()),
            }
        })
    }

    fn command(&self, command: Command) -> LocalBoxFuture<'_, Result<(), String>> {
        Box::pin(self.carry_out(command))
    }

    fn settle(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            let executor = self.world.executor();
            let end = executor.now().saturating_add(COMMIT);
            self.look().await;
            while self.daemon.stage.get() == Stage::Failover && executor.now() < end {
                executor.sleep(Duration::from_millis(1)).await;
                self.look().await;
            }
        })
    }

    fn mishap(&self, mishap: Mishap) -> LocalBoxFuture<'_, ()> {
        Box::pin(self.go_wrong(mishap))
    }

    fn stage(&self) -> Stage {
        self.daemon.stage.get()
    }

    fn error(&self) -> LocalBoxFuture<'_, Option<String>> {
        Box::pin(async {
            let info = self.look().await?;
            let error = info.get("error").filter(|error| !error.is_null())?;
            Some(error.to_string())
        })
    }

    fn peer_limit(&self) -> Option<Duration> {
        let primary = self.build.peer == Peer::Primary;
        primary.then_some(Duration::from_secs(2 * set_up::FORWARD_SECONDS))
    }

    fn disk(&self) -> Vec<u8> {
        self.secondary.disks().peek("disk").unwrap_or_default()
    }
}
