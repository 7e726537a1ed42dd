//! Aligned, recycled memory for payloads.
//!
//! A [`Buffer`] is filled once (by a disk or a socket) and then frozen into [`Bytes`], which are
//! cheap to clone and slice and give the memory back to this thread's pool when the last clone
//! goes. The memory is page aligned, so that direct I/O takes it as it is, and always
//! initialised, so that nothing here needs `unsafe`. Recycled memory holds old contents; only
//! what was filled is ever shown.
//!
//! Bound: a thread keeps at most `POOL_BYTES` of free memory.

use bytes::Bytes;
use std::cell::RefCell;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

/// Alignment of every buffer's first byte, in bytes.
pub const BUFFER_ALIGNMENT: usize = 4096;
/// Free memory a thread keeps for reuse, in bytes.
const POOL_BYTES: usize = 64 << 20;
/// The largest buffer the pool keeps is `4096 << (CLASSES - 1)` bytes: 32 MiB.
const CLASSES: usize = 14;

/// One page: the unit that carries the alignment.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; BUFFER_ALIGNMENT]);

/// Owned, page-aligned memory of a fixed capacity, filled from the front.
pub struct Buffer {
    pages: Vec<Page>,
    filled: usize,
    capacity: usize,
}

impl Buffer {
    /// Memory for `capacity` bytes, none of them filled.
    pub fn with_capacity(capacity: usize) -> Buffer {
        let class = class_of(capacity);
        let pages = POOL
            .with_borrow_mut(|pool| pool.get(class))
            .unwrap_or_else(|| allocate(capacity));
        Buffer {
            pages,
            filled: 0,
            capacity,
        }
    }

    /// How many bytes it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many bytes are filled.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether nothing is filled yet.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// The bytes filled so far.
    pub fn filled(&self) -> &[u8] {
        self.pages.as_bytes().get(..self.filled).unwrap_or_default()
    }

    /// The bytes not yet filled. Their contents are arbitrary; write to them, then
    /// [`advance`](Buffer::advance).
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let (filled, capacity) = (self.filled, self.capacity);
        self.pages
            .as_mut_bytes()
            .get_mut(filled..capacity)
            .unwrap_or_default()
    }

    /// Counts `bytes` more as filled; stops at the capacity.
    pub fn advance(&mut self, bytes: usize) {
        self.filled = self.filled.saturating_add(bytes).min(self.capacity);
    }

    /// Appends as much of `data` as fits and returns how much that was.
    pub fn fill(&mut self, data: &[u8]) -> usize {
        let spare = self.spare_mut();
        let count = spare.len().min(data.len());
        if let (Some(to), Some(from)) = (spare.get_mut(..count), data.get(..count)) {
            to.copy_from_slice(from);
        }
        self.advance(count);
        count
    }

    /// Appends `count` zero bytes, as far as they fit.
    pub fn fill_zeroes(&mut self, count: usize) {
        let spare = self.spare_mut();
        let count = count.min(spare.len());
        if let Some(to) = spare.get_mut(..count) {
            to.fill(0);
        }
        self.advance(count);
    }

    /// Shares what was filled.
    pub fn freeze(self) -> Bytes {
        if self.filled == 0 {
            return Bytes::new();
        }
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.filled()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let pages = std::mem::take(&mut self.pages);
        // A thread that is ending has no pool any more; then the memory is simply freed.
        let _ = POOL.try_with(|pool| pool.borrow_mut().put(pages));
    }
}

/// Whether every byte is zero.
pub fn is_zero(data: &[u8]) -> bool {
    match data.split_first() {
        None => true,
        // Equal to itself shifted by one, and the first is zero: all are. One fast memcmp.
        Some((first, rest)) => *first == 0 && data.get(..rest.len()) == Some(rest),
    }
}

/// `length` zero bytes; small ones share one static buffer.
pub fn zeroes(length: usize) -> Bytes {
    static ZEROES: [u8; 65536] = [0; 65536];
    match ZEROES.get(..length) {
        Some(bytes) => Bytes::from_static(bytes),
        None => Bytes::from(vec![0; length]),
    }
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool::new()) };
}

/// Free memory by size class: class `n` holds buffers of `4096 << n` bytes.
struct Pool {
    free: [Vec<Vec<Page>>; CLASSES],
    bytes: usize,
}

impl Pool {
    const fn new() -> Pool {
        Pool {
            free: [const { Vec::new() }; CLASSES],
            bytes: 0,
        }
    }

    fn get(&mut self, class: usize) -> Option<Vec<Page>> {
        let pages = self.free.get_mut(class)?.pop()?;
        self.bytes = self
            .bytes
            .saturating_sub(pages.len().saturating_mul(BUFFER_ALIGNMENT));
        Some(pages)
    }

    fn put(&mut self, pages: Vec<Page>) {
        let bytes = pages.len().saturating_mul(BUFFER_ALIGNMENT);
        let total = self.bytes.saturating_add(bytes);
        if bytes == 0 || total > POOL_BYTES {
            return;
        }
        if let Some(free) = self.free.get_mut(class_of(bytes)) {
            free.push(pages);
            self.bytes = total;
        }
    }
}

/// The size class that holds `capacity` bytes.
fn class_of(capacity: usize) -> usize {
    let pages = capacity.div_ceil(BUFFER_ALIGNMENT).max(1);
    usize::try_from(pages.next_power_of_two().trailing_zeros()).unwrap_or(usize::MAX)
}

fn allocate(capacity: usize) -> Vec<Page> {
    let pages = capacity
        .div_ceil(BUFFER_ALIGNMENT)
        .max(1)
        .next_power_of_two();
    // The one way this fails is an exhausted address space; that is not a state to carry on in.
    Page::new_vec_zeroed(pages).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frozen_memory_is_aligned_and_shows_only_what_was_filled() {
        let mut buffer = Buffer::with_capacity(5000);
        assert_eq!(buffer.fill(b"abc"), 3);
        let bytes = buffer.freeze();
        assert_eq!(&bytes[..], b"abc");
        assert_eq!(bytes.as_ptr().align_offset(BUFFER_ALIGNMENT), 0);
    }

    #[test]
    fn memory_is_reused_after_the_last_clone_is_gone() {
        let mut buffer = Buffer::with_capacity(4096);
        buffer.fill(b"x");
        let first = buffer.freeze();
        let pointer = first.as_ptr();
        let clone = first.clone();
        drop(first);
        let other = Buffer::with_capacity(4096);
        assert_ne!(
            other.pages.as_bytes().as_ptr(),
            pointer,
            "still in use by a clone"
        );
        drop(clone);
        let again = Buffer::with_capacity(4000);
        assert_eq!(again.pages.as_bytes().as_ptr(), pointer);
        assert!(again.is_empty());
    }

    #[test]
    fn a_buffer_never_takes_more_than_its_capacity() {
        let mut buffer = Buffer::with_capacity(2);
        assert_eq!(buffer.fill(b"abc"), 2);
        buffer.fill_zeroes(10);
        assert_eq!(buffer.filled(), b"ab");
    }

    #[test]
    fn zero_detection_looks_at_every_byte() {
        assert!(is_zero(&zeroes(100_000)));
        let mut data = vec![0; 4096];
        data[4095] = 1;
        assert!(!is_zero(&data));
        assert!(!is_zero(&[1]));
        assert!(is_zero(&[]));
    }
}
