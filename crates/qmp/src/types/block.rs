//! Nodes as queries show them, and the change of a node's children.

use super::blockdev::DetectZeroes;
use crate::Error;
use crate::define::{object, words};

object! {
    /// Arguments of `query-named-block-nodes`.
    pub struct QueryNamedBlockNodes {
        /// Whether backing images are left out of `image`; default false.
        "flat" => flat: Option<bool>,
    }
}

object! {
    /// A node as `query-named-block-nodes` shows it.
    pub struct BlockDeviceInfo {
        flat {
            /// Its throttling: none.
            throttle: BlockThrottleInfo,
        }
        /// The file's name, or a description of the node.
        "file" => file: String,
        /// The node's name.
        "node-name" => node_name: Option<String>,
        /// Whether it refuses writes.
        "ro" => ro: bool,
        /// Its driver.
        "drv" => drv: String,
        /// The file's name of its backing node.
        "backing_file" => backing_file: Option<String>,
        /// How many nodes back it.
        "backing_file_depth" => backing_file_depth: u32,
        /// Whether it is in use on this host.
        "active" => active: bool,
        /// Whether it is encrypted.
        "encrypted" => encrypted: bool,
        /// What it does with writes of zeroes.
        "detect_zeroes" => detect_zeroes: DetectZeroes,
        /// The image.
        "image" => image: ImageInfo,
        /// How the page cache is used.
        "cache" => cache: BlockdevCacheInfo,
        /// The offset above which a write makes an event; 0: none.
        "write_threshold" => write_threshold: u64,
    }
}

object! {
    /// Limits of a node; 0: none.
    pub struct BlockThrottleInfo {
        /// Bytes a second.
        "bps" => bps: u64,
        /// Bytes read a second.
        "bps_rd" => bps_rd: u64,
        /// Bytes written a second.
        "bps_wr" => bps_wr: u64,
        /// Requests a second.
        "iops" => iops: u64,
        /// Reads a second.
        "iops_rd" => iops_rd: u64,
        /// Writes a second.
        "iops_wr" => iops_wr: u64,
    }
}

impl BlockThrottleInfo {
    /// No limits.
    pub const NONE: Self = Self {
        bps: 0,
        bps_rd: 0,
        bps_wr: 0,
        iops: 0,
        iops_rd: 0,
        iops_wr: 0,
    };
}

object! {
    /// An image.
    pub struct ImageInfo {
        /// Its file's name, or a description of the node.
        "filename" => filename: String,
        /// Its format.
        "format" => format: String,
        /// Its length as its users see it.
        "virtual-size" => virtual_size: u64,
        /// The space it takes on its host.
        "actual-size" => actual_size: Option<u64>,
        /// Whether it was not closed cleanly.
        "dirty-flag" => dirty_flag: Option<bool>,
        /// Its unit of allocation.
        "cluster-size" => cluster_size: Option<u64>,
        /// The file's name of its backing image.
        "backing-filename" => backing_filename: Option<String>,
        /// The same as a full path.
        "full-backing-filename" => full_backing_filename: Option<String>,
        /// The format of its backing image.
        "backing-filename-format" => backing_filename_format: Option<String>,
        /// Its backing image.
        "backing-image" => backing_image: Option<Box<ImageInfo>>,
    }
}

object! {
    /// How a node uses the page cache.
    pub struct BlockdevCacheInfo {
        /// Whether a write may be answered before it is durable.
        "writeback" => writeback: bool,
        /// Whether the page cache is bypassed.
        "direct" => direct: bool,
        /// Whether flushes are dropped.
        "no-flush" => no_flush: bool,
    }
}

object! {
    /// A guest device as `query-block` shows it; there are none.
    pub struct BlockInfo {
        /// Its name.
        "device" => device: String,
        /// Its path in the machine.
        "qdev" => qdev: Option<String>,
        /// Its type.
        "type" => kind: String,
        /// Whether its medium can be removed.
        "removable" => removable: bool,
        /// Whether the guest has locked it.
        "locked" => locked: bool,
        /// Its medium.
        "inserted" => inserted: Option<BlockDeviceInfo>,
        /// Whether its tray is open.
        "tray_open" => tray_open: Option<bool>,
        /// The state of its input and output.
        "io-status" => io_status: Option<BlockIoStatus>,
    }
}

words! {
    /// The state of a device's or job's input and output.
    pub enum BlockIoStatus {
        /// Good.
        "ok" => Ok,
        /// A request failed.
        "failed" => Failed,
        /// A request found no space.
        "nospace" => NoSpace,
    }
}

object! {
    /// Arguments of `x-blockdev-change`.
    pub struct BlockdevChange {
        /// The node whose children change.
        "parent" => parent: String,
        /// The child to remove.
        "child" => child: Option<String>,
        /// The node to add as a child.
        "node" => node: Option<String>,
    }
}

/// What `x-blockdev-change` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChildChange<'a> {
    /// Add this node as a child.
    Add(&'a str),
    /// Remove the child of this name.
    Remove(&'a str),
}

impl BlockdevChange {
    /// The change that the arguments spell.
    ///
    /// # Errors
    ///
    /// Not exactly one of `child` and `node` was given.
    pub fn change(&self) -> Result<ChildChange<'_>, Error> {
        match (&self.child, &self.node) {
            (None, Some(node)) => Ok(ChildChange::Add(node)),
            (Some(child), None) => Ok(ChildChange::Remove(child)),
            (None, None) => Err(Error::generic("Either child or node must be specified")),
            (Some(_), Some(_)) => Err(Error::generic(
                "The parameters child and node are in conflict",
            )),
        }
    }
}
