//! The Raft library's type parameters. Nothing of this module is public.

use std::fmt;

use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::raft::responder::Responder;
use openraft::{EntryPayload, OptionalSend, RaftTypeConfig};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::{LogPosition, NodeId};

pub(crate) type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
pub(crate) type CommittedLeaderId = openraft::type_config::alias::CommittedLeaderIdOf<TypeConfig>;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Membership = openraft::Membership<NodeId, Peer>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, Peer>;
pub(crate) type Payload = EntryPayload<Command, NodeId, Peer>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, Payload>;
pub(crate) type SnapshotMeta = openraft::storage::SnapshotMeta<CommittedLeaderId, NodeId, Peer>;
pub(crate) type Snapshot<D> = openraft::storage::Snapshot<CommittedLeaderId, NodeId, Peer, D>;

/// A command as the caller gave it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Command(pub(crate) Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What is known of a member beside its number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peer {
    /// `host:port`.
    pub(crate) address: String,
    /// Identity of its data directory; empty if it was not known when the member was added.
    pub(crate) disk: Vec<u8>,
}

/// The type parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TypeConfig;

impl RaftTypeConfig for TypeConfig {
    type D = Command;
    type R = Bytes;
    type NodeId = NodeId;
    type Node = Peer;
    type Term = u64;
    // One leader per term, so that a term alone names a leadership.
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = crate::runtime::Runtime;
    type Responder<T>
        = Answer<T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// Carries the result of a proposal back. It holds the proposal's place in the bounded number in
/// flight until the library is done with it, even if nobody waits any more.
pub(crate) struct Answer<T> {
    pub(crate) to: oneshot::Sender<T>,
    pub(crate) _place: OwnedSemaphorePermit,
}

impl<T: OptionalSend + 'static> Responder<TypeConfig, T> for Answer<T> {
    fn on_complete(self, result: T) {
        // The proposer may have given up; that is its right.
        let _ = self.to.send(result);
    }
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: CommittedLeaderId { term },
        index,
    }
}

pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition {
        term: id.leader_id.term,
        index: id.index,
    }
}

/// The library's handle on a running node.
pub(crate) type Raft<M> = openraft::Raft<TypeConfig, M>;
