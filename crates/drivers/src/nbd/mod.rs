//! The `nbd` driver: a disk on an NBD server.
//!
//! ```text
//!  requests ─▶ Link ◀─▶ Session (sans-IO) ◀─▶ Wire ◀─▶ socket
//!               │ who waits, is there a connection?      one task a node connects and carries
//! ```
//!
//! *Waits.* Connecting and the handshake are bounded; opening tries again until `open-timeout` has
//! passed. A request has no bound of its own: who must not wait for a dead peer cuts the connection
//! ([`Yank`]).
//!
//! *Reconnection.* A lost connection is made again, for ever. With `reconnect-delay` 0 requests fail
//! at once until it is back, and none is ever sent twice. With a delay they wait that long, and
//! those in flight are sent again: a write may then reach the disk twice, the first
//! copy as late as the server pleases, even after a newer write of the same blocks. That is QEMU's
//! bargain too; who cannot take it leaves the delay at 0.
//!
//! *Nothing is lost silently.* See [`Nbd::lost_requests`] and the flush rule of the link.
//!
//! Bounds: 256 requests and 64 MiB in flight on a connection; more wait in line.

mod changes;
mod connection;
mod link;

#[cfg(test)]
mod tests;

use crate::ports::{Address, Ports, Task};
use ::nbd::client::{
    ExportInfo, Limits as SessionLimits, Options as SessionOptions, Refused, Reply, Session,
};
use ::nbd::wire::{
    CommandFlags, ContextExtents, ContextSet, Cookie, ExportName, Extent as WireExtent,
    MetaContext, StatusFlags, TransmissionFlags,
};
use block::{
    Answer, ByteRange, Capabilities, Driver, Error, ErrorKind, Extent, Limits, Node, WriteFlags,
    Yank, ZeroFlags, align_down,
};
use bytes::Bytes;
use connection::{Dialer, keep};
use futures_util::future::select;
use link::{Kind, Link};
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

/// Longest range of one request without a payload, in bytes: its length has 32 bits.
const LONGEST: u64 = 1 << 30;
/// How long closing waits for a farewell.
const FAREWELL: Duration = Duration::from_secs(1);
/// What clients should align to for speed, in bytes.
const PREFERRED_ALIGNMENT: u64 = 4096;

/// Options of the driver.
#[derive(Clone, Debug)]
pub struct Options {
    /// `server`.
    pub server: Address,
    /// `export`.
    pub export: String,
    /// `reconnect-delay`: how long requests wait for a lost connection to come back.
    pub reconnect_delay: Duration,
    /// `open-timeout`: how long opening tries.
    pub open_timeout: Duration,
    /// `read-only`.
    pub read_only: bool,
    /// `auto-read-only`: take an export that is read-only although writing was asked for.
    pub auto_read_only: bool,
}

/// The `nbd` driver.
pub struct Nbd {
    connection: Connection,
    ports: Ports,
    export: ExportInfo,
    limits: Limits,
}

impl Nbd {
    /// Connects to the server and opens the export.
    ///
    /// # Errors
    ///
    /// Names the server and what it said, or which wait was too long.
    pub async fn open(ports: &Ports, options: Options) -> Result<Nbd, Error> {
        let export = ExportName::parse(options.export.as_bytes());
        let export = export.map_err(|malformed| {
            Error::with_message(ErrorKind::InvalidRequest, malformed.to_string())
        })?;
        let link = Rc::new(Link::new(!options.reconnect_delay.is_zero()));
        let dialer = Dialer {
            ports: ports.clone(),
            address: options.server.clone(),
            session: SessionOptions {
                export,
                contexts: ContextSet::NONE.with(MetaContext::BaseAllocation),
                limits: SessionLimits::default(),
            },
            reconnect_delay: options.reconnect_delay,
            open_timeout: options.open_timeout,
        };
        let task = keep(Rc::clone(&link), dialer);
        let task = ports.runtime.spawn(Box::pin(task));
        let connection = Connection { link, task };
        let export = connection.link.opened().await?;
        let read_only = export.flags.contains(TransmissionFlags::READ_ONLY);
        if read_only && !options.read_only && !options.auto_read_only {
            let message = format!("the export '{}' is read-only", options.export);
            return Err(Error::with_message(ErrorKind::NotPermitted, message));
        }
        let limits = limits_of(&export);
        Ok(Nbd {
            connection,
            ports: ports.clone(),
            export,
            limits,
        })
    }

    /// The driver of `node`, if it is this one.
    pub fn of(node: &Node) -> Option<&Nbd> {
        node.driver().capabilities().any?.downcast_ref()
    }

    /// Whether the export can be written.
    pub fn is_writable(&self) -> bool {
        !self.export.flags.contains(TransmissionFlags::READ_ONLY)
    }

    /// Requests that failed because a connection was lost; whether they were done is unknown.
    pub fn lost_requests(&self) -> u64 {
        self.link().losses().requests
    }

    /// The first of them.
    pub fn first_loss(&self) -> Option<Error> {
        self.link().losses().first
    }

    fn can(&self, flag: TransmissionFlags) -> bool {
        self.export.flags.contains(flag)
    }

    fn link(&self) -> &Link {
        &self.connection.link
    }

    /// Sends a request for each piece of a range that is short enough for one.
    async fn change_pieces(
        &self,
        range: ByteRange,
        submit: impl Fn(&mut Session, ByteRange) -> Result<Cookie, Refused>,
    ) -> Result<(), Error> {
        // A power of two, and so a multiple of every alignment.
        for piece in range.pieces(LONGEST) {
            let request = |session: &mut Session| submit(session, piece);
            self.link().call(Kind::Change, request).await?;
        }
        Ok(())
    }
}

/// The task that keeps a link connected; ends with its owner.
struct Connection {
    link: Rc<Link>,
    task: Task,
}

impl Drop for Connection {
    fn drop(&mut self) {
        let message = "the node is closed";
        let reason = Error::with_message(ErrorKind::ShuttingDown, message);
        self.link.close(reason);
        self.task.abort();
    }
}

fn limits_of(export: &ExportInfo) -> Limits {
    let sizes = export.block_sizes;
    let alignment = u64::from(sizes.minimum());
    let longest = u64::from(sizes.maximum()).min(32 << 20);
    Limits {
        length: export.size,
        request_alignment: alignment,
        preferred_alignment: u64::from(sizes.preferred()).max(PREFERRED_ALIGNMENT),
        max_transfer: align_down(longest, alignment).max(alignment),
        fua: export.flags.contains(TransmissionFlags::SEND_FUA),
    }
}

/// The flags of a request that changes something.
fn fua(wanted: bool) -> CommandFlags {
    if wanted {
        CommandFlags::FUA
    } else {
        CommandFlags::NONE
    }
}

impl Driver for Nbd {
    fn name(&self) -> &'static str {
        "nbd"
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn read(&self, range: ByteRange) -> Answer<'_, Bytes> {
        Box::pin(async move {
            let read = move |session: &mut Session| session.read(range);
            match self.link().call(Kind::Other, read).await? {
                Reply::Data(data) => Ok(data),
                Reply::Done | Reply::BlockStatus(_) => Err(ErrorKind::Io.into()),
            }
        })
    }

    fn write(&self, offset: u64, data: Bytes, flags: WriteFlags) -> Answer<'_, ()> {
        Box::pin(async move {
            let flags = fua(flags.fua);
            let write = |session: &mut Session| session.write(offset, data.clone(), flags);
            self.link().call(Kind::Change, write).await.map(drop)
        })
    }

    fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Answer<'_, ()> {
        Box::pin(async move {
            let fast = self.can(TransmissionFlags::SEND_FAST_ZERO);
            if !self.can(TransmissionFlags::SEND_WRITE_ZEROES) || (flags.no_fallback && !fast) {
                return Err(ErrorKind::Unsupported.into());
            }
            let mut request = fua(flags.fua);
            if !flags.may_unmap {
                request = request | CommandFlags::NO_HOLE;
            }
            if flags.no_fallback {
                request = request | CommandFlags::FAST_ZERO;
            }
            self.change_pieces(range, |session, piece| session.write_zeroes(piece, request))
                .await
        })
    }

    fn discard(&self, range: ByteRange) -> Answer<'_, ()> {
        Box::pin(async move {
            if !self.can(TransmissionFlags::SEND_TRIM) {
                return Err(ErrorKind::Unsupported.into());
            }
            self.change_pieces(range, |session, piece| {
                session.trim(piece, CommandFlags::NONE)
            })
            .await
        })
    }

    fn flush(&self) -> Answer<'_, ()> {
        Box::pin(self.link().flush())
    }

    fn block_status(&self, range: ByteRange) -> Answer<'_, Vec<Extent>> {
        Box::pin(async move {
            if !self.export.contexts.contains(MetaContext::BaseAllocation) {
                return Ok(vec![Extent::data(range)]);
            }
            // The answer may stop early in any case.
            let Some(first) = range.pieces(LONGEST).next() else {
                return Ok(Vec::new());
            };
            let ask = move |session: &mut Session| session.block_status(first, CommandFlags::NONE);
            match self.link().call(Kind::Other, ask).await? {
                Reply::BlockStatus(contexts) => Ok(extents_of(first, &contexts)),
                Reply::Done | Reply::Data(_) => Err(ErrorKind::Io.into()),
            }
        })
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            yank: Some(self),
            any: Some(self),
            ..Capabilities::default()
        }
    }

    fn set_writable(&self, writable: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            if !writable || self.is_writable() {
                return Ok(());
            }
            let message = "the export is read-only";
            Err(Error::with_message(ErrorKind::NotPermitted, message))
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let flushed = if self.is_writable() && self.link().closed().is_none() {
                self.link().flush().await
            } else {
                Ok(())
            };
            self.link().leave();
            let left = poll_fn(|cx| self.link().poll_closed(cx));
            select(left, self.ports.runtime.sleep(FAREWELL)).await;
            flushed
        })
    }
}

impl Yank for Nbd {
    fn yank(&self) {
        let message = "the connection was cut by 'yank'";
        let reason = Error::with_message(ErrorKind::Io, message);
        self.link().cut(reason);
    }
}

/// What the server says of a range, from its start on.
fn extents_of(range: ByteRange, contexts: &[ContextExtents]) -> Vec<Extent> {
    let mut next = range.offset();
    let wire = contexts.iter().flat_map(|context| &context.extents);
    let extents = wire.map(|&WireExtent { length, flags }| {
        let start = next;
        next = start.saturating_add(length).min(range.end());
        let flags = StatusFlags::from_bits(flags);
        Extent {
            range: ByteRange::between(start, next),
            data: !flags.contains(StatusFlags::HOLE),
            zero: flags.contains(StatusFlags::ZERO),
            depth: 1,
        }
    });
    extents.collect()
}
