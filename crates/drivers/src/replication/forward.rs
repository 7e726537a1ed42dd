//! The primary's way: send, bounded in time, and never let the guest feel it.
//!
//! The first request that is lost ends forwarding for good (R99): whatever arrived after it would
//! be a disk that never existed. Only a new filter node, after a resynchronisation, sends again.

use super::Replication;
use ::replication::{ErrorChange, Input, OnLoss, Role, step};
use block::{ByteRange, Child, Error, ErrorKind, Node, Op};
use futures_util::future::{Either, select};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// How deep a connection is looked for below the filter; deeper chains have no business here.
const YANK_DEPTH: usize = 16;

impl Replication {
    /// Sends `request`, bounded in time. A failure is remembered, and ends forwarding; the caller is
    /// told what `on_loss` says.
    ///
    /// # Errors
    ///
    /// The failure, if it is to be reported; a fast zero that the peer cannot do: nothing is lost,
    /// another request follows.
    pub(super) async fn forward(
        &self,
        (op, range): (Op, ByteRange),
        on_loss: OnLoss,
        request: impl Future<Output = Result<(), Error>>,
    ) -> Result<(), Error> {
        let Err(error) = self.bounded(request).await else {
            return Ok(());
        };
        if op == Op::WriteZeroes && error.kind() == ErrorKind::Unsupported {
            return Err(error);
        }
        //= docs/spec/replication.md#requests
        //# A write that the primary could not forward MUST be answered with success, and the error
        //# latched.
        //= docs/spec/replication.md#requests
        //# A flush that the primary could not forward MUST be answered with its error, and the
        //# error latched.
        let error = error.at(&self.options.node, op, range);
        self.forward_lost(error.clone());
        match on_loss {
            OnLoss::Swallow => Ok(()),
            OnLoss::Report => Err(error),
        }
    }

    /// Waits for `request`, at most for the bound. Past it the connection is cut, so that nothing
    /// else waits for a peer that does not answer (R100).
    async fn bounded(&self, request: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
        //= docs/spec/replication.md#losses
        //# A forward MUST be answered within the filter's forward timeout, whatever the peer does.
        let bound = self.options.forward_timeout;
        if bound == Duration::MAX {
            return request.await;
        }
        match select(pin!(request), self.ports.runtime.sleep(bound)).await {
            Either::Left((result, _)) => result,
            Either::Right(((), _)) => {
                if let Ok(node) = self.file.node() {
                    yank(&node, YANK_DEPTH);
                }
                let message = format!("the peer did not answer within {bound:?}");
                Err(Error::with_message(ErrorKind::TimedOut, message))
            }
        }
    }

    fn forward_lost(&self, error: Error) {
        let Ok(transition) = step(Role::Primary, self.stage(), Input::ForwardLost) else {
            return;
        };
        if transition.error == ErrorChange::Latch {
            self.latch(error);
        }
        self.set_stage(transition.next);
    }
}

/// Cuts the first connection found at or below `node`.
fn yank(node: &Node, depth: usize) -> bool {
    if let Some(connection) = node.driver().capabilities().yank {
        connection.yank();
        return true;
    }
    let below = |child: &Rc<Child>| {
        child
            .node()
            .is_ok_and(|n| yank(&n, depth.saturating_sub(1)))
    };
    depth > 0 && node.driver().children().iter().any(below)
}
