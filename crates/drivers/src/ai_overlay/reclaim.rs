//! Giving the space of emptied maps back, in the background and in small steps.
//!
//! Power-cut contract: data is given back only when no header in the file can bring it back: the
//! present epoch is durable, or the contents would be unknown anyway.
//!
//! Each step holds its part of the disk alone, so that no write to it is under way, and gives
//! back only what the map of that moment does not hold.

use super::{Core, flush};
use block::{ByteRange, Error, ErrorKind, LockKind, OverlayStage};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

/// Starts giving space back, unless that is under way already.
pub(super) fn start(core: &Rc<Core>) {
    let idle = core.map.borrow().next_stale(0).is_none();
    if idle || core.state.closing.get() || core.reclaiming.replace(true) {
        return;
    }
    let owner = Rc::clone(core);
    let task = async move {
        let result = owner.give_back().await;
        owner.reclaiming.set(false);
        if let Err(error) = result {
            tracing::warn!(%error, "an overlay's space was not given back");
        }
    };
    // Not kept: it ends by itself, and closing waits for its step.
    drop(core.ports.runtime.spawn(Box::pin(task)));
}

impl Core {
    /// Ends giving space back; resolves when the step under way is done.
    pub(super) async fn stop_reclaiming(&self) {
        self.state.closing.set(true);
        let whole = ByteRange::between(0, u64::MAX);
        drop(self.order.lock(whole, LockKind::Exclusive).await);
    }

    async fn give_back(self: &Rc<Core>) -> Result<(), Error> {
        let mut at = 0;
        while !self.state.closing.get() {
            if !self.may_give_back() {
                flush::flush(self).await?;
            }
            let Some(blocks) = self.map.borrow().next_stale(at) else {
                if at == 0 {
                    break;
                }
                at = 0;
                continue;
            };
            at = blocks.end;
            let range = self.layout.bytes(blocks.clone());
            let _alone = self.order.lock(range, LockKind::Exclusive).await;
            // The overlay may have been emptied again, or closed, while this step waited.
            if self.state.closing.get() || !self.may_give_back() {
                continue;
            }
            let free = self.map.borrow_mut().take_stale(blocks);
            for run in free {
                self.free(self.layout.data(run)).await?;
            }
            yield_now().await;
        }
        Ok(())
    }

    //= docs/spec/ai-overlay.md#emptying
    //# Space MUST be given back only when the present epoch is durable, or while the contents
    //# would be unknown after a power cut anyway.
    fn may_give_back(&self) -> bool {
        let Some(durable) = self.state.durable.get() else {
            return false;
        };
        let unknown_anyway = durable.stage == OverlayStage::Replicating
            && self.state.stage.get() == OverlayStage::Replicating;
        unknown_anyway || durable.epoch == self.map.borrow().epoch()
    }

    /// Gives a range of the file back: as a hole, else as the medium's discard does it.
    async fn free(&self, range: ByteRange) -> Result<(), Error> {
        match self.punch_hole(range).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => self.file.discard(range).await,
            result => result,
        }
    }

    /// Makes a hole of a range of the file, if its medium can.
    pub(super) async fn punch_hole(&self, range: ByteRange) -> Result<(), Error> {
        let node = self.file.node()?;
        match node.driver().capabilities().punch_hole {
            Some(medium) => medium.punch_hole(range).await,
            None => Err(ErrorKind::Unsupported.into()),
        }
    }
}

/// Lets other tasks run once.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
