//! One direction of a connection: bytes on their way, and what may become of them.
//!
//! ```text
//!  write ──▶ [ segment, arrives at t1 ][ segment, arrives at t2 ] ──▶ read
//!            at most CAPACITY bytes; then the writer waits
//! ```
//!
//! Pure bookkeeping; `network` decides when things arrive and who is silent.

use bytes::Bytes;
use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

/// Bytes on their way in one direction before the writer has to wait.
const CAPACITY: usize = 256 << 10;

/// What a pipe has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    /// Bytes flow.
    #[default]
    Open,
    /// The writer has closed: the reader gets the rest, then the end.
    Finished,
    /// The connection is lost: the reader gets the rest, then an error; the writer an error at once.
    Broken,
}

/// One direction of a connection.
#[derive(Default)]
pub(super) struct Pipe {
    segments: VecDeque<(Duration, Bytes)>,
    queued: usize,
    fate: Fate,
    /// The connection is lost after this many more bytes.
    cut_after: Option<usize>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What a reader finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Bytes, some or all of a segment.
    Bytes(Bytes),
    /// The next bytes arrive then.
    Later(Duration),
    /// Nothing is on its way.
    Nothing,
    /// The writer has closed.
    End,
    /// The connection is lost.
    Lost,
}

impl Pipe {
    /// How many bytes the writer may put in now; `None` if the connection is lost.
    pub(super) fn room(&self) -> Option<usize> {
        (self.fate == Fate::Open).then(|| CAPACITY.saturating_sub(self.queued))
    }

    /// Puts bytes in that arrive at `arrives`, or later if those before them do. Where the
    /// connection is to be cut among them, only those before the cut.
    pub(super) fn put(&mut self, mut bytes: Bytes, arrives: Duration) {
        if let Some(left) = self.cut_after {
            bytes.truncate(left);
            self.cut_after = Some(left.saturating_sub(bytes.len()));
        }
        let arrives = match self.segments.back() {
            Some((before, _)) => arrives.max(*before),
            None => arrives,
        };
        self.queued = self.queued.saturating_add(bytes.len());
        if !bytes.is_empty() {
            self.segments.push_back((arrives, bytes));
        }
        self.wake_reader();
    }

    /// Whether the place of the cut has been reached.
    pub(super) fn is_cut(&self) -> bool {
        self.cut_after == Some(0)
    }

    /// Loses the connection after `bytes` more bytes.
    pub(super) fn cut_after(&mut self, bytes: usize) {
        self.cut_after = Some(bytes);
    }

    /// Takes at most `most` bytes out.
    pub(super) fn take(&mut self, now: Duration, most: usize) -> Found {
        match self.segments.front_mut() {
            Some((arrives, _)) if *arrives > now => Found::Later(*arrives),
            Some((_, bytes)) => {
                let taken = bytes.split_to(bytes.len().min(most));
                if bytes.is_empty() {
                    self.segments.pop_front();
                }
                self.queued = self.queued.saturating_sub(taken.len());
                self.wake_writer();
                Found::Bytes(taken)
            }
            None => match self.fate {
                Fate::Open => Found::Nothing,
                Fate::Finished => Found::End,
                Fate::Broken => Found::Lost,
            },
        }
    }

    /// The writer closes.
    pub(super) fn finish(&mut self) {
        if self.fate == Fate::Open {
            self.fate = Fate::Finished;
        }
        self.wake_both();
    }

    /// The connection is lost; with `rest`, what is on its way still arrives.
    pub(super) fn lose(&mut self, rest: bool) {
        if self.fate == Fate::Open || !rest {
            self.fate = Fate::Broken;
        }
        if !rest {
            self.segments.clear();
            self.queued = 0;
        }
        self.wake_both();
    }

    /// Whether nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Wakes `waker` when there may be something to read.
    pub(super) fn wait_to_read(&mut self, waker: &Waker) {
        self.reader = Some(waker.clone());
    }

    /// Wakes `waker` when there may be room to write.
    pub(super) fn wait_to_write(&mut self, waker: &Waker) {
        self.writer = Some(waker.clone());
    }

    /// Lets both ends look again.
    pub(super) fn wake_both(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }

    fn wake_reader(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn wake_writer(&mut self) {
        self.writer.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn bytes_arrive_in_order_and_not_before_their_time() {
        let mut pipe = Pipe::default();
        pipe.put(Bytes::from_static(b"ab"), Duration::from_secs(2));
        pipe.put(Bytes::from_static(b"c"), Duration::from_secs(1));
        assert_eq!(pipe.take(NOW, 9), Found::Later(Duration::from_secs(2)));
        let later = Duration::from_secs(2);
        assert_eq!(pipe.take(later, 1), Found::Bytes(Bytes::from_static(b"a")));
        assert_eq!(pipe.take(later, 9), Found::Bytes(Bytes::from_static(b"b")));
        assert_eq!(pipe.take(later, 9), Found::Bytes(Bytes::from_static(b"c")));
        assert_eq!(pipe.take(later, 9), Found::Nothing);
    }

    #[test]
    fn a_cut_lets_the_bytes_before_it_through() {
        let mut pipe = Pipe::default();
        pipe.cut_after(3);
        pipe.put(Bytes::from_static(b"abcdef"), NOW);
        assert!(pipe.is_cut());
        pipe.lose(true);
        assert_eq!(pipe.room(), None);
        assert_eq!(pipe.take(NOW, 9), Found::Bytes(Bytes::from_static(b"abc")));
        assert_eq!(pipe.take(NOW, 9), Found::Lost);
    }

    #[test]
    fn a_writer_that_closed_ends_the_stream_after_the_rest() {
        let mut pipe = Pipe::default();
        pipe.put(Bytes::from_static(b"a"), NOW);
        pipe.finish();
        assert_eq!(pipe.take(NOW, 9), Found::Bytes(Bytes::from_static(b"a")));
        assert_eq!(pipe.take(NOW, 9), Found::End);
    }
}
