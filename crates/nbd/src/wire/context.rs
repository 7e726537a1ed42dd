//! Metadata contexts: what block status can be asked about.
//!
//! Source: NBD protocol, "Metadata querying"; `qemu:allocation-depth` is described in QEMU's
//! "NBD protocol support" page.

use std::fmt;

/// A metadata context that both sides of this crate know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetaContext {
    /// `base:allocation`: holes and zeroes.
    BaseAllocation,
    /// `qemu:allocation-depth`: which layer of a backing chain holds the data.
    AllocationDepth,
}

impl MetaContext {
    /// All of them.
    pub const ALL: [MetaContext; 2] = [MetaContext::BaseAllocation, MetaContext::AllocationDepth];

    /// The full name, namespace included.
    pub fn name(self) -> &'static str {
        match self {
            MetaContext::BaseAllocation => "base:allocation",
            MetaContext::AllocationDepth => "qemu:allocation-depth",
        }
    }

    /// The context of this name.
    pub fn from_name(name: &[u8]) -> Option<MetaContext> {
        MetaContext::ALL
            .into_iter()
            .find(|context| context.name().as_bytes() == name)
    }

    /// The number our server gives it on every connection. Never zero, so that it cannot be
    /// mistaken for the reserved number in the replies to `NBD_OPT_LIST_META_CONTEXT`.
    pub fn id(self) -> u32 {
        match self {
            MetaContext::BaseAllocation => 1,
            MetaContext::AllocationDepth => 2,
        }
    }

    fn bit(self) -> u8 {
        match self {
            MetaContext::BaseAllocation => 1,
            MetaContext::AllocationDepth => 2,
        }
    }
}

/// Some of the metadata contexts.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ContextSet(u8);

impl ContextSet {
    /// No context.
    pub const NONE: ContextSet = ContextSet(0);

    /// This set and `context`.
    #[must_use]
    pub fn with(self, context: MetaContext) -> ContextSet {
        ContextSet(self.0 | context.bit())
    }

    /// Whether `context` is one of them.
    pub fn contains(self, context: MetaContext) -> bool {
        self.0 & context.bit() != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The contexts in both sets.
    #[must_use]
    pub fn intersection(self, other: ContextSet) -> ContextSet {
        ContextSet(self.0 & other.0)
    }

    /// The contexts, in a fixed order.
    pub fn iter(self) -> impl Iterator<Item = MetaContext> {
        MetaContext::ALL
            .into_iter()
            .filter(move |context| self.contains(*context))
    }
}

impl FromIterator<MetaContext> for ContextSet {
    fn from_iter<I: IntoIterator<Item = MetaContext>>(contexts: I) -> ContextSet {
        contexts
            .into_iter()
            .fold(ContextSet::NONE, ContextSet::with)
    }
}

impl fmt::Debug for ContextSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(MetaContext::name))
            .finish()
    }
}

/// One query of a request about metadata contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextQuery {
    /// Exactly this context.
    Context(MetaContext),
    /// Every context of the `base:` namespace; selects nothing.
    Base,
    /// Every context of the `qemu:` namespace; selects nothing.
    Qemu,
    /// A name or namespace unknown here: it is ignored.
    Unknown,
}

impl ContextQuery {
    pub(super) fn parse(query: &[u8]) -> ContextQuery {
        match query {
            b"base:" => ContextQuery::Base,
            b"qemu:" => ContextQuery::Qemu,
            name => {
                MetaContext::from_name(name).map_or(ContextQuery::Unknown, ContextQuery::Context)
            }
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            ContextQuery::Context(context) => context.name(),
            ContextQuery::Base => "base:",
            ContextQuery::Qemu => "qemu:",
            ContextQuery::Unknown => "x-unknown:",
        }
    }

    /// Whether `NBD_OPT_LIST_META_CONTEXT` with this query lists `context`.
    pub fn lists(self, context: MetaContext) -> bool {
        match self {
            ContextQuery::Context(name) => name == context,
            ContextQuery::Base => context == MetaContext::BaseAllocation,
            ContextQuery::Qemu => context == MetaContext::AllocationDepth,
            ContextQuery::Unknown => false,
        }
    }

    /// Whether `NBD_OPT_SET_META_CONTEXT` with this query selects `context`: a wildcard never
    /// does (NBD protocol, "The `base:` metadata namespace").
    pub fn selects(self, context: MetaContext) -> bool {
        self == ContextQuery::Context(context)
    }
}
