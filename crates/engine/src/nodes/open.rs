//! Opening a node with everything that is described inside it.

use super::Nodes;
use super::facts::Facts;
use super::table::{self, Opened};
use crate::words::describe;
use block::{Child, ChildRole, DetectZeroes, Graph, Node, NodeOptions, Permissions, Shares};
use futures_util::future::LocalBoxFuture;
use qmp::Error;
use qmp::types::{self, BlockdevCache, BlockdevOptions, BlockdevRef, Discard};
use std::rc::Rc;

/// Nodes on their way into the graph, children before their parents.
pub(super) struct Opening<'a> {
    pub(super) nodes: &'a Nodes,
    opened: Vec<Rc<Node>>,
    /// Nodes of the graph whose image was locked to be looked at.
    locked: Vec<Rc<Node>>,
}

/// Options that children take over from their parents unless they say otherwise.
#[derive(Clone, Copy, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent options, by their names"
)]
pub(super) struct Inherited {
    pub(super) read_only: bool,
    pub(super) auto_read_only: bool,
    pub(super) direct: bool,
    pub(super) no_flush: bool,
    pub(super) unmap: bool,
    depth: usize,
}

/// A node that is being opened.
pub(super) struct Request<'a> {
    pub(super) name: String,
    pub(super) options: &'a BlockdevOptions,
    pub(super) inherited: Inherited,
}

impl<'a> Opening<'a> {
    pub(super) fn new(nodes: &'a Nodes) -> Opening<'a> {
        Opening {
            nodes,
            opened: Vec::new(),
            locked: Vec::new(),
        }
    }

    /// What was opened, children first.
    pub(super) fn opened(&self) -> &[Rc<Node>] {
        &self.opened
    }

    /// Opens the outermost node.
    pub(super) async fn root(&mut self, options: &BlockdevOptions) -> Result<Rc<Node>, Error> {
        let top = Inherited {
            read_only: false,
            auto_read_only: false,
            direct: false,
            no_flush: false,
            unmap: false,
            depth: 0,
        };
        self.open(options, top).await
    }

    fn open<'s>(
        &'s mut self,
        options: &'s BlockdevOptions,
        above: Inherited,
    ) -> LocalBoxFuture<'s, Result<Rc<Node>, Error>> {
        Box::pin(async move {
            let name = self.name(options)?;
            let inherited = above.with(options);
            let request = Request {
                name: name.clone(),
                options,
                inherited,
            };
            let Opened { driver, read_only } = table::open(self, &request).await?;
            let node_options = NodeOptions {
                read_only: inherited.read_only || read_only,
                detect_zeroes: detect_zeroes(options.common.detect_zeroes),
                ignore_discards: !inherited.unmap,
            };
            let node = Node::new(name, driver, node_options);
            let facts = Facts {
                filename: self.nodes.filename(options),
                direct: inherited.direct,
                no_flush: inherited.no_flush,
            };
            self.nodes.facts.remember(&node, facts);
            self.opened.push(Rc::clone(&node));
            Ok(node)
        })
    }

    fn name(&self, options: &BlockdevOptions) -> Result<String, Error> {
        let limit = self.nodes.options.nodes;
        let count = self.nodes.edits.look(Graph::len);
        if count.saturating_add(self.opened.len()) >= limit {
            return Err(Error::generic(format!("There are already {limit} nodes")));
        }
        let Some(name) = &options.common.node_name else {
            return Ok(self.nodes.edits.with(Graph::generate_name));
        };
        self.nodes.check_name(name)?;
        if self.opened.iter().any(|node| node.name() == name) {
            let message = format!("Duplicate nodes with node-name='{name}'");
            return Err(Error::generic(message));
        }
        Ok(name.clone())
    }

    /// The edge called `name` to the node that `reference` names or describes.
    pub(super) async fn child(
        &mut self,
        request: &Request<'_>,
        name: &str,
        role: ChildRole,
        reference: &BlockdevRef,
    ) -> Result<Rc<Child>, Error> {
        let node = match reference {
            BlockdevRef::Reference(reference) => self.nodes.find(reference)?,
            BlockdevRef::Definition(options) => {
                let below = request.inherited.below(role);
                if below.depth > self.nodes.options.depth {
                    let message = format!(
                        "Child '{name}' of '{}' is nested too deeply: give it a node-name of its \
                         own and refer to that",
                        request.name
                    );
                    return Err(Error::generic(message));
                }
                self.open(options, below).await?
            }
        };
        Ok(Child::new(name, role, node))
    }

    /// Locks the image below `child`, if it is one, against other programs before anything in it is
    /// looked at or initialised.
    pub(super) async fn lock(&mut self, child: &Child) -> Result<(), Error> {
        let Ok(node) = child.node() else {
            return Ok(());
        };
        let Some(locks) = node.driver().capabilities().image_locks else {
            return Ok(());
        };
        let mut used = Permissions::CONSISTENT_READ;
        if !node.is_read_only() {
            used |= Permissions::WRITE;
        }
        let shares = Shares {
            used,
            shared: Permissions::CONSISTENT_READ,
        };
        let locked = locks.permissions_changed(shares).await;
        locked.map_err(|error| could_not_open(node.name(), &error))?;
        self.locked.push(Rc::clone(&node));
        Ok(())
    }

    /// Closes everything again, parents first.
    pub(super) async fn close(&mut self) {
        self.opened.reverse();
        // What cannot be closed was logged; the error that led here is the one to return.
        let _ = self.nodes.close(&self.opened).await;
        self.opened.clear();
        self.nodes.edits.restore_locks(&self.locked).await;
    }
}

/// A driver could not be opened.
pub(super) fn could_not_open(name: &str, error: &block::Error) -> Error {
    Error::generic(format!("Could not open node '{name}': {}", describe(error)))
}

impl Inherited {
    /// The options in force for a node.
    fn with(self, options: &BlockdevOptions) -> Inherited {
        let common = &options.common;
        let cache = common.cache.as_ref();
        let cached = |pick: fn(&BlockdevCache) -> Option<bool>| cache.and_then(pick);
        Inherited {
            read_only: common.read_only.unwrap_or(self.read_only),
            auto_read_only: common.auto_read_only.unwrap_or(self.auto_read_only),
            direct: cached(|cache| cache.direct).unwrap_or(self.direct),
            no_flush: cached(|cache| cache.no_flush).unwrap_or(self.no_flush),
            unmap: common
                .discard
                .map_or(self.unmap, |discard| discard == Discard::Unmap),
            depth: self.depth,
        }
    }

    /// What a child described inside a node starts from: backing is read-only, and discards that
    /// the parent passes on go through.
    fn below(self, role: ChildRole) -> Inherited {
        Inherited {
            read_only: self.read_only || role == ChildRole::Backing,
            unmap: true,
            depth: self.depth.saturating_add(1),
            ..self
        }
    }
}

fn detect_zeroes(option: Option<types::DetectZeroes>) -> DetectZeroes {
    match option {
        None | Some(types::DetectZeroes::Off) => DetectZeroes::Off,
        Some(types::DetectZeroes::On) => DetectZeroes::On,
        Some(types::DetectZeroes::Unmap) => DetectZeroes::Unmap,
    }
}
