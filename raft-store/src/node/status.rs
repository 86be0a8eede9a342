//! What an operator wants to know of a replica.

use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::async_runtime::Instant as _;
use openraft::async_runtime::watch::WatchReceiver as _;

use super::RaftNode;
use crate::raft_types::position;
use crate::{Leadership, LogPosition, NodeId};

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number.
    pub id: NodeId,
    /// Where its peers reach it.
    pub address: String,
    /// It votes; else it only learns.
    pub voter: bool,
    /// Entries it lacks of the leader's log; known on the leader only.
    pub lag: Option<u64>,
}

/// A replica at one moment.
#[derive(Clone, Debug)]
pub struct RaftStatus {
    /// Its number.
    pub id: NodeId,
    /// Who leads.
    pub leadership: Leadership,
    /// Index of the last entry in its log.
    pub last_log: Option<u64>,
    /// Last entry known to be committed.
    pub committed: Option<LogPosition>,
    /// Last entry applied.
    pub applied: Option<LogPosition>,
    /// Last entry in its snapshot.
    pub snapshot: Option<LogPosition>,
    /// Last entry deleted from its log.
    pub purged: Option<LogPosition>,
    /// Voters and learners, by number.
    pub members: Vec<Member>,
    /// A change of voters is under way.
    pub changing: bool,
    /// Since a majority last acknowledged this leader; on the leader only.
    pub quorum_age: Option<Duration>,
    /// Syncs of the write-ahead log since start.
    pub syncs_total: u64,
    /// Entries appended since start.
    pub entries_appended_total: u64,
    /// Proposals in flight.
    pub in_flight: usize,
}

impl RaftNode {
    /// This replica at this moment.
    #[must_use]
    pub fn status(&self) -> RaftStatus {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        let last_log = metrics.last_log_index;
        let members = membership
            .nodes()
            .map(|(id, peer)| Member {
                id: *id,
                address: peer.address.clone(),
                voter: voters.contains(id),
                lag: metrics
                    .replication
                    .as_ref()
                    .and_then(|r| r.get(id))
                    .map(|matched| {
                        let next = matched.as_ref().map_or(0, |m| m.index + 1);
                        last_log.map_or(0, |l| l + 1).saturating_sub(next)
                    }),
            })
            .collect();
        RaftStatus {
            id: self.inner.config.node_id,
            leadership: self.inner.leadership.borrow().clone(),
            last_log,
            committed: metrics.local_committed.as_ref().map(position),
            applied: *self.inner.applied.borrow(),
            snapshot: metrics.snapshot.as_ref().map(position),
            purged: metrics.purged.as_ref().map(position),
            members,
            changing: membership.get_joint_config().len() > 1,
            quorum_age: metrics.last_quorum_acked.map(|at| (*at).elapsed()),
            syncs_total: self.inner.syncer.syncs_total(),
            entries_appended_total: self.inner.entries_appended.load(Ordering::Relaxed),
            in_flight: self.inner.config.max_in_flight
                - self
                    .inner
                    .places
                    .available_permits()
                    .min(self.inner.config.max_in_flight),
        }
    }
}
