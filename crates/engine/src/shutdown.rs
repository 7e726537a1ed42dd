//! The end of a daemon, in order.

use crate::engine::All;

use block::{Graph, Node};
use qmp::event::{Shutdown, ShutdownCause};
use qmp::{Error, Event};
use std::rc::Rc;

/// Ends everything; see [`Engine::shut_down`](crate::Engine::shut_down).
pub(crate) async fn shut_down(parts: &All, cause: ShutdownCause) -> Result<(), Error> {
    parts.pass.take();
    parts.events.send(Event::Shutdown(Shutdown {
        guest: false,
        reason: cause,
    }));
    let _turn = parts.turns.take().await;
    let mut first = Ok(());
    parts.exports.shut_down().await;
    for member in parts.group.members().iter().rev() {
        let node = Rc::clone(member.node());
        keep(&mut first, parts.group.closing(&node).await);
        parts.group.forget(&node);
    }
    let nodes = parents_first(parts);
    keep(&mut first, parts.nodes.close(&nodes).await);
    first
}

fn keep(first: &mut Result<(), Error>, result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::error!("{}", error.desc());
        if first.is_ok() {
            *first = Err(error);
        }
    }
}

/// All nodes, from the top down: what a node writes when it closes, the nodes below still take.
fn parents_first(parts: &All) -> Vec<Rc<Node>> {
    parts.edits.look(order)
}

fn order(graph: &Graph) -> Vec<Rc<Node>> {
    let mut order: Vec<Rc<Node>> = Vec::new();
    let mut waiting: Vec<Rc<Node>> = graph.nodes().cloned().collect();
    while !waiting.is_empty() {
        let is_free = |node: &Rc<Node>| {
            let parents = graph.parents(node);
            !parents.iter().any(|edge| match &edge.parent {
                block::Parent::Node(parent) => waiting.iter().any(|n| Rc::ptr_eq(n, parent)),
                block::Parent::Root(_) => false,
            })
        };
        let (free, rest): (Vec<_>, Vec<_>) = waiting.iter().cloned().partition(is_free);
        if free.is_empty() {
            break;
        }
        order.extend(free);
        waiting = rest;
    }
    order
}
