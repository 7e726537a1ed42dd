//! The data thread of the daemon, and the mailboxes to it.

use super::StartError;
use engine::block::{Gate, Pass};
use engine::os::{DataThread, Termination, run_data_thread};
use engine::ports::Ports;
use engine::qmp::event::{Event, ShutdownCause};
use engine::qmp::types::{NbdServerOptions, Timestamp};
use engine::qmp::{Command, Error};
use engine::{Engine, Options};
use futures_channel::{mpsc, oneshot};
use futures_util::future::{Either, select};
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Commands that may wait for the data thread; a monitor waits when there are more.
const ORDERS: usize = 64;
/// Events that may wait between the threads, and for each monitor; a monitor that falls further
/// behind is closed.
const EVENTS: usize = 1024;

/// How long monitors may take to send what waits, at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// What the control thread asks of the data thread.
enum Order {
    /// Carry a command out and answer.
    Execute(Box<Command>, oneshot::Sender<Result<Value, Error>>),
    /// Start the NBD server and answer.
    StartNbdServer(NbdServerOptions, oneshot::Sender<Result<(), Error>>),
    /// Shut down in order.
    End(ShutdownCause),
}

/// An event and when it happened.
pub(super) type Happening = (Event, Timestamp);

/// The control thread's end of the mailboxes. Clones share them.
#[derive(Clone)]
pub(super) struct Handle {
    orders: mpsc::Sender<Order>,
    control: Rc<Control>,
}

/// What the control thread keeps.
struct Control {
    listeners: RefCell<Vec<mpsc::Sender<Happening>>>,
    events: RefCell<Option<mpsc::Receiver<Happening>>>,
    asked_to_quit: RefCell<Option<oneshot::Receiver<()>>>,
    monitors: Gate,
}

/// Starts the data thread.
pub(super) fn start() -> Result<(Handle, DataThread<()>), StartError> {
    let (orders, inbox) = mpsc::channel(ORDERS);
    let (outbox, events) = mpsc::channel(EVENTS);
    let (quit, asked_to_quit) = oneshot::channel();
    let thread = run_data_thread("data", move |ports| serve(ports, inbox, (outbox, quit)));
    let thread = thread.map_err(|error| StartError::System(format!("no data thread: {error}")))?;
    let control = Control {
        listeners: RefCell::default(),
        events: RefCell::new(Some(events)),
        asked_to_quit: RefCell::new(Some(asked_to_quit)),
        monitors: Gate::new(),
    };
    Ok((
        Handle {
            orders,
            control: Rc::new(control),
        },
        thread,
    ))
}

/// The data thread: carries orders out as they come, each beside the others, until the end.
async fn serve(
    ports: Ports,
    mut inbox: mpsc::Receiver<Order>,
    (outbox, quit): (mpsc::Sender<Happening>, oneshot::Sender<()>),
) {
    let engine = Engine::new(ports.clone(), Options::default());
    let forwarder = ports
        .runtime
        .spawn(Box::pin(forward(engine.clone(), outbox)));
    let asked = engine.clone();
    drop(ports.runtime.spawn(Box::pin(async move {
        asked.quit_requested().await;
        // The daemon may be on its way out already.
        let _ = quit.send(());
    })));
    let mut cause = ShutdownCause::HostError;
    while let Some(order) = inbox.next().await {
        if let Order::End(asked) = order {
            cause = asked;
            break;
        }
        drop(
            ports
                .runtime
                .spawn(Box::pin(carry_out(engine.clone(), order))),
        );
    }
    if let Err(error) = engine.shut_down(cause).await {
        tracing::error!(%error, "something could not be shut down in order");
    }
    forwarder.abort();
}

/// Carries one order out. Whoever has gone wants no answer.
async fn carry_out(engine: Engine, order: Order) {
    match order {
        Order::Execute(command, answer) => drop(answer.send(engine.execute(*command).await)),
        Order::StartNbdServer(options, answer) => {
            drop(answer.send(engine.start_nbd_server(options).await));
        }
        Order::End(_) => {}
    }
}

/// Hands the engine's events to the control thread.
async fn forward(engine: Engine, mut outbox: mpsc::Sender<Happening>) {
    let subscription = engine.subscribe();
    loop {
        let (timestamp, event) = subscription.next().await;
        let happening = (event, timestamp);
        if outbox.send(happening).await.is_err() {
            return;
        }
    }
}

impl Handle {
    /// Has the data thread carry a command out.
    ///
    /// Cancel safety: dropping it leaves the command running.
    pub(super) async fn execute(&self, command: Command) -> Result<Value, Error> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Execute(Box::new(command), answer), answered)
            .await
    }

    /// Has the data thread start the NBD server.
    pub(super) async fn start_nbd_server(&self, options: NbdServerOptions) -> Result<(), Error> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::StartNbdServer(options, answer), answered)
            .await
    }

    async fn order<T>(
        &self,
        order: Order,
        answered: oneshot::Receiver<Result<T, Error>>,
    ) -> Result<T, Error> {
        let ending = || Error::generic("the daemon is shutting down");
        self.orders
            .clone()
            .send(order)
            .await
            .map_err(|_| ending())?;
        answered.await.map_err(|_| ending())?
    }

    /// Events from now on, and a pass: the daemon waits a moment for those who hold one.
    pub(super) fn listen(&self) -> Option<(mpsc::Receiver<Happening>, Pass)> {
        let pass = self.control.monitors.try_enter()?;
        let (listener, events) = mpsc::channel(EVENTS);
        self.control.listeners.borrow_mut().push(listener);
        Some((events, pass))
    }

    /// Hands events to the monitors until a signal or `quit` asks for the end; says which.
    pub(super) async fn until_asked_to_end(&self) -> ShutdownCause {
        let signal = async {
            match Termination::listen() {
                Ok(mut termination) => termination.wait().await,
                Err(error) => {
                    tracing::warn!(%error, "signals cannot be heard; use the command quit");
                    std::future::pending::<()>().await;
                }
            }
        };
        let asked_to_quit = self.control.asked_to_quit.take();
        let quit = async {
            match asked_to_quit {
                // A sender that is gone can ask no more.
                Some(asked) => {
                    if asked.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                None => std::future::pending().await,
            }
        };
        match select(
            pin!(select(pin!(signal), pin!(quit))),
            pin!(self.distribute()),
        )
        .await
        {
            Either::Left((Either::Left(_), _)) => ShutdownCause::HostSignal,
            Either::Left((Either::Right(_), _)) => ShutdownCause::HostQmpQuit,
            Either::Right(_) => ShutdownCause::HostError,
        }
    }

    /// Asks the data thread to end; events are handed on until it has. Monitors then get a moment
    /// to send what waits.
    pub(super) async fn shut_down(&self, ports: &Ports, cause: ShutdownCause) {
        if self.orders.clone().send(Order::End(cause)).await.is_ok() {
            self.distribute().await;
        }
        let _nobody_new = self.control.monitors.hold();
        self.control.listeners.borrow_mut().clear();
        let farewell = ports.runtime.sleep(FAREWELL);
        select(pin!(self.control.monitors.drained()), farewell).await;
    }

    /// Hands events to all monitors until the data thread has ended.
    async fn distribute(&self) {
        let Some(events) = self.control.events.take() else {
            return;
        };
        let mut events = Kept {
            place: &self.control.events,
            events: Some(events),
        };
        while let Some(happening) = events.next().await {
            let mut listeners = self.control.listeners.borrow_mut();
            // A full mailbox ends the listener: it learns by the end of the stream.
            listeners.retain_mut(|listener| listener.try_send(happening.clone()).is_ok());
        }
    }
}

/// The receiver of events, put back when its user is interrupted.
struct Kept<'a> {
    place: &'a RefCell<Option<mpsc::Receiver<Happening>>>,
    events: Option<mpsc::Receiver<Happening>>,
}

impl Kept<'_> {
    async fn next(&mut self) -> Option<Happening> {
        self.events.as_mut()?.next().await
    }
}

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        self.place.replace(self.events.take());
    }
}
