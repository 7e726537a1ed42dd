//! The workload's own record: which version of each block was issued and acknowledged, and which
//! versions a checkpoint taken meanwhile may show.
//!
//! A block has at most one write in flight, so its versions are numbered 1, 2, 3, … in order; 0 is
//! the empty disk. The rule (R57): a checkpoint taken with writes in flight shows, for each block,
//! a version between the last acknowledged before the call and the last issued before its return.

/// Bytes of a block.
pub(super) const BLOCK: usize = 4096;
/// First bytes of every stamped block.
const MAGIC: &[u8; 8] = b"STAMPED\n";

/// What was issued and acknowledged, block by block.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    issued: Vec<u64>,
    acknowledged: Vec<u64>,
    in_flight: u64,
}

/// The versions a checkpoint may show: block by block, from the lowest to the highest.
#[derive(Clone, Debug)]
pub(super) struct Window {
    lowest: Vec<u64>,
    highest: Vec<u64>,
}

impl Ledger {
    /// A record of an empty disk of `blocks` blocks.
    pub(super) fn new(blocks: usize) -> Ledger {
        Ledger {
            issued: vec![0; blocks],
            acknowledged: vec![0; blocks],
            in_flight: 0,
        }
    }

    /// How many blocks the disk has.
    pub(super) fn blocks(&self) -> usize {
        self.issued.len()
    }

    /// Whether the block has no write in flight.
    pub(super) fn is_idle(&self, block: usize) -> bool {
        self.issued.get(block) == self.acknowledged.get(block)
    }

    /// Whether no block has a write in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight == 0
    }

    /// The last version issued of a block.
    pub(super) fn issued(&self, block: usize) -> u64 {
        self.issued.get(block).copied().unwrap_or(0)
    }

    /// Notes that the block's next version is being written, and returns its number.
    pub(super) fn issue(&mut self, block: usize) -> u64 {
        let Some(issued) = self.issued.get_mut(block) else {
            return 0;
        };
        *issued = issued.saturating_add(1);
        self.in_flight = self.in_flight.saturating_add(1);
        *issued
    }

    /// Notes that the write in flight was answered with success.
    pub(super) fn acknowledge(&mut self, block: usize) {
        let issued = self.issued.get(block).copied().unwrap_or(0);
        if let Some(acknowledged) = self.acknowledged.get_mut(block) {
            *acknowledged = issued;
        }
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Notes which version each block was found to hold: whatever was in flight is decided now.
    pub(super) fn settle(&mut self, versions: &[u64]) {
        self.issued = versions.to_vec();
        self.acknowledged = versions.to_vec();
        self.in_flight = 0;
    }

    /// Call before a checkpoint is asked for.
    pub(super) fn before_checkpoint(&self) -> Vec<u64> {
        self.acknowledged.clone()
    }

    /// Call when a checkpoint has returned, with what [`before_checkpoint`] gave.
    ///
    /// [`before_checkpoint`]: Ledger::before_checkpoint
    pub(super) fn after_checkpoint(&self, lowest: Vec<u64>) -> Window {
        Window {
            lowest,
            highest: self.issued.clone(),
        }
    }

    /// The versions the disk itself may show now.
    pub(super) fn now(&self) -> Window {
        self.after_checkpoint(self.before_checkpoint())
    }
}

impl Window {
    /// Notes that `block` was written since, and what it must hold now.
    pub(super) fn expect(&mut self, block: usize, version: u64) {
        for versions in [&mut self.lowest, &mut self.highest] {
            if let Some(known) = versions.get_mut(block) {
                *known = version;
            }
        }
    }

    /// Whether it leaves no choice for any block: nothing was in flight.
    pub(super) fn is_exact(&self) -> bool {
        self.lowest == self.highest
    }

    /// Checks what a block holds and returns its version.
    pub(super) fn judge(&self, block: usize, data: &[u8]) -> Result<u64, String> {
        let (Some(&lowest), Some(&highest)) = (self.lowest.get(block), self.highest.get(block))
        else {
            return Err(format!("block {block} is past the end"));
        };
        let Some(version) = version_of(block, data) else {
            return Err(format!("block {block} holds bytes that were never written"));
        };
        if (lowest..=highest).contains(&version) {
            return Ok(version);
        }
        Err(format!(
            "block {block} holds version {version}, allowed is {lowest} to {highest}"
        ))
    }
}

/// Fills `data` with the contents of one version of a block.
pub(super) fn stamp(block: usize, version: u64, data: &mut [u8]) {
    if version == 0 {
        data.fill(0);
        return;
    }
    let mut state = seed(block, version);
    for word in data.chunks_mut(8) {
        state = mix(state);
        for (to, from) in word.iter_mut().zip(state.to_le_bytes()) {
            *to = from;
        }
    }
    for (to, from) in data
        .iter_mut()
        .zip(MAGIC.iter().chain(&version.to_le_bytes()))
    {
        *to = *from;
    }
}

/// The version a block's contents stand for, if every byte agrees.
fn version_of(block: usize, data: &[u8]) -> Option<u64> {
    if engine::block::is_zero(data) {
        return Some(0);
    }
    let rest = data.strip_prefix(MAGIC)?;
    let version = u64::from_le_bytes(*rest.first_chunk()?);
    let mut expected = vec![0; data.len()];
    stamp(block, version, &mut expected);
    (expected == data).then_some(version)
}

fn seed(block: usize, version: u64) -> u64 {
    let block = u64::try_from(block).unwrap_or(u64::MAX);
    mix(block.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.rotate_left(32))
}

/// One step of the `SplitMix64` generator: cheap, and every bit of the state counts.
pub(super) fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamped(block: usize, version: u64) -> Vec<u8> {
        let mut data = vec![0; BLOCK];
        stamp(block, version, &mut data);
        data
    }

    #[test]
    fn a_write_in_flight_leaves_two_versions_open() {
        let mut ledger = Ledger::new(2);
        ledger.issue(0);
        ledger.acknowledge(0);
        let lowest = ledger.before_checkpoint();
        ledger.issue(0);
        let window = ledger.after_checkpoint(lowest);
        assert!(!window.is_exact());
        assert_eq!(window.judge(0, &stamped(0, 1)), Ok(1));
        assert_eq!(window.judge(0, &stamped(0, 2)), Ok(2));
        let error = window.judge(0, &stamped(0, 3)).unwrap_err();
        assert_eq!(error, "block 0 holds version 3, allowed is 1 to 2");
        assert_eq!(window.judge(1, &stamped(1, 0)), Ok(0));
    }

    #[test]
    fn one_wrong_byte_is_found() {
        let mut ledger = Ledger::new(8);
        ledger.issue(7);
        ledger.acknowledge(7);
        let mut data = stamped(7, 1);
        data[4000] ^= 1;
        assert!(ledger.now().judge(7, &data).is_err());
        assert!(
            ledger.now().judge(7, &stamped(6, 1)).is_err(),
            "another block's stamp"
        );
    }
}
