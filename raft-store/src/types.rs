//! The few nouns of this crate.

use std::fmt;

/// Number of a replica. It stands for one data directory for the whole life of a cluster: the
/// number of a removed or lost replica is never given to an empty disk.
pub type NodeId = u64;

/// Position of an entry in the replicated log. Ordered by term, then by index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The term of the leader that appended the entry.
    pub term: u64,
    /// The entry's number: consecutive, never reused for another committed entry.
    pub index: u64,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.term, self.index)
    }
}
