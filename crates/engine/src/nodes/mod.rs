//! Nodes: added and deleted by users, all or nothing.
//!
//! ```text
//! options ─▶ open.rs: children first, references looked up ─▶ table.rs: one row a driver
//!            └ a failure closes what was opened            ─▶ one edit adds all of them
//! ```

mod blkdebug;
mod facts;
mod open;
mod table;

use crate::edits::Edits;
use crate::options::Options;
use crate::words::{describe, in_words, no_node};
use block::graph::check_node_name;
use block::{Gate, Node, Owner};
use drivers::event::EventSink;
use drivers::ports::Ports;
use facts::AllFacts;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use open::Opening;
use qmp::Error;
use qmp::types::BlockdevOptions;
use std::pin::pin;
use std::rc::Rc;

/// The nodes of a data thread. Clones share them.
#[derive(Clone)]
pub(crate) struct Nodes {
    pub(crate) ports: Ports,
    pub(crate) options: Options,
    pub(crate) edits: Edits,
    pub(crate) sink: EventSink,
    /// Drained once the daemon is to end.
    running: Gate,
    facts: AllFacts,
}

impl Nodes {
    /// No nodes. `running` is drained once the daemon is to end: opening then waits for nobody.
    pub(crate) fn new(
        ports: Ports,
        options: Options,
        edits: Edits,
        (sink, running): (EventSink, Gate),
    ) -> Nodes {
        Nodes {
            ports,
            options,
            edits,
            sink,
            running,
            facts: AllFacts::default(),
        }
    }

    /// Opens the node `options` describe, with everything described inside it, and adds it.
    ///
    /// # Errors
    ///
    /// Names what is wrong; nothing has changed then.
    pub(crate) async fn add(&self, options: &BlockdevOptions) -> Result<Rc<Node>, Error> {
        let Some(name) = &options.common.node_name else {
            let message = "'node-name' must be specified for the root node";
            return Err(Error::generic(message));
        };
        self.check_name(name)?;
        let mut opening = Opening::new(self);
        let opened = {
            let ending = pin!(self.running.drained());
            match select(ending, opening.root(options).boxed_local()).await {
                Either::Left(_) => Err(Error::generic("the daemon is shutting down")),
                Either::Right((opened, _)) => opened,
            }
        };
        let result = match opened {
            Ok(node) => self.insert(&opening, node).await,
            Err(error) => Err(error),
        };
        if result.is_err() {
            opening.close().await;
        }
        result
    }

    /// The rules of names; better said before anything is opened.
    fn check_name(&self, name: &str) -> Result<(), Error> {
        check_node_name(name).map_err(|error| Error::generic(error.to_string()))?;
        if self.edits.look(|graph| graph.node(name)).is_some() {
            let message = format!("Duplicate nodes with node-name='{name}'");
            return Err(Error::generic(message));
        }
        Ok(())
    }

    async fn insert(&self, opening: &Opening<'_>, root: Rc<Node>) -> Result<Rc<Node>, Error> {
        let added = self.edits.edit(|edit| {
            for node in opening.opened() {
                let is_root = Rc::ptr_eq(node, &root);
                let owner = if is_root { Owner::User } else { Owner::Parents };
                edit.add_node(Rc::clone(node), owner)?;
            }
            Ok(())
        });
        added.await.map_err(|error| in_words(&error))?;
        Ok(root)
    }

    /// The node called `name`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(crate) fn find(&self, name: &str) -> Result<Rc<Node>, Error> {
        let node = self.edits.look(|graph| graph.node(name));
        node.ok_or_else(|| no_node(name))
    }

    /// Whether a node may be deleted; the words are those of `blockdev-del`.
    ///
    /// # Errors
    ///
    /// It does not exist, is blocked or used, or belongs to its parents.
    pub(crate) fn check_deletable(&self, name: &str) -> Result<Rc<Node>, Error> {
        let Some(node) = self.edits.look(|graph| graph.node(name)) else {
            let message = format!("Failed to find node with node-name='{name}'");
            return Err(Error::generic(message));
        };
        let rehearsed = self
            .edits
            .with(|graph| graph.rehearse(|edit| edit.delete_node(name)));
        match rehearsed {
            Ok(_) => Ok(node),
            Err(error) => Err(Error::generic(error.to_string())),
        }
    }

    /// Deletes a node and what belongs only to it, and closes them, bounded in time.
    ///
    /// # Errors
    ///
    /// As [`Nodes::check_deletable`]; or a flush at the end failed: the node is gone then.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Error> {
        let deleted = self.edits.edit(|edit| edit.delete_node(name)).await;
        let ((), gone) = deleted.map_err(|error| in_words(&error))?;
        self.close(&gone).await
    }

    /// Closes nodes that have left the graph, parents first.
    ///
    /// # Errors
    ///
    /// The first error; all are closed.
    pub(crate) async fn close(&self, gone: &[Rc<Node>]) -> Result<(), Error> {
        let mut first = Ok(());
        for node in gone {
            let bound = self.ports.runtime.sleep(self.options.close);
            let said = match select(node.driver().close(), bound).await {
                Either::Left((Ok(()), _)) => continue,
                Either::Left((Err(error), _)) => describe(&error),
                Either::Right(_) => format!("it took longer than {:?}", self.options.close),
            };
            let message = format!("Cannot close node '{}' properly: {said}", node.name());
            tracing::error!("{message}");
            if first.is_ok() {
                first = Err(Error::generic(message));
            }
        }
        first
    }
}
