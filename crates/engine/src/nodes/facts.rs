//! What users said of a node when they added it, for queries.

use super::Nodes;
use block::Node;
use qmp::types::{BlockdevDriver, BlockdevOptions, BlockdevRef, NbdOptions, SocketAddress};
use std::cell::RefCell;
use std::rc::{Rc, Weak};

/// What is remembered of a node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The file's name, or a description of the node.
    pub(crate) filename: String,
    /// `cache.direct`.
    pub(crate) direct: bool,
    /// `cache.no-flush`.
    pub(crate) no_flush: bool,
}

/// The facts of all nodes.
#[derive(Clone, Default)]
pub(crate) struct AllFacts {
    list: Rc<RefCell<Vec<Known>>>,
}

/// A node and what is remembered of it.
type Known = (Weak<Node>, Facts);

impl AllFacts {
    pub(super) fn remember(&self, node: &Rc<Node>, facts: Facts) {
        let mut list = self.list.borrow_mut();
        list.retain(|(known, _)| known.strong_count() > 0);
        list.push((Rc::downgrade(node), facts));
    }
}

impl Nodes {
    /// What is remembered of `node`; a node of our own making is described by its driver.
    pub(crate) fn facts(&self, node: &Rc<Node>) -> Facts {
        let list = self.facts.list.borrow();
        let mut list = list.iter();
        let found = list.find(|(known, _)| std::ptr::eq(known.as_ptr(), Rc::as_ptr(node)));
        match found {
            Some((_, facts)) => facts.clone(),
            None => Facts {
                filename: format!("{}:{}", node.driver().name(), node.name()),
                ..Facts::default()
            },
        }
    }

    /// A name for what `options` describe: the file, the address, else the options as JSON.
    pub(super) fn filename(&self, options: &BlockdevOptions) -> String {
        match &options.driver {
            BlockdevDriver::File(file) | BlockdevDriver::HostDevice(file) => file.filename.clone(),
            BlockdevDriver::Nbd(nbd) => nbd_uri(nbd),
            BlockdevDriver::NullCo(_) => "null-co://".to_owned(),
            BlockdevDriver::Raw(raw) if raw.offset.is_none() && raw.size.is_none() => {
                self.filename_of(&raw.file)
            }
            BlockdevDriver::AiOverlay(_)
            | BlockdevDriver::Blkdebug(_)
            | BlockdevDriver::CopyBeforeWrite(_)
            | BlockdevDriver::Quorum(_)
            | BlockdevDriver::Raw(_)
            | BlockdevDriver::Replication(_) => {
                //= docs/spec/replication.md#options
                //# `mode` and `top-id` MUST be part of the node's description as
                //# `query-named-block-nodes` shows it.
                let json = serde_json::to_string(options);
                json.map_or_else(|_| String::new(), |json| format!("json:{json}"))
            }
        }
    }

    fn filename_of(&self, reference: &BlockdevRef) -> String {
        match reference {
            BlockdevRef::Definition(options) => self.filename(options),
            BlockdevRef::Reference(name) => {
                let node = self.edits.look(|graph| graph.node(name));
                node.map_or_else(String::new, |node| self.facts(&node).filename)
            }
        }
    }
}

/// The server and export as a URI.
fn nbd_uri(options: &NbdOptions) -> String {
    let export = options.export.as_deref().unwrap_or_default();
    match &options.server {
        SocketAddress::Inet(_) => format!("nbd://{}/{export}", options.server),
        SocketAddress::Unix(unix) => format!("nbd+unix:///{export}?socket={}", unix.path),
    }
}
