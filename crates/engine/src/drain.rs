//! Drained sections: nobody enters, everybody has left, then the graph may change.
//!
//! ```text
//! hold the gates of all roots above ─▶ wait until drained (bounded) ─▶ change ─▶ drop the section
//!                                           └ too long: gates open again, an error names who
//! ```

use block::{Hold, Root};
use drivers::ports::Runtime;
use futures_util::future::{Either, join_all, select};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

/// A drained section; admission is released when it is dropped.
#[derive(Debug)]
#[must_use = "requests are admitted again when this is dropped"]
pub struct Section {
    _holds: Vec<Hold>,
}

/// Somebody did not come to rest in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// Who, and how many requests it has in flight.
    pub roots: Vec<(String, u64)>,
    /// How long was waited.
    pub waited: Duration,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots = self.roots.iter();
        let roots = roots.map(|(name, inside)| format!("{name} has {inside} requests in flight"));
        let roots: Vec<String> = roots.collect();
        write!(f, "after {:?} {}", self.waited, roots.join(", "))
    }
}

/// Holds the gates of `roots` and waits until no request is in flight, at most for `bound`.
///
/// # Errors
///
/// [`Busy`]; the gates are open again then.
///
/// # Cancel safety
///
/// Dropping it opens the gates.
pub async fn drain(
    runtime: &dyn Runtime,
    roots: &[Rc<Root>],
    bound: Duration,
) -> Result<Section, Busy> {
    let holds = roots.iter().map(|root| root.gate().hold()).collect();
    let section = Section { _holds: holds };
    if roots.iter().all(|root| root.gate().inside() == 0) {
        return Ok(section);
    }
    let drained = join_all(roots.iter().map(|root| Box::pin(root.gate().drained())));
    match select(drained, runtime.sleep(bound)).await {
        Either::Left(_) => Ok(section),
        Either::Right(_) => Err(busy(roots, bound)),
    }
}

fn busy(roots: &[Rc<Root>], waited: Duration) -> Busy {
    let inside = roots.iter().map(|root| {
        let name = root.child().name().to_owned();
        (name, root.gate().inside())
    });
    Busy {
        roots: inside.filter(|(_, inside)| *inside > 0).collect(),
        waited,
    }
}
