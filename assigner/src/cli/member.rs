//! `leasehold member`.
//!
//! JSON of `list`: `{"members": [MEMBER...]}`, see [`MemberReport`].

use clap::Subcommand;
use leasehold_proto::PodAddress;
use leasehold_proto::wire::admin;
use leasehold_proto::wire::listing::{ClusterStatus, MemberRole};
use leasehold_proto::wire::pb;
use serde::Serialize;

use super::Global;
use super::client::Client;
use super::error::Failure;
use super::output::{Done, Report, emit};
use super::table::{Table, or_dash};
use super::target::ms;

const ADD_HELP: &str = "\
The new Assigner must run already, with an empty data directory, the cluster's name and no members in
its configuration. It is added as a learner; promote it when it has caught up:
  leasehold serve --cluster prod --node-id 4 --listen 10.0.0.4:7400 --insecure      (on the new machine)
  leasehold member add 4 10.0.0.4:7400
  leasehold member list
  leasehold member promote 4
A number is never used again, also after the member is removed.";

const REMOVE_HELP: &str = "\
To replace a lost Assigner, first add and promote the new one, then remove the lost one. The leader
can be removed: it hands over first.";

/// Verbs of `leasehold member`.
#[derive(Subcommand)]
pub enum Verb {
    /// Show the Assigners
    List,
    /// Add an Assigner as a learner
    #[command(after_help = ADD_HELP)]
    Add {
        /// Its number
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
        /// Where it is reached: host:port
        address: PodAddress,
    },
    /// Make a learner a voter
    Promote {
        /// Its number
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
    },
    /// Remove an Assigner
    #[command(after_help = REMOVE_HELP)]
    Remove {
        /// Its number
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
        /// Really remove it
        #[arg(long)]
        yes: bool,
    },
    /// Ask another voter to lead
    #[command(
        after_help = "No session is lost. Without NODE's consent nothing changes; `leasehold status` shows who leads."
    )]
    TransferLeader {
        /// Its number
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        node: u64,
    },
}

impl Verb {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let mut client = Client::new(global);
        let done = match self {
            Verb::List => {
                let status = status(&mut client).await?;
                let members = members(&status);
                return emit(global, &Members { members });
            }
            Verb::Add { node, address } => add(&mut client, node, address).await?,
            Verb::Promote { node } => promote(&mut client, node).await?,
            Verb::Remove { node, yes } => remove(&mut client, node, yes).await?,
            Verb::TransferLeader { node } => transfer_leader(&mut client, node).await?,
        };
        emit(global, &done)
    }
}

async fn add(client: &mut Client, node: u64, address: PodAddress) -> Result<Done, Failure> {
    let request = admin::AddMember {
        node,
        peer_address: address.clone(),
        service_address: address.clone(),
        reason: client.reason(),
    };
    client
        .change(pb::AddMemberRequest::from(&request), async |grpc, r| {
            grpc.add_member(r).await
        })
        .await?;
    let done = format!(
        "Assigner {node} at {address} added as a learner; `leasehold member promote {node}` lets it vote"
    );
    Ok(Done::new(done).with("node", node))
}

async fn promote(client: &mut Client, node: u64) -> Result<Done, Failure> {
    let reason = client.reason();
    let request = admin::PromoteMember { node, reason };
    client
        .change(pb::PromoteMemberRequest::from(&request), async |grpc, r| {
            grpc.promote_member(r).await
        })
        .await?;
    Ok(Done::new(format!("Assigner {node} votes")).with("node", node))
}

async fn remove(client: &mut Client, node: u64, yes: bool) -> Result<Done, Failure> {
    if !yes {
        return Err(Failure::usage(format!(
            "number {node} can never be used again; say so with --yes"
        )));
    }
    let reason = client.reason();
    let request = admin::RemoveMember { node, reason };
    client
        .change(pb::RemoveMemberRequest::from(&request), async |grpc, r| {
            grpc.remove_member(r).await
        })
        .await?;
    let done = format!("Assigner {node} removed; stop it and delete its data directory");
    Ok(Done::new(done).with("node", node))
}

async fn transfer_leader(client: &mut Client, node: u64) -> Result<Done, Failure> {
    let reason = client.reason();
    let request = admin::TransferLeader { node, reason };
    client
        .change(
            pb::TransferLeaderRequest::from(&request),
            async |grpc, r| grpc.transfer_leader(r).await,
        )
        .await?;
    let done = format!("Assigner {node} is asked to lead; `leasehold status` shows who does");
    Ok(Done::new(done).with("node", node))
}

/// The cluster as one Assigner sees it.
pub async fn status(client: &mut Client) -> Result<ClusterStatus, Failure> {
    client
        .read(pb::ClusterStatusRequest {}, async |grpc, r| {
            grpc.cluster_status(r).await
        })
        .await
}

/// The members of a cluster.
pub fn members(status: &ClusterStatus) -> Vec<MemberReport> {
    let report = |member: &leasehold_proto::wire::listing::Member| MemberReport {
        node: member.node,
        address: member.service_address.to_string(),
        peer_address: member.peer_address.to_string(),
        role: match member.role {
            MemberRole::Voter => "voter",
            MemberRole::Learner => "learner",
        },
        leader: status.leader == Some(member.node),
        matched_index: member.matched_index,
        behind_entries: member
            .matched_index
            .map(|index| status.committed_index.saturating_sub(index)),
        heard_ago_ms: member.heard_ago.map(ms),
    };
    status.members.iter().map(report).collect()
}

/// All Assigners.
#[derive(Serialize)]
pub struct Members {
    /// In order of their numbers.
    pub members: Vec<MemberReport>,
}

/// An Assigner.
#[derive(Serialize, Clone)]
pub struct MemberReport {
    /// Its number.
    pub node: u64,
    /// Where Slicelets, Clerks and operators reach it.
    pub address: String,
    /// Where its peers reach it.
    pub peer_address: String,
    /// `voter` or `learner`.
    pub role: &'static str,
    /// It leads, as far as the answering one knows.
    pub leader: bool,
    /// The newest entry that it holds; null elsewhere than at the leader.
    pub matched_index: Option<u64>,
    /// Committed entries that it lacks; null elsewhere than at the leader.
    pub behind_entries: Option<u64>,
    /// Time since the leader last heard of it; null elsewhere than at the leader.
    pub heard_ago_ms: Option<u64>,
}

impl Report for Members {
    fn human(&self) -> String {
        let mut table = Table::new(&[">NODE", "ADDRESS", "ROLE", "LEADS", ">BEHIND"]);
        for member in &self.members {
            table.row([
                member.node.to_string(),
                member.address.clone(),
                member.role.to_owned(),
                if member.leader { "yes" } else { "-" }.to_owned(),
                or_dash(member.behind_entries),
            ]);
        }
        table.or(
            "no members: the cluster is not begun yet; see `leasehold serve --help`, --bootstrap",
        )
    }
}
