//! The signals that ask the process to end in order.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGTERM, SIGINT and SIGHUP from now on, on the thread whose event loop runs it.
#[derive(Debug)]
pub struct Termination {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Termination {
    /// Takes the signals over; they no longer end the process by themselves.
    ///
    /// # Errors
    ///
    /// If the host has no room for it.
    pub fn listen() -> io::Result<Termination> {
        Ok(Termination {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves when one of them has arrived.
    ///
    /// Cancel safety: a signal that arrives while nobody waits is kept.
    pub async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
