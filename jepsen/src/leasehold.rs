//! Leasehold as a system under test: Assigners, pods of the attacked
//! [application](crate::pod), and the external [store](crate::register).

pub mod admin;
pub mod client;
pub mod layout;
pub mod operator;
pub mod storm;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::future::{BoxFuture, LocalBoxFuture};
use leasehold_checkers::run::Hold;
use leasehold_faults::Effect;
use leasehold_proto::target::Consistency;

use crate::nemesis::ClusterControl;
use crate::pod::holds;
use crate::rpc;
use crate::rpc::pod_client::PodClient;
use crate::system::{Client, Host, HostSpec, Launch, System, Witness};
use admin::Admin;

/// The target that the pods serve.
pub const TARGET: &str = "app";

/// How long a question of the harness itself may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a pod may take to say whether it serves.
const SERVES: Duration = Duration::from_millis(500);

/// What the system is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Assigners that begin the cluster.
    pub assigners: usize,
    /// Assigners that run but wait to be added.
    pub spares: usize,
    /// Pods.
    pub pods: usize,
    /// What the target promises.
    pub mode: Consistency,
    /// Time to live of a pod's session.
    pub ttl: Duration,
    /// Slices of the target; one for a leader election.
    pub slices: u32,
    /// Pods write to the store without a fence: a positive control.
    pub unfenced: bool,
    /// The program `leasehold`.
    pub leasehold: PathBuf,
    /// The program `leasehold-jepsen`.
    pub harness: PathBuf,
}

impl Options {
    /// Three Assigners, three pods, a strong target of sixteen slices, leases of a second; the
    /// programs in the directory of the running one.
    ///
    /// # Errors
    /// That directory is not known, or has no `leasehold`.
    pub fn here() -> anyhow::Result<Self> {
        let harness = std::env::current_exe().context("the path of this program")?;
        let leasehold = harness.with_file_name("leasehold");
        ensure!(
            leasehold.is_file(),
            "{} is not there: build it with `cargo build -p leasehold-assigner`, or name another",
            leasehold.display()
        );
        Ok(Self {
            assigners: 3,
            spares: 0,
            pods: 3,
            mode: Consistency::Strong,
            ttl: Duration::from_secs(1),
            slices: 16,
            unfenced: false,
            leasehold,
            harness,
        })
    }
}

/// Leasehold, ready to be started.
pub fn system(options: Options) -> Leasehold {
    Leasehold { options }
}

/// Leasehold as a [`System`].
#[derive(Clone, Debug)]
pub struct Leasehold {
    options: Options,
}

impl Leasehold {
    /// What it is made of.
    pub fn options(&self) -> &Options {
        &self.options
    }

    async fn is_ready(&self, all: &[Host]) -> anyhow::Result<()> {
        let operator = operator::Operator::new(&self.options, all);
        for host in layout::of_role(all, layout::ASSIGNER).take(self.options.assigners) {
            // One whose removal was under way when the leader died may have left long after the
            // fault that removed it was undone.
            let joined = operator.add_member(&host.spec.name).await?;
            ensure!(joined == Effect::Done, "{} has not joined", host.spec.name);
        }
        let admin = Admin::new(&layout::assigners(all), PATIENCE)?;
        let config = admin::config(self.options.mode, self.options.ttl);
        admin
            .create_target(TARGET, &config, self.options.slices)
            .await?;
        let slices = admin.slices(TARGET).await?;
        let mut pods = BTreeMap::new();
        for host in layout::of_role(all, layout::POD) {
            let channel = tonic::transport::Endpoint::from_shared(format!(
                "http://{}",
                layout::pod_address(host)
            ))?
            .connect_timeout(SERVES)
            .timeout(SERVES)
            .connect_lazy();
            pods.insert(layout::pod_address(host), PodClient::new(channel));
        }
        let mut owners = BTreeMap::new();
        for info in &slices.slices {
            let owner = info
                .assigned
                .owner
                .with_context(|| format!("{} is vacant", info.slice))?;
            let address = slices
                .address(owner.session)
                .with_context(|| format!("{} has no address", owner.session))?;
            owners.insert(info.slice, address.as_str().to_owned());
        }
        for (slice, address) in owners {
            let pod = pods
                .get_mut(&address)
                .with_context(|| format!("{slice} is at {address}, which is none of ours"))?;
            let request = rpc::ServesRequest {
                slice_key: slice.first().as_u64(),
            };
            let reply = pod.serves(request).await?.into_inner();
            ensure!(
                reply.token.is_some(),
                "{address} does not serve {slice}: {}",
                reply.why_not
            );
        }
        let mut store =
            crate::register::RegisterClient::new(&layout::register_address(all)?, PATIENCE)?;
        store.applied("ready").await?;
        Ok(())
    }

    async fn hosts_of(&self, part: &str, all: &[Host]) -> anyhow::Result<Vec<String>> {
        let admin = Admin::new(&layout::assigners(all), SERVES)?;
        match part {
            "leader" => {
                let leader = admin.leader().await;
                Ok(leader.into_iter().map(|(node, _)| node.host).collect())
            }
            "follower" => {
                let (leader, status) = admin.leader().await.context("no leader is known")?;
                let voters = status
                    .members
                    .iter()
                    .map(|member| format!("a{}", member.node));
                Ok(voters.filter(|host| *host != leader.host).collect())
            }
            "owner" => {
                let slices = admin.slices(TARGET).await?;
                let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
                for info in &slices.slices {
                    let owner = info.assigned.owner;
                    if let Some(at) = owner.and_then(|owner| slices.address(owner.session)) {
                        *counts.entry(at.as_str()).or_default() += 1;
                    }
                }
                let mut owners: Vec<(usize, String)> = layout::of_role(all, layout::POD)
                    .filter_map(|host| {
                        let count = counts.get(layout::pod_address(host).as_str())?;
                        Some((*count, host.spec.name.clone()))
                    })
                    .collect();
                owners.sort_by(|a, b| b.cmp(a));
                Ok(owners.into_iter().map(|(_, host)| host).collect())
            }
            _ => Ok(Vec::new()),
        }
    }
}

impl System for Leasehold {
    fn hosts(&self) -> Vec<HostSpec> {
        layout::hosts(&self.options)
    }

    fn launch(&self, host: &Host, all: &[Host]) -> anyhow::Result<Launch> {
        layout::launch(&self.options, host, all)
    }

    fn ready<'a>(&'a self, all: &'a [Host]) -> BoxFuture<'a, anyhow::Result<()>> {
        Box::pin(self.is_ready(all))
    }

    fn client<'a>(
        &'a self,
        workload: &'a str,
        worker: usize,
        all: &'a [Host],
    ) -> LocalBoxFuture<'a, anyhow::Result<Box<dyn Client>>> {
        Box::pin(async move {
            let client = client::LeaseholdClient::new(&self.options, workload, worker, all)?;
            Ok(Box::new(client) as Box<dyn Client>)
        })
    }

    fn who_is<'a>(&'a self, part: &'a str, all: &'a [Host]) -> BoxFuture<'a, Vec<String>> {
        // A part that nobody is known to play is played by nobody.
        Box::pin(async move { self.hosts_of(part, all).await.unwrap_or_default() })
    }

    fn operator<'a>(&'a self, all: &'a [Host]) -> Option<Box<dyn ClusterControl + 'a>> {
        Some(Box::new(operator::Operator::new(&self.options, all)))
    }

    fn storm<'a>(&'a self, all: &'a [Host], at_once: usize, seed: u64) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            // Without an address there is nobody to ask: the run shows no moves.
            if let Ok(admin) = Admin::new(&layout::assigners(all), PATIENCE) {
                let storm = storm::Storm::default();
                storm.blow(&admin, TARGET, at_once, seed).await;
            }
        })
    }

    fn witness(&self, all: &[Host], origin_ns: u64) -> anyhow::Result<Witness> {
        let mut witness = Witness::default();
        let mut handoffs = None;
        for host in layout::of_role(all, layout::POD) {
            if !layout::has_hold_log(host)? {
                witness.silent.push(host.spec.name.clone());
            }
            let own = holds::read(&layout::hold_log(host), &host.spec.name, origin_ns)?;
            witness.holds.extend(own.holds);
            witness.clocks.extend(own.clocks);
            witness.passages.extend(own.passages);
            *handoffs.get_or_insert(0) += own.handoffs;
            witness.trimmed.merge(&own.trimmed);
        }
        witness
            .holds
            .sort_by_key(|hold: &Hold| (hold.from_ns, hold.token));
        // Without pods nobody could tell.
        witness.handoffs = handoffs;
        Ok(witness)
    }

    fn handoffs(&self, all: &[Host]) -> Option<u64> {
        layout::of_role(all, layout::POD)
            .map(|host| holds::handoffs(&layout::hold_log(host)).ok())
            .sum()
    }
}
