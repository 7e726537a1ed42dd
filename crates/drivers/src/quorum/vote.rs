//! Who has a vote, and what the votes say.

use block::{Child, ChildRole, Error, ErrorKind, Node};
use bytes::Bytes;
use std::cell::Cell;
use std::rc::Rc;

/// How many filters may stand between a quorum and the filter that forwards for a primary.
const FILTERS: usize = 16;

/// A child of the quorum.
#[derive(Clone)]
pub(super) struct Member {
    pub(super) child: Rc<Child>,
    /// The node below that was last looked at, by address, and whether it has a vote.
    known: Cell<Option<(*const Node, bool)>>,
}

impl Member {
    pub(super) fn new(child: Rc<Child>) -> Member {
        Member {
            child,
            known: Cell::new(None),
        }
    }

    /// Whether its success says that the data is here.
    pub(super) fn votes(&self) -> bool {
        let Ok(node) = self.child.node() else {
            return true;
        };
        let address = Rc::as_ptr(&node);
        match self.known.get() {
            Some((known, votes)) if known == address => votes,
            _ => {
                let votes = !forwards(&node, FILTERS);
                self.known.set(Some((address, votes)));
                votes
            }
        }
    }

    pub(super) fn node_name(&self) -> String {
        let node = self.child.node();
        node.map_or_else(
            |_| self.child.name().to_owned(),
            |node| node.name().to_owned(),
        )
    }
}

/// Whether `node`, or a node that filters (such as `throttle`) lead to, forwards for a primary.
fn forwards(node: &Node, filters: usize) -> bool {
    if let Some(filter) = node.driver().capabilities().replication {
        return filter.is_primary();
    }
    let below = node.driver().children();
    let mut filtered = below.iter().filter(|c| c.role() == ChildRole::Filtered);
    match (filtered.next(), filtered.next()) {
        // A filter shows one child.
        (Some(child), None) if filters > 0 => child
            .node()
            .is_ok_and(|node| forwards(&node, filters.saturating_sub(1))),
        _ => false,
    }
}

/// The count of one change.
pub(super) struct Ballot {
    threshold: usize,
    voters: usize,
    succeeded: usize,
    errors: Vec<Error>,
}

impl Ballot {
    pub(super) fn new(threshold: usize) -> Ballot {
        Ballot {
            threshold,
            voters: 0,
            succeeded: 0,
            errors: Vec::new(),
        }
    }

    pub(super) fn count(&mut self, votes: bool, answer: Result<(), Error>) {
        //= docs/spec/replication.md#losses
        //# A child in mode `primary` MUST NOT count towards a quorum's vote: a write that fails on
        //# the local disk fails for the guest.
        if !votes {
            return;
        }
        self.voters = self.voters.saturating_add(1);
        match answer {
            Ok(()) => self.succeeded = self.succeeded.saturating_add(1),
            Err(error) => self.errors.push(error),
        }
    }

    /// Success, or the most common error.
    pub(super) fn result(self) -> Result<(), Error> {
        let needed = self.threshold.min(self.voters).max(1);
        if self.succeeded >= needed {
            return Ok(());
        }
        let message = "no child of the quorum keeps the data here";
        Err(most_common(&self.errors)
            .unwrap_or_else(|| Error::with_message(ErrorKind::Io, message)))
    }
}

/// What enough answers agree on.
pub(super) fn elect(answers: &[Result<Bytes, Error>], threshold: usize) -> Result<Bytes, Error> {
    let agreeing = |data: &Bytes| {
        let same = answers.iter().filter(|a| a.as_ref() == Ok(data));
        same.count()
    };
    let candidates = answers.iter().filter_map(|answer| answer.as_ref().ok());
    // Of two with as many votes the first child's counts; `max_by_key` would take the last.
    let winner = candidates.rev().max_by_key(|data| agreeing(data));
    let needed = threshold.min(answers.len()).max(1);
    if let Some(data) = winner
        && agreeing(data) >= needed
    {
        return Ok(data.clone());
    }
    let errors: Vec<Error> = answers.iter().filter_map(|a| a.clone().err()).collect();
    let message = format!("fewer than {needed} children agree on the data");
    Err(most_common(&errors).unwrap_or_else(|| Error::with_message(ErrorKind::Io, message)))
}

/// The first of the errors whose number is the most common one.
fn most_common(errors: &[Error]) -> Option<Error> {
    let times = |error: &Error| errors.iter().filter(|e| e.errno() == error.errno()).count();
    errors
        .iter()
        .rev()
        .max_by_key(|error| times(error))
        .cloned()
}
