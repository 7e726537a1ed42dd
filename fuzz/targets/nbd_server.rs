//! The NBD server session against a client that sends anything at all.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nbd::wire::{OptionCode, OptionRequest};

fuzz_target!(|data: &[u8]| {
    if let Some((code, data)) = data.split_first() {
        let _ = OptionRequest::parse(OptionCode(u32::from(*code)), data);
    }
});
