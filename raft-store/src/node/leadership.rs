//! Who leads, and since which term.

use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::sync::watch;

use crate::NodeId;
use crate::raft_types::{Raft, TypeConfig};
use crate::store::machine::Machine;

/// What this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It receives the log but does not vote, or is no member at all.
    Learner,
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It has won its term: a quorum's votes were counted. Nothing of the term need be committed
    /// yet; [`RaftNode::confirm`](crate::RaftNode::confirm) returns only after something is.
    Leader,
    /// It has ended, by shutdown or because its disk failed.
    Stopped,
}

/// Who leads. A change of `role` or `term` is a change of leadership; a node never leads the same
/// term twice, so "leads, and in this term" names one unbroken leadership, even for a watcher
/// that has missed values in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The newest term this node has seen.
    pub term: u64,
    /// What this node is in that term.
    pub role: Role,
    /// The leader of that term and its peer address, if known.
    pub leader: Option<(NodeId, String)>,
}

impl Leadership {
    /// The term that this node leads, if it leads.
    #[must_use]
    pub fn leads(&self) -> Option<u64> {
        (self.role == Role::Leader).then_some(self.term)
    }
}

type Metrics = openraft::RaftMetrics<TypeConfig>;

fn read(metrics: &Metrics) -> Leadership {
    let term = metrics.vote.leader_id.term;
    let won = metrics.vote.committed && metrics.vote.leader_id.voted_for == metrics.id;
    let role = match metrics.state {
        _ if metrics.running_state.is_err() => Role::Stopped,
        openraft::ServerState::Leader if won => Role::Leader,
        openraft::ServerState::Leader | openraft::ServerState::Candidate => Role::Candidate,
        openraft::ServerState::Follower => Role::Follower,
        openraft::ServerState::Learner => Role::Learner,
        openraft::ServerState::Shutdown => Role::Stopped,
    };
    let leader = metrics
        .current_leader
        .filter(|_| role != Role::Stopped)
        .map(|id| {
            let membership = metrics.membership_config.membership();
            (
                id,
                membership
                    .get_node(&id)
                    .map(|p| p.address.clone())
                    .unwrap_or_default(),
            )
        });
    Leadership { term, role, leader }
}

/// Follow the library's metrics, passing on only what concerns leadership.
pub(crate) fn watch(
    raft: &Raft<Machine>,
) -> (watch::Receiver<Leadership>, tokio::task::JoinHandle<()>) {
    let mut metrics = raft.metrics();
    let first = read(&metrics.borrow_watched());
    let (publish, subscribe) = watch::channel(first);
    let task = tokio::spawn(async move {
        loop {
            let now = read(&metrics.borrow_and_update());
            publish.send_if_modified(|old| {
                let changed = *old != now;
                if changed {
                    *old = now;
                }
                changed
            });
            if metrics.changed().await.is_err() {
                break;
            }
        }
        publish.send_modify(|last| {
            last.role = Role::Stopped;
            last.leader = None;
        });
    });
    (subscribe, task)
}
