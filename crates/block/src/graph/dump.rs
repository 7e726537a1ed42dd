//! The graph as an indented tree, for people.

use super::{Graph, edges_of};
use crate::permissions::Permissions;
use crate::{Child, Node};
use std::fmt::Write as _;
use std::rc::Rc;

/// One tree a user from outside, then the nodes nobody uses.
pub(super) fn dump(graph: &Graph) -> String {
    let mut text = String::new();
    for root in graph.roots() {
        let name = root.child().name();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{name} [{}]", letters(root.child()));
        if let Ok(node) = root.child().node() {
            subtree(&mut text, &node, 1, "root");
        }
    }
    for node in graph.nodes() {
        if graph.parents(node).is_empty() {
            let _ = writeln!(text, "(unused)");
            subtree(&mut text, node, 1, "-");
        }
    }
    text
}

fn subtree(text: &mut String, node: &Rc<Node>, depth: usize, edge: &str) {
    let indent = "  ".repeat(depth);
    let driver = node.driver().name();
    let mode = if node.is_read_only() { " ro" } else { "" };
    let _ = writeln!(text, "{indent}{edge}: {} ({driver}){mode}", node.name());
    for edge in edges_of(node) {
        let name = format!("{} [{}]", edge.child.name(), letters(&edge.child));
        match edge.child.node() {
            Ok(child) => subtree(text, &child, depth.saturating_add(1), &name),
            Err(_) => {
                let _ = writeln!(text, "{indent}  {name}: (detached)");
            }
        }
    }
}

/// `r`ead, `w`rite, write-`u`nchanged, resi`z`e, or `-`.
fn letters(child: &Child) -> String {
    let letters = [
        (Permissions::CONSISTENT_READ, 'r'),
        (Permissions::WRITE, 'w'),
        (Permissions::WRITE_UNCHANGED, 'u'),
        (Permissions::RESIZE, 'z'),
    ];
    let held = letters.iter().map(|(permission, letter)| {
        if child.granted().contains(*permission) {
            *letter
        } else {
            '-'
        }
    });
    held.collect()
}
