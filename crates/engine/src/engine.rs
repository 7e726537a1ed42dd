//! The engine: everything one data thread serves, and the one door to it.
//!
//! ```text
//! execute(command) ─▶ commands/*.rs, one file a family, each with the parts it needs
//!                        │ a change takes its turn; a query does not wait
//!        ┌───────────────┼──────────────┬────────────┐
//!      Nodes          Exports        Group         Jobs      all of them: Edits (graph, locks),
//!                                 (replication)              Events
//! ```

use crate::edits::Edits;
use crate::events::{Events, Subscription};
use crate::exports::Exports;
use crate::jobs::Jobs;
use crate::nodes::Nodes;
use crate::options::Options;
use crate::replication::{Group, Parts};
use crate::turns::Turns;
use crate::{commands, drain, shutdown, words};
use block::{Gate, Root, Shares};
use drivers::event::EventSink;
use drivers::ports::Ports;
use futures_util::FutureExt;
use qmp::event::ShutdownCause;
use qmp::types::NbdServerOptions;
use qmp::{Command, Error};
use serde_json::Value;
use std::rc::Rc;

/// One data thread's graphs, exports, replication and jobs. Clones share them.
#[derive(Clone)]
pub struct Engine {
    pub(crate) parts: Rc<All>,
}

/// What an engine is made of.
pub(crate) struct All {
    pub(crate) ports: Ports,
    pub(crate) options: Options,
    pub(crate) edits: Edits,
    pub(crate) events: Events,
    pub(crate) nodes: Nodes,
    pub(crate) exports: Exports,
    pub(crate) group: Group,
    pub(crate) jobs: Jobs,
    pub(crate) turns: Turns,
    /// Drained once somebody has asked the daemon to end.
    pub(crate) running: Gate,
    pub(crate) pass: std::cell::RefCell<Option<block::Pass>>,
}

impl Engine {
    /// An engine without nodes.
    pub fn new(ports: Ports, options: Options) -> Engine {
        let events = Events::new(Rc::clone(&ports.runtime), options.events);
        let edits = Edits::new();
        let turns = Turns::default();
        let exports = Exports::new(ports.clone(), options, edits.clone(), events.clone());
        let jobs = Jobs::new(events.clone());
        let group = Group::new(Parts {
            ports: ports.clone(),
            options,
            edits: edits.clone(),
            exports: exports.clone(),
            jobs: jobs.clone(),
            events: events.clone(),
            turns: turns.clone(),
        });
        let sink = sink(&events, &group);
        let running = Gate::new();
        let ending = running.clone();
        let nodes = Nodes::new(ports.clone(), options, edits.clone(), (sink, ending));
        let pass = running.try_enter();
        let all = All {
            ports,
            options,
            edits,
            events,
            nodes,
            exports,
            group,
            jobs,
            turns,
            running,
            pass: pass.into(),
        };
        Engine {
            parts: Rc::new(all),
        }
    }

    /// Carries `command` out and returns what its return is on the wire.
    ///
    /// Commands that change something are carried out one after the other, in the order of the
    /// calls; queries answer at once. Every wait inside is bounded by [`Options`].
    ///
    /// # Errors
    ///
    /// As QEMU's commands: nothing has changed then, unless the command's own description says so.
    ///
    /// # Cancel safety
    ///
    /// None: let it end, or the change may be half made.
    pub async fn execute(&self, command: Command) -> Result<Value, Error> {
        let answer = commands::execute(self, command).boxed_local();
        answer.await
    }

    /// All events from now on.
    pub fn subscribe(&self) -> Subscription {
        self.parts.events.subscribe()
    }

    /// Becomes a user of the node `node-name`, as an export is: its requests pass admission, and
    /// [`detach`](Engine::detach) ends it.
    ///
    /// # Errors
    ///
    /// No such node, or permissions that conflict with those of its other users.
    pub async fn attach(
        &self,
        user: &str,
        node_name: &str,
        shares: Shares,
    ) -> Result<Rc<Root>, Error> {
        let _turn = self.parts.turns.take().await;
        let node = self.parts.edits.look(|graph| graph.node(node_name));
        let node = node.ok_or_else(|| words::no_node(node_name))?;
        let root = Root::new(user, node, shares);
        let added = self.parts.edits.edit(|edit| {
            edit.add_root(&root);
            Ok(())
        });
        added.await.map_err(|error| words::in_words(&error))?;
        Ok(root)
    }

    /// Ends what [`attach`](Engine::attach) began. Its requests in flight end first.
    ///
    /// # Errors
    ///
    /// They did not within the bound; the root stays.
    pub async fn detach(&self, root: &Rc<Root>) -> Result<(), Error> {
        let _turn = self.parts.turns.take().await;
        let runtime = &*self.parts.ports.runtime;
        let roots = [Rc::clone(root)];
        let section = drain::drain(runtime, &roots, self.parts.options.drain).await;
        let _section = section.map_err(|busy| Error::generic(format!("still in use: {busy}")))?;
        let removed = self.parts.edits.edit(|edit| {
            edit.remove_root(root);
            Ok(())
        });
        removed
            .await
            .map_err(|error| words::in_words(&error))
            .map(drop)
    }

    /// Starts the NBD server (`--nbd-server`).
    ///
    /// # Errors
    ///
    /// It runs already, or the address cannot be had.
    pub async fn start_nbd_server(&self, options: NbdServerOptions) -> Result<(), Error> {
        let _turn = self.parts.turns.take().await;
        commands::export::start_server(&self.parts.exports, options).await
    }

    /// Where the NBD server listens, if it runs: a port that was picked is named.
    pub fn nbd_server_address(&self) -> Option<drivers::ports::Address> {
        self.parts.exports.server_address()
    }

    /// The graph as an indented tree, for people.
    pub fn dump(&self) -> String {
        self.parts.edits.look(block::Graph::dump)
    }

    /// Resolves when `quit` has been asked for.
    pub async fn quit_requested(&self) {
        self.parts.running.drained().await;
    }

    /// Ends everything in order: no new clients, connections cut, replication closed (R85, R86),
    /// nodes flushed and closed from the top down. Bounded; what could not be done is logged and
    /// returned.
    ///
    /// # Errors
    ///
    /// The first thing that went wrong; everything else was still tried.
    pub async fn shut_down(&self, cause: ShutdownCause) -> Result<(), Error> {
        shutdown::shut_down(&self.parts, cause).await
    }

    /// A drained section of everything: no request of anybody is in flight while it is held.
    ///
    /// # Errors
    ///
    /// Somebody did not come to rest within the bound.
    pub async fn drain_all(&self) -> Result<drain::Section, Error> {
        let roots = self.parts.edits.look(|graph| graph.roots().to_vec());
        let runtime = &*self.parts.ports.runtime;
        let section = drain::drain(runtime, &roots, self.parts.options.drain).await;
        section.map_err(|busy| Error::generic(format!("requests did not come to rest: {busy}")))
    }
}

/// Where drivers report to.
fn sink(events: &Events, group: &Group) -> EventSink {
    let (events, group) = (events.clone(), group.downgrade());
    EventSink::new(move |event| {
        if let Some(event) = crate::events::translate(event, &group) {
            events.send(event);
        }
    })
}
