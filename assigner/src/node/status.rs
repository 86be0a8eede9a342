//! What an operator wants to know of one node.

use serde::Serialize;

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
