//! Exports: who may reach which node from outside, and the NBD server they are reached by.
//!
//! ```text
//! NBD server ── connection ── session ── request ──▶ Export ── Root ──▶ node
//!   (one listener)  (a task each)                     by name
//! ```
//!
//! An export is taken away in three steps: no new client, the connections are cut, and when the last
//! of their requests has ended the root leaves the graph and `BLOCK_EXPORT_DELETED` is sent.

mod ahead;
mod connection;
mod export;
mod fence;
mod request;
mod server;

pub use export::{Access, Export, ExportOptions};

use crate::edits::Edits;
use crate::events::Events;
use crate::options::Options;
use crate::words::{in_words, no_node};
use block::{ErrorKind, Op, Root};
use drivers::ports::{Address, Ports};
use export::{Ending, shares};
use fence::Fence;
use futures_util::future::{Either, join_all, select};
use nbd::server::Closed;
use nbd::wire::ExportName;
use qmp::event::{BlockErrorAction, BlockExportDeleted, BlockIoError, IoOperationType};
use qmp::{Error, Event};
use server::Server;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

/// Who hears of what happens to clients of exports.
pub(crate) trait Listener {
    /// A client of a writable export has gone without a clean farewell (R99).
    fn writer_lost(&self, export: &Rc<Export>, closed: Closed);
}

/// All exports of a data thread, and its NBD server. Clones share them.
#[derive(Clone)]
pub struct Exports {
    inner: Rc<Inner>,
}

struct Inner {
    ports: Ports,
    options: Options,
    edits: Edits,
    events: Events,
    list: RefCell<Vec<Rc<Export>>>,
    server: RefCell<Option<Rc<Server>>>,
    fences: RefCell<Vec<Fence>>,
    listener: RefCell<Option<Rc<dyn Listener>>>,
    handshake: Cell<Duration>,
}

/// How an export is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Only if no client is connected.
    Safe,
    /// Clients are cut off.
    Hard,
}

/// How the NBD server listens.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Where.
    pub address: Address,
    /// Most clients at a time; `None` is the default, 0 means any number.
    pub max_connections: Option<usize>,
    /// How long a handshake may take; `None` is the default.
    pub handshake: Option<Duration>,
}

impl Exports {
    /// No exports, no server.
    pub(crate) fn new(ports: Ports, options: Options, edits: Edits, events: Events) -> Exports {
        let handshake = Cell::new(options.nbd.handshake);
        Exports {
            inner: Rc::new(Inner {
                ports,
                options,
                edits,
                events,
                list: RefCell::default(),
                server: RefCell::default(),
                fences: RefCell::default(),
                listener: RefCell::default(),
                handshake,
            }),
        }
    }

    /// Who hears of what happens to clients.
    pub(crate) fn listen(&self, listener: Rc<dyn Listener>) {
        self.inner.listener.replace(Some(listener));
    }

    fn ports(&self) -> &Ports {
        &self.inner.ports
    }

    fn nbd_limits(&self) -> nbd::server::Limits {
        nbd::server::Limits {
            handshake: self.inner.handshake.get(),
            ..self.inner.options.nbd
        }
    }

    /// How long the end of a connection or an export may take.
    fn close_bound(&self) -> Duration {
        self.inner.options.close
    }

    /// What `NBD_OPT_LIST` answers.
    fn nbd_list(&self) -> Vec<(ExportName, String)> {
        let list = self.inner.list.borrow();
        let open = list.iter().filter(|export| !export.is_shutting_down());
        open.map(|export| export.described()).collect()
    }

    /// The export NBD clients know as `name`.
    fn find_nbd(&self, name: &str) -> Option<Rc<Export>> {
        let list = self.inner.list.borrow();
        let mut open = list.iter().filter(|export| !export.is_shutting_down());
        open.find(|export| export.name() == name).cloned()
    }

    fn writer_lost(&self, export: &Rc<Export>, closed: Closed) {
        let listener = self.inner.listener.borrow().clone();
        if let Some(listener) = listener {
            listener.writer_lost(export, closed);
        }
    }

    fn request_failed(&self, export: &Rc<Export>, error: &block::Error) {
        let event = Event::BlockIoError(BlockIoError {
            qom_path: String::new(),
            device: export.id.clone(),
            node_name: Some(export.node_name()),
            operation: direction(error),
            action: BlockErrorAction::Report,
            nospace: Some(error.kind() == ErrorKind::NoSpace),
            reason: error.to_string(),
        });
        self.inner.events.send(event);
    }

    /// All exports, oldest first.
    pub fn list(&self) -> Vec<Rc<Export>> {
        self.inner.list.borrow().clone()
    }

    /// The export with identifier `id`.
    pub fn find(&self, id: &str) -> Option<Rc<Export>> {
        let list = self.inner.list.borrow();
        list.iter().find(|export| export.id() == id).cloned()
    }

    /// Whether the NBD server runs, and where.
    pub fn server_address(&self) -> Option<Address> {
        let server = self.inner.server.borrow();
        server.as_ref().map(|server| server.address().clone())
    }
}

/// The NBD server.
impl Exports {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// It runs already, or the address cannot be had.
    pub async fn start_server(&self, options: ServerOptions) -> Result<(), Error> {
        if self.inner.server.borrow().is_some() {
            return Err(Error::generic("NBD server already running"));
        }
        let most = match options.max_connections {
            None => self.inner.options.connections,
            Some(0) => self.inner.options.connections_most,
            Some(most) => most.min(self.inner.options.connections_most),
        };
        let handshake = options
            .handshake
            .unwrap_or(self.inner.options.nbd.handshake);
        self.inner.handshake.set(handshake);
        let started = Server::start(self, &options.address, most).await;
        let server = started.map_err(|error| {
            let address = show(&options.address);
            Error::generic(format!("Failed to listen on {address}: {error}"))
        })?;
        tracing::info!(address = show(server.address()), "NBD server listens");
        self.inner.server.replace(Some(Rc::new(server)));
        Ok(())
    }

    /// Stops listening, takes all exports away and cuts all clients off.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub async fn stop_server(&self) -> Result<(), Error> {
        self.close_server(Ending::Deleted).await
    }

    /// The same because the daemon ends; nothing if there is no server.
    pub(crate) async fn shut_down(&self) {
        if self.close_server(Ending::ShutDown).await.is_err() {
            tracing::debug!("there was no NBD server");
        }
    }

    async fn close_server(&self, why: Ending) -> Result<(), Error> {
        let Some(server) = self.inner.server.take() else {
            return Err(Error::generic("NBD server not running"));
        };
        server.close().await;
        let exports = self.list();
        join_all(exports.iter().map(|export| Box::pin(self.end(export, why)))).await;
        let runtime = &*self.inner.ports.runtime;
        if !server.disconnect(runtime, self.inner.options.close).await {
            tracing::warn!("NBD clients still have requests in flight");
        }
        Ok(())
    }
}

/// Adding and taking away.
impl Exports {
    /// Adds an export of a node.
    ///
    /// # Errors
    ///
    /// No server, no such node, a name or identifier in use, a read-only or fenced node, or
    /// permissions that conflict.
    pub async fn add(&self, options: &ExportOptions) -> Result<Rc<Export>, Error> {
        let name = self.check(options)?;
        let edits = &self.inner.edits;
        let node = edits.look(|graph| graph.node(&options.node_name));
        let node = node.ok_or_else(|| no_node(&options.node_name))?;
        if options.access == Access::Writable {
            if node.is_read_only() {
                return Err(Error::generic("Cannot export read-only node as writable"));
            }
            self.check_fences(&node)?;
        }
        let root = format!("block export '{}'", options.id);
        let root = Root::new(root, node, shares(options.access));
        let added = edits.edit(|edit| {
            edit.add_root(&root);
            Ok(())
        });
        added.await.map_err(|error| in_words(&error))?;
        let export = Rc::new(Export::new(options, name, root));
        self.inner.list.borrow_mut().push(Rc::clone(&export));
        Ok(export)
    }

    fn check(&self, options: &ExportOptions) -> Result<ExportName, Error> {
        if self.inner.server.borrow().is_none() {
            return Err(Error::generic("NBD server not running"));
        }
        let list = self.inner.list.borrow();
        let (id, name) = (&options.id, &options.name);
        if list.iter().any(|export| export.id() == id) {
            let message = format!("Block export id '{id}' is already in use");
            return Err(Error::generic(message));
        }
        if list.iter().any(|export| export.name() == name) {
            let message = format!("NBD server already has export named '{name}'");
            return Err(Error::generic(message));
        }
        if list.len() >= self.inner.options.exports {
            return Err(Error::generic(format!(
                "There are already {} exports",
                list.len()
            )));
        }
        ExportName::try_from(name.as_str()).map_err(|error| Error::generic(error.to_string()))
    }

    /// Takes an export away and waits until it has gone, at most for the bound of closing; then it
    /// goes by itself.
    ///
    /// # Errors
    ///
    /// No such export; [`Removal::Safe`] with clients connected.
    pub async fn remove(&self, id: &str, removal: Removal) -> Result<(), Error> {
        let Some(export) = self.find(id) else {
            return Err(Error::generic(format!("Export '{id}' is not found")));
        };
        if removal == Removal::Safe && export.clients() > 0 {
            let message = format!("export '{id}' still in use");
            return Err(Error::generic(message));
        }
        self.end(&export, Ending::Deleted).await;
        Ok(())
    }

    /// Ends `export`; says whether it has gone within the bound.
    async fn end(&self, export: &Rc<Export>, why: Ending) -> bool {
        let first = !export.is_shutting_down();
        export.end(why);
        if first {
            let task = self.clone().finish(Rc::clone(export));
            self.inner.ports.runtime.spawn(Box::pin(task));
        }
        let runtime = &*self.inner.ports.runtime;
        let gone = Box::pin(export.gone());
        let bound = runtime.sleep(self.inner.options.close);
        matches!(select(gone, bound).await, Either::Left(_))
    }

    /// Waits for the last client, then takes the root out of the graph.
    async fn finish(self, export: Rc<Export>) {
        export.deserted().await;
        let removed = self.inner.edits.edit(|edit| {
            edit.remove_root(&export.root);
            Ok(())
        });
        let removed = removed.await;
        if let Err(error) = removed {
            // Nothing becomes forbidden because a user has gone.
            tracing::error!(%error, export = export.id(), "cannot take an export's root away");
        }
        let mut list = self.inner.list.borrow_mut();
        list.retain(|known| !Rc::ptr_eq(known, &export));
        drop(list);
        export.forget();
        let id = export.id.clone();
        let event = Event::BlockExportDeleted(BlockExportDeleted { id });
        self.inner.events.send(event);
    }
}

/// Which way the data went that an error is about.
pub(crate) fn direction(error: &block::Error) -> IoOperationType {
    match error.op() {
        Some(Op::Read | Op::BlockStatus) => IoOperationType::Read,
        _ => IoOperationType::Write,
    }
}

fn show(address: &Address) -> String {
    match address {
        Address::Unix(path) => format!("unix:{}", path.display()),
        Address::Inet { host, port } => format!("{host}:{port}"),
    }
}
