//! A secondary run by the real engine, a peer and a guest that reach it by the real NBD client.
//!
//! ```text
//!  peer ──nbd──▶ export "disk" ──▶ disk ◀── hidden ◀── active ◀── replication ◀── top ◀── export "view" ◀──nbd── guest
//! ```
//!
//! Three hosts: the peer's writes and the guest's requests cross the simulated network.

use crate::layout::Layout;
use crate::medium::Medium;
use crate::model::{Tag, Writer};
use crate::monitor::Monitor;
use crate::run::{Answer, Stage, Subject};
use crate::script::{Command, Mishap, Request};
use crate::world::{Host, World};
use block::{Error, Node, NodeOptions, WriteFlags, ZeroFlags};
use bytes::Bytes;
use drivers::nbd::Nbd;
use drivers::ports::{Address, Ports};
use engine::Engine;
use futures_util::future::LocalBoxFuture;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

const PORT: u16 = 10809;
/// How long a commit may take, in simulated time.
const COMMIT: Duration = Duration::from_mins(1);
/// How long a silence lasts before the peer gives the connection up.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long clients take to come back at most.
const RECONNECTION: Duration = Duration::from_millis(500);

/// What sits between the replication node and its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// Nothing: the filter is the root.
    Plain,
    /// A quorum with one child, as the documents have it.
    Quorum,
}

/// The pair.
pub struct Pair<'a> {
    world: &'a World,
    layout: &'a Layout,
    top: Top,
    secondary: Host,
    /// The others' hosts live as long as the pair does.
    _hosts: [Host; 2],
    monitor: RefCell<Monitor>,
    peer: Rc<Node>,
    guest: Rc<Node>,
    /// As of the last time anybody looked.
    stage: Cell<Stage>,
    /// Failed requests may yet take effect.
    cut_off: Cell<bool>,
    /// How often the secondary was started again.
    starts: Cell<u64>,
    is_up: Cell<bool>,
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
        top: Top,
        first: Tag,
    ) -> Result<Pair<'a>, String> {
        let secondary = world.host("secondary");
        let whole = layout.data(&(0..layout.blocks()), first);
        secondary.disks().put("disk", Medium::with_contents(&whole));
        secondary.disks().put("hidden", Medium::default());
        secondary.disks().put("active", Medium::default());
        let (peer_host, guest_host) = (world.host("peer"), world.host("guest"));
        let monitor = start_daemon(&secondary.ports(), top).await?;
        Ok(Pair {
            world,
            layout,
            top,
            secondary,
            peer: client(&peer_host.ports(), "disk").await?,
            guest: client(&guest_host.ports(), "view").await?,
            _hosts: [peer_host, guest_host],
            monitor: RefCell::new(monitor),
            stage: Cell::new(Stage::None),
            cut_off: Cell::new(false),
            starts: Cell::new(0),
            is_up: Cell::new(true),
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
        let monitor = self.monitor.borrow().clone();
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
        if self.is_up.get() && self.stage.get() != Stage::Lost {
            self.stage.set(stage);
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

    async fn carry_out(&self, command: Command) -> Result<(), String> {
        let (name, arguments) = match command {
            Command::Start => (
                "xen-set-replication",
                json!({"enable": true, "primary": false}),
            ),
            Command::Checkpoint => ("xen-colo-do-checkpoint", json!({})),
            Command::Stop => (
                "xen-set-replication",
                json!({"enable": false, "primary": false}),
            ),
            Command::Failover => {
                self.cut_off.set(true);
                let arguments = json!({"enable": false, "primary": false, "failover": true});
                ("xen-set-replication", arguments)
            }
        };
        let result = self.execute(name, arguments).await;
        self.look().await;
        result.map(drop)
    }

    async fn go_wrong(&self, mishap: Mishap) {
        let (net, disks) = (self.world.internet(), self.secondary.disks());
        match mishap {
            Mishap::Fault(fault) => disks.inject(fault),
            Mishap::Space(bytes) => disks.limit_space(bytes),
            Mishap::Heal => {
                disks.heal();
                net.heal();
            }
            Mishap::Kill => {
                self.secondary.kill();
                self.come_back().await;
            }
            Mishap::PowerCut => {
                self.secondary.power_cut();
                self.secondary.power_on();
                self.come_back().await;
            }
            Mishap::Lose(bytes) => {
                self.cut_off.set(true);
                net.cut("peer", "secondary", bytes);
            }
            Mishap::Silence => {
                self.cut_off.set(true);
                net.silence("peer", "secondary");
                self.world.executor().sleep(PATIENCE).await;
                net.cut("peer", "secondary", 0);
                net.heal();
            }
            Mishap::Hang(time) => {
                self.secondary.stop();
                self.world
                    .executor()
                    .sleep(Duration::from_millis(time))
                    .await;
                self.secondary.resume();
            }
        }
    }

    /// Starts the secondary's daemon again; if that is killed in turn, whoever did so starts it. What
    /// it was doing decides what is left.
    async fn come_back(&self) {
        self.cut_off.set(true);
        self.secondary.disks().heal();
        let start = self.starts.get().saturating_add(1);
        self.starts.set(start);
        self.is_up.set(false);
        let before = self.stage.get();
        let monitor = start_daemon(&self.secondary.ports(), self.top).await;
        if self.starts.get() == start {
            match monitor {
                Ok(monitor) => drop(self.monitor.replace(monitor)),
                Err(error) => panic!("the daemon is not back: {error}"),
            }
            self.world.executor().sleep(RECONNECTION).await;
        }
        if self.starts.get() == start {
            self.is_up.set(true);
            self.look().await;
            self.find_out(before).await;
        }
        while !self.is_up.get() {
            self.world.executor().sleep(Duration::from_millis(1)).await;
        }
    }

    /// Nothing in the status tells that the contents are unknown, but a start must be refused.
    async fn find_out(&self, before: Stage) {
        if before == Stage::Running && self.stage.get() == Stage::None {
            let start = self.carry_out(Command::Start).await;
            let found = if start.is_err() {
                Stage::Lost
            } else {
                Stage::Running
            };
            self.stage.set(found);
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
            while self.stage.get() == Stage::Failover && executor.now() < end {
                executor.sleep(Duration::from_millis(1)).await;
                self.look().await;
            }
        })
    }

    fn mishap(&self, mishap: Mishap) -> LocalBoxFuture<'_, ()> {
        Box::pin(self.go_wrong(mishap))
    }

    fn stage(&self) -> Stage {
        self.stage.get()
    }

    fn error(&self) -> LocalBoxFuture<'_, Option<String>> {
        Box::pin(async {
            let info = self.look().await?;
            let error = info.get("error").filter(|error| !error.is_null())?;
            Some(error.to_string())
        })
    }

    fn disk(&self) -> Vec<u8> {
        self.secondary.disks().peek("disk").unwrap_or_default()
    }
}

/// Starts a daemon with the secondary's nodes and exports.
async fn start_daemon(ports: &Ports, top: Top) -> Result<Monitor, String> {
    let engine = Engine::new(ports.clone(), engine::Options::default());
    let monitor = Monitor::new(engine, ports.runtime.clone());
    for (name, arguments) in set_up(top) {
        let result = monitor.execute(name, &arguments).await;
        result.map_err(|error| format!("{name} {arguments}: {error}"))?;
    }
    Ok(monitor)
}

/// The secondary's command line, as commands.
fn set_up(top: Top) -> Vec<(&'static str, Value)> {
    let add = "blockdev-add";
    let file = |name: &str, path: &str| {
        (
            add,
            json!({"driver": "file", "node-name": name, "filename": path}),
        )
    };
    let overlay = |name: &str, file: &str, backing: &str| {
        let options = json!({
            "driver": "ai-overlay", "node-name": name, "file": file, "backing": backing
        });
        (add, options)
    };
    let export = |id: &str, node: &str| {
        let options = json!({
            "type": "nbd", "id": id, "node-name": node, "name": id, "writable": true
        });
        ("block-export-add", options)
    };
    let top_id = match top {
        Top::Plain => "filter",
        Top::Quorum => "top",
    };
    let mut commands = vec![
        file("disk", "disk"),
        file("hidden-file", "hidden"),
        file("active-file", "active"),
        overlay("hidden", "hidden-file", "disk"),
        overlay("active", "active-file", "hidden"),
    ];
    let server = json!({
        "addr": {"type": "inet", "data": {"host": "0.0.0.0", "port": PORT.to_string()}}
    });
    commands.extend([
        ("nbd-server-start", server),
        export("disk", "disk"),
        (
            add,
            json!({
                "driver": "replication", "node-name": "filter", "mode": "secondary",
                "top-id": top_id, "file": "active"
            }),
        ),
    ]);
    if top == Top::Quorum {
        let quorum = json!({
            "driver": "quorum", "node-name": "top", "vote-threshold": 1,
            "read-pattern": "fifo", "children": ["filter"]
        });
        commands.push((add, quorum));
    }
    commands.push(export("view", top_id));
    commands
}

/// A client of the secondary's export.
async fn client(ports: &Ports, export: &str) -> Result<Rc<Node>, String> {
    let options = drivers::nbd::Options {
        server: Address::Inet {
            host: "secondary".to_owned(),
            port: PORT,
        },
        export: export.to_owned(),
        reconnect_delay: Duration::ZERO,
        open_timeout: Duration::from_secs(1),
        read_only: false,
        auto_read_only: false,
    };
    let driver = Nbd::open(ports, options)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Node::new(export, Box::new(driver), NodeOptions::default()))
}
