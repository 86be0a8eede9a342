//! Forming a cluster and changing who belongs to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::{ClientWriteError, InitializeError, RaftError};

use super::RaftNode;
use crate::raft_types::{Peer, TypeConfig};
use crate::{AdminError, NodeId};

/// How long a member may take to say who it is.
const IDENTIFY_PATIENCE: Duration = Duration::from_secs(3);
/// How long a change of membership may take.
const CHANGE_PATIENCE: Duration = Duration::from_secs(30);

impl RaftNode {
    /// Form a cluster of `members` (number → peer address), all of them empty. To be called on
    /// one of them, once; calling it again with the same members does nothing.
    ///
    /// # Errors
    ///
    /// `Refused` if this node is not among the members, or belongs to a cluster with others.
    pub async fn bootstrap(&self, members: BTreeMap<NodeId, String>) -> Result<(), AdminError> {
        if self.is_formed_by(&members)? {
            return Ok(());
        }
        let mut peers = BTreeMap::new();
        for (id, address) in &members {
            peers.insert(*id, self.identified(*id, address, false).await?);
        }
        match self.inner.raft.initialize(peers).await {
            Ok(()) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(AdminError::Fatal(fatal.to_string())),
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => Err(AdminError::Refused(
                "this node is not among the members given".into(),
            )),
            // Somebody was faster; the same members are no conflict.
            Err(RaftError::APIError(InitializeError::NotAllowed(why))) => {
                if self.is_formed_by(&members)? {
                    return Ok(());
                }
                Err(AdminError::Refused(why.to_string()))
            }
        }
    }

    /// Is the cluster formed already, with these members?
    fn is_formed_by(&self, members: &BTreeMap<NodeId, String>) -> Result<bool, AdminError> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let present: BTreeMap<NodeId, String> = metrics
            .membership_config
            .membership()
            .nodes()
            .map(|(id, peer)| (*id, peer.address.clone()))
            .collect();
        if present.is_empty() {
            return Ok(false);
        }
        if present == *members {
            return Ok(true);
        }
        Err(AdminError::Refused(format!(
            "this node belongs to a cluster of other members already: {present:?}; add or remove \
             members instead"
        )))
    }

    /// Let node `id` at `address` receive the log. It must be running, empty, and its number
    /// must never have belonged to another disk. Returns when the change is committed; the node
    /// may still be catching up (see the lag in the status).
    ///
    /// # Errors
    ///
    /// `Refused` if nobody, or somebody else, answers at `address`, or if the number is known
    /// with another address or disk.
    pub async fn add_learner(&self, id: NodeId, address: &str) -> Result<(), AdminError> {
        self.must_lead()?;
        let peer = self.identified(id, address, true).await?;
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        if let Some(known) = metrics.membership_config.membership().get_node(&id) {
            if known.address == peer.address && (known.disk.is_empty() || known.disk == peer.disk) {
                return Ok(());
            }
            return Err(AdminError::Refused(format!(
                "node {id} is a member at {} with another data directory or address; a number is \
                 never reused: remove it, and add this node under a new number",
                known.address
            )));
        }
        self.change(self.inner.raft.add_learner(id, peer, false))
            .await
    }

    /// Give learner `id` a vote.
    ///
    /// # Errors
    ///
    /// `Refused` if it is no learner, or another change is under way.
    pub async fn promote(&self, id: NodeId) -> Result<(), AdminError> {
        self.must_lead()?;
        let add = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.change(self.inner.raft.change_membership(add, true))
            .await
    }

    /// Take node `id` out of the cluster, voter or learner. Its number must not be used again.
    /// The leader can remove itself: it hands over when the change is committed.
    ///
    /// # Errors
    ///
    /// `Refused` if it is the last voter, or another change is under way.
    pub async fn remove(&self, id: NodeId) -> Result<(), AdminError> {
        self.must_lead()?;
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        if membership.get_node(&id).is_none() {
            return Ok(());
        }
        let remove = if membership.voter_ids().any(|v| v == id) {
            ChangeMembers::RemoveVoters(BTreeSet::from([id]))
        } else {
            ChangeMembers::RemoveNodes(BTreeSet::from([id]))
        };
        self.change(self.inner.raft.change_membership(remove, false))
            .await?;
        if id == self.inner.config.node_id {
            // The library goes on as a leader that is no member until it has noticed, and trips
            // over a further change of members in between.
            let mut leadership = self.inner.leadership.clone();
            let handed_over = leadership.wait_for(|now| now.leads().is_none());
            let patience = self.inner.config.election_timeout_max();
            // The change is committed, whatever comes of the wait.
            let _ = tokio::time::timeout(patience, handed_over).await;
        }
        Ok(())
    }

    /// Ask voter `to` to lead. Returns when it has been asked; watch the leadership for the
    /// outcome. If it does not answer, this node leads no more either until the next election.
    ///
    /// # Errors
    ///
    /// `Refused` if `to` is no voter.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), AdminError> {
        self.must_lead()?;
        if to == self.inner.config.node_id {
            return Ok(());
        }
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        if !metrics
            .membership_config
            .membership()
            .voter_ids()
            .any(|v| v == to)
        {
            return Err(AdminError::Refused(format!("node {to} is not a voter")));
        }
        let asked = self.inner.raft.trigger().transfer_leader(to).await;
        asked.map_err(|fatal| AdminError::Fatal(fatal.to_string()))
    }

    fn must_lead(&self) -> Result<(), AdminError> {
        if self.inner.leadership.borrow().leads().is_some() {
            return Ok(());
        }
        let me = self.inner.config.node_id;
        Err(AdminError::NotLeader {
            leader: self.leader_hint().filter(|(id, _)| *id != me),
        })
    }

    /// Ask the node at `address` which disk it has, so that its number cannot come back with
    /// another one.
    async fn identified(
        &self,
        id: NodeId,
        address: &str,
        required: bool,
    ) -> Result<Peer, AdminError> {
        let address = address.to_owned();
        if id == self.inner.config.node_id {
            return Ok(Peer {
                address,
                disk: self.inner.receiver.disk.clone(),
            });
        }
        match self
            .inner
            .sender
            .identify(id, &address, IDENTIFY_PATIENCE)
            .await
        {
            Ok(found) if found.node == id => Ok(Peer {
                address,
                disk: found.disk.to_vec(),
            }),
            Ok(found) => Err(AdminError::Refused(format!(
                "at {address} answers node {}, not node {id}",
                found.node
            ))),
            Err(why) if required => Err(AdminError::Refused(format!(
                "node {id} at {address} does not answer: {why}"
            ))),
            Err(why) => {
                tracing::warn!(
                    id,
                    address,
                    why,
                    "a member does not answer yet; its disk will not be checked"
                );
                Ok(Peer {
                    address,
                    disk: Vec::new(),
                })
            }
        }
    }

    async fn change<T>(
        &self,
        changing: impl Future<Output = Result<T, RaftError<TypeConfig, ClientWriteError<TypeConfig>>>>,
    ) -> Result<(), AdminError> {
        let Ok(result) = tokio::time::timeout(CHANGE_PATIENCE, changing).await else {
            return Err(AdminError::Indeterminate("no result within 30 s".into()));
        };
        match result {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(AdminError::Fatal(fatal.to_string())),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                self.must_lead()?;
                Err(AdminError::Refused(
                    "the leader has no quorum at present".into(),
                ))
            }
            Err(RaftError::APIError(error @ ClientWriteError::LogEntryDiscarded(_))) => {
                Err(AdminError::Indeterminate(error.to_string()))
            }
            Err(RaftError::APIError(error)) => Err(AdminError::Refused(error.to_string())),
        }
    }
}
