//! A small NBD client that keeps many requests under way on one connection.
//!
//! It asks for simple replies only and looks at no data, so that it costs little beside the
//! server on the same cores: requests are sent together, replies read in large pieces.
//!
//! Source: the NBD protocol document, sections "Newstyle negotiation", "`NBD_OPT_GO`",
//! "Transmission".

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::load::{Achieved, Load, Offsets, Operation};
use super::process;

const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OPTION_GO: u32 = 7;
const COMMAND_DISCONNECT: u16 = 2;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const SIMPLE_REPLY_BYTES: usize = 16;

/// Payloads up to this size are sent together with other requests.
const TOGETHER_BYTES: usize = 64 << 10;

/// A server that is silent for longer has failed.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// Where a server listens.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    Unix(PathBuf),
    /// A port of the loopback interface.
    Loopback(u16),
}

/// Both kinds of socket.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// A connection in its transmission phase.
pub(crate) struct Client {
    stream: Box<dyn Stream>,
    disk_bytes: u64,
}

impl Client {
    /// Connects and negotiates the export `name`.
    pub(crate) fn connect(address: &Address, name: &str) -> Result<Self> {
        let stream: Box<dyn Stream> = match address {
            Address::Unix(path) => {
                let stream = process::connect(path)?;
                stream.set_read_timeout(Some(SILENCE_LIMIT))?;
                Box::new(stream)
            }
            Address::Loopback(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))
                    .with_context(|| format!("cannot connect to port {port}"))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(SILENCE_LIMIT))?;
                Box::new(stream)
            }
        };
        let mut client = Self {
            stream,
            disk_bytes: 0,
        };
        client
            .negotiate(name)
            .with_context(|| format!("cannot open the export {name:?}"))?;
        Ok(client)
    }

    fn negotiate(&mut self, name: &str) -> Result<()> {
        let greeting: [u8; 18] = self.take()?;
        if !greeting.starts_with(b"NBDMAGICIHAVEOPT") {
            bail!("not a newstyle server");
        }
        let name_bytes = u32::try_from(name.len())?;
        let mut hello = Vec::new();
        hello.extend(3_u32.to_be_bytes()); // fixed newstyle, no zeroes
        hello.extend(OPTION_MAGIC);
        hello.extend(OPTION_GO.to_be_bytes());
        hello.extend((name_bytes + 6).to_be_bytes());
        hello.extend(name_bytes.to_be_bytes());
        hello.extend(name.as_bytes());
        hello.extend(0_u16.to_be_bytes()); // no information asked for beyond the size
        self.stream.write_all(&hello)?;
        loop {
            let header: [u8; 20] = self.take()?;
            let (kind, length) = (word(&header, 12), word(&header, 16));
            let mut data = vec![0; usize::try_from(length.min(1 << 16))?];
            self.stream.read_exact(&mut data)?;
            match kind {
                REPLY_ACK => return Ok(()),
                REPLY_INFO => {
                    if let Some((&[0, 0], size)) = data.split_first_chunk::<2>()
                        && let Some(size) = size.first_chunk::<8>()
                    {
                        self.disk_bytes = u64::from_be_bytes(*size);
                    }
                }
                error => bail!(
                    "refused with {error:#x}: {}",
                    String::from_utf8_lossy(&data)
                ),
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Carries the load out; returns when the last reply is here.
    pub(crate) fn run(&mut self, load: &Load) -> Result<Achieved> {
        let mut offsets = Offsets::new(load, self.disk_bytes);
        let mut requests = Requests::new(load)?;
        let mut replies = Replies::new(load)?;
        let since = Instant::now();
        let mut under_way = 0;
        let mut started = 0;
        let mut finished = 0;
        loop {
            while under_way < load.depth && !load.end.is_reached(started, since) {
                requests.push(offsets.next(), started, &mut self.stream)?;
                under_way += 1;
                started += 1;
            }
            requests.flush(&mut self.stream)?;
            if under_way == 0 {
                return Ok(Achieved {
                    operations: finished,
                    elapsed: since.elapsed(),
                });
            }
            let arrived = replies.receive(&mut self.stream)?;
            under_way -= arrived;
            finished += u64::from(arrived);
        }
    }
}

/// Takes its leave: a replica must not take it for a writer that was lost.
impl Drop for Client {
    fn drop(&mut self) {
        let mut farewell = Vec::new();
        farewell.extend(REQUEST_MAGIC.to_be_bytes());
        farewell.extend(0_u16.to_be_bytes());
        farewell.extend(COMMAND_DISCONNECT.to_be_bytes());
        farewell.extend([0; 20]); // cookie, offset, length
        // A server that is gone needs none.
        let _ = self.stream.write_all(&farewell);
    }
}

/// Requests of one kind, gathered to be sent together.
struct Requests {
    command: u16,
    length: u32,
    /// What each write writes.
    payload: Vec<u8>,
    out: Vec<u8>,
}

impl Requests {
    fn new(load: &Load) -> Result<Self> {
        let (command, payload) = match load.operation {
            Operation::Read => (0, Vec::new()),
            Operation::Write => (1, vec![0xa5; usize::try_from(load.length)?]),
        };
        Ok(Self {
            command,
            length: load.length,
            payload,
            out: Vec::new(),
        })
    }

    fn push(&mut self, offset: u64, cookie: u64, stream: &mut impl Write) -> Result<()> {
        self.out.extend(REQUEST_MAGIC.to_be_bytes());
        self.out.extend(0_u16.to_be_bytes());
        self.out.extend(self.command.to_be_bytes());
        self.out.extend(cookie.to_be_bytes());
        self.out.extend(offset.to_be_bytes());
        self.out.extend(self.length.to_be_bytes());
        if self.payload.len() <= TOGETHER_BYTES {
            self.out.extend(&self.payload);
            return Ok(());
        }
        self.flush(stream)?;
        stream
            .write_all(&self.payload)
            .context("the server closed the connection")
    }

    fn flush(&mut self, stream: &mut impl Write) -> Result<()> {
        stream
            .write_all(&self.out)
            .context("the server closed the connection")?;
        self.out.clear();
        Ok(())
    }
}

/// Replies of one kind, read in large pieces.
struct Replies {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that have come and are not yet understood.
    filled: usize,
    /// Bytes of data that follow a reply.
    data: usize,
    /// Bytes of data still to be passed over.
    skip: usize,
}

impl Replies {
    fn new(load: &Load) -> Result<Self> {
        let data = match load.operation {
            Operation::Read => usize::try_from(load.length)?,
            Operation::Write => 0,
        };
        Ok(Self {
            buffer: vec![0; 256 << 10],
            filled: 0,
            data,
            skip: 0,
        })
    }

    /// Waits for bytes; returns how many replies they completed, which may be none.
    fn receive(&mut self, stream: &mut impl Read) -> Result<u32> {
        let free = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let count = match stream.read(free) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => return Err(error).context("the server does not answer"),
        };
        self.filled += count;
        let mut at = 0;
        let mut completed = 0;
        loop {
            let passed = self.skip.min(self.filled - at);
            at += passed;
            if self.skip > 0 {
                self.skip -= passed;
                if self.skip > 0 {
                    break;
                }
                completed += 1;
            }
            let Some(header) = self
                .buffer
                .get(at..self.filled)
                .and_then(<[u8]>::first_chunk::<SIMPLE_REPLY_BYTES>)
            else {
                break;
            };
            check(header)?;
            at += SIMPLE_REPLY_BYTES;
            self.skip = self.data;
            completed += u32::from(self.data == 0);
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(completed)
    }
}

/// A simple reply that reports success.
fn check(header: &[u8; SIMPLE_REPLY_BYTES]) -> Result<()> {
    match (word(header, 0), word(header, 4)) {
        (SIMPLE_REPLY_MAGIC, 0) => Ok(()),
        (SIMPLE_REPLY_MAGIC, error) => bail!("a request failed with error {error}"),
        (magic, _) => bail!("the server answers with {magic:#x}, which is no simple reply"),
    }
}

/// The big-endian number at `at`, which lies inside `bytes`.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |word| u32::from_be_bytes(*word))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::{Load, Operation, Replies, SIMPLE_REPLY_MAGIC};
    use crate::bench::load::{End, Pattern};

    fn load(operation: Operation) -> Load {
        Load {
            operation,
            pattern: Pattern::Sequential,
            length: 5,
            depth: 2,
            end: End::Count(2),
        }
    }

    fn reply(error: u32, data: &[u8]) -> Vec<u8> {
        let header = [
            &SIMPLE_REPLY_MAGIC.to_be_bytes()[..],
            &error.to_be_bytes(),
            &[0; 8],
        ]
        .concat();
        [&header[..], data].concat()
    }

    /// Sends `bytes` in pieces of `piece` and counts the replies.
    fn count(operation: Operation, bytes: &[u8], piece: usize) -> anyhow::Result<u32> {
        let (mut server, mut client) = UnixStream::pair()?;
        let mut replies = Replies::new(&load(operation))?;
        let mut count = 0;
        for part in bytes.chunks(piece) {
            server.write_all(part)?;
            count += replies.receive(&mut client)?;
        }
        Ok(count)
    }

    #[test]
    fn replies_are_counted_however_they_are_cut() {
        let reads = [reply(0, b"hello"), reply(0, b"world")].concat();
        let writes = [reply(0, b""), reply(0, b"")].concat();
        for piece in 1..=reads.len() {
            assert_eq!(
                count(Operation::Read, &reads, piece).unwrap(),
                2,
                "pieces of {piece}"
            );
            assert_eq!(
                count(Operation::Write, &writes, piece).unwrap(),
                2,
                "pieces of {piece}"
            );
        }
        assert_eq!(count(Operation::Read, &reads[..41], 41).unwrap(), 1);
    }

    #[test]
    fn a_failed_request_and_a_foreign_reply_are_errors() {
        let error = count(Operation::Write, &reply(28, b""), 16)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "a request failed with error 28");
        assert!(count(Operation::Write, &[1; 16], 16).is_err());
    }
}
