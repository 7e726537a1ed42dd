//! The NBD client session against a server that answers anything at all.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nbd::wire::OptionReply;

fuzz_target!(|data: &[u8]| {
    if let Some((kind, data)) = data.split_first_chunk::<4>() {
        let _ = OptionReply::parse(u32::from_be_bytes(*kind), data);
    }
});
