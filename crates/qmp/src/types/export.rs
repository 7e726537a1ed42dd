//! Exports and the NBD server.

use super::socket::{SocketAddress, SocketAddressLegacy};
use crate::define::{object, union, words};

object! {
    /// Arguments of `nbd-server-start`.
    pub struct NbdServerStart {
        /// Where to listen.
        "addr" => addr: SocketAddressLegacy,
        /// How long a handshake may take, in seconds; default 10; 0: any time.
        "handshake-max-seconds" => handshake_max_seconds: Option<u32>,
        /// How many clients at once; default 100; 0: any number up to the server's own bound.
        "max-connections" => max_connections: Option<u32>,
    }
}

object! {
    /// What `--nbd-server` takes.
    pub struct NbdServerOptions {
        /// Where to listen.
        "addr" => addr: SocketAddress,
        /// How long a handshake may take, in seconds; default 10; 0: any time.
        "handshake-max-seconds" => handshake_max_seconds: Option<u32>,
        /// How many clients at once; default 100; 0: any number up to the server's own bound.
        "max-connections" => max_connections: Option<u32>,
    }
}

impl From<NbdServerStart> for NbdServerOptions {
    fn from(start: NbdServerStart) -> Self {
        Self {
            addr: start.addr.into(),
            handshake_max_seconds: start.handshake_max_seconds,
            max_connections: start.max_connections,
        }
    }
}

object! {
    /// Arguments of `nbd-server-add`.
    pub struct NbdServerAdd {
        /// The node.
        "device" => device: String,
        /// The export's name and id; default the node's.
        "name" => name: Option<String>,
        /// Whether clients may write; default false.
        "writable" => writable: Option<bool>,
        /// A text for people.
        "description" => description: Option<String>,
    }
}

object! {
    /// Arguments of `nbd-server-remove`.
    pub struct NbdServerRemove {
        /// The export's id.
        "name" => name: String,
        /// What to do about clients; default `safe`.
        "mode" => mode: Option<BlockExportRemoveMode>,
    }
}

object! {
    /// Arguments of `block-export-add`, and what `--export` takes.
    pub struct BlockExportOptions {
        flat {
            /// What every export has.
            common: BlockExportCommon,
            /// What this kind of export has.
            kind: BlockExportKind,
        }
    }
}

object! {
    /// The options every export has.
    pub struct BlockExportCommon {
        /// The export's name for commands.
        "id" => id: String,
        /// The node.
        "node-name" => node_name: String,
        /// Whether clients may write; default false.
        "writable" => writable: Option<bool>,
        /// Whether every write is made durable; default false.
        "writethrough" => writethrough: Option<bool>,
        /// Taken and ignored: a group has one thread.
        "iothread" => iothread: Option<String>,
        /// Taken and ignored: a group has one thread.
        "fixed-iothread" => fixed_iothread: Option<bool>,
    }
}

union! {
    /// The kind of an export, with its options.
    pub enum BlockExportKind by "type" as "BlockExportType" {
        /// Served by the NBD server.
        "nbd" => Nbd(NbdExportOptions),
    }
}

object! {
    /// Options of an NBD export.
    pub struct NbdExportOptions {
        /// The name clients ask for; default the node's.
        "name" => name: Option<String>,
        /// A text for people.
        "description" => description: Option<String>,
        /// Whether clients may ask which layer holds a block; default false.
        "allocation-depth" => allocation_depth: Option<bool>,
    }
}

words! {
    /// The kind of an export.
    pub enum BlockExportType {
        /// Served by the NBD server.
        "nbd" => Nbd,
    }
}

object! {
    /// Arguments of `block-export-del`.
    pub struct BlockExportDel {
        /// The export.
        "id" => id: String,
        /// What to do about clients; default `safe`.
        "mode" => mode: Option<BlockExportRemoveMode>,
    }
}

words! {
    /// What to do about clients of an export to be removed.
    pub enum BlockExportRemoveMode {
        /// Refuse while there are any.
        "safe" => Safe,
        /// Drop them.
        "hard" => Hard,
    }
}

object! {
    /// An export as `query-block-exports` shows it.
    pub struct BlockExportInfo {
        /// The export's name for commands.
        "id" => id: String,
        /// Its kind.
        "type" => kind: BlockExportType,
        /// The node.
        "node-name" => node_name: String,
        /// Whether it is being removed.
        "shutting-down" => shutting_down: bool,
    }
}
