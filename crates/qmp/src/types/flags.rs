//! What the flags describe that no command does: chardevs, monitors, objects.

use super::socket::{InetSocketAddress, SocketAddress, UnixSocketAddress};
use crate::Error;
use crate::define::{object, union, words};

object! {
    /// What `--monitor` takes.
    pub struct MonitorOptions {
        /// The chardev it listens on.
        "chardev" => chardev: String,
        /// Its kind; default `control`.
        "mode" => mode: Option<MonitorMode>,
        /// Whether replies are spread over lines: taken and ignored.
        "pretty" => pretty: Option<bool>,
    }
}

words! {
    /// The kind of a monitor.
    pub enum MonitorMode {
        /// QMP.
        "control" => Control,
    }
}

object! {
    /// What `--chardev` takes.
    pub struct ChardevOptions {
        flat {
            /// What it is, with the options of that.
            backend: ChardevBackend,
        }
        /// Its name for `--monitor`.
        "id" => id: String,
    }
}

union! {
    /// What a chardev is.
    pub enum ChardevBackend by "backend" as "ChardevBackendKind" {
        /// A socket.
        "socket" => Socket(ChardevSocket),
    }
}

object! {
    /// Options of a `socket` chardev.
    pub struct ChardevSocket {
        /// The path, of a unix socket.
        "path" => path: Option<String>,
        /// The name or address, of a TCP socket.
        "host" => host: Option<String>,
        /// The number, of a TCP socket.
        "port" => port: Option<String>,
        /// Whether it listens; default false.
        "server" => server: Option<bool>,
        /// Whether the daemon waits for a client before it goes on; default true.
        "wait" => wait: Option<bool>,
    }
}

impl ChardevSocket {
    /// Where to listen.
    ///
    /// # Errors
    ///
    /// The options do not describe exactly one listening socket, or ask to wait for a client.
    pub fn listen_address(&self) -> Result<SocketAddress, Error> {
        if self.server != Some(true) {
            return Err(Error::generic(
                "Parameter 'server' must be on: a monitor listens",
            ));
        }
        if self.wait != Some(false) {
            return Err(Error::generic(
                "Parameter 'wait' must be off: the daemon waits for nobody",
            ));
        }
        match (self.path.clone(), self.host.clone(), self.port.clone()) {
            (Some(path), None, None) => Ok(SocketAddress::Unix(UnixSocketAddress { path })),
            (None, Some(host), Some(port)) => {
                Ok(SocketAddress::Inet(InetSocketAddress { host, port }))
            }
            (None, None, Some(_)) => Err(Error::missing("host")),
            (None, Some(_), None) => Err(Error::missing("port")),
            (None, None, None) => Err(Error::missing("path")),
            (Some(_), _, _) => Err(Error::generic(
                "Parameters 'path' and 'host', 'port' exclude each other",
            )),
        }
    }
}

object! {
    /// What `--object` takes.
    pub struct ObjectOptions {
        flat {
            /// What it is, with the options of that.
            kind: ObjectKind,
        }
        /// Its name for other options.
        "id" => id: String,
    }
}

union! {
    /// What an object is.
    pub enum ObjectKind by "qom-type" as "ObjectType" {
        /// A thread for exports: taken and ignored, a group has one thread.
        "iothread" => Iothread(IothreadOptions),
    }
}

object! {
    /// Options of an `iothread`.
    pub struct IothreadOptions {
        /// How long it polls: taken and ignored.
        "poll-max-ns" => poll_max_ns: Option<u64>,
    }
}
