//! What Slicelets, the Assigner's leader and other Slicelets say to each other.
//!
//! Every message names the session, never an address or a Squid: a process speaks only for the
//! session that it holds now.

use std::time::Duration;

use crate::command::Digest;
use crate::id::{Epoch, Generation, HandoffId, SessionId};
use crate::slice::Slice;
use crate::target::PodAddress;
use crate::view::ViewUpdate;

/// What a session says of a handoff. Repeated in every renewal until its view shows the handoff
/// ended: a word may be lost, and no leader remembers one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Word {
    /// The source will never again serve the slice at its epoch or below.
    Surrendered(HandoffId, Digest),
    /// The source will never surrender for this handoff.
    Refused(HandoffId),
    /// The destination owns: it holds the source's surrender.
    Accepted(HandoffId),
}

impl Word {
    /// The handoff that it is about.
    pub fn handoff(self) -> HandoffId {
        match self {
            Word::Surrendered(id, _) | Word::Refused(id) | Word::Accepted(id) => id,
        }
    }
}

/// Slicelet to leader: extend my lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Renew {
    /// Whose lease.
    pub session: SessionId,
    /// Of this transmission alone; a retry has another.
    pub seq: u64,
    /// The newest view applied.
    pub known: Option<Generation>,
    /// About every handoff still open in that view.
    pub words: Vec<Word>,
    /// The arming whose view is applied and since which leases are checked.
    pub armed: Option<Generation>,
    /// Eventual mode: the oldest epoch at which a slice came whose state is still being merged.
    /// For the shell to fill in.
    pub merging: Option<Epoch>,
}

/// Leader to Slicelet: a quorum confirmed my term after your message arrived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Renewed {
    /// Whose lease.
    pub session: SessionId,
    /// The transmission that is answered: the lease runs from its `t0`.
    pub seq: u64,
    /// How long it runs.
    pub ttl: Duration,
    /// A newer view, if there is one.
    pub update: Option<ViewUpdate>,
}

/// Destination to source: I am prepared, hand over.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Ready {
    /// Which handoff.
    pub handoff: HandoffId,
    /// The source session.
    pub from: SessionId,
    /// The destination session, which speaks.
    pub to: SessionId,
}

/// Source to destination: the slice is yours. Irrevocable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Surrender {
    /// Which handoff.
    pub handoff: HandoffId,
    /// The source session, which speaks.
    pub from: SessionId,
    /// The destination session.
    pub to: SessionId,
    /// Of the state sent.
    pub digest: Digest,
}

/// What a source answers a [`Ready`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadyAnswer {
    /// The slice is yours.
    Surrendered(Surrender),
    /// This handoff will never take effect.
    Refused(HandoffId),
    /// I do not hold the source session (any more).
    NotMine(SessionId),
}

/// Where a slice went: told to a client that came to its former owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moved {
    /// The slice.
    pub slice: Slice,
    /// The handoff that moved it.
    pub handoff: HandoffId,
    /// Its owner.
    pub session: SessionId,
    /// Where that is.
    pub address: PodAddress,
    /// The epoch at which it owns.
    pub epoch: Epoch,
    /// The view in which the teller saw the handoff open.
    pub generation: Generation,
}
