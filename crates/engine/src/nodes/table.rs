//! The drivers that `blockdev-add` knows, one row each: options as users write them, turned into what
//! the driver is made of.

use super::blkdebug;
use super::open::{Opening, Request, could_not_open};
use crate::commands::export::address;
use ::replication::Role;
use block::{ChildRole, Driver};
use drivers::ai_overlay::AiOverlay;
use drivers::copy_before_write::{self, Filter, OnCopyError};
use drivers::file::{self, FileDriver, Medium};
use drivers::nbd::{self, Nbd};
use drivers::null_co::{self, NullCo};
use drivers::ports::{Aio, Locking};
use drivers::quorum::{self, Quorum, ReadPattern};
use drivers::raw::{self, Raw};
use drivers::replication::{self, FORWARD_TIMEOUT, Replication};
use qmp::Error;
use qmp::types::{
    self, AiOverlayOptions, AioBackend, BlockdevDriver, CopyBeforeWriteOptions, FileOptions,
    NbdOptions, NullOptions, QuorumOptions, QuorumReadPattern, RawOptions, ReplicationOptions,
    ReplicationRole,
};
use std::time::Duration;

/// What a row makes.
pub(super) struct Opened {
    pub(super) driver: Box<dyn Driver>,
    /// It could only be opened read-only, which `auto-read-only` allows.
    pub(super) read_only: bool,
}

impl Opened {
    pub(super) fn new(driver: impl Driver + 'static) -> Opened {
        Opened {
            driver: Box::new(driver),
            read_only: false,
        }
    }
}

/// Opens the driver that `request` names.
pub(super) async fn open(
    opening: &mut Opening<'_>,
    request: &Request<'_>,
) -> Result<Opened, Error> {
    match &request.options.driver {
        BlockdevDriver::AiOverlay(options) => ai_overlay(opening, request, options).await,
        BlockdevDriver::Blkdebug(options) => blkdebug::open(opening, request, options).await,
        BlockdevDriver::CopyBeforeWrite(options) => {
            copy_before_write(opening, request, options).await
        }
        BlockdevDriver::Quorum(options) => quorum(opening, request, options).await,
        BlockdevDriver::File(options) => file(opening, request, (Medium::File, options)).await,
        BlockdevDriver::HostDevice(options) => {
            file(opening, request, (Medium::HostDevice, options)).await
        }
        BlockdevDriver::Nbd(options) => nbd(opening, request, options).await,
        BlockdevDriver::NullCo(options) => Ok(null_co(opening, options)),
        BlockdevDriver::Raw(options) => raw(opening, request, options).await,
        BlockdevDriver::Replication(options) => replication(opening, request, options).await,
    }
}

async fn file(
    opening: &Opening<'_>,
    request: &Request<'_>,
    (medium, options): (Medium, &FileOptions),
) -> Result<Opened, Error> {
    let inherited = request.inherited;
    let options = file::Options {
        medium,
        path: options.filename.clone().into(),
        read_only: inherited.read_only,
        auto_read_only: inherited.auto_read_only,
        direct: inherited.direct,
        no_flush: inherited.no_flush,
        aio: match options.aio {
            None | Some(AioBackend::Threads) => Aio::Threads,
            Some(AioBackend::Native | AioBackend::IoUring) => Aio::IoUring,
        },
        locking: match options.locking {
            None | Some(types::Locking::Auto) => Locking::Auto,
            Some(types::Locking::On) => Locking::On,
            Some(types::Locking::Off) => Locking::Off,
        },
        unmap: inherited.unmap,
    };
    let driver = FileDriver::open(&opening.nodes.ports, &options).await;
    let driver = driver.map_err(|error| could_not_open(&request.name, &error))?;
    Ok(Opened {
        read_only: !driver.is_writable(),
        driver: Box::new(driver),
    })
}

fn null_co(opening: &Opening<'_>, options: &NullOptions) -> Opened {
    let defaults = null_co::Options::default();
    let options = null_co::Options {
        size: options.size.map_or(defaults.size, |size| size.0),
        latency: Duration::from_nanos(options.latency_ns.unwrap_or(0)),
        read_zeroes: options.read_zeroes.unwrap_or(false),
    };
    Opened::new(NullCo::new(options, opening.nodes.ports.clone()))
}

async fn raw(
    opening: &mut Opening<'_>,
    request: &Request<'_>,
    options: &RawOptions,
) -> Result<Opened, Error> {
    let window = raw::Options {
        offset: options.offset.map_or(0, |offset| offset.0),
        size: options.size.map(|size| size.0),
    };
    let role = window.child_role();
    let child = opening.child(request, "file", role, &options.file).await?;
    let driver = Raw::new(child, window);
    let driver = driver.map_err(|error| could_not_open(&request.name, &error))?;
    Ok(Opened::new(driver))
}

async fn ai_overlay(
    opening: &mut Opening<'_>,
    request: &Request<'_>,
    options: &AiOverlayOptions,
) -> Result<Opened, Error> {
    let file = opening.child(request, "file", ChildRole::Data, &options.file);
    let file = file.await?;
    let backing = opening.child(request, "backing", ChildRole::Backing, &options.backing);
    let backing = backing.await?;
    opening.lock(&file).await?;
    let driver = AiOverlay::open(file, backing, opening.nodes.ports.clone()).await;
    let driver = driver.map_err(|error| could_not_open(&request.name, &error))?;
    Ok(Opened::new(driver))
}

/// R2: the child first, then the options.
async fn replication(
    opening: &mut Opening<'_>,
    request: &Request<'_>,
    options: &ReplicationOptions,
) -> Result<Opened, Error> {
    let child = opening.child(request, "file", ChildRole::Filtered, &options.file);
    let child = child.await?;
    //= docs/spec/replication.md#options
    //# A node without a `file` child, or whose `file` child cannot be opened, MUST be refused with
    //# the error of that child before its other options are looked at.
    let (role, top_id) = match options.role()? {
        ReplicationRole::Primary => (Role::Primary, None),
        ReplicationRole::Secondary { top_id } => (Role::Secondary, Some(top_id)),
    };
    let options = replication::Options {
        node: request.name.clone(),
        role,
        top_id,
        writable: !request.inherited.read_only,
        forward_timeout: match options.forward_timeout {
            None => FORWARD_TIMEOUT,
            Some(0) => Duration::MAX,
            Some(seconds) => Duration::from_secs(seconds.into()),
        },
    };
    let nodes = opening.nodes;
    //= docs/spec/replication.md#options
    //# Opening a node MUST NOT check its chain, lengths or formats: that is the start's business.
    let driver = Replication::new(options, child, nodes.ports.clone(), nodes.sink.clone());
    Ok(Opened::new(driver))
}

async fn copy_before_write(
    opening: &mut Opening<'_>,
    request: &Request<'_>,
    options: &CopyBeforeWriteOptions,
) -> Result<Opened, Error> {
    let file = opening.child(request, "file", ChildRole::Filtered, &options.file);
    let file = file.await?;
    let target = opening.child(request, "target", ChildRole::Data, &options.target);
    let target = target.await?;
    let options = copy_before_write::Options {
        node: request.name.clone(),
        on_error: match options.on_cbw_error {
            None | Some(types::OnCbwError::BreakGuestWrite) => OnCopyError::BreakGuestWrite,
            Some(types::OnCbwError::BreakSnapshot) => OnCopyError::BreakSnapshot,
        },
        timeout: Duration::from_secs(options.cbw_timeout.unwrap_or(0).into()),
        min_cluster: options.min_cluster_size.map_or(0, |size| size.0),
    };
    let filter = Filter::new(options, file, target, opening.nodes.ports.clone());
    let filter = filter.map_err(|error| could_not_open(&request.name, &error))?;
    Ok(Opened::new(filter))
}

async fn quorum(
    opening: &mut Opening<'_>,
    request: &Request<'_>,
    options: &QuorumOptions,
) -> Result<Opened, Error> {
    if options.blkverify.unwrap_or(false) || options.rewrite_corrupted.unwrap_or(false) {
        let message = "Parameters 'blkverify' and 'rewrite-corrupted' are not supported";
        return Err(Error::generic(message));
    }
    let mut children = Vec::new();
    for (index, reference) in (0..).zip(&options.children) {
        let name = quorum::child_name(index);
        let child = opening.child(request, &name, ChildRole::Filtered, reference);
        children.push(child.await?);
    }
    let options = quorum::Options {
        node: request.name.clone(),
        vote_threshold: usize::try_from(options.vote_threshold).unwrap_or(usize::MAX),
        read_pattern: match options.read_pattern {
            None | Some(QuorumReadPattern::Quorum) => ReadPattern::Quorum,
            Some(QuorumReadPattern::Fifo) => ReadPattern::Fifo,
        },
    };
    let driver = Quorum::new(options, children, opening.nodes.sink.clone());
    let driver = driver.map_err(|error| could_not_open(&request.name, &error))?;
    Ok(Opened::new(driver))
}

async fn nbd(
    opening: &Opening<'_>,
    request: &Request<'_>,
    options: &NbdOptions,
) -> Result<Opened, Error> {
    let inherited = request.inherited;
    let seconds = |option: Option<u32>| Duration::from_secs(option.unwrap_or(0).into());
    let options = nbd::Options {
        server: address(&options.server)?,
        export: options.export.clone().unwrap_or_default(),
        reconnect_delay: seconds(options.reconnect_delay),
        open_timeout: seconds(options.open_timeout),
        read_only: inherited.read_only,
        auto_read_only: inherited.auto_read_only,
    };
    let driver = Nbd::open(&opening.nodes.ports, options).await;
    let driver = driver.map_err(|error| could_not_open(&request.name, &error))?;
    Ok(Opened {
        read_only: !driver.is_writable(),
        driver: Box::new(driver),
    })
}
