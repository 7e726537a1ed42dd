//! Making the overlay durable: data, then map pages, then the header.
//!
//! Coalescing contract: a flush covers every write answered before it began. Callers that come
//! while one is under way wait for it and share the next.
//!
//! Cancel safety: a flush under way belongs to the overlay, not to who asked: whoever asks next
//! brings it to its end first. So two flushes never write the same slot at a time.

use super::format::{Header, PAGE, Slot};
use super::map::PageWrite;
use super::{Core, Durable};
use block::{Error, ErrorKind, WriteFlags};
use bytes::Bytes;
use futures_util::future::{FutureExt, LocalBoxFuture, Shared};
use futures_util::stream::{self, TryStreamExt};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Map pages written at a time.
const PAGES: usize = 16;

type Running = Shared<LocalBoxFuture<'static, Result<(), Error>>>;

/// The flush under way, if any, and how many there were.
#[derive(Default)]
pub(super) struct Flusher {
    started: Cell<u64>,
    running: RefCell<Option<Running>>,
}

//= docs/spec/ai-overlay.md#durability
//# Flushes that are asked for together MUST share one, and a flush with nothing new to cover MUST
//# NOT touch the file.
/// Makes everything answered before this call durable, and the stage in force.
pub(super) async fn flush(core: &Rc<Core>) -> Result<(), Error> {
    let needed = core.flusher.started.get().saturating_add(1);
    loop {
        let running = core.flusher.running.borrow().clone();
        let flush = running.unwrap_or_else(|| start(core));
        let number = core.flusher.started.get();
        let result = flush.await;
        if number >= needed {
            return result;
        }
    }
}

fn start(core: &Rc<Core>) -> Running {
    let started = core.flusher.started.get().saturating_add(1);
    core.flusher.started.set(started);
    let owner = Rc::clone(core);
    let flush = async move {
        let result = owner.flush_once().await;
        owner.flusher.running.replace(None);
        result
    };
    let flush = flush.boxed_local().shared();
    core.flusher.running.replace(Some(flush.clone()));
    flush
}

impl Core {
    async fn flush_once(&self) -> Result<(), Error> {
        if self.state.poisoned.get() {
            return Err(ErrorKind::Poisoned.into());
        }
        //= docs/spec/ai-overlay.md#durability
        //# After a power cut the overlay MUST show everything that was flushed, and of what came
        //# later, sector by sector, the old or the new.
        // The instant this flush speaks of. Bits are set after their data was written, so every
        // page taken here speaks of data that the first step makes durable.
        let pages = self.map.borrow_mut().take_changed();
        let header = self.changed_header();
        if !self.state.unflushed.replace(false) && pages.is_empty() && header.is_none() {
            return Ok(());
        }
        let result = self.write_out(pages, header).await;
        //= docs/spec/ai-overlay.md#durability
        //# A flush that fails MUST poison the overlay until it is opened again.
        self.state.poisoned.set(result.is_err());
        result
    }

    /// What the header has to say, if that differs from what it says.
    fn changed_header(&self) -> Option<Durable> {
        let now = Durable {
            epoch: self.map.borrow().epoch(),
            stage: self.state.stage.get(),
        };
        let durable = self.state.durable.get()?;
        (durable != now).then_some(now)
    }

    //= docs/spec/ai-overlay.md#durability
    //# A flush MUST make data durable before it writes map pages, and map pages before it writes
    //# the header.
    async fn write_out(&self, pages: Vec<PageWrite>, header: Option<Durable>) -> Result<(), Error> {
        self.file.flush().await?;
        if !pages.is_empty() {
            self.write_pages(pages).await?;
            self.file.flush().await?;
        }
        if let Some(header) = header {
            self.write_header(header).await?;
            self.file.flush().await?;
            self.state.durable.set(Some(header));
        }
        Ok(())
    }

    async fn write_pages(&self, pages: Vec<PageWrite>) -> Result<(), Error> {
        let writes = pages.into_iter().map(|PageWrite { offset, data }| {
            Ok(async move { self.file.write(offset, data, WriteFlags::default()).await })
        });
        stream::iter(writes)
            .try_buffer_unordered(PAGES)
            .try_collect::<()>()
            .await
    }

    /// Writes the header to the slot that does not hold the present one.
    pub(super) async fn write_header(&self, durable: Durable) -> Result<(), Error> {
        let header = self.next_header(durable);
        let slot = self.header_slot.get().other();
        let offset = slot.index().saturating_mul(PAGE);
        let data = Bytes::from(header.encode());
        // The node, not the edge: while the overlay is opened nothing is granted yet.
        let node = self.file.node()?;
        node.write(offset, data, WriteFlags::default()).await?;
        self.header_slot.set(slot);
        Ok(())
    }

    fn next_header(&self, durable: Durable) -> Header {
        let mut map = self.map.borrow_mut();
        Header {
            sequence: map.next_sequence(),
            identity: map.identity(),
            length: self.layout.length,
            epoch: durable.epoch,
            stage: durable.stage,
        }
    }
}

/// The slot before the first header.
pub(super) const NO_HEADER: Slot = Slot::B;
