//! `ai-overlay`: a private, sparse overlay that is emptied in no time.
//!
//! ```text
//!   parents ─▶ ai-overlay ──backing──▶ what shows where nothing is held
//!                  └───────file─────▶ header │ map │ data: block n at a fixed place
//! ```
//!
//! What is held is known by a map in memory; a flush writes its changed pages after the data they
//! speak of. A page counts only for one epoch, so that emptying is a number that goes up; the
//! space is given back in the background.
//!
//! Lock contract: a read holds its range, shared, for its whole duration, its read of the backing
//! node included. A write with `serialise` holds it alone: no reader is on its way to the backing
//! node when it starts, and those that come later find what it wrote (R95, R96).
//!
//! Flush contract: data, then pages, then the header, each durable before the next is written.
//! After a power cut the overlay shows everything that was flushed; of what came later each block
//! shows the old or the new. A failed flush poisons the overlay until it is opened again.
//!
//! Source: `docs/spec/ai-overlay.md`.

mod flush;
mod format;
mod io;
mod map;
mod open;
mod reclaim;

#[cfg(test)]
mod tests;

use self::flush::Flusher;
use self::format::{BLOCK, Layout, Slot};
use self::map::Map;
use crate::ports::Ports;
use block::{
    Answer, ByteRange, Capabilities, Child, ChildRole, Driver, Error, ErrorKind, Extent, Limits,
    MakeEmpty, OverlayStage, OverlayState, Permissions, RangeLock, Shares, WriteFlags, ZeroFlags,
    default_child_permissions,
};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The `ai-overlay` driver. Made by [`AiOverlay::open`].
pub struct AiOverlay {
    core: Rc<Core>,
}

/// What requests, flushes and background work share.
struct Core {
    ports: Ports,
    file: Rc<Child>,
    backing: Rc<Child>,
    layout: Layout,
    /// Readers against serialised writes, first writes of parts of blocks and reclaiming.
    order: RangeLock,
    map: RefCell<Map>,
    state: State,
    flusher: Flusher,
    /// Where the newest header lies.
    header_slot: Cell<Slot>,
    reclaiming: Cell<bool>,
}

/// Small facts about the overlay, each of which changes by itself.
struct State {
    /// In force, in memory.
    stage: Cell<OverlayStage>,
    /// What the header in the file says; `None` as long as there is none.
    durable: Cell<Option<Durable>>,
    /// Something was written since the last flush.
    unflushed: Cell<bool>,
    poisoned: Cell<bool>,
    closing: Cell<bool>,
}

/// What a header in the file says that may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Durable {
    epoch: u64,
    stage: OverlayStage,
}

impl Core {
    /// Why the contents must not change, if so.
    fn check_change(&self) -> Result<(), Error> {
        let refuse = |message: &str| Err(Error::with_message(ErrorKind::NotPermitted, message));
        if self.state.poisoned.get() {
            return Err(ErrorKind::Poisoned.into());
        }
        if self.state.stage.get() == OverlayStage::ContentsUnknown {
            return refuse(
                "the overlay was in use by replication when it was last left, so its contents are \
                 unknown: create its file anew",
            );
        }
        if self.state.durable.get().is_none() {
            return refuse("the overlay's file is read-only and has not been initialised");
        }
        Ok(())
    }
}

impl Driver for AiOverlay {
    fn name(&self) -> &'static str {
        "ai-overlay"
    }

    fn limits(&self) -> Limits {
        Limits {
            preferred_alignment: BLOCK,
            ..Limits::of_length(self.core.layout.length)
        }
    }

    fn read(&self, range: ByteRange) -> Answer<'_, Bytes> {
        Box::pin(self.core.read(range))
    }

    fn write(&self, offset: u64, data: Bytes, flags: WriteFlags) -> Answer<'_, ()> {
        Box::pin(self.core.write(offset, data, flags.serialise))
    }

    fn write_zeroes(&self, range: ByteRange, flags: ZeroFlags) -> Answer<'_, ()> {
        Box::pin(self.core.write_zeroes(range, flags))
    }

    /// What was discarded reads as zeroes: never as the backing node again.
    fn discard(&self, range: ByteRange) -> Answer<'_, ()> {
        Box::pin(self.core.discard(range))
    }

    fn flush(&self) -> Answer<'_, ()> {
        Box::pin(flush::flush(&self.core))
    }

    fn block_status(&self, range: ByteRange) -> Answer<'_, Vec<Extent>> {
        Box::pin(self.core.block_status(range))
    }

    fn children(&self) -> Vec<Rc<Child>> {
        vec![Rc::clone(&self.core.file), Rc::clone(&self.core.backing)]
    }

    /// The file is the overlay's own: it is written to whenever it can be, whoever uses the
    /// overlay, because space is given back and the map is written on closing.
    fn child_permissions(&self, child: &Child, above: Shares) -> Shares {
        if child.role() != ChildRole::Data {
            return default_child_permissions(child.role(), above);
        }
        let mut used = Permissions::CONSISTENT_READ;
        if self.core.file_is_writable() {
            used |= Permissions::WRITE | Permissions::RESIZE;
        }
        Shares {
            used,
            shared: Permissions::CONSISTENT_READ,
        }
    }

    fn set_writable(&self, writable: bool) -> Answer<'_, ()> {
        Box::pin(async move {
            if writable && self.core.state.durable.get().is_none() {
                self.core.initialise().await?;
            }
            Ok(())
        })
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities {
            make_empty: Some(self),
            overlay_state: Some(self),
            ..Capabilities::default()
        }
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.core.stop_reclaiming().await;
            if self.core.check_change().is_err() || !self.core.file_is_writable() {
                return Ok(());
            }
            //= docs/spec/ai-overlay.md#stages
            //# Closing MUST make data and map durable and record the stage clean, except that
            //# failover stays failover.
            if self.stage() != OverlayStage::Failover {
                self.core.state.stage.set(OverlayStage::Clean);
            }
            flush::flush(&self.core).await
        })
    }
}

impl MakeEmpty for AiOverlay {
    fn make_empty(&self) -> Answer<'_, ()> {
        Box::pin(async {
            self.core.check_change()?;
            self.core.map.borrow_mut().empty();
            reclaim::start(&self.core);
            Ok(())
        })
    }

    fn check_emptiable(&self) -> Result<(), Error> {
        self.core.check_change()
    }

    fn allocated_bytes(&self) -> u64 {
        let blocks = self.core.map.borrow().held_blocks();
        blocks.saturating_mul(BLOCK)
    }

    fn medium_present(&self) -> bool {
        self.core.file.node().is_ok()
    }
}

impl OverlayState for AiOverlay {
    fn stage(&self) -> OverlayStage {
        self.core.state.stage.get()
    }

    fn set_stage(&self, stage: OverlayStage) -> Answer<'_, ()> {
        Box::pin(async move {
            self.core.check_change()?;
            if stage == OverlayStage::ContentsUnknown {
                let message = "a stage is what is known of the contents";
                return Err(Error::with_message(ErrorKind::InvalidRequest, message));
            }
            //= docs/spec/ai-overlay.md#stages
            //# A stage MUST be durable, with data and map as they were when it was set, before
            //# setting it is answered.
            self.core.state.stage.set(stage);
            flush::flush(&self.core).await
        })
    }
}
