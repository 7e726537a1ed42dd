//! Emptying the overlays: the switch of a checkpoint, a start and a stop.

use super::Member;
use super::member::{Chain, invalid};
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
        check_emptiable(&member.chain()?)
    }

    /// Active, then hidden and with it the map of what was saved (R50, R52).
    pub(super) async fn empty_buffers(&self, member: &Rc<Member>) -> Result<(), Error> {
        let filter = member.filter.borrow().clone();
        empty_in_order(&member.chain()?, filter.as_ref()).await
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

/// Whether both overlays can be emptied.
fn check_emptiable(chain: &Chain) -> Result<(), Error> {
    for (which, overlay) in [("Active", &chain.active), ("Hidden", &chain.hidden)] {
        let Some(capability) = overlay.driver().capabilities().make_empty else {
            continue;
        };
        //= docs/spec/replication.md#checkpoint
        //# A checkpoint MUST be refused with the node's name if the medium of an overlay is gone.
        if !capability.medium_present() {
            let name = overlay.name();
            return Err(invalid(format!("{which} disk '{name}' is ejected")));
        }
        let emptiable = capability.check_emptiable();
        emptiable.map_err(|error| at(overlay, error))?;
    }
    Ok(())
}

//= docs/spec/replication.md#checkpoint
//# A checkpoint MUST empty the active disk first, then the hidden disk, and forget what was saved
//# only once hidden is empty.
//= docs/spec/replication.md#checkpoint
//# A checkpoint that fails half-way MUST leave a pair on which the same checkpoint can be asked for
//# again and is then correct.
/// Empties active, then hidden, then the map of `filter`.
///
/// Order contract: as long as hidden has not been emptied the map stays, so that no old data is
/// saved over older. A failure in between leaves active empty, and a retry empties both.
async fn empty_in_order(chain: &Chain, filter: Option<&Rc<Node>>) -> Result<(), Error> {
    make_empty(&chain.active).await?;
    make_empty(&chain.hidden).await?;
    if let Some(filter) = filter
        && let Some(copying) = filter.driver().capabilities().copy_before_write
    {
        copying.reset();
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use block::{
        Answer, Capabilities, CopyBeforeWrite, Driver, Extent, Limits, MakeEmpty, NodeOptions,
        WriteFlags, ZeroFlags,
    };
    use bytes::Bytes;
    use futures_util::FutureExt;
    use std::cell::{Cell, RefCell};
    use std::future::ready;

    /// A node that says when it is emptied, or forgets; data it has none.
    struct Told {
        name: &'static str,
        log: Log,
        fails: Cell<bool>,
        is_present: bool,
    }

    impl Told {
        fn refuse<T: 'static>() -> Answer<'static, T> {
            Box::pin(ready(Err(ErrorKind::Unsupported.into())))
        }
    }

    impl Driver for Told {
        fn name(&self) -> &'static str {
            self.name
        }
        fn limits(&self) -> Limits {
            Limits::of_length(512)
        }
        fn read(&self, _: ByteRange) -> Answer<'_, Bytes> {
            Told::refuse()
        }
        fn write(&self, _: u64, _: Bytes, _: WriteFlags) -> Answer<'_, ()> {
            Told::refuse()
        }
        fn write_zeroes(&self, _: ByteRange, _: ZeroFlags) -> Answer<'_, ()> {
            Told::refuse()
        }
        fn discard(&self, _: ByteRange) -> Answer<'_, ()> {
            Told::refuse()
        }
        fn flush(&self) -> Answer<'_, ()> {
            Told::refuse()
        }
        fn block_status(&self, _: ByteRange) -> Answer<'_, Vec<Extent>> {
            Told::refuse()
        }
        fn capabilities(&self) -> Capabilities<'_> {
            Capabilities {
                make_empty: Some(self),
                copy_before_write: Some(self),
                ..Capabilities::default()
            }
        }
    }

    impl MakeEmpty for Told {
        fn make_empty(&self) -> Answer<'_, ()> {
            if self.fails.take() {
                return Box::pin(ready(Err(Error::new(ErrorKind::Io))));
            }
            self.log.borrow_mut().push(self.name);
            Box::pin(ready(Ok(())))
        }
        fn allocated_bytes(&self) -> u64 {
            0
        }
        fn medium_present(&self) -> bool {
            self.is_present
        }
    }

    impl CopyBeforeWrite for Told {
        fn reset(&self) {
            self.log.borrow_mut().push("forget");
        }
        fn first_error(&self) -> Option<Error> {
            None
        }
        fn saved_bytes(&self) -> u64 {
            0
        }
    }

    /// What the nodes were told, in order.
    type Log = Rc<RefCell<Vec<&'static str>>>;

    /// A chain with its copy-before-write. Hidden may fail to be emptied the first time, or have lost
    /// its medium.
    fn chain(fails: bool, is_present: bool) -> (Chain, Rc<Node>, Log) {
        let log = Log::default();
        let node = |name: &'static str| {
            let is_hidden = name == "hidden";
            let told = Told {
                name,
                log: Rc::clone(&log),
                fails: Cell::new(fails && is_hidden),
                is_present: is_present || !is_hidden,
            };
            Node::new(name, Box::new(told), NodeOptions::default())
        };
        let chain = Chain {
            active: node("active"),
            hidden: node("hidden"),
            secondary: node("secondary"),
        };
        let filter = node("filter");
        (chain, filter, log)
    }

    //= docs/spec/replication.md#checkpoint
    //= type=test
    //# A checkpoint MUST empty the active disk first, then the hidden disk, and forget what was
    //# saved only once hidden is empty.
    #[test]
    fn active_is_emptied_before_hidden_and_the_map_forgotten_last() {
        let (chain, filter, log) = chain(false, true);
        let emptied = empty_in_order(&chain, Some(&filter)).now_or_never();
        assert_eq!(emptied, Some(Ok(())));
        assert_eq!(log.take(), ["active", "hidden", "forget"]);
    }

    //= docs/spec/replication.md#checkpoint
    //= type=test
    //# A checkpoint that fails half-way MUST leave a pair on which the same checkpoint can be asked
    //# for again and is then correct.
    #[test]
    fn what_failed_half_way_keeps_the_map_and_is_done_whole_the_next_time() {
        let (chain, filter, log) = chain(true, true);
        let empty = || empty_in_order(&chain, Some(&filter)).now_or_never();
        let error = empty().unwrap().unwrap_err();
        assert_eq!(
            (error.node(), error.op()),
            (Some("hidden"), Some(Op::MakeEmpty))
        );
        assert_eq!(log.take(), ["active"]);
        assert_eq!(empty(), Some(Ok(())));
        assert_eq!(log.take(), ["active", "hidden", "forget"]);
    }

    //= docs/spec/replication.md#checkpoint
    //= type=test
    //# A checkpoint MUST be refused with the node's name if the medium of an overlay is gone.
    #[test]
    fn an_overlay_without_its_medium_is_named_and_nothing_emptied() {
        let (chain, _, log) = chain(false, false);
        let error = check_emptiable(&chain).unwrap_err();
        assert_eq!(error.message(), "Hidden disk 'hidden' is ejected");
        assert_eq!(log.take(), [""; 0]);
    }
}
