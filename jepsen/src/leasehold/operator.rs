//! An operator's hand, as faults need it.

use std::time::Duration;

use anyhow::{Context, Result};
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use leasehold_faults::Effect;
use leasehold_proto::SessionId;
use leasehold_proto::target::{Consistency, Mode, TargetChange};
use leasehold_proto::wire::listing::{ClusterStatus, MemberRole};
use leasehold_proto::wire::pb;
use leasehold_proto::wire::status::Refusal;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep};
use tonic::Status;
use tonic::transport::Endpoint;

use super::admin::{Admin, Node, Slices, said, session_at};
use super::{Options, TARGET, layout};
use crate::nemesis::ClusterControl;
use crate::rpc;
use crate::rpc::pod_client::PodClient;
use crate::system::Host;

/// How long one call of the harness goes on asking.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at whether something has come about.
const AGAIN: Duration = Duration::from_millis(100);
/// How long something may take to come about.
const COMES_ABOUT: Duration = Duration::from_secs(8);

/// An operator of a running cluster. Connects anew for each call, since calls come from different
/// threads.
pub struct Operator<'a> {
    options: &'a Options,
    all: &'a [Host],
}

impl<'a> Operator<'a> {
    /// Of these hosts.
    pub fn new(options: &'a Options, all: &'a [Host]) -> Self {
        Self { options, all }
    }

    fn admin(&self) -> Result<Admin> {
        Admin::new(&layout::assigners(self.all), PATIENCE)
    }

    fn host(&self, name: &str) -> Result<&Host> {
        let found = self.all.iter().find(|host| host.spec.name == name);
        found.with_context(|| format!("there is no host {name}"))
    }

    /// Asks whoever leads; who leads may change meanwhile.
    async fn transfer(&self, to: Option<&str>) -> Result<Effect> {
        let admin = self.admin()?;
        let until = Instant::now() + PATIENCE;
        loop {
            let asked = match admin.leader().await {
                Some((leader, status)) => self.ask_to_transfer(&leader, &status, to).await?,
                None => Effect::skipped("no leader is known"),
            };
            if asked == Effect::Done || Instant::now() >= until {
                return Ok(asked);
            }
            sleep(AGAIN).await;
        }
    }

    async fn ask_to_transfer(
        &self,
        leader: &Node,
        status: &ClusterStatus,
        to: Option<&str>,
    ) -> Result<Effect> {
        let own = layout::node_id(&leader.host)?;
        let node = match to {
            Some(host) => layout::node_id(host)?,
            None => {
                let members = status.members.iter();
                let voters = members.filter(|member| member.role == MemberRole::Voter);
                let voters = voters.map(|member| member.node);
                let others: Vec<u64> = voters.filter(|node| *node != own).collect();
                match others.choose(&mut rand::rng()) {
                    Some(node) => *node,
                    None => return Ok(Effect::skipped("there is one voter")),
                }
            }
        };
        if node == own {
            return Ok(Effect::skipped("it leads already"));
        }
        let request = pb::TransferLeaderRequest {
            node,
            reason: reason(),
        };
        done(
            "transferring leadership",
            leader.client().transfer_leader(request).await,
        )
    }

    async fn voters(&self) -> Result<Vec<String>> {
        let admin = self.admin()?;
        let (_, status) = admin.leader().await.context("no leader is known")?;
        let voters = status
            .members
            .iter()
            .filter(|member| member.role == MemberRole::Voter);
        Ok(voters.map(|member| format!("a{}", member.node)).collect())
    }

    async fn remove(&self, host: &str) -> Result<Effect> {
        let node = layout::node_id(host)?;
        let admin = self.admin()?;
        if self.voters().await?.len() <= 1 {
            return Ok(Effect::skipped("the last member is not removed"));
        }
        let removed = admin.ask(|mut client| async move {
            let reason = reason();
            client
                .remove_member(pb::RemoveMemberRequest { node, reason })
                .await
        });
        match removed.await {
            Ok(_) => Ok(Effect::Done),
            Err(status) => refused("removing a member", &status),
        }
    }

    /// Adds it as a learner and promotes it; what has been done already is not done again.
    async fn add(&self, host: &str) -> Result<Effect> {
        let node = layout::node_id(host)?;
        if self.voters().await?.iter().any(|voter| voter == host) {
            return Ok(Effect::Done);
        }
        let address = layout::service_address(self.host(host)?);
        let admin = self.admin()?;
        let add = pb::AddMemberRequest {
            node,
            peer_address: address.clone(),
            service_address: address,
            reason: reason(),
        };
        let added = admin.ask(|mut client| {
            let add = add.clone();
            async move { client.add_member(add).await }
        });
        if let Err(status) = added.await {
            // It may be a learner since the last try.
            let (_, cluster) = admin.leader().await.context("no leader is known")?;
            let known = cluster.members.iter().any(|member| member.node == node);
            anyhow::ensure!(known, said("adding a member", &status));
        }
        let promoted = admin.ask(|mut client| async move {
            let reason = reason();
            client
                .promote_member(pb::PromoteMemberRequest { node, reason })
                .await
        });
        promoted
            .await
            .map(|_| Effect::Done)
            .map_err(|status| said("promoting a member", &status))
    }

    async fn moves(&self, count: usize, seed: u64) -> Result<Effect> {
        let admin = self.admin()?;
        let mut random = SmallRng::seed_from_u64(seed);
        let slices = admin.slices(TARGET).await?;
        let sessions = self.live(&admin).await?;
        let mut wishes = wishes(&slices, &sessions, &mut random);
        wishes.shuffle(&mut random);
        wishes.truncate(count);
        let asked = wishes.into_iter().map(|wish| {
            let admin = &admin;
            async move {
                let moved = admin.ask(|mut client| {
                    let wish = wish.clone();
                    async move { client.move_slice(wish).await }
                });
                moved.await.is_ok()
            }
        });
        let moved = join_all(asked).await.into_iter().filter(|ok| *ok).count();
        Ok(match moved {
            0 => Effect::skipped("no slice could be moved"),
            _ => Effect::Done,
        })
    }

    async fn live(&self, admin: &Admin) -> Result<Vec<SessionId>> {
        let sessions = admin.sessions(TARGET).await?;
        let live = sessions.iter().filter(|info| !info.draining);
        Ok(live.map(|info| info.session).collect())
    }

    async fn reshape(&self, count: usize, seed: u64) -> Result<Effect> {
        let admin = self.admin()?;
        let mut random = SmallRng::seed_from_u64(seed);
        let slices = admin.slices(TARGET).await?;
        let most = self.options.slices as usize * 4;
        let mut changed = 0;
        let mut order: Vec<usize> = (0..slices.slices.len()).collect();
        order.shuffle(&mut random);
        for at in order.into_iter().take(count) {
            let slice = slices.slices[at].slice;
            let (first, last) = (slice.first().as_u64(), slice.last().as_u64());
            let split = slices.slices.len() < most && random.random_range(0..2) == 0;
            let target = TARGET.to_owned();
            let done = if split && first < last {
                let request = pb::SplitSliceRequest {
                    target,
                    at: random.random_range(first + 1..=last),
                    reason: reason(),
                };
                let asked = admin.ask(|mut client| {
                    let request = request.clone();
                    async move {
                        client
                            .split_slice(request)
                            .await
                            .map(|_| tonic::Response::new(()))
                    }
                });
                asked.await
            } else {
                let request = pb::MergeSlicesRequest {
                    target,
                    slice_key: first,
                    reason: reason(),
                };
                let asked = admin.ask(|mut client| {
                    let request = request.clone();
                    async move {
                        client
                            .merge_slices(request)
                            .await
                            .map(|_| tonic::Response::new(()))
                    }
                });
                asked.await
            };
            changed += usize::from(done.is_ok());
        }
        Ok(match changed {
            0 => Effect::skipped("no slice could be split or merged"),
            _ => Effect::Done,
        })
    }

    async fn drain_pod(&self, pod: &str) -> Result<Effect> {
        let address = layout::pod_address(self.host(pod)?);
        let admin = self.admin()?;
        let sessions = admin.sessions(TARGET).await?;
        let Ok(session) = session_at(&sessions, &address) else {
            return Ok(Effect::skipped(format!("{pod} has no session")));
        };
        let request = pb::DrainSessionRequest {
            target: TARGET.to_owned(),
            session: session.as_u64(),
            reason: reason(),
        };
        let asked = admin.ask(|mut client| {
            let request = request.clone();
            async move { client.drain_session(request).await }
        });
        match asked.await {
            Ok(_) => Ok(Effect::Done),
            Err(status) => refused("draining", &status),
        }
    }

    /// A session drains for good: the pod is asked to come back under another. (That an operator
    /// closes it is a word that its process is dead, which it is not.)
    async fn undrain_pod(&self, pod: &str) -> Result<Effect> {
        let address = layout::pod_address(self.host(pod)?);
        let sessions = self.admin()?.sessions(TARGET).await?;
        let here = sessions
            .iter()
            .filter(|info| info.squid.address.as_str() == address);
        // It may have come back since the last try, whose answer was lost.
        if here.clone().any(|info| !info.draining) {
            return Ok(Effect::Done);
        }
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(AGAIN)
            .timeout(COMES_ABOUT)
            .connect_lazy();
        PodClient::new(channel)
            .rejoin(rpc::RejoinRequest {})
            .await
            .map_err(|status| said("coming back", &status))?;
        Ok(Effect::Done)
    }

    async fn change(&self, change: TargetChange) -> Result<Effect> {
        self.admin()?.update_target(TARGET, &change).await?;
        Ok(Effect::Done)
    }

    async fn strong(&self, strong: bool) -> Result<Effect> {
        let consistency = Some(match strong {
            true => Consistency::Strong,
            false => Consistency::Eventual,
        });
        let change = TargetChange {
            consistency,
            ..TargetChange::default()
        };
        self.change(change).await?;
        let begun = Instant::now();
        let admin = self.admin()?;
        while strong && admin.target(TARGET, true).await?.mode != Mode::Strong {
            anyhow::ensure!(begun.elapsed() < COMES_ABOUT, "the target arms still");
            sleep(AGAIN).await;
        }
        Ok(Effect::Done)
    }
}

/// A move for each slice that can be moved now, to a session that does not own it.
pub(super) fn wishes(
    slices: &Slices,
    sessions: &[SessionId],
    random: &mut SmallRng,
) -> Vec<pb::MoveSliceRequest> {
    let still = slices
        .slices
        .iter()
        .filter(|info| info.assigned.handoff.is_none());
    still
        .filter_map(|info| {
            let owner = info.assigned.owner?.session;
            let others = sessions.iter().copied().filter(|session| *session != owner);
            let others: Vec<SessionId> = others.collect();
            let to = others.choose(random)?;
            Some(pb::MoveSliceRequest {
                target: TARGET.to_owned(),
                which: Some(pb::move_slice_request::Which::SliceKey(
                    info.slice.first().as_u64(),
                )),
                to: Some(pb::move_slice_request::To::Session(to.as_u64())),
                reason: reason(),
            })
        })
        .collect()
}

fn reason() -> Option<String> {
    Some("a fault of the harness".into())
}

/// Certainly refused: nothing was done. Else nobody knows.
fn refused(what: &str, status: &Status) -> Result<Effect> {
    match Refusal::from_status(status) {
        Some(Refusal::Indeterminate | Refusal::Internal(_)) | None => Err(said(what, status)),
        Some(refusal) => Ok(Effect::skipped(format!("{what}: {refusal}"))),
    }
}

fn done<T>(what: &str, result: Result<T, Status>) -> Result<Effect> {
    match result {
        Ok(_) => Ok(Effect::Done),
        Err(status) => refused(what, &status),
    }
}

impl ClusterControl for Operator<'_> {
    fn transfer_leader<'a>(&'a self, to: Option<&'a str>) -> BoxFuture<'a, Result<Effect>> {
        self.transfer(to).boxed()
    }

    fn members(&self) -> BoxFuture<'_, Result<Vec<String>>> {
        self.voters().boxed()
    }

    fn remove_member<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Effect>> {
        self.remove(host).boxed()
    }

    fn add_member<'a>(&'a self, host: &'a str) -> BoxFuture<'a, Result<Effect>> {
        self.add(host).boxed()
    }

    fn move_slices(&self, count: usize, seed: u64) -> BoxFuture<'_, Result<Effect>> {
        self.moves(count, seed).boxed()
    }

    fn reshape_slices(&self, count: usize, seed: u64) -> BoxFuture<'_, Result<Effect>> {
        self.reshape(count, seed).boxed()
    }

    fn drain<'a>(&'a self, pod: &'a str) -> BoxFuture<'a, Result<Effect>> {
        self.drain_pod(pod).boxed()
    }

    fn undrain<'a>(&'a self, pod: &'a str) -> BoxFuture<'a, Result<Effect>> {
        self.undrain_pod(pod).boxed()
    }

    fn set_ttl(&self, ttl: Option<Duration>) -> BoxFuture<'_, Result<Effect>> {
        let change = TargetChange {
            ttl: Some(ttl.unwrap_or(self.options.ttl)),
            ..TargetChange::default()
        };
        self.change(change).boxed()
    }

    fn set_strong(&self, strong: bool) -> BoxFuture<'_, Result<Effect>> {
        self.strong(strong).boxed()
    }
}
