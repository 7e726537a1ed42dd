//! Emptying the overlays: the switch of a checkpoint, a start and a stop.

use super::Member;
use super::member::invalid;
use super::run::Run;
use block::{ByteRange, Error, ErrorKind, Node, Op};
use futures_util::future::{Either, select};
use std::rc::Rc;

impl Run<'_> {
    /// Everything about emptying that can fail: copies still in flight (a write may end before
    /// the copy it began), and a medium that has gone (R51).
    pub(super) async fn prepare_empty(&self, member: &Rc<Member>) -> Result<(), Error> {
        let filter = member.filter.borrow().clone();
        if let Some(filter) = filter {
            self.settle(&filter).await?;
        }
        let chain = member.chain()?;
        for (which, overlay) in [("Active", &chain.active), ("Hidden", &chain.hidden)] {
            let Some(capability) = overlay.driver().capabilities().make_empty else {
                continue;
            };
            //= docs/spec/replication.md#checkpoint
            //# A checkpoint MUST be refused with the node's name if the medium of an overlay is
            //# gone.
            if !capability.medium_present() {
                let name = member.name();
                return Err(invalid(format!("{which} disk of '{name}' is ejected")));
            }
            let emptiable = capability.check_emptiable();
            emptiable.map_err(|error| at(overlay, error))?;
        }
        Ok(())
    }

    //= docs/spec/replication.md#checkpoint
    //# A checkpoint MUST empty the active disk first, then the hidden disk, and forget what was
    //# saved only once hidden is empty.
    //= docs/spec/replication.md#checkpoint
    //# A checkpoint that fails half-way MUST leave a pair on which the same checkpoint can be asked
    //# for again and is then correct.
    /// Active, then hidden and with it the map of what was saved (R50, R52).
    ///
    /// Order contract: as long as hidden has not been emptied its map stays, so that no old data
    /// is saved over older. A failure in between leaves active empty, and a retry empties both.
    pub(super) async fn empty_buffers(&self, member: &Rc<Member>) -> Result<(), Error> {
        let chain = member.chain()?;
        make_empty(&chain.active).await?;
        make_empty(&chain.hidden).await?;
        let filter = member.filter.borrow().clone();
        if let Some(filter) = filter
            && let Some(copying) = filter.driver().capabilities().copy_before_write
        {
            copying.reset();
        }
        Ok(())
    }

    /// Hidden first: active's record is the witness for both.
    pub(super) async fn flush_buffers(&self, member: &Rc<Member>) -> Result<(), Error> {
        let chain = member.chain()?;
        chain.hidden.flush().await?;
        chain.active.flush().await
    }

    /// Waits until `filter` has no copy in flight.
    pub(super) async fn settle(&self, filter: &Rc<Node>) -> Result<(), Error> {
        let Some(copying) = filter.driver().capabilities().copy_before_write else {
            return Ok(());
        };
        let runtime = &self.group.inner.ports.runtime;
        match select(copying.settle(), runtime.sleep(self.bound())).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => {
                let message = "old data is still being saved to the hidden disk";
                Err(Error::with_message(ErrorKind::TimedOut, message))
            }
        }
    }
}

async fn make_empty(overlay: &Rc<Node>) -> Result<(), Error> {
    match overlay.driver().capabilities().make_empty {
        Some(capability) => {
            let emptied = capability.make_empty().await;
            emptied.map_err(|error| at(overlay, error))
        }
        None => Err(invalid(
            "Active disk or hidden disk doesn't support make_empty",
        )),
    }
}

/// Names the overlay that could not be emptied.
fn at(overlay: &Node, error: Error) -> Error {
    let whole = ByteRange::between(0, overlay.length());
    error.at(overlay.name(), Op::MakeEmpty, whole)
}
