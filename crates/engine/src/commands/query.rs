//! What the graph looks like, for `query-named-block-nodes`.

use crate::engine::All;
use block::{ChildRole, Node};
use qmp::types::{
    BlockDeviceInfo, BlockThrottleInfo, BlockdevCacheInfo, DetectZeroes, ImageInfo,
    QueryNamedBlockNodes,
};
use std::rc::Rc;

/// Backing images shown below an image; deeper ones are left out.
const DEPTH: usize = 32;

/// `query-named-block-nodes`, newest first as in QEMU.
pub(super) fn nodes(parts: &All, arguments: &QueryNamedBlockNodes) -> Vec<BlockDeviceInfo> {
    let flat = arguments.flat.unwrap_or(false);
    let nodes: Vec<Rc<Node>> = parts.edits.look(|graph| graph.nodes().cloned().collect());
    let nodes = nodes.iter().rev();
    nodes.map(|node| describe(parts, node, flat)).collect()
}

fn describe(parts: &All, node: &Rc<Node>, flat: bool) -> BlockDeviceInfo {
    let chain = backing_chain(node);
    let facts = parts.nodes.facts(node);
    BlockDeviceInfo {
        throttle: BlockThrottleInfo::NONE,
        file: facts.filename.clone(),
        node_name: Some(node.name().to_owned()),
        ro: node.is_read_only(),
        drv: node.driver().name().to_owned(),
        backing_file: chain.first().map(|below| parts.nodes.facts(below).filename),
        backing_file_depth: u32::try_from(chain.len()).unwrap_or(u32::MAX),
        active: true,
        encrypted: false,
        detect_zeroes: match node.detect_zeroes() {
            block::DetectZeroes::Off => DetectZeroes::Off,
            block::DetectZeroes::On => DetectZeroes::On,
            block::DetectZeroes::Unmap => DetectZeroes::Unmap,
        },
        image: image(parts, node, if flat { &[] } else { &chain }),
        cache: BlockdevCacheInfo {
            writeback: true,
            direct: facts.direct,
            no_flush: facts.no_flush,
        },
        write_threshold: 0,
    }
}

fn image(parts: &All, node: &Rc<Node>, chain: &[Rc<Node>]) -> ImageInfo {
    let filename = |node: &Rc<Node>| parts.nodes.facts(node).filename;
    let below = chain.split_first();
    let overlay = node.driver().capabilities().make_empty;
    ImageInfo {
        filename: filename(node),
        format: node.driver().name().to_owned(),
        virtual_size: node.length(),
        actual_size: overlay.map(block::MakeEmpty::allocated_bytes),
        dirty_flag: None,
        cluster_size: None,
        backing_filename: below.map(|(node, _)| filename(node)),
        full_backing_filename: below.map(|(node, _)| filename(node)),
        backing_filename_format: below.map(|(node, _)| node.driver().name().to_owned()),
        backing_image: below.map(|(node, rest)| Box::new(image(parts, node, rest))),
    }
}

/// The nodes that back `node`, uppermost first; filters show what they filter.
fn backing_chain(node: &Rc<Node>) -> Vec<Rc<Node>> {
    let mut chain = Vec::new();
    let mut at = Rc::clone(node);
    while chain.len() < DEPTH {
        let children = at.driver().children();
        let backing = children
            .iter()
            .find(|child| child.role() == ChildRole::Backing);
        let Some(below) = backing.and_then(|child| child.node().ok()) else {
            break;
        };
        chain.push(Rc::clone(&below));
        at = below;
    }
    chain
}
