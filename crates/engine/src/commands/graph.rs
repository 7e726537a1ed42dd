//! Nodes and their children.

use crate::drain::drain;
use crate::engine::All;
use crate::words::{in_words, no_node};
use block::Node;
use drivers::replication::Replication;
use qmp::Error;
use qmp::types::{BlockdevChange, BlockdevDel, BlockdevOptions, ChildChange};
use std::rc::Rc;

/// `blockdev-add`. A replication node over overlays in FAILOVER resumes the commit.
pub(super) async fn add(parts: &All, options: &BlockdevOptions) -> Result<(), Error> {
    let node = parts.nodes.add(options).await?;
    for filter in parts.edits.look(|graph| graph.below(&node)) {
        if Replication::of(&filter).is_none() || parts.group.knows(&filter) {
            continue;
        }
        //= docs/spec/replication.md#options
        //# A refused node MUST leave nothing behind: no node, no entry among the replication nodes,
        //# no error in their status.
        if let Err(error) = parts.group.added(&filter).await {
            parts.group.forget(&filter);
            parts.nodes.delete(node.name()).await?;
            return Err(error);
        }
    }
    Ok(())
}

/// `blockdev-del`. Replication on the node, or on what goes with it, is ended first (R85, R86).
pub(super) async fn delete(parts: &All, arguments: &BlockdevDel) -> Result<(), Error> {
    let node = parts.nodes.check_deletable(&arguments.node_name)?;
    let filters = going_with(parts, &node)?;
    for filter in &filters {
        parts.group.closing(filter).await?;
    }
    parts.nodes.delete(&arguments.node_name).await?;
    for filter in &filters {
        parts.group.forget(filter);
    }
    Ok(())
}

/// The replication nodes that deleting `node` deletes.
fn going_with(parts: &All, node: &Rc<Node>) -> Result<Vec<Rc<Node>>, Error> {
    let name = node.name();
    let rehearsed = parts
        .edits
        .with(|graph| graph.rehearse(|edit| edit.delete_node(name)));
    let gone = rehearsed
        .map_err(|error| Error::generic(error.to_string()))?
        .gone;
    Ok(gone
        .into_iter()
        .filter(|node| parts.group.knows(node))
        .collect())
}

/// `x-blockdev-change`.
pub(super) async fn change(parts: &All, arguments: &BlockdevChange) -> Result<(), Error> {
    let parent = parts.edits.look(|graph| graph.node(&arguments.parent));
    let parent = parent.ok_or_else(|| no_node(&arguments.parent))?;
    match arguments.change()? {
        ChildChange::Add(node) => add_child(parts, &parent, node).await,
        ChildChange::Remove(child) => remove_child(parts, &parent, child).await,
    }
}

async fn add_child(parts: &All, parent: &Rc<Node>, name: &str) -> Result<(), Error> {
    let Some(node) = parts.edits.look(|graph| graph.node(name)) else {
        return Err(Error::generic(format!("Node '{name}' not found")));
    };
    if !parts.edits.look(|graph| graph.parents(&node)).is_empty() {
        return Err(Error::generic(format!(
            "The node {name} already has a parent"
        )));
    }
    let _section = section(parts, parent).await?;
    let added = parts.edits.edit(|edit| edit.add_child(parent, &node));
    added.await.map_err(|error| in_words(&error))?;
    Ok(())
}

/// R100: the child's connection is cut first, so that nothing waits for a peer that is dead.
async fn remove_child(parts: &All, parent: &Rc<Node>, name: &str) -> Result<(), Error> {
    let children = parent.driver().children();
    let Some(child) = children.iter().find(|child| child.name() == name) else {
        let parent = parent.name();
        let message = format!("Node '{parent}' does not have child '{name}'");
        return Err(Error::generic(message));
    };
    // A child that has to stay is not cut off either.
    let allowed = parts
        .edits
        .with(|graph| graph.rehearse(|edit| edit.remove_child(parent, name)));
    allowed.map_err(|error| Error::generic(error.to_string()))?;
    //= docs/spec/replication.md#losses
    //# Removing a child MUST NOT wait for its peer.
    if let Ok(node) = child.node() {
        yank(parts, &node);
    }
    let _section = section(parts, parent).await?;
    let removed = parts.edits.edit(|edit| edit.remove_child(parent, name));
    let (_, gone) = removed.await.map_err(|error| in_words(&error))?;
    parts.nodes.close(&gone).await
}

/// Cuts every connection at or below `node`.
fn yank(parts: &All, node: &Rc<Node>) {
    for node in parts.edits.look(|graph| graph.below(node)) {
        if let Some(connection) = node.driver().capabilities().yank {
            connection.yank();
        }
    }
}

/// A drained section of `node`.
async fn section(parts: &All, node: &Rc<Node>) -> Result<crate::drain::Section, Error> {
    let roots = parts
        .edits
        .look(|graph| graph.roots_above(std::slice::from_ref(node)));
    let runtime = &*parts.ports.runtime;
    let section = drain(runtime, &roots, parts.options.drain).await;
    section.map_err(|busy| {
        let node = node.name();
        Error::generic(format!("Node '{node}' did not come to rest: {busy}"))
    })
}
