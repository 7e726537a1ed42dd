//! Options of `blkdebug`: the rules by which a node fails, delays or tears requests.

use super::blockdev::BlockdevRef;
use crate::define::{object, words};
use crate::shape::Size;

object! {
    /// Options of `blkdebug`.
    pub struct BlkdebugOptions {
        /// The child.
        "image" => image: BlockdevRef,
        /// The alignment of requests that the node asks for.
        "align" => align: Option<Size>,
        /// Which requests fail.
        "inject-error" => inject_error: Option<Vec<BlkdebugErrorRule>>,
        /// Which events change the state that rules may ask for; the state is 1 at first.
        "set-state" => set_state: Option<Vec<BlkdebugStateRule>>,
        /// Which requests are delayed.
        "x-ai-delay" => delay: Option<Vec<BlkdebugDelayRule>>,
        /// Which writes are stored only in part.
        "x-ai-torn" => torn: Option<Vec<BlkdebugTornRule>>,
        /// Which flushes are answered without reaching the child.
        "x-ai-lose-flush" => lose_flush: Option<Vec<BlkdebugLoseFlushRule>>,
    }
}

object! {
    /// Requests that fail.
    pub struct BlkdebugErrorRule {
        /// What arms the rule; `none`: always armed.
        "event" => event: BlkdebugEvent,
        /// The state in which the rule holds; default any.
        "state" => state: Option<u32>,
        /// The kind of request; default reads, writes, zeroes, discards and flushes.
        "iotype" => iotype: Option<BlkdebugIoType>,
        /// The error; default 5 (EIO).
        "errno" => errno: Option<u16>,
        /// The sector of 512 bytes a request must touch; default any.
        "sector" => sector: Option<u64>,
        /// Whether the rule holds once; default false.
        "once" => once: Option<bool>,
        /// Whether the request fails before it could wait for anything; default false.
        "immediately" => immediately: Option<bool>,
        /// How many requests that fit pass first; default 0.
        "x-ai-skip" => skip: Option<u64>,
    }
}

object! {
    /// A change of state.
    pub struct BlkdebugStateRule {
        /// What triggers it.
        "event" => event: BlkdebugEvent,
        /// The state in which the rule holds; default any.
        "state" => state: Option<u32>,
        /// The state afterwards.
        "new_state" => new_state: u32,
    }
}

object! {
    /// Requests that are delayed.
    pub struct BlkdebugDelayRule {
        /// The kind of request; default all.
        "iotype" => iotype: Option<BlkdebugIoType>,
        /// The state in which the rule holds; default any.
        "state" => state: Option<u32>,
        /// The sector of 512 bytes a request must touch; default any.
        "sector" => sector: Option<u64>,
        /// Whether the rule holds once; default false.
        "once" => once: Option<bool>,
        /// How many requests that fit pass first; default 0.
        "skip" => skip: Option<u64>,
        /// How long, in nanoseconds.
        "delay-ns" => delay_ns: u64,
    }
}

object! {
    /// Writes that are stored only in part, and then fail.
    pub struct BlkdebugTornRule {
        /// The state in which the rule holds; default any.
        "state" => state: Option<u32>,
        /// The sector of 512 bytes a write must touch; default any.
        "sector" => sector: Option<u64>,
        /// Whether the rule holds once; default false.
        "once" => once: Option<bool>,
        /// How many writes that fit pass first; default 0.
        "skip" => skip: Option<u64>,
        /// How many bytes from the start of the write are stored.
        "bytes" => bytes: Size,
        /// The error; default 5 (EIO).
        "errno" => errno: Option<u16>,
    }
}

object! {
    /// Flushes that are answered without reaching the child.
    pub struct BlkdebugLoseFlushRule {
        /// The state in which the rule holds; default any.
        "state" => state: Option<u32>,
        /// Whether the rule holds once; default false.
        "once" => once: Option<bool>,
        /// How many flushes pass first; default 0.
        "skip" => skip: Option<u64>,
    }
}

words! {
    /// The moments that rules are bound to: those of QEMU at which a request begins.
    pub enum BlkdebugEvent {
        /// No moment: the rule is always armed.
        "none" => None,
        /// A read begins.
        "read_aio" => ReadAio,
        /// A write begins.
        "write_aio" => WriteAio,
        /// A write begins.
        "pwritev" => Pwritev,
        /// A write of zeroes begins.
        "pwritev_zero" => PwritevZero,
        /// A flush begins.
        "flush_to_os" => FlushToOs,
        /// A flush begins.
        "flush_to_disk" => FlushToDisk,
    }
}

words! {
    /// A kind of request.
    pub enum BlkdebugIoType {
        /// Read.
        "read" => Read,
        /// Write.
        "write" => Write,
        /// Make a range read as zeroes.
        "write-zeroes" => WriteZeroes,
        /// Discard a range.
        "discard" => Discard,
        /// Flush.
        "flush" => Flush,
        /// Ask what is allocated.
        "block-status" => BlockStatus,
    }
}
