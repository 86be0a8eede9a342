//! What every part of a node holds: the replica, the log, the present leadership, the counters.

use std::sync::Arc;
use std::time::Duration;

use leasehold_proto::command::{Command, Reply};
use leasehold_proto::target::PodAddress;
use leasehold_proto::wire;
use leasehold_proto::wire::status::Refusal;
use leasehold_raft_store::{ProposeError, RaftNode};
use parking_lot::Mutex;

use crate::ages::Ages;
use crate::leader::LeaderHandle;
use crate::loads::Loads;
use crate::metrics::Metrics;
use crate::node::NodeConfig;
use crate::replica::Replica;
use crate::service::feed::Feeds;

/// How long a proposal may take before its outcome is unknown.
pub(crate) const PROPOSAL_DEADLINE: Duration = Duration::from_secs(5);

/// Held by every part of a node.
pub(crate) struct Shared {
    pub(crate) config: NodeConfig,
    /// Where others reach this node.
    pub(crate) address: String,
    pub(crate) replica: Arc<Replica>,
    pub(crate) raft: RaftNode,
    pub(crate) metrics: Metrics,
    pub(crate) feeds: Feeds,
    pub(crate) loads: Loads,
    pub(crate) ages: Ages,
    /// Present while this node leads.
    pub(crate) leader: Mutex<Option<Arc<LeaderHandle>>>,
    /// Why this node, although it leads, grants and answers nothing.
    pub(crate) halted: Mutex<Option<String>>,
}

impl Shared {
    /// The present leadership of this node, or where else to go.
    pub(crate) fn leader(&self) -> Result<Arc<LeaderHandle>, Refusal> {
        self.leader
            .lock()
            .clone()
            .ok_or_else(|| Refusal::NotLeader {
                leader: self.leader_address(),
            })
    }

    /// The present leadership of this node, once its table shows all that was committed before.
    pub(crate) async fn ready_leader(&self) -> Result<Arc<LeaderHandle>, Refusal> {
        let leader = self.leader()?;
        let mut ready = leader.ready.clone();
        let waited = tokio::time::timeout(PROPOSAL_DEADLINE, async {
            ready.wait_for(|ready| *ready).await.is_ok()
        });
        match waited.await {
            Ok(true) => Ok(leader),
            // The term has ended meanwhile.
            Ok(false) => Err(Refusal::NotLeader {
                leader: self.leader_address(),
            }),
            Err(_) => Err(Refusal::Halted(
                "the leader has no quorum at present".into(),
            )),
        }
    }

    /// Returns when a quorum has agreed, after this call, that this node leads, and its table shows
    /// everything that was committed before. Only then is what the table does *not* show known.
    pub(crate) async fn confirmed(&self) -> Result<(), Refusal> {
        self.raft
            .confirm()
            .await
            .map(|_| ())
            .map_err(|error| self.refusal(error))
    }

    /// Nothing more is granted or answered in this term, and the status says why.
    pub(crate) fn halt(&self, why: String) {
        let mut halted = self.halted.lock();
        if halted.is_none() {
            tracing::error!(why, "halted");
            *halted = Some(why);
        }
    }

    /// Where the leader is, if another node is known to lead.
    pub(crate) fn leader_address(&self) -> Option<PodAddress> {
        let leadership = self.raft.leadership().borrow().clone();
        let (id, address) = leadership
            .leader
            .filter(|(id, _)| *id != self.config.node_id)?;
        PodAddress::new(&address)
            .inspect_err(|error| tracing::warn!(id, %error, "the leader's address"))
            .ok()
    }

    /// Proposes a command on behalf of a caller; only the leader can.
    pub(crate) async fn propose(&self, command: &Command) -> Result<Reply, Refusal> {
        if let Some(why) = self.halted.lock().clone() {
            return Err(Refusal::Halted(why));
        }
        let done = propose(&self.raft, command, None).await;
        match done.map_err(|error| self.refusal(error))? {
            Reply::Rejected(rejection) => Err((&rejection).into()),
            reply => Ok(reply),
        }
    }

    /// What a caller is told of a proposal that has no result.
    pub(crate) fn refusal(&self, error: ProposeError) -> Refusal {
        match error {
            ProposeError::NotLeader { .. } | ProposeError::TermChanged { .. } => {
                Refusal::NotLeader {
                    leader: self.leader_address(),
                }
            }
            ProposeError::NoQuorum => Refusal::Halted("the leader has no quorum at present".into()),
            ProposeError::Overloaded => Refusal::Overload,
            ProposeError::TooLarge { .. } => Refusal::TooLarge(error.to_string()),
            ProposeError::Indeterminate(_) => Refusal::Indeterminate,
            ProposeError::Fatal(why) => Refusal::Internal(why),
        }
    }
}

/// Proposes a command, in one term only if one is given; returns when it is applied here.
pub(crate) async fn propose(
    raft: &RaftNode,
    command: &Command,
    in_term: Option<u64>,
) -> Result<Reply, ProposeError> {
    let (_, reply) = raft
        .propose(wire::encode_command(command), in_term, PROPOSAL_DEADLINE)
        .await?;
    wire::decode_reply(&reply)
        .map_err(|_| ProposeError::Indeterminate("the reply could not be read"))
}
