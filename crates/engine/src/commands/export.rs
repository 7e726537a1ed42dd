//! The NBD server and exports.

use crate::engine::All;
use crate::exports::{Access, ExportOptions, Exports, Removal, ServerOptions};
use drivers::ports::Address;
use qmp::Error;
use qmp::types::{
    BlockExportInfo, BlockExportKind, BlockExportOptions, BlockExportRemoveMode, BlockExportType,
    NbdServerAdd, NbdServerOptions, SocketAddress,
};
use std::time::Duration;

/// `nbd-server-start` and `--nbd-server`.
pub(crate) async fn start_server(
    exports: &Exports,
    options: NbdServerOptions,
) -> Result<(), Error> {
    let handshake = options.handshake_max_seconds;
    let most = options.max_connections;
    let options = ServerOptions {
        address: address(&options.addr)?,
        max_connections: most.map(|most| usize::try_from(most).unwrap_or(usize::MAX)),
        handshake: handshake.map(|seconds| match seconds {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds.into()),
        }),
    };
    exports.start_server(options).await
}

/// A socket's address as the ports take it.
pub(crate) fn address(address: &SocketAddress) -> Result<Address, Error> {
    match address {
        SocketAddress::Unix(unix) => Ok(Address::Unix(unix.path.clone().into())),
        SocketAddress::Inet(inet) => {
            let port = inet.port.parse().map_err(|_| {
                let port = &inet.port;
                Error::generic(format!(
                    "Parameter 'port' expects a number up to 65535, not '{port}'"
                ))
            })?;
            let host = inet.host.clone();
            Ok(Address::Inet { host, port })
        }
    }
}

/// `block-export-add`.
pub(super) async fn add(exports: &Exports, options: BlockExportOptions) -> Result<(), Error> {
    let common = options.common;
    let BlockExportKind::Nbd(nbd) = options.kind;
    let options = ExportOptions {
        name: nbd.name.unwrap_or_else(|| common.node_name.clone()),
        description: nbd.description.unwrap_or_default(),
        allocation_depth: nbd.allocation_depth.unwrap_or(false),
        id: common.id,
        node_name: common.node_name,
        access: access(common.writable),
        writethrough: common.writethrough.unwrap_or(false),
    };
    exports.add(&options).await.map(drop)
}

/// `nbd-server-add`: a read-only node is exported read-only, whatever was asked for.
pub(super) async fn server_add(parts: &All, arguments: NbdServerAdd) -> Result<(), Error> {
    let node = parts.nodes.find(&arguments.device)?;
    let writable = arguments.writable.map(|w| w && !node.is_read_only());
    let name = arguments.name.unwrap_or_else(|| arguments.device.clone());
    let options = ExportOptions {
        id: name.clone(),
        name,
        node_name: arguments.device,
        description: arguments.description.unwrap_or_default(),
        access: access(writable),
        writethrough: false,
        allocation_depth: false,
    };
    parts.exports.add(&options).await.map(drop)
}

/// `block-export-del` and `nbd-server-remove`.
pub(super) async fn remove(
    exports: &Exports,
    id: &str,
    mode: Option<BlockExportRemoveMode>,
) -> Result<(), Error> {
    let removal = match mode {
        None | Some(BlockExportRemoveMode::Safe) => Removal::Safe,
        Some(BlockExportRemoveMode::Hard) => Removal::Hard,
    };
    exports.remove(id, removal).await
}

/// `query-block-exports`.
pub(super) fn list(exports: &Exports) -> Vec<BlockExportInfo> {
    let exports = exports.list();
    let infos = exports.iter().map(|export| BlockExportInfo {
        id: export.id().to_owned(),
        kind: BlockExportType::Nbd,
        node_name: export.node_name(),
        shutting_down: export.is_shutting_down(),
    });
    infos.collect()
}

fn access(writable: Option<bool>) -> Access {
    if writable.unwrap_or(false) {
        Access::Writable
    } else {
        Access::ReadOnly
    }
}
