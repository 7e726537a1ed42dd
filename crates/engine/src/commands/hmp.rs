//! `human-monitor-command`: `qemu-io` on a node or an export. What goes wrong is text, not an error.

use crate::engine::All;
use crate::words::{describe, no_node};
use block::{ByteRange, Error, ErrorKind, Node, Permissions, Root, Shares, WriteFlags, ZeroFlags};
use bytes::Bytes;
use qmp::hmp;
use qmp::hmp::qemu_io::{Content, Extent, Job, Write, report_length};
use std::rc::Rc;

/// Carries a line out and returns what a person would read.
pub(super) async fn run(parts: &All, line: &str) -> String {
    let command = match hmp::parse(line) {
        Ok(command) => command,
        Err(said) => return said,
    };
    match open(parts, &command.device, &command.job).await {
        Ok(root) => {
            let said = carry_out(parts, &root, command.job).await;
            close(parts, &root).await;
            said
        }
        Err(error) => format!("Error: {}\r\n", describe(&error)),
    }
}

/// A user of the node for one command, which asks only for what the command needs.
///
/// It comes in its turn: a drained section that is held knows the users there were when it began.
async fn open(parts: &All, name: &str, job: &Job) -> Result<Rc<Root>, Error> {
    let _turn = parts.turns.take().await;
    let node = find(parts, name)?;
    let used = match job {
        Job::Read(_) => Permissions::CONSISTENT_READ,
        Job::Write(_) | Job::Discard(_) => Permissions::WRITE,
        Job::Flush | Job::Length | Job::Wait => Permissions::NONE,
    };
    let shares = Shares {
        used,
        shared: Permissions::ALL,
    };
    let root = Root::new("qemu-io", node, shares);
    let added = parts.edits.edit(|edit| {
        edit.add_root(&root);
        Ok(())
    });
    added.await?;
    Ok(root)
}

/// The node of this name, or of the export of this name.
fn find(parts: &All, name: &str) -> Result<Rc<Node>, Error> {
    if let Some(export) = parts.exports.find(name) {
        return export.root().child().node();
    }
    let node = parts.edits.look(|graph| graph.node(name));
    node.ok_or_else(|| Error::with_message(ErrorKind::InvalidRequest, no_node(name).desc()))
}

async fn close(parts: &All, root: &Rc<Root>) {
    let removed = parts.edits.edit(|edit| {
        edit.remove_root(root);
        Ok(())
    });
    if let Err(error) = removed.await {
        tracing::error!(%error, "cannot take a user out of the graph");
    }
}

async fn carry_out(parts: &All, root: &Root, job: Job) -> String {
    let runtime = &parts.ports.runtime;
    let start = runtime.now();
    let result = match job {
        Job::Read(read) => {
            let data = root.read(range(read.extent)).await;
            data.map(|data| read.report(&data, runtime.now().saturating_sub(start)))
        }
        Job::Write(write) => {
            let result = send(root, write).await;
            result.map(|()| write.report(runtime.now().saturating_sub(start)))
        }
        Job::Discard(extent) => {
            let result = root.discard(range(extent)).await;
            result.map(|()| extent.report_discard(runtime.now().saturating_sub(start)))
        }
        Job::Flush => root.flush().await.map(|()| String::new()),
        Job::Length => Ok(report_length(root.length())),
        Job::Wait => Ok(String::new()),
    };
    result.unwrap_or_else(|error| job.report_failure(&reason(&error)))
}

async fn send(root: &Root, write: Write) -> Result<(), Error> {
    let range = range(write.extent);
    match write.content {
        Content::Pattern(byte) => {
            let length = usize::try_from(range.length()).unwrap_or(usize::MAX);
            let data = Bytes::from(vec![byte; length]);
            let flags = WriteFlags {
                fua: write.fua,
                ..WriteFlags::default()
            };
            root.write(range.offset(), data, flags).await
        }
        Content::Zeroes {
            may_unmap,
            no_fallback,
        } => {
            let flags = ZeroFlags {
                fua: write.fua,
                may_unmap,
                no_fallback,
                ..ZeroFlags::default()
            };
            root.write_zeroes(range, flags).await
        }
    }
}

fn range(extent: Extent) -> ByteRange {
    ByteRange::between(extent.offset, extent.offset.saturating_add(extent.length))
}

/// The system's text, which scripts look for, and then what really happened.
fn reason(error: &Error) -> String {
    let text = match error.errno() {
        1 => "Operation not permitted",
        5 => "Input/output error",
        22 => "Invalid argument",
        28 => "No space left on device",
        95 => "Operation not supported",
        108 => "Cannot send after transport endpoint shutdown",
        110 => "Connection timed out",
        _ => return error.to_string(),
    };
    format!("{text} ({error})")
}
