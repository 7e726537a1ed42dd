//! What `blockdev-add` and `--blockdev` describe: a node, its driver's options, its children.

use super::blkdebug::BlkdebugOptions;
use super::replication::ReplicationOptions;
use super::socket::SocketAddress;
use crate::define::{alternate, object, union, words};
use crate::shape::Size;

object! {
    /// A node to create.
    pub struct BlockdevOptions {
        flat {
            /// What every node has.
            common: BlockdevCommon,
            /// What the driver wants.
            driver: BlockdevDriver,
        }
    }
}

object! {
    /// The options every node has.
    pub struct BlockdevCommon {
        /// The node's name; needed unless the node is described inside its parent.
        "node-name" => node_name: Option<String>,
        /// What to do with discards; default `ignore`.
        "discard" => discard: Option<Discard>,
        /// How the page cache is used.
        "cache" => cache: Option<BlockdevCache>,
        /// Whether writes are refused; default false.
        "read-only" => read_only: Option<bool>,
        /// Whether a node that cannot be opened for writing opens read-only; default false.
        "auto-read-only" => auto_read_only: Option<bool>,
        /// Whether the image lock is skipped; only with `read-only`.
        "force-share" => force_share: Option<bool>,
        /// Whether writes of zeroes become zero requests; default `off`.
        "detect-zeroes" => detect_zeroes: Option<DetectZeroes>,
    }
}

union! {
    /// The driver of a node, with its options.
    pub enum BlockdevDriver by "driver" as "BlockdevDriverName" {
        /// A sparse overlay with a format of its own.
        "ai-overlay" => AiOverlay(AiOverlayOptions),
        /// Errors, delays and torn writes by rule.
        "blkdebug" => Blkdebug(BlkdebugOptions),
        /// Saves old data to a target before it is overwritten.
        "copy-before-write" => CopyBeforeWrite(CopyBeforeWriteOptions),
        /// A raw file or block device.
        "file" => File(FileOptions),
        /// A block device, with the options of `file`.
        "host_device" => HostDevice(FileOptions),
        /// An export of an NBD server.
        "nbd" => Nbd(NbdOptions),
        /// Nothing: reads zeroes, forgets writes.
        "null-co" => NullCo(NullOptions),
        /// Several children that hold the same data.
        "quorum" => Quorum(QuorumOptions),
        /// A window of a child.
        "raw" => Raw(RawOptions),
        /// One half of a replicated disk.
        "replication" => Replication(ReplicationOptions),
    }
}

alternate! {
    /// A child: the name of a node that exists, or the description of one to create.
    pub enum BlockdevRef {
        /// A node by name.
        Reference(String),
        /// A node to create; its name is optional.
        Definition(Box<BlockdevOptions>),
    }
}

words! {
    /// What to do with discards.
    pub enum Discard {
        /// Drop them.
        "ignore" => Ignore,
        /// Pass them on.
        "unmap" => Unmap,
    }
}

words! {
    /// What to do with writes that are all zeroes.
    pub enum DetectZeroes {
        /// Write them.
        "off" => Off,
        /// Turn them into zero requests.
        "on" => On,
        /// Turn them into zero requests that may deallocate.
        "unmap" => Unmap,
    }
}

object! {
    /// How the page cache is used.
    pub struct BlockdevCache {
        /// Whether it is bypassed; default false.
        "direct" => direct: Option<bool>,
        /// Whether flushes are dropped; default false.
        "no-flush" => no_flush: Option<bool>,
    }
}

object! {
    /// Options of `file` and `host_device`.
    pub struct FileOptions {
        /// Path of the file or block device.
        "filename" => filename: String,
        /// How requests reach the kernel; the default is the driver's choice.
        "aio" => aio: Option<AioBackend>,
        /// Whether the image is locked against other processes; default `auto`.
        "locking" => locking: Option<Locking>,
    }
}

words! {
    /// How requests reach the kernel.
    pub enum AioBackend {
        /// A pool of threads.
        "threads" => Threads,
        /// Taken as `io_uring`.
        "native" => Native,
        /// An `io_uring`.
        "io_uring" => IoUring,
    }
}

words! {
    /// Whether the image is locked against other processes.
    pub enum Locking {
        /// Where the system can do it.
        "auto" => Auto,
        /// Always.
        "on" => On,
        /// Never.
        "off" => Off,
    }
}

object! {
    /// Options of `raw`.
    pub struct RawOptions {
        /// The child.
        "file" => file: BlockdevRef,
        /// Where the window begins; default 0.
        "offset" => offset: Option<Size>,
        /// How long the window is; default up to the end of the child.
        "size" => size: Option<Size>,
    }
}

object! {
    /// Options of `null-co`.
    pub struct NullOptions {
        /// The length; default 1 GiB.
        "size" => size: Option<Size>,
        /// How long a request takes, in nanoseconds; default 0.
        "latency-ns" => latency_ns: Option<u64>,
        /// Whether reads fill the buffer with zeroes; default false.
        "read-zeroes" => read_zeroes: Option<bool>,
    }
}

object! {
    /// Options of `nbd`.
    pub struct NbdOptions {
        /// Where the server listens.
        "server" => server: SocketAddress,
        /// The export's name; default the empty name.
        "export" => export: Option<String>,
        /// How long requests wait for a lost server to come back, in seconds; default 0.
        "reconnect-delay" => reconnect_delay: Option<u32>,
        /// How long opening the node retries, in seconds; default 0.
        "open-timeout" => open_timeout: Option<u32>,
    }
}

object! {
    /// Options of `quorum`.
    pub struct QuorumOptions {
        /// The children, `children.0` first.
        "children" => children: Vec<BlockdevRef>,
        /// How many children must agree.
        "vote-threshold" => vote_threshold: u32,
        /// How reads are answered; default `quorum`.
        "read-pattern" => read_pattern: Option<QuorumReadPattern>,
        /// Whether a read that differs is reported and fails; two children only.
        "blkverify" => blkverify: Option<bool>,
        /// Whether a minority that differs is overwritten.
        "rewrite-corrupted" => rewrite_corrupted: Option<bool>,
    }
}

words! {
    /// How a quorum answers reads.
    pub enum QuorumReadPattern {
        /// From all children, by vote.
        "quorum" => Quorum,
        /// From the first child that can.
        "fifo" => Fifo,
    }
}

object! {
    /// Options of `copy-before-write`.
    pub struct CopyBeforeWriteOptions {
        /// The child whose old data is saved.
        "file" => file: BlockdevRef,
        /// Where it is saved.
        "target" => target: BlockdevRef,
        /// What happens when saving fails; default `break-guest-write`.
        "on-cbw-error" => on_cbw_error: Option<OnCbwError>,
        /// How long saving may take, in seconds; default 0: any time.
        "cbw-timeout" => cbw_timeout: Option<u32>,
        /// The least unit of saving.
        "min-cluster-size" => min_cluster_size: Option<Size>,
    }
}

words! {
    /// What happens when old data cannot be saved.
    pub enum OnCbwError {
        /// The write fails.
        "break-guest-write" => BreakGuestWrite,
        /// The write goes on and the old view is lost.
        "break-snapshot" => BreakSnapshot,
    }
}

object! {
    /// Options of `ai-overlay`.
    pub struct AiOverlayOptions {
        /// What shows through where the overlay holds nothing.
        "backing" => backing: BlockdevRef,
        /// The `file` node that holds the overlay's data and map.
        "file" => file: BlockdevRef,
    }
}

object! {
    /// Arguments of `blockdev-del`.
    pub struct BlockdevDel {
        /// The node.
        "node-name" => node_name: String,
    }
}

impl BlockdevOptions {
    /// The options of a node with driver `driver`, everything common left at its default.
    pub fn new(node_name: Option<String>, driver: BlockdevDriver) -> Self {
        let common = BlockdevCommon {
            node_name,
            discard: None,
            cache: None,
            read_only: None,
            auto_read_only: None,
            force_share: None,
            detect_zeroes: None,
        };
        Self { common, driver }
    }
}
