//! One client of a monitor: bytes in, commands to the data thread, replies and events out.
//!
//! One command runs at a time; the next is read from the input when it has been answered. A client
//! that does not read blocks its own task alone; what waits for it is bounded.

use super::data::{Handle, Happening};
use engine::block::Buffer;
use engine::ports::Stream;
use engine::qmp::{Error, Session};
use futures_channel::mpsc;
use futures_util::StreamExt;
use futures_util::future::{Either, LocalBoxFuture, select};
use serde_json::Value;
use std::io;
use std::pin::pin;
use std::rc::Rc;

/// Bytes read from a client at a time.
const CHUNK: usize = 64 << 10;

/// What a client's task waits for.
enum Arrival {
    Bytes(io::Result<Buffer>),
    Answer(Result<Value, Error>),
    Event(Option<Happening>),
}

/// Serves one client until it goes, falls too far behind, or the daemon ends.
pub(super) async fn serve(stream: Rc<dyn Stream>, handle: Handle) {
    let Some((events, _pass)) = handle.listen() else {
        return;
    };
    let mut client = Client {
        session: Session::new(),
        events,
        reading: read(&stream),
        running: None,
        stream,
        handle,
    };
    while client.turn().await.is_some() {}
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
}

impl Client {
    /// Sends what waits, then deals with the next arrival; `None` ends the conversation.
    async fn turn(&mut self) -> Option<()> {
        if let Some(output) = self.session.poll_transmit() {
            self.stream.write(vec![output]).await.ok()?;
            return Some(());
        }
        match self.arrival().await {
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

    /// What comes first: an answer, an event, or, while the session wants them, bytes.
    async fn arrival(&mut self) -> Arrival {
        let wants_bytes = self.session.wants_bytes();
        let (reading, running, events) = (&mut self.reading, &mut self.running, &mut self.events);
        let answer = async {
            match running {
                Some(running) => running.await,
                None => std::future::pending().await,
            }
        };
        let bytes = async {
            if wants_bytes {
                reading.await
            } else {
                std::future::pending().await
            }
        };
        match select(pin!(answer), select(events.next(), pin!(bytes))).await {
            Either::Left((answer, _)) => Arrival::Answer(answer),
            Either::Right((Either::Left((event, _)), _)) => Arrival::Event(event),
            Either::Right((Either::Right((chunk, _)), _)) => Arrival::Bytes(chunk),
        }
    }
}

/// Reads the next bytes of a client.
fn read(stream: &Rc<dyn Stream>) -> LocalBoxFuture<'static, io::Result<Buffer>> {
    let stream = Rc::clone(stream);
    Box::pin(async move { stream.read(Buffer::with_capacity(CHUNK)).await })
}
