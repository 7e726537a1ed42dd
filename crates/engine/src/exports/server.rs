//! The NBD server: one listener, a bound on its connections, a task for each.

use super::connection::{Connection, Ended};
use super::export::Ending;
use super::{Access, Exports};
use block::{Gate, Pass};
use drivers::ports::{Address, Listener, Runtime, Stream, Task};
use futures_util::future::{Either, select};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// Pause after an accept that failed (most likely out of descriptors), so that it is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running server; dropping it closes the listener, not the connections.
pub(super) struct Server {
    address: Address,
    accepting: Task,
    /// The listener is inside while it is open.
    listening: Gate,
    shared: Rc<Shared>,
}

/// What listener and connections share.
struct Shared {
    most: usize,
    /// One entry a connection, with or without an export.
    streams: RefCell<Vec<Rc<dyn Stream>>>,
    clients: Gate,
    /// The listener, waiting for a free place.
    waiting: RefCell<Option<Waker>>,
}

impl Server {
    /// Listens at `address` and serves `exports`, at most `most` clients at a time.
    pub(super) async fn start(
        exports: &Exports,
        address: &Address,
        most: usize,
    ) -> io::Result<Server> {
        let ports = exports.ports();
        let listener = ports.network.listen(address).await?;
        let shared = Rc::new(Shared {
            most,
            streams: RefCell::default(),
            clients: Gate::new(),
            waiting: RefCell::default(),
        });
        let address = listener.address();
        let listening = Gate::new();
        let open = listening.try_enter();
        let accepting = accept(listener, exports.clone(), Rc::clone(&shared));
        let task = async move {
            let _open = open;
            accepting.await;
        };
        Ok(Server {
            address,
            accepting: ports.runtime.spawn(Box::pin(task)),
            listening,
            shared,
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Closes the listener. When this returns another may listen at the address.
    pub(super) async fn close(&self) {
        self.accepting.abort();
        self.listening.drained().await;
    }

    /// Cuts all connections and waits until they have gone, at most for `bound`; says whether.
    pub(super) async fn disconnect(&self, runtime: &dyn Runtime, bound: Duration) -> bool {
        let streams = self.shared.streams.borrow().clone();
        for stream in &streams {
            stream.shutdown();
        }
        let gone = Box::pin(self.shared.clients.drained());
        matches!(select(gone, runtime.sleep(bound)).await, Either::Left(_))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: Rc<dyn Listener>, exports: Exports, shared: Rc<Shared>) {
    loop {
        shared.free_place().await;
        match listener.accept().await {
            Ok(stream) => {
                let pass = shared.enter(&stream);
                let task = serve(stream, exports.clone(), (Rc::clone(&shared), pass));
                exports.ports().runtime.spawn(Box::pin(task));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an NBD connection");
                exports.ports().runtime.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: Rc<dyn Stream>, exports: Exports, (shared, pass): (Rc<Shared>, Pass)) {
    let connection = Connection::new(&stream, &exports);
    let Ended { seat, closed } = connection.run().await;
    stream.shutdown();
    tracing::debug!(?closed, "NBD client has gone");
    if let Some(seat) = seat {
        let export = seat.export();
        let meant = matches!(export.ending(), Some(Ending::Fenced | Ending::ShutDown));
        if export.access() == Access::Writable && !closed.is_clean() && !meant {
            exports.writer_lost(export, closed);
        }
    }
    shared.leave(&stream, pass);
}

impl Shared {
    async fn free_place(&self) {
        poll_fn(|cx| {
            if self.streams.borrow().len() < self.most {
                return Poll::Ready(());
            }
            self.waiting.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn enter(&self, stream: &Rc<dyn Stream>) -> Pass {
        self.streams.borrow_mut().push(Rc::clone(stream));
        self.clients
            .try_enter()
            .expect("nobody holds the gate of the server's clients")
    }

    fn leave(&self, stream: &Rc<dyn Stream>, pass: Pass) {
        let mut streams = self.streams.borrow_mut();
        streams.retain(|known| !Rc::ptr_eq(known, stream));
        drop(streams);
        drop(pass);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}
