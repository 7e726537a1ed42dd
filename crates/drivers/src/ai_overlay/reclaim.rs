//! Giving the space of emptied maps back, in the background and in small steps.
//!
//! Power-cut contract: data is given back only when no header in the file can bring it back: the
//! present epoch is durable, or the contents would be unknown anyway.
//!
//! Each step holds its part of the disk alone, so that no write to it is under way, and gives
//! back only what the map of that moment does not hold.

use super::{Core, flush};
use block::{ByteRange, Error, ErrorKind, LockKind, OverlayStage};
use std::rc::Rc;
use std::time::Duration;

/// Pause before the first step. Who waits for the emptying comes first, and what is written again
/// at once need not be given back.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Least pause between two steps; it is at least as long as the step before.
const LEAST_PAUSE: Duration = Duration::from_millis(1);

/// Starts giving space back, unless that is under way already.
pub(super) fn start(core: &Rc<Core>) {
    let idle = core.map.borrow().next_stale(0).is_none();
    if idle || core.state.closing.get() || core.reclaiming.replace(true) {
        return;
    }
    let runtime = Rc::clone(&core.ports.runtime);
    // While it pauses it keeps no overlay alive, and no file locked.
    let owner = Rc::downgrade(core);
    let task = async move {
        let (mut at, mut pause) = (0, FIRST_PAUSE);
        loop {
            runtime.sleep(pause).await;
            let Some(core) = owner.upgrade() else { return };
            let begun = runtime.now();
            if !core.give_back_some(&mut at).await {
                core.reclaiming.set(false);
                return;
            }
            pause = runtime.now().saturating_sub(begun).max(LEAST_PAUSE);
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

    /// One step of it, from block `at` on; says whether there is another.
    async fn give_back_some(self: &Rc<Core>, at: &mut u64) -> bool {
        let result = self.step(at).await;
        result.unwrap_or_else(|error| {
            tracing::warn!(%error, "an overlay's space was not given back");
            false
        })
    }

    async fn step(self: &Rc<Core>, at: &mut u64) -> Result<bool, Error> {
        if self.state.closing.get() {
            return Ok(false);
        }
        if !self.may_give_back() {
            flush::flush(self).await?;
        }
        let Some(blocks) = self.map.borrow().next_stale(*at) else {
            // What was passed by may have been added meanwhile.
            return Ok(std::mem::take(at) > 0);
        };
        *at = blocks.end;
        let range = self.layout.bytes(blocks.clone());
        let _alone = self.order.lock(range, LockKind::Exclusive).await;
        // The overlay may have been emptied again, or closed, while this step waited.
        if self.state.closing.get() || !self.may_give_back() {
            return Ok(true);
        }
        let free = self.map.borrow_mut().take_stale(blocks);
        for run in free {
            self.free(self.layout.data(run)).await?;
        }
        Ok(true)
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
