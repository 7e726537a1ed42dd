//! An export: a user from outside of one node, under a name that clients know.

use block::{Gate, Limits, Pass, Permissions, Root, Shares};
use drivers::ports::Stream;
use nbd::server::ExportInfo;
use nbd::wire::{BlockSizes, ContextSet, ExportName, MetaContext, TransmissionFlags};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What a user asks for with `block-export-add` and its relatives.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Its identifier among all exports.
    pub id: String,
    /// The node to export.
    pub node_name: String,
    /// The name NBD clients ask for.
    pub name: String,
    /// Text for people.
    pub description: String,
    /// What clients may do.
    pub access: Access,
    /// Every write is durable before it is answered.
    pub writethrough: bool,
    /// Offer `qemu:allocation-depth`.
    pub allocation_depth: bool,
}

/// What clients of an export may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    Writable,
}

/// An export. It lives until the last of its connections has gone.
pub struct Export {
    pub(super) id: String,
    pub(super) name: ExportName,
    pub(super) root: Rc<Root>,
    pub(super) writethrough: bool,
    pub(super) access: Access,
    description: String,
    contexts: ContextSet,
    streams: RefCell<Vec<Rc<dyn Stream>>>,
    /// Every client is inside.
    clients: Gate,
    /// Why no new client is admitted, if so.
    ending: Cell<Option<Ending>>,
    /// Its own pass is inside until it has gone.
    presence: Gate,
    present: RefCell<Option<Pass>>,
}

/// Why an export is being taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The user asked for it.
    Deleted,
    /// A failover keeps the peer's writers out (R102): that they are cut off is no loss.
    Fenced,
    /// The daemon ends: replication stops with all that was sent (R85), which is no loss either.
    ShutDown,
}

impl Export {
    pub(super) fn new(options: &ExportOptions, name: ExportName, root: Rc<Root>) -> Export {
        let presence = Gate::new();
        let base = ContextSet::NONE.with(MetaContext::BaseAllocation);
        Export {
            id: options.id.clone(),
            name,
            root,
            writethrough: options.writethrough,
            access: options.access,
            description: options.description.clone(),
            contexts: if options.allocation_depth {
                base.with(MetaContext::AllocationDepth)
            } else {
                base
            },
            streams: RefCell::default(),
            clients: Gate::new(),
            ending: Cell::new(None),
            present: RefCell::new(presence.try_enter()),
            presence,
        }
    }

    /// Its identifier.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name NBD clients ask for.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// The exported node at present: a filter that was put on top counts.
    pub fn node_name(&self) -> String {
        let node = self.root.child().node();
        node.map_or_else(|_| String::new(), |node| node.name().to_owned())
    }

    /// What its clients may do.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Where its requests enter the graph.
    pub fn root(&self) -> &Rc<Root> {
        &self.root
    }

    /// How many clients it has.
    pub fn clients(&self) -> u64 {
        self.clients.inside()
    }

    /// Whether it is being taken away.
    pub fn is_shutting_down(&self) -> bool {
        self.ending.get().is_some()
    }

    /// Why it is being taken away, if it is.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.ending.get()
    }

    /// Admits nobody any more and cuts the connections there are. The first reason counts.
    pub(super) fn end(&self, why: Ending) {
        if self.ending.get().is_none() {
            self.ending.set(Some(why));
        }
        let streams = self.streams.borrow().clone();
        for stream in &streams {
            stream.shutdown();
        }
    }

    /// Resolves when no client is left and none of their requests is in flight.
    pub(super) async fn deserted(&self) {
        self.clients.drained().await;
    }

    /// It is out of the list and the graph.
    pub(super) fn forget(&self) {
        self.present.take();
    }

    /// Resolves when it has gone.
    pub(super) async fn gone(&self) {
        self.presence.drained().await;
    }

    /// What clients are told of it.
    pub(super) fn info(&self) -> ExportInfo {
        let node = self.root.child().node();
        let limits = node.map_or_else(|_| Limits::of_length(0), |node| node.limits());
        ExportInfo {
            name: self.name.clone(),
            description: self.description.clone(),
            size: limits.length,
            flags: self.flags(),
            block_sizes: block_sizes(limits),
            contexts: self.contexts,
        }
    }

    pub(super) fn described(&self) -> (ExportName, String) {
        (self.name.clone(), self.description.clone())
    }

    /// All connections reach one node on one thread, so that a flush on any of them covers the
    /// writes answered on all: several connections are fine.
    fn flags(&self) -> TransmissionFlags {
        let always = TransmissionFlags::SEND_FLUSH
            | TransmissionFlags::SEND_FUA
            | TransmissionFlags::SEND_CACHE
            | TransmissionFlags::CAN_MULTI_CONN;
        match self.access {
            Access::ReadOnly => always | TransmissionFlags::READ_ONLY,
            Access::Writable => {
                always
                    | TransmissionFlags::SEND_TRIM
                    | TransmissionFlags::SEND_WRITE_ZEROES
                    | TransmissionFlags::SEND_FAST_ZERO
            }
        }
    }
}

/// A connection's place at an export; dropping it leaves.
pub(super) struct Seat {
    export: Rc<Export>,
    stream: Rc<dyn Stream>,
    _pass: Pass,
}

impl Seat {
    pub(super) fn take(export: Rc<Export>, stream: &Rc<dyn Stream>) -> Seat {
        export.streams.borrow_mut().push(Rc::clone(stream));
        let pass = export.clients.try_enter();
        Seat {
            stream: Rc::clone(stream),
            _pass: pass.expect("nobody holds the gate of an export's clients"),
            export,
        }
    }

    pub(super) fn export(&self) -> &Rc<Export> {
        &self.export
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut streams = self.export.streams.borrow_mut();
        streams.retain(|known| !Rc::ptr_eq(known, &self.stream));
    }
}

/// What an export uses of its node: reading, and writing if it may; nobody may resize beside it.
pub(super) fn shares(access: Access) -> Shares {
    let used = match access {
        Access::ReadOnly => Permissions::CONSISTENT_READ,
        Access::Writable => Permissions::CONSISTENT_READ | Permissions::WRITE,
    };
    Shares {
        used,
        shared: !Permissions::RESIZE,
    }
}

/// Any byte range is served; the preferred size is the node's.
fn block_sizes(limits: Limits) -> BlockSizes {
    let preferred = u32::try_from(limits.preferred_alignment).unwrap_or(4096);
    let maximum = BlockSizes::DEFAULT.maximum();
    let preferred = preferred.clamp(512, maximum);
    BlockSizes::new(1, preferred, maximum).unwrap_or(BlockSizes::DEFAULT)
}
