//! What an operator wants to know of one node.

use serde::Serialize;

use crate::shared::Shared;

/// A node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeStatus {
    /// Name of the cluster.
    pub cluster: String,
    /// Number of this node.
    pub node_id: u64,
    /// Where others reach it.
    pub address: String,
    /// The program's version.
    pub version: &'static str,
    /// What it is in the present term.
    pub role: Role,
    /// The newest term that it has seen.
    pub term: u64,
    /// The leader's number and address, if known.
    pub leader: Option<(u64, String)>,
    /// Index of the newest entry known to be committed.
    pub committed_index: u64,
    /// Index of the newest entry applied here.
    pub applied_index: u64,
    /// Which life of the replicated state.
    pub incarnation: u16,
    /// After a restore, while nothing is granted.
    pub restore_wait: bool,
    /// Why this node grants nothing, although it leads.
    pub halted: Option<String>,
    /// Voters and learners, by number.
    pub members: Vec<MemberStatus>,
    /// Targets in the table.
    pub targets: usize,
    /// Live sessions in the table.
    pub sessions: usize,
    /// Watchers at this node.
    pub watchers: usize,
}

/// What a node is in the present term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It receives the log but does not vote, or belongs to no cluster yet.
    #[default]
    Learner,
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It has won its term.
    Leader,
    /// It has ended.
    Stopped,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// Its number.
    pub node_id: u64,
    /// Where it is reached.
    pub address: String,
    /// It votes; else it only learns.
    pub voter: bool,
    /// Entries it lacks of the leader's log; known on the leader only.
    pub lag: Option<u64>,
}

impl NodeStatus {
    pub(super) fn of(shared: &Shared) -> Self {
        let raft = shared.raft.status();
        let index = |at: Option<leasehold_raft_store::LogPosition>| at.map_or(0, |at| at.index);
        let member = |member: leasehold_raft_store::Member| MemberStatus {
            node_id: member.id,
            address: member.address,
            voter: member.voter,
            lag: member.lag,
        };
        let table = shared.replica.table();
        Self {
            cluster: shared.config.cluster.clone(),
            node_id: shared.config.node_id,
            address: shared.address.clone(),
            version: env!("CARGO_PKG_VERSION"),
            role: raft.leadership.role.into(),
            term: raft.leadership.term,
            leader: raft.leadership.leader,
            committed_index: index(raft.committed),
            applied_index: index(raft.applied),
            incarnation: table.incarnation().get(),
            restore_wait: table.restore_wait().is_some(),
            halted: shared.halted.lock().clone(),
            members: raft.members.into_iter().map(member).collect(),
            targets: table.targets().count(),
            sessions: table
                .targets()
                .map(|target| target.live_sessions().count())
                .sum(),
            watchers: usize::try_from(shared.metrics.watchers.get()).unwrap_or(0),
        }
    }
}

impl From<leasehold_raft_store::Role> for Role {
    fn from(role: leasehold_raft_store::Role) -> Self {
        match role {
            leasehold_raft_store::Role::Learner => Role::Learner,
            leasehold_raft_store::Role::Follower => Role::Follower,
            leasehold_raft_store::Role::Candidate => Role::Candidate,
            leasehold_raft_store::Role::Leader => Role::Leader,
            leasehold_raft_store::Role::Stopped => Role::Stopped,
        }
    }
}
