//! One client of a monitor: bytes in, commands to the data thread, replies and events out.
//!
//! One command runs at a time; the next is read from the input when it has been answered. Whatever a
//! client does not read waits for it; one that falls too far behind is closed.

use super::data::{Handle, Happening};
use engine::block::Buffer;
use engine::ports::{Runtime, Stream};
use engine::qmp::{Error, Session};
use futures_channel::mpsc;
use futures_util::StreamExt;
use futures_util::future::{Either, LocalBoxFuture, select};
use serde_json::Value;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

/// Bytes read from a client at a time.
const CHUNK: usize = 64 << 10;
/// How long a client may take to read what is left at the end.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a client's task waits for.
enum Arrival {
    Bytes(io::Result<Buffer>),
    Answer(Result<Value, Error>),
    Event(Option<Happening>),
    Written(io::Result<()>),
}

/// Serves one client until it goes, falls too far behind, or the daemon ends.
pub(super) async fn serve(stream: Rc<dyn Stream>, handle: Handle, runtime: Rc<dyn Runtime>) {
    let Some((events, _pass)) = handle.listen() else {
        return;
    };
    let mut client = Client {
        session: Session::new(),
        events,
        reading: read(&stream),
        running: None,
        writing: None,
        stream,
        handle,
    };
    while client.turn().await.is_some() {}
    select(pin!(client.farewell()), runtime.sleep(FAREWELL)).await;
    client.stream.shutdown();
}

struct Client {
    stream: Rc<dyn Stream>,
    handle: Handle,
    session: Session,
    events: mpsc::Receiver<Happening>,
    reading: LocalBoxFuture<'static, io::Result<Buffer>>,
    /// The command that the session waits for.
    running: Option<LocalBoxFuture<'static, Result<Value, Error>>>,
    /// What is being sent; what comes meanwhile waits in the session.
    writing: Option<LocalBoxFuture<'static, io::Result<()>>>,
}

impl Client {
    /// Begins to send what waits, then deals with the next arrival; `None` ends the conversation.
    async fn turn(&mut self) -> Option<()> {
        self.write_next();
        match self.arrival().await {
            Arrival::Written(written) => {
                self.writing = None;
                written.ok()?;
            }
            Arrival::Bytes(chunk) => {
                let chunk = chunk.ok().filter(|chunk| !chunk.is_empty())?;
                self.session.handle_bytes(chunk.filled());
                self.reading = read(&self.stream);
            }
            Arrival::Answer(answer) => {
                self.running = None;
                self.session.reply(answer);
            }
            Arrival::Event(happening) => {
                let (event, timestamp) = happening?;
                self.session.event(&event, timestamp);
            }
        }
        self.run_next();
        (!self.session.is_overrun()).then_some(())
    }

    /// Begins to send what waits, if nothing is being sent.
    fn write_next(&mut self) {
        if self.writing.is_some() {
            return;
        }
        if let Some(output) = self.session.poll_transmit() {
            let stream = Rc::clone(&self.stream);
            self.writing = Some(Box::pin(async move { stream.write(vec![output]).await }));
        }
    }

    /// Sends all that is left, unless the client has gone.
    async fn farewell(&mut self) {
        loop {
            self.write_next();
            let Some(writing) = &mut self.writing else {
                return;
            };
            if writing.await.is_err() {
                return;
            }
            self.writing = None;
        }
    }

    /// Begins the next command, if one has arrived and none is running.
    fn run_next(&mut self) {
        if self.running.is_some() {
            return;
        }
        if let Some(command) = self.session.poll_command() {
            let handle = self.handle.clone();
            self.running = Some(Box::pin(async move { handle.execute(command).await }));
        }
    }

    /// What comes first: an answer, an event, the end of a write, or, while the session wants them,
    /// bytes.
    async fn arrival(&mut self) -> Arrival {
        let wants_bytes = self.session.wants_bytes();
        let (reading, events) = (&mut self.reading, &mut self.events);
        let (answer, written) = (if_any(&mut self.running), if_any(&mut self.writing));
        let bytes = async {
            if wants_bytes {
                reading.await
            } else {
                std::future::pending().await
            }
        };
        let (answer, written) = (pin!(answer), pin!(written));
        let own = select(answer, written);
        match select(own, select(events.next(), pin!(bytes))).await {
            Either::Left((Either::Left((answer, _)), _)) => Arrival::Answer(answer),
            Either::Left((Either::Right((written, _)), _)) => Arrival::Written(written),
            Either::Right((Either::Left((event, _)), _)) => Arrival::Event(event),
            Either::Right((Either::Right((chunk, _)), _)) => Arrival::Bytes(chunk),
        }
    }
}

/// What `work` leads to; for ever pending if there is none.
async fn if_any<T>(work: &mut Option<LocalBoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// Reads the next bytes of a client.
fn read(stream: &Rc<dyn Stream>) -> LocalBoxFuture<'static, io::Result<Buffer>> {
    let stream = Rc::clone(stream);
    Box::pin(async move { stream.read(Buffer::with_capacity(CHUNK)).await })
}
