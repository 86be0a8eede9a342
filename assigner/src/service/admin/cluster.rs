//! The Assigners themselves: status and membership.

use leasehold_proto::target::PodAddress;
use leasehold_proto::wire::admin::{AddMember, PromoteMember, RemoveMember, TransferLeader};
use leasehold_proto::wire::listing::{ClusterStatus, Member, MemberRole};
use leasehold_proto::wire::pb;
use leasehold_proto::wire::status::Refusal;
use leasehold_raft_store::AdminError;

use super::{AdminService, audit};

type Done<T> = Result<T, Refusal>;

impl AdminService {
    pub(super) fn cluster(&self) -> pb::ClusterStatusReply {
        let raft = self.shared.raft.status();
        let index = |at: Option<leasehold_raft_store::LogPosition>| at.map_or(0, |at| at.index);
        let last = raft.last_log.unwrap_or(0);
        let describe = |member: &leasehold_raft_store::Member| {
            // One listener serves peers and callers alike.
            let address = PodAddress::new(&member.address).ok()?;
            let role = if member.voter {
                MemberRole::Voter
            } else {
                MemberRole::Learner
            };
            let matched_index = member.lag.map(|lag| last.saturating_sub(lag));
            Some(Member {
                node: member.id,
                peer_address: address.clone(),
                service_address: address,
                role,
                matched_index,
                heard_ago: None,
            })
        };
        let table = self.shared.replica.table();
        let status = ClusterStatus {
            node: raft.id,
            leader: raft.leadership.leader.as_ref().map(|(id, _)| *id),
            term: raft.leadership.term,
            committed_index: index(raft.committed),
            applied_index: index(raft.applied),
            incarnation: table.incarnation(),
            restore_wait: table.restore_wait().is_some(),
            members: raft.members.iter().filter_map(describe).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            halted: self.shared.halted.lock().clone().unwrap_or_default(),
        };
        (&status).into()
    }

    pub(super) async fn add(&self, request: AddMember) -> Done<pb::AddMemberReply> {
        let AddMember {
            node,
            peer_address,
            service_address,
            reason,
        } = request;
        if peer_address != service_address {
            return Err(Refusal::Invalid(format!(
                "peers and callers reach an Assigner at one address, not at {peer_address} and {service_address}"
            )));
        }
        audit(
            "add member",
            &format_args!("{node} at {peer_address}"),
            reason.as_deref(),
        );
        self.changed(
            self.shared
                .raft
                .add_learner(node, peer_address.as_str())
                .await,
        )?;
        Ok(pb::AddMemberReply {})
    }

    pub(super) async fn promote(&self, request: PromoteMember) -> Done<pb::PromoteMemberReply> {
        audit("promote member", &request.node, request.reason.as_deref());
        self.changed(self.shared.raft.promote(request.node).await)?;
        Ok(pb::PromoteMemberReply {})
    }

    pub(super) async fn remove(&self, request: RemoveMember) -> Done<pb::RemoveMemberReply> {
        audit("remove member", &request.node, request.reason.as_deref());
        self.changed(self.shared.raft.remove(request.node).await)?;
        Ok(pb::RemoveMemberReply {})
    }

    pub(super) async fn transfer(&self, request: TransferLeader) -> Done<pb::TransferLeaderReply> {
        audit("transfer leader", &request.node, request.reason.as_deref());
        self.changed(self.shared.raft.transfer_leader(request.node).await)?;
        Ok(pb::TransferLeaderReply {})
    }

    fn changed(&self, result: Result<(), AdminError>) -> Done<()> {
        result.map_err(|error| match error {
            AdminError::NotLeader { .. } => Refusal::NotLeader {
                leader: self.shared.leader_address(),
            },
            AdminError::Refused(why) => Refusal::Rejected(why),
            AdminError::Indeterminate(_) => Refusal::Indeterminate,
            AdminError::Fatal(why) => Refusal::Internal(why),
        })
    }
}
