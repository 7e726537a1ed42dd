//! What the targets share: fuzz input read as a script of small decisions.

use bytes::Bytes;

/// The rest of the input. Reads past the end give zeroes, so that every input is a script.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    /// A script that has not begun.
    pub fn new(input: &'a [u8]) -> Script<'a> {
        Script(input)
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    /// A number of 16 bits.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// A number of 32 bits.
    pub fn u32(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    /// A number of 64 bits.
    pub fn u64(&mut self) -> u64 {
        u64::from_be_bytes(self.array())
    }

    /// Up to 255 bytes.
    pub fn bytes(&mut self) -> Bytes {
        let length = usize::from(self.byte()).min(self.0.len());
        let (head, tail) = self.0.split_at(length);
        self.0 = tail;
        Bytes::copy_from_slice(head)
    }

    /// One of `choices`; `None` if there are none.
    pub fn choose<'c, T>(&mut self, choices: &'c [T]) -> Option<&'c T> {
        let index = usize::from(self.byte()).checked_rem(choices.len())?;
        choices.get(index)
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let count = N.min(self.0.len());
        array[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        array
    }
}
