//! The graph's rules as tables, and random edits that must never break them.

use super::*;
use crate::{
    Answer, ByteRange, Capabilities, ChildRole, Driver, DynamicChildren, ErrorKind, Extent, Limits,
    NodeOptions, Permissions, WriteFlags, ZeroFlags,
};
use bytes::Bytes;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use std::cell::RefCell;

/// A driver that only has edges.
struct Stub {
    name: &'static str,
    children: RefCell<Vec<Rc<Child>>>,
    dynamic: bool,
    /// What it does not share on the child it filters.
    keeps: Permissions,
}

impl Driver for Stub {
    fn name(&self) -> &'static str {
        self.name
    }
    fn limits(&self) -> Limits {
        Limits::of_length(0)
    }
    fn read(&self, _: ByteRange) -> Answer<'_, Bytes> {
        refuse()
    }
    fn write(&self, _: u64, _: Bytes, _: WriteFlags) -> Answer<'_, ()> {
        refuse()
    }
    fn write_zeroes(&self, _: ByteRange, _: ZeroFlags) -> Answer<'_, ()> {
        refuse()
    }
    fn discard(&self, _: ByteRange) -> Answer<'_, ()> {
        refuse()
    }
    fn flush(&self) -> Answer<'_, ()> {
        refuse()
    }
    fn block_status(&self, _: ByteRange) -> Answer<'_, Vec<Extent>> {
        refuse()
    }
    fn children(&self) -> Vec<Rc<Child>> {
        self.children.borrow().clone()
    }
    fn child_permissions(&self, child: &Child, above: Shares) -> Shares {
        let shares = crate::default_child_permissions(child.role(), above);
        match child.role() {
            // As copy-before-write's target: it is written to, and others may write beside it.
            ChildRole::Data => Shares {
                used: Permissions::WRITE,
                shared: KEEP_LENGTH,
            },
            ChildRole::Filtered | ChildRole::Backing => Shares {
                shared: shares.shared & !self.keeps,
                ..shares
            },
        }
    }
    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            dynamic_children: self.dynamic.then_some(self),
            ..Capabilities::default()
        }
    }
}

impl DynamicChildren for Stub {
    fn next_child_name(&self) -> String {
        format!("children.{}", self.children.borrow().len())
    }
    fn add_child(&self, child: Rc<Child>) -> Result<(), crate::Error> {
        self.children.borrow_mut().push(child);
        Ok(())
    }
    fn remove_child(&self, name: &str) -> Result<Rc<Child>, crate::Error> {
        let mut children = self.children.borrow_mut();
        let index = children.iter().position(|child| child.name() == name);
        let index = index.ok_or_else(|| crate::Error::new(ErrorKind::InvalidRequest))?;
        Ok(children.remove(index))
    }
}

fn refuse<T: 'static>() -> Answer<'static, T> {
    Box::pin(async { Err(ErrorKind::Unsupported.into()) })
}

const RW: Permissions = Permissions::CONSISTENT_READ.union(Permissions::WRITE);
const KEEP_LENGTH: Permissions = RW.union(Permissions::WRITE_UNCHANGED);

/// A node described as `name driver child=role:target ...`, as in the tests below.
fn node(graph: &Graph, line: &str) -> Rc<Node> {
    let mut words = line.split(' ');
    let (name, driver) = (words.next().unwrap(), words.next().unwrap());
    let (driver, keeps) = match driver {
        "cbw" => ("cbw", Permissions::WRITE | Permissions::RESIZE),
        "quorum" => ("quorum", Permissions::NONE),
        "file" => ("file", Permissions::NONE),
        _ => ("overlay", Permissions::NONE),
    };
    let mut read_only = false;
    let mut children = Vec::new();
    for word in words {
        let Some((child, target)) = word.split_once('=') else {
            read_only = word == "ro";
            continue;
        };
        let role = match child {
            "backing" => ChildRole::Backing,
            "target" => ChildRole::Data,
            _ => ChildRole::Filtered,
        };
        children.push(Child::new(child, role, graph.node(target).unwrap()));
    }
    let stub = Stub {
        name: driver,
        children: RefCell::new(children),
        dynamic: driver == "quorum",
        keeps,
    };
    let options = NodeOptions {
        read_only,
        ..NodeOptions::default()
    };
    Node::new(name, Box::new(stub), options)
}

fn root(graph: &Graph, name: &str, target: &str, used: Permissions) -> Rc<Root> {
    let shares = Shares {
        used,
        shared: KEEP_LENGTH,
    };
    Root::new(
        format!("export '{name}'"),
        graph.node(target).unwrap(),
        shares,
    )
}

/// A graph of user's nodes, one line each; `export name target` adds a writer.
fn build(lines: &[&str]) -> Graph {
    let mut graph = Graph::new();
    for line in lines {
        step(&mut graph, line).unwrap();
    }
    graph
}

/// One change, in words.
fn step(graph: &mut Graph, line: &str) -> Result<Vec<Rc<Node>>, Error> {
    let words: Vec<&str> = line.split(' ').collect();
    let ((), gone) = match words[..] {
        ["export", name, target] => {
            let root = root(graph, name, target, RW);
            graph.edit(|edit| {
                edit.add_root(&root);
                Ok(())
            })
        }
        ["delete", name] => graph.edit(|edit| edit.delete_node(name)),
        ["disown", name] => graph.edit(|edit| {
            let node = edit.find(name)?;
            edit.set_owner(&node, Owner::Parents);
            Ok(())
        }),
        ["filter", _, below, ..] => {
            let filter = node(graph, &line[7..].replacen(&format!(" {below}"), " cbw", 1));
            graph.edit(|edit| {
                let below = edit.find(below)?;
                edit.insert_filter(&filter, &below)
            })
        }
        ["unfilter", name] => graph.edit(|edit| {
            let filter = edit.find(name)?;
            edit.remove_filter(&filter)
        }),
        ["replace", from, to] => graph.edit(|edit| {
            let (from, to) = (edit.find(from)?, edit.find(to)?);
            edit.replace_node(&from, &to);
            Ok(())
        }),
        ["add-child", parent, name] => graph.edit(|edit| {
            let (parent, node) = (edit.find(parent)?, edit.find(name)?);
            edit.add_child(&parent, &node).map(drop)
        }),
        ["remove-child", parent, name] => graph.edit(|edit| {
            let parent = edit.find(parent)?;
            edit.remove_child(&parent, name).map(drop)
        }),
        _ => {
            let node = node(graph, line);
            graph.edit(|edit| edit.add_node(node, Owner::User))
        }
    }?;
    Ok(gone)
}

fn check_dump(lines: &[&str], expected: &Expect) {
    expected.assert_eq(&build(lines).dump());
}

/// The secondary's chain with its two exports.
const SECONDARY: [&str; 6] = [
    "sec file",
    "export sec0 sec",
    "hid overlay backing=sec",
    "act overlay backing=hid",
    "top quorum children.0=act",
    "export root0 top",
];

#[test]
fn permissions_follow_the_roles_down_to_every_node() {
    check_dump(
        &SECONDARY,
        &expect![[r"
            export 'sec0' [rw--]
              root: sec (file)
            export 'root0' [rw--]
              root: top (quorum)
                children.0 [rw--]: act (overlay)
                  backing [r---]: hid (overlay)
                    backing [r---]: sec (file)
        "]],
    );
}

#[test]
fn a_backing_that_others_may_not_write_is_a_conflict_that_changes_nothing() {
    let mut graph = build(&["sec file", "hid overlay backing=sec"]);
    let reader = Shares {
        used: Permissions::CONSISTENT_READ,
        shared: Permissions::CONSISTENT_READ,
    };
    let reader = Root::new("job 'verify'", graph.node("hid").unwrap(), reader);
    let added = graph.edit(|edit| {
        edit.add_root(&reader);
        Ok(())
    });
    assert!(added.is_ok());
    let before = graph.dump();
    let error = step(&mut graph, "export sec0 sec").unwrap_err();
    assert_eq!(
        error.to_string(),
        "Permission conflict on node 'sec': permissions 'write' are both required by export \
         'sec0' (uses node 'sec' as 'root' child) and unshared by node 'hid' (uses node 'sec' as \
         'backing' child)"
    );
    assert_eq!(graph.dump(), before);
}

#[test]
fn a_filter_takes_over_the_parents_it_does_not_use_itself() {
    let mut lines = SECONDARY.to_vec();
    lines.push("filter cbw sec file=sec target=hid");
    check_dump(
        &lines,
        &expect![[r"
        export 'sec0' [rw--]
          root: cbw (cbw)
            file [rw--]: sec (file)
            target [-w--]: hid (overlay)
              backing [r---]: sec (file)
        export 'root0' [rw--]
          root: top (quorum)
            children.0 [rw--]: act (overlay)
              backing [r---]: hid (overlay)
                backing [r---]: sec (file)
    "]],
    );
}

#[test]
fn a_new_writer_below_the_filter_is_refused_and_one_above_it_is_not() {
    let mut graph = build(&SECONDARY);
    step(&mut graph, "filter cbw sec file=sec target=hid").unwrap();
    let error = step(&mut graph, "export other sec").unwrap_err();
    assert!(
        error.to_string().contains("unshared by node 'cbw'"),
        "{error}"
    );
    step(&mut graph, "export other cbw").unwrap();
}

#[test]
fn a_removed_filter_leaves_the_graph_as_it_was() {
    let mut graph = build(&SECONDARY);
    let before = graph.dump();
    step(&mut graph, "filter cbw sec file=sec target=hid").unwrap();
    let gone = step(&mut graph, "unfilter cbw").unwrap();
    assert_eq!(gone.len(), 1);
    assert_eq!(graph.dump(), before);
}

#[test]
fn replacing_the_top_overlay_by_the_disk_drops_overlays_nobody_owns() {
    let mut graph = build(&SECONDARY);
    step(&mut graph, "disown hid").unwrap();
    step(&mut graph, "disown act").unwrap();
    let gone = step(&mut graph, "replace act sec").unwrap();
    let gone: Vec<&str> = gone.iter().map(|node| node.name()).collect();
    assert_eq!(gone, ["act", "hid"]);
    expect![[r"
        export 'sec0' [rw--]
          root: sec (file)
        export 'root0' [rw--]
          root: top (quorum)
            children.0 [rw--]: sec (file)
    "]]
    .assert_eq(&graph.dump());
}

#[test]
fn a_used_a_blocked_and_an_unknown_node_cannot_be_deleted() {
    let mut graph = build(&["disk file", "top quorum children.0=disk", "free file"]);
    let free = graph.node("free").unwrap();
    let blocker = graph.block(&free, "Block device is in use by internal backup job");
    let refused = |graph: &mut Graph, line: &str| step(graph, line).unwrap_err().to_string();
    assert_eq!(
        refused(&mut graph, "delete disk"),
        "Block device disk is in use by node 'top'"
    );
    assert_eq!(
        refused(&mut graph, "delete free"),
        "Node 'free' is busy: Block device is in use by internal backup job"
    );
    assert_eq!(
        refused(&mut graph, "delete nope"),
        "Cannot find device='nope' nor node-name='nope'"
    );
    graph.unblock(blocker);
    step(&mut graph, "delete free").unwrap();
    step(&mut graph, "delete top").unwrap();
    step(&mut graph, "delete disk").unwrap();
    assert!(graph.is_empty());
}

//= docs/spec/replication.md#stop
//= type=test
//# A top node that is gone by then MUST NOT keep a stop from tidying up.
#[test]
fn a_block_is_taken_off_a_node_that_has_gone_as_well() {
    let mut graph = build(&["disk file", "top quorum children.0=disk"]);
    let top = graph.node("top").unwrap();
    let blocker = graph.block(&top, "in use");
    drop(top);
    step(&mut graph, "disown top").unwrap();
    assert!(graph.node("top").is_none());
    graph.unblock(blocker);
    step(&mut graph, "top quorum children.0=disk").unwrap();
    step(&mut graph, "delete top").unwrap();
}

#[test]
fn names_are_unique() {
    let mut graph = build(&["disk file"]);
    let error = step(&mut graph, "disk file").unwrap_err();
    assert_eq!(error.to_string(), "Duplicate nodes with node-name='disk'");
    assert_eq!(graph.generate_name(), "#block000");
    assert_eq!(graph.generate_name(), "#block001");
}

#[test]
fn a_writer_of_a_read_only_node_is_refused() {
    let mut graph = build(&["disk file ro", "top quorum children.0=disk"]);
    let error = step(&mut graph, "export e top").unwrap_err();
    assert_eq!(
        error.to_string(),
        "Block node 'disk' is read-only, but node 'top' needs to write to it"
    );
}

#[test]
fn a_cycle_is_refused_and_undone() {
    let mut graph = build(&[
        "disk file",
        "inner quorum children.0=disk",
        "outer quorum children.0=inner",
    ]);
    let before = graph.dump();
    let error = step(&mut graph, "add-child inner outer").unwrap_err();
    assert_eq!(
        error.to_string(),
        "node 'inner' would be part of its own chain (a cycle)"
    );
    assert_eq!(graph.dump(), before);
}

#[test]
fn children_come_and_go_at_run_time() {
    let mut graph = build(&["a file", "b file", "q quorum children.0=a", "export e q"]);
    step(&mut graph, "add-child q b").unwrap();
    expect![[r"
        export 'e' [rw--]
          root: q (quorum)
            children.0 [rw--]: a (file)
            children.1 [rw--]: b (file)
    "]]
    .assert_eq(&graph.dump());
    step(&mut graph, "remove-child q children.1").unwrap();
    let error = step(&mut graph, "add-child a b").unwrap_err();
    assert_eq!(
        error.to_string(),
        "The node a does not support adding a child"
    );
    let error = step(&mut graph, "delete b").map(|gone| gone.len());
    assert_eq!(error, Ok(1));
}

#[test]
fn an_edge_to_a_node_outside_the_graph_is_refused() {
    let mut graph = build(&["disk file"]);
    let stranger = node(&graph, "stranger overlay backing=disk");
    let parent = Node::new(
        "parent",
        Box::new(Stub {
            name: "overlay",
            children: RefCell::new(vec![Child::new("backing", ChildRole::Backing, stranger)]),
            dynamic: false,
            keeps: Permissions::NONE,
        }),
        NodeOptions::default(),
    );
    let error = graph
        .edit(|edit| edit.add_node(parent, Owner::User))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "node 'stranger', used by node 'parent', is not part of the graph"
    );
    assert_eq!(graph.len(), 1);
}

#[test]
fn a_chain_that_a_request_has_no_stack_for_is_refused() {
    let mut graph = build(&["n1 file", "q quorum children.0=n1", "spare file"]);
    for depth in 2..=63 {
        let line = format!("n{depth} overlay backing=n{}", depth - 1);
        step(&mut graph, &line).unwrap();
    }
    step(&mut graph, "n64 overlay backing=n63").unwrap();
    let said = "node 'n1' would have more than 64 nodes above each other down to it";
    let error = step(&mut graph, "n65 overlay backing=n64").unwrap_err();
    assert_eq!(error.to_string(), said);
    let error = step(&mut graph, "filter f n32 file=n32").unwrap_err();
    assert_eq!(error.to_string(), said);
    // What is below counts as well as what is above.
    step(&mut graph, "p quorum children.0=spare").unwrap();
    step(&mut graph, "top overlay backing=p").unwrap();
    let error = step(&mut graph, "add-child p n63").unwrap_err();
    assert_eq!(error.to_string(), said);
    assert_eq!(graph.len(), 68);
}

#[test]
fn a_drained_section_covers_every_root_above() {
    let graph = build(&SECONDARY);
    let above = |name: &str| {
        let roots = graph.roots_above(&[graph.node(name).unwrap()]);
        let names = roots.iter().map(|root| root.child().name().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(above("sec"), ["export 'sec0'", "export 'root0'"]);
    assert_eq!(above("act"), ["export 'root0'"]);
    assert!(graph.is_root_node(&graph.node("top").unwrap()));
    assert!(!graph.is_root_node(&graph.node("act").unwrap()));
    assert!(graph.has_root(&graph.node("sec").unwrap()));
    assert!(!graph.has_root(&graph.node("hid").unwrap()));
}

/// Everything that must hold of any graph.
fn assert_consistent(graph: &Graph) {
    let plan = check::calculate(graph).expect("a graph that was accepted stays acceptable");
    for edge in graph.edges() {
        let target = edge.child.node().unwrap();
        assert!(graph.owner(&target).is_some(), "an edge leaves the graph");
        assert!(plan.above(&target).used.contains(edge.child.granted()));
    }
    for node in graph.nodes() {
        let orphan = graph.owner(node) == Some(Owner::Parents) && graph.parents(node).is_empty();
        assert!(!orphan, "an orphan was left");
    }
}

/// A random change among few names, so that many of them clash.
fn any_step() -> impl Strategy<Value = String> {
    let name = || prop::sample::select(vec!["a", "b", "c", "d", "e", "f"]);
    prop_oneof![
        name().prop_map(|n| format!("{n} file")),
        name().prop_map(|n| format!("{n} file ro")),
        (name(), name()).prop_map(|(n, t)| format!("{n} overlay backing={t}")),
        (name(), name()).prop_map(|(n, t)| format!("{n} quorum children.0={t}")),
        (name(), name()).prop_map(|(n, t)| format!("export {n} {t}")),
        name().prop_map(|n| format!("delete {n}")),
        name().prop_map(|n| format!("disown {n}")),
        (name(), name()).prop_map(|(n, t)| format!("filter {n} {t} file={t}")),
        name().prop_map(|n| format!("unfilter {n}")),
        (name(), name()).prop_map(|(n, t)| format!("replace {n} {t}")),
        (name(), name()).prop_map(|(n, t)| format!("add-child {n} {t}")),
        name().prop_map(|n| format!("remove-child {n} children.0")),
    ]
}

/// Whether every node a line names as a target exists (the test's own language needs that).
fn targets_exist(graph: &Graph, line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let named = match words[..] {
        ["export", _, target] => vec![target],
        _ => words
            .iter()
            .filter_map(|w| Some(w.split_once('=')?.1))
            .collect(),
    };
    named.iter().all(|name| graph.node(name).is_some())
}

proptest! {
    #[test]
    fn random_edits_keep_the_graph_consistent_and_refused_ones_change_nothing(
        lines in prop::collection::vec(any_step(), 1..40),
    ) {
        let mut graph = Graph::new();
        for line in lines {
            if !targets_exist(&graph, &line) {
                continue;
            }
            let before = graph.dump();
            if step(&mut graph, &line).is_err() {
                prop_assert_eq!(graph.dump(), before, "after {}", line);
            }
            assert_consistent(&graph);
        }
    }
}
