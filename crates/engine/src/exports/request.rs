//! One request of an NBD client, carried out on the export's node.

use super::Export;
use block::{ByteRange, Error, Root, WriteFlags, ZeroFlags};
use bytes::Bytes;
use nbd::Errno;
use nbd::server::{Command, Session, Ticket};
use nbd::wire::{ContextExtents, ContextSet, Extent, MetaContext, StatusFlags};
use std::rc::Rc;

/// Most that one request to cache reads, in bytes: as much as one read may.
const CACHED: u64 = 32 << 20;
/// Memory that takes at a time, in bytes.
const CACHE_PIECE: u64 = 1 << 20;

/// What a request led to.
pub(super) enum Outcome {
    Done,
    Data(Bytes),
    Status(Vec<ContextExtents>),
    Failed(Error),
}

impl Outcome {
    /// Tells the client.
    pub(super) fn reply(self, session: &mut Session, ticket: Ticket) {
        match self {
            Outcome::Done => session.reply_ok(ticket),
            Outcome::Data(data) => session.reply_data(ticket, data),
            Outcome::Status(contexts) => session.reply_block_status(ticket, &contexts),
            Outcome::Failed(error) => {
                session.reply_error(ticket, Errno::from(&error), &error.to_string());
            }
        }
    }
}

/// Carries `command` out.
pub(super) async fn serve(export: Rc<Export>, command: Command) -> Outcome {
    let root = &export.root;
    let result = match command {
        Command::Read { range } => return data(root.read(range).await),
        Command::BlockStatus {
            range,
            req_one,
            contexts,
        } => return status(&export, range, (contexts, req_one)).await,
        Command::Write { range, data, fua } => {
            let flags = WriteFlags {
                fua: fua || export.writethrough,
                ..WriteFlags::default()
            };
            root.write(range.offset(), data, flags).await
        }
        Command::Flush => root.flush().await,
        Command::Trim { range, fua } => trim(&export, range, fua).await,
        Command::WriteZeroes {
            range,
            no_hole,
            fast_zero,
            fua,
        } => {
            let flags = ZeroFlags {
                fua: fua || export.writethrough,
                may_unmap: !no_hole,
                no_fallback: fast_zero,
                ..ZeroFlags::default()
            };
            root.write_zeroes(range, flags).await
        }
        Command::Cache { range } => cache(root, range).await,
    };
    match result {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Failed(error),
    }
}

fn data(result: Result<Bytes, Error>) -> Outcome {
    match result {
        Ok(data) => Outcome::Data(data),
        Err(error) => Outcome::Failed(error),
    }
}

/// Reading brings a range into whatever caches lie below. It is advice, and its length has no bound of
/// its own: only the front of a long range is read, in pieces.
async fn cache(root: &Root, range: ByteRange) -> Result<(), Error> {
    let end = range.end().min(range.offset().saturating_add(CACHED));
    for piece in ByteRange::between(range.offset(), end).pieces(CACHE_PIECE) {
        root.read(piece).await?;
    }
    Ok(())
}

async fn trim(export: &Export, range: ByteRange, fua: bool) -> Result<(), Error> {
    export.root.discard(range).await?;
    if fua || export.writethrough {
        export.root.flush().await?;
    }
    Ok(())
}

async fn status(
    export: &Export,
    range: ByteRange,
    (contexts, req_one): (ContextSet, bool),
) -> Outcome {
    let extents = match export.root.block_status(range).await {
        Ok(extents) => extents,
        Err(error) => return Outcome::Failed(error),
    };
    let describe = |context: MetaContext| {
        let extents = join(extents.iter().map(|extent| Extent {
            length: extent.range.length(),
            flags: flags(context, extent),
        }));
        let most = if req_one { 1 } else { extents.len() };
        let extents = extents.into_iter().take(most).collect();
        ContextExtents { context, extents }
    };
    Outcome::Status(contexts.iter().map(describe).collect())
}

fn flags(context: MetaContext, extent: &block::Extent) -> u32 {
    match context {
        MetaContext::BaseAllocation => {
            let hole = if extent.data {
                StatusFlags::NONE
            } else {
                StatusFlags::HOLE
            };
            let zero = if extent.zero {
                StatusFlags::ZERO
            } else {
                StatusFlags::NONE
            };
            (hole | zero).bits()
        }
        MetaContext::AllocationDepth => extent.depth,
    }
}

/// Joins neighbours that say the same in this context.
fn join(extents: impl Iterator<Item = Extent>) -> Vec<Extent> {
    let mut joined: Vec<Extent> = Vec::new();
    for extent in extents {
        match joined.last_mut() {
            Some(last) if last.flags == extent.flags => {
                last.length = last.length.saturating_add(extent.length);
            }
            _ => joined.push(extent),
        }
    }
    joined
}
