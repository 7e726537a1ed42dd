//! Stream sockets of the host: TCP and unix.
//!
//! Sending never raises SIGPIPE. A unix socket's file left behind by a dead listener is replaced; one
//! that somebody listens on is not.

use crate::host::{explain, host_error};
use crate::ports::{Address, Listener, Network, Stream};
use block::Buffer;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use rustix::fs::{FileType, lstat, unlink};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, sendmsg, shutdown};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Longest path of a unix socket, in bytes: what the kernel's address holds beside its last zero.
const UNIX_PATH: usize = 107;
/// What a unix socket holds of our output, in bytes, as far as the kernel lets us. TCP finds out by
/// itself.
const UNIX_BUFFER: usize = 1 << 20;
/// Most parts handed over in one call.
const PARTS: usize = 64;
/// How long accepting pauses when there are no descriptors left.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// [`Network`] of the host.
pub(super) struct HostNetwork;

impl Network for HostNetwork {
    fn connect(&self, address: &Address) -> LocalBoxFuture<'_, io::Result<Rc<dyn Stream>>> {
        let address = address.clone();
        Box::pin(async move {
            let socket = connect(&address).await;
            let socket = socket
                .map_err(|error| explain(&error, format_args!("cannot connect to {address}")))?;
            Ok(HostStream::shared(socket))
        })
    }

    fn listen(&self, address: &Address) -> LocalBoxFuture<'_, io::Result<Rc<dyn Listener>>> {
        let address = address.clone();
        Box::pin(async move {
            let listener: Rc<dyn Listener> = match &address {
                Address::Unix(path) => Rc::new(UnixServer::listen(path).await?),
                Address::Inet { host, port } => Rc::new(TcpServer::listen(host, *port).await?),
            };
            Ok(listener)
        })
    }
}

async fn connect(address: &Address) -> io::Result<Socket> {
    match address {
        Address::Unix(path) => {
            check_length(path)?;
            Socket::unix(UnixStream::connect(path).await?)
        }
        Address::Inet { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            Socket::tcp(stream)
        }
    }
}

fn check_length(path: &Path) -> io::Result<()> {
    let length = path.as_os_str().len();
    if length <= UNIX_PATH {
        return Ok(());
    }
    let message = format!(
        "the path of unix socket '{}' has {length} bytes, {UNIX_PATH} are possible; choose a shorter one",
        path.display()
    );
    Err(host_error(Errno::NAMETOOLONG.raw_os_error(), message))
}

/// A connected socket of either family.
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Requests and replies are small and wait for each other: they must not wait to be merged.
    fn tcp(stream: TcpStream) -> io::Result<Socket> {
        stream.set_nodelay(true)?;
        // A peer that vanished without a word is noticed some day.
        socket2::SockRef::from(&stream).set_keepalive(true)?;
        Ok(Socket::Tcp(stream))
    }

    /// Its reader must not run dry, and be woken again, while the next reply is prepared.
    fn unix(stream: UnixStream) -> io::Result<Socket> {
        socket2::SockRef::from(&stream).set_send_buffer_size(UNIX_BUFFER)?;
        Ok(Socket::Unix(stream))
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.readable().await,
            Socket::Unix(stream) => stream.readable().await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.writable().await,
            Socket::Unix(stream) => stream.writable().await,
        }
    }

    fn try_io<T>(&self, interest: Interest, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Socket::Tcp(stream) => stream.try_io(interest, call),
            Socket::Unix(stream) => stream.try_io(interest, call),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

/// [`Stream`] of the host.
struct HostStream {
    socket: Socket,
    closed: Cell<bool>,
}

impl HostStream {
    fn shared(socket: Socket) -> Rc<dyn Stream> {
        Rc::new(HostStream {
            socket,
            closed: Cell::new(false),
        })
    }

    async fn receive(&self, mut buffer: Buffer) -> io::Result<Buffer> {
        loop {
            self.check_open()?;
            let received = self.socket.try_io(Interest::READABLE, || {
                Ok(recv(&self.socket, buffer.spare_mut(), RecvFlags::empty())?)
            });
            match received {
                Ok((_, count)) => {
                    self.check_open()?;
                    buffer.advance(count);
                    return Ok(buffer);
                }
                Err(error) => self.wait(error, Interest::READABLE).await?,
            }
        }
    }

    async fn send(&self, mut parts: Vec<Bytes>) -> io::Result<()> {
        let mut first = 0;
        loop {
            let rest = parts.get_mut(first..).unwrap_or_default();
            let Some(skip) = rest.iter().position(|part| !part.is_empty()) else {
                return Ok(());
            };
            first = first.saturating_add(skip);
            self.check_open()?;
            let rest = parts.get_mut(first..).unwrap_or_default();
            match self
                .socket
                .try_io(Interest::WRITABLE, || send_some(&self.socket, rest))
            {
                Ok(count) => consume(rest, count),
                Err(error) => self.wait(error, Interest::WRITABLE).await?,
            }
        }
    }

    async fn wait(&self, error: io::Error, interest: Interest) -> io::Result<()> {
        if error.kind() == io::ErrorKind::Interrupted {
            return Ok(());
        }
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
        if interest.is_readable() {
            self.socket.readable().await
        } else {
            self.socket.writable().await
        }
    }

    fn check_open(&self) -> io::Result<()> {
        if self.closed.get() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

/// Hands the kernel as many parts as go into one call.
fn send_some(socket: &Socket, parts: &[Bytes]) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); PARTS];
    for (slice, part) in slices.iter_mut().zip(parts) {
        *slice = IoSlice::new(part);
    }
    let slices = slices.get(..parts.len().min(PARTS)).unwrap_or_default();
    let mut nothing = SendAncillaryBuffer::default();
    Ok(sendmsg(socket, slices, &mut nothing, SendFlags::NOSIGNAL)?)
}

/// Takes `count` bytes off the front.
fn consume(parts: &mut [Bytes], mut count: usize) {
    for part in parts {
        let taken = count.min(part.len());
        // What was sent need not be kept until the rest is.
        drop(part.split_to(taken));
        count = count.saturating_sub(taken);
        if count == 0 {
            return;
        }
    }
}

impl Stream for HostStream {
    fn read(&self, buffer: Buffer) -> LocalBoxFuture<'_, io::Result<Buffer>> {
        Box::pin(self.receive(buffer))
    }

    fn write(&self, parts: Vec<Bytes>) -> LocalBoxFuture<'_, io::Result<()>> {
        Box::pin(self.send(parts))
    }

    fn shutdown(&self) {
        self.closed.set(true);
        // It may be gone already; then there is nothing to close.
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

/// A listening TCP socket.
struct TcpServer {
    listener: TcpListener,
    address: Address,
}

impl TcpServer {
    async fn listen(host: &str, port: u16) -> io::Result<TcpServer> {
        let asked = Address::Inet {
            host: host.to_owned(),
            port,
        };
        let listener = TcpListener::bind((host, port)).await;
        let listener = listener.map_err(|error| cannot_listen(&error, &asked))?;
        let port = listener.local_addr()?.port();
        let address = Address::Inet {
            host: host.to_owned(),
            port,
        };
        Ok(TcpServer { listener, address })
    }
}

fn cannot_listen(error: &io::Error, address: &Address) -> io::Error {
    let context = format!("cannot listen on {address}");
    if error.kind() == io::ErrorKind::AddrInUse {
        let message =
            format!("{context}: another program listens there; stop it or choose another");
        return host_error(Errno::ADDRINUSE.raw_os_error(), message);
    }
    explain(error, context)
}

impl Listener for TcpServer {
    fn accept(&self) -> LocalBoxFuture<'_, io::Result<Rc<dyn Stream>>> {
        Box::pin(async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => return Ok(HostStream::shared(Socket::tcp(stream)?)),
                    Err(error) => pause_or_fail(error).await?,
                }
            }
        })
    }

    fn address(&self) -> Address {
        self.address.clone()
    }
}

/// A listening unix socket and its file.
struct UnixServer {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that only our own is removed.
    file: Option<(u64, u64)>,
}

impl UnixServer {
    async fn listen(path: &Path) -> io::Result<UnixServer> {
        check_length(path)?;
        // The directory may change before it is removed.
        let path = std::path::absolute(path)?;
        let address = Address::Unix(path.clone());
        let listener = match UnixListener::bind(&path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(&path)
                    .await
                    .map_err(|error| cannot_listen(&error, &address))?;
                UnixListener::bind(&path)
            }
            result => result,
        };
        let listener = listener.map_err(|error| cannot_listen(&error, &address))?;
        let file = identity(&path);
        Ok(UnixServer {
            listener,
            path,
            file,
        })
    }
}

/// Removes a socket's file on which nobody listens.
async fn remove_stale(path: &Path) -> io::Result<()> {
    let found = FileType::from_raw_mode(lstat(path)?.st_mode);
    if found != FileType::Socket {
        let message = "a file of that name exists and is no socket; remove it or choose another";
        return Err(host_error(Errno::EXIST.raw_os_error(), message));
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(unlink(path)?),
        // Somebody answers, or is only busy.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let status = lstat(path).ok()?;
    Some((status.st_dev, status.st_ino))
}

impl Listener for UnixServer {
    fn accept(&self) -> LocalBoxFuture<'_, io::Result<Rc<dyn Stream>>> {
        Box::pin(async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, _)) => return Ok(HostStream::shared(Socket::unix(stream)?)),
                    Err(error) => pause_or_fail(error).await?,
                }
            }
        })
    }

    fn address(&self) -> Address {
        Address::Unix(self.path.clone())
    }
}

impl Drop for UnixServer {
    fn drop(&mut self) {
        if self.file.is_some() && identity(&self.path) == self.file {
            // Nothing to be done about a directory that has become read-only.
            let _ = unlink(&self.path);
        }
    }
}

/// A client that is gone again is no failure; a lack of descriptors passes.
async fn pause_or_fail(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO) => Ok(()),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
            tracing::warn!(%error, "cannot take a connection in at present");
            tokio::time::sleep(EXHAUSTED).await;
            Ok(())
        }
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests;
