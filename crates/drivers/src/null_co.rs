//! The `null-co` driver: a disk that forgets what is written. For measuring everything above it.

use crate::ports::Ports;
use block::{Answer, ByteRange, Driver, Error, Extent, Limits, WriteFlags, ZeroFlags, zeroes};
use bytes::Bytes;
use std::time::Duration;

/// Length where none is given, in bytes.
pub const DEFAULT_SIZE: u64 = 1 << 30;

/// Options of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// `size`, in bytes.
    pub size: u64,
    /// `latency-ns`: how long a request takes.
    pub latency: Duration,
    /// `read-zeroes`: whether reads are promised to give zeroes (they do in any case).
    pub read_zeroes: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            size: DEFAULT_SIZE,
            latency: Duration::ZERO,
            read_zeroes: false,
        }
    }
}

/// The `null-co` driver.
pub struct NullCo {
    options: Options,
    ports: Ports,
}

impl NullCo {
    /// A disk without contents.
    pub fn new(options: Options, ports: Ports) -> NullCo {
        NullCo { options, ports }
    }

    /// Answers with `value` after the latency.
    fn answer<T: 'static>(&self, value: T) -> Answer<'_, T> {
        let latency = self.options.latency;
        Box::pin(async move {
            if !latency.is_zero() {
                self.ports.runtime.sleep(latency).await;
            }
            Ok::<T, Error>(value)
        })
    }
}

impl Driver for NullCo {
    fn name(&self) -> &'static str {
        "null-co"
    }

    fn limits(&self) -> Limits {
        Limits {
            fua: true,
            ..Limits::of_length(self.options.size)
        }
    }

    fn read(&self, range: ByteRange) -> Answer<'_, Bytes> {
        self.answer(zeroes(
            usize::try_from(range.length()).unwrap_or(usize::MAX),
        ))
    }

    fn write(&self, _offset: u64, _data: Bytes, _flags: WriteFlags) -> Answer<'_, ()> {
        self.answer(())
    }

    fn write_zeroes(&self, _range: ByteRange, _flags: ZeroFlags) -> Answer<'_, ()> {
        self.answer(())
    }

    fn discard(&self, _range: ByteRange) -> Answer<'_, ()> {
        self.answer(())
    }

    fn flush(&self) -> Answer<'_, ()> {
        self.answer(())
    }

    fn block_status(&self, range: ByteRange) -> Answer<'_, Vec<Extent>> {
        let extent = if self.options.read_zeroes {
            Extent::hole(range)
        } else {
            Extent::data(range)
        };
        self.answer(vec![extent])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os;
    use block::{Node, NodeOptions};

    #[test]
    fn it_forgets_what_is_written_and_keeps_its_bounds() {
        os::run(|ports| async move {
            let null = NullCo::new(Options::default(), ports);
            let node = Node::new("null0", Box::new(null), NodeOptions::default());
            let data = Bytes::from(vec![1; 100_000]);
            node.write(7, data, WriteFlags::default()).await.unwrap();
            let range = ByteRange::between(7, 100_007);
            assert_eq!(node.read(range).await.unwrap(), vec![0; 100_000]);
            let past = ByteRange::between(DEFAULT_SIZE, DEFAULT_SIZE + 1);
            assert!(node.read(past).await.is_err());
            assert_eq!(
                node.block_status(range).await.unwrap(),
                [Extent::data(range)]
            );
        })
        .unwrap();
    }

    #[test]
    fn every_request_takes_the_latency() {
        os::run(|ports| async move {
            let options = Options {
                latency: Duration::from_millis(2),
                ..Options::default()
            };
            let null = NullCo::new(options, ports.clone());
            let start = ports.runtime.now();
            null.flush().await.unwrap();
            null.read(ByteRange::between(0, 1)).await.unwrap();
            assert!(ports.runtime.now() >= start.saturating_add(Duration::from_millis(4)));
        })
        .unwrap();
    }
}
