//! Block status as both sides agree to see it: inside the request, joined, bounded.

use crate::wire::Extent;

/// What of `extents` counts for a request of `length` bytes: joined where equal, none past the
/// request, at most `most`, and at least one.
pub(crate) fn clip(extents: &[Extent], length: u32, most: usize) -> Vec<Extent> {
    let mut left = u64::from(length);
    let mut clipped: Vec<Extent> = Vec::new();
    for extent in extents.iter().filter(|extent| extent.length > 0) {
        let length = extent.length.min(left);
        if length == 0 {
            break;
        }
        let count = clipped.len();
        match clipped.last_mut() {
            Some(last) if last.flags == extent.flags => {
                last.length = last.length.saturating_add(length);
            }
            Some(_) if count >= most => break,
            _ => clipped.push(Extent { length, ..*extent }),
        }
        left = left.saturating_sub(length);
    }
    if clipped.is_empty() {
        // Nothing known: no flag is always a safe answer.
        clipped.push(Extent {
            length: left,
            flags: 0,
        });
    }
    clipped
}
