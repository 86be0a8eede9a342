//! An operator's hand on a cluster of Assigners, for whatever the harness must ask or change.

use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use leasehold_proto::target::{Consistency, TargetChange, TargetConfig};
use leasehold_proto::wire::listing::{
    ClusterStatus, OneTarget, SessionInfo, SessionPage, SliceInfo, SlicePage, TargetInfo,
};
use leasehold_proto::wire::pb;
use leasehold_proto::wire::pb::admin_client::AdminClient;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::{PodAddress, SessionId};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

/// How long one Assigner may take to answer before another is asked.
pub const ANSWER: Duration = Duration::from_millis(1_000);
/// Connecting, or an answer to a ping.
const NOTICE: Duration = Duration::from_millis(500);
/// Pause before the round of Assigners is made again.
const AGAIN: Duration = Duration::from_millis(20);

/// One Assigner.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its host.
    pub host: String,
    /// Where it serves.
    pub address: String,
    channel: Channel,
}

impl Node {
    /// Connects when it is first used.
    fn new(host: &str, address: &str) -> anyhow::Result<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .connect_timeout(NOTICE)
            .timeout(ANSWER)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(NOTICE)
            .keep_alive_timeout(NOTICE)
            .connect_lazy();
        Ok(Self {
            host: host.to_owned(),
            address: address.to_owned(),
            channel,
        })
    }

    /// Its admin service.
    pub fn client(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone())
    }

    /// Its watch service.
    pub fn watch(&self) -> pb::watch_client::WatchClient<Channel> {
        pb::watch_client::WatchClient::new(self.channel.clone())
    }
}

/// All Assigners of a cluster. Belongs to the runtime in which it was made.
#[derive(Clone, Debug)]
pub struct Admin {
    nodes: Vec<Node>,
    patience: Duration,
}

/// All slices of a target, with the addresses of the sessions that they name.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    /// In order.
    pub slices: Vec<SliceInfo>,
    /// Addresses.
    pub pods: Vec<(SessionId, PodAddress)>,
}

impl Slices {
    /// Where a session is.
    pub fn address(&self, id: SessionId) -> Option<&PodAddress> {
        let mut pods = self.pods.iter();
        pods.find(|(session, _)| *session == id)
            .map(|(_, address)| address)
    }
}

impl Admin {
    /// Of Assigners by host and `host:port`. A question that is asked with patience is asked for
    /// so long.
    ///
    /// # Errors
    /// There is none, or an address is none.
    pub fn new(assigners: &[(String, String)], patience: Duration) -> anyhow::Result<Self> {
        anyhow::ensure!(!assigners.is_empty(), "there is no Assigner");
        let nodes = assigners.iter().map(|(host, at)| Node::new(host, at));
        Ok(Self {
            nodes: nodes.collect::<anyhow::Result<_>>()?,
            patience,
        })
    }

    /// The same, but what is asked with patience is asked for so long.
    pub fn patient(&self, patience: Duration) -> Self {
        let nodes = self.nodes.clone();
        Self { nodes, patience }
    }

    /// The Assigners.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Asks one Assigner after another until one answers. A request that may have taken effect is
    /// asked again: what is asked here may be done twice.
    ///
    /// # Errors
    /// The last answer, or the first that cannot become another elsewhere.
    pub async fn ask<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        call: impl Fn(AdminClient<Channel>) -> F,
    ) -> Result<T, Status> {
        let begun = Instant::now();
        for at in 0usize.. {
            let node = &self.nodes[at % self.nodes.len()];
            let status = match call(node.client()).await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            if !is_elsewhere(&status) || begun.elapsed() > self.patience {
                return Err(status);
            }
            if (at + 1).is_multiple_of(self.nodes.len()) {
                tokio::time::sleep(AGAIN).await;
            }
        }
        Err(Status::internal("asked without end"))
    }

    /// Creates a target unless it is there.
    ///
    /// # Errors
    /// No leader did it within the patience.
    pub async fn create_target(
        &self,
        target: &str,
        config: &TargetConfig,
        slices: u32,
    ) -> anyhow::Result<()> {
        let request = pb::CreateTargetRequest {
            target: target.to_owned(),
            config: Some(config.into()),
            initial_slices: slices,
            reason: None,
        };
        let created = self.ask(|mut client| {
            let request = request.clone();
            async move { client.create_target(request).await }
        });
        let Err(status) = created.await else {
            return Ok(());
        };
        // It may be there from before, or from a first try whose answer was lost.
        match self.target(target, true).await {
            Ok(_) => Ok(()),
            Err(_) => bail!("{target} cannot be created: {}", status.message()),
        }
    }

    /// One target; `linearizable`: as of now, not as some Assigner knew it.
    ///
    /// # Errors
    /// What was answered.
    pub async fn target(&self, target: &str, linearizable: bool) -> anyhow::Result<TargetInfo> {
        let request = pb::GetTargetRequest {
            target: target.to_owned(),
            linearizable,
        };
        let reply = self.ask(|mut client| {
            let request = request.clone();
            async move { client.get_target(request).await }
        });
        let reply = reply.await.map_err(|status| said("the target", &status))?;
        Ok(OneTarget::try_from(reply)?.target)
    }

    /// Changes a target's configuration.
    ///
    /// # Errors
    /// What was answered.
    pub async fn update_target(&self, target: &str, change: &TargetChange) -> anyhow::Result<()> {
        let request = pb::UpdateTargetRequest {
            target: target.to_owned(),
            change: Some(change.into()),
            ..Default::default()
        };
        let updated = self.ask(|mut client| {
            let request = request.clone();
            async move { client.update_target(request).await }
        });
        updated
            .await
            .map(|_| ())
            .map_err(|status| said("changing the target", &status))
    }

    /// All slices of a target.
    ///
    /// # Errors
    /// What was answered.
    pub async fn slices(&self, target: &str) -> anyhow::Result<Slices> {
        let (mut all, mut from_key) = (Slices::default(), Some(0));
        while let Some(key) = from_key {
            let request = pb::ListSlicesRequest {
                target: target.to_owned(),
                from_key: key,
                ..Default::default()
            };
            let reply = self.ask(|mut client| {
                let request = request.clone();
                async move { client.list_slices(request).await }
            });
            let reply = reply.await.map_err(|status| said("the slices", &status))?;
            let page = SlicePage::try_from(reply)?;
            all.slices.extend(page.slices);
            all.pods.extend(page.pods);
            from_key = page.next_key.map(|key| key.as_u64());
        }
        Ok(all)
    }

    /// The live sessions of a target: the first page of them.
    ///
    /// # Errors
    /// What was answered.
    pub async fn sessions(&self, target: &str) -> anyhow::Result<Vec<SessionInfo>> {
        let request = pb::ListSessionsRequest {
            target: target.to_owned(),
            ..Default::default()
        };
        let reply = self.ask(|mut client| {
            let request = request.clone();
            async move { client.list_sessions(request).await }
        });
        let reply = reply
            .await
            .map_err(|status| said("the sessions", &status))?;
        Ok(SessionPage::try_from(reply)?.sessions)
    }

    /// What each Assigner says of the cluster, in the order of [`nodes`](Self::nodes); an Assigner
    /// that does not answer says nothing.
    pub async fn statuses(&self) -> Vec<Option<ClusterStatus>> {
        let asked = self.nodes.iter().map(|node| async move {
            let reply = node
                .client()
                .cluster_status(Request::new(pb::ClusterStatusRequest {}))
                .await
                .ok()?;
            ClusterStatus::try_from(reply.into_inner()).ok()
        });
        futures::future::join_all(asked).await
    }

    /// What the Assigner that leads says of the cluster: of those that say they lead, the one with
    /// the highest term.
    pub async fn leader(&self) -> Option<(Node, ClusterStatus)> {
        let statuses = self.statuses().await;
        let own = |status: &ClusterStatus| status.leader == Some(status.node);
        self.nodes
            .iter()
            .zip(statuses)
            .filter_map(|(node, status)| Some((node.clone(), status.filter(own)?)))
            .max_by_key(|(_, status)| status.term)
    }
}

/// Whether another Assigner, or the same one later, may answer otherwise.
pub fn is_elsewhere(status: &Status) -> bool {
    matches!(
        Refusal::from_status(status),
        None | Some(
            Refusal::NotLeader { .. }
                | Refusal::Indeterminate
                | Refusal::Overload
                | Refusal::Halted(_)
        )
    )
}

/// A refusal as an error.
pub fn said(what: &str, status: &Status) -> anyhow::Error {
    anyhow!("{what}: {} ({:?})", status.message(), status.code())
}

/// A target's configuration as the harness wants it.
pub fn config(mode: Consistency, ttl: Duration) -> TargetConfig {
    TargetConfig {
        consistency: mode,
        ttl,
        // A handoff whose destination was killed must not outlast the run.
        handoff_deadline: Duration::from_secs(2),
        ..TargetConfig::default()
    }
}

/// The session that is live at an address.
///
/// # Errors
/// There is none.
pub fn session_at(sessions: &[SessionInfo], address: &str) -> anyhow::Result<SessionId> {
    sessions
        .iter()
        .filter(|info| info.squid.address.as_str() == address)
        .map(|info| info.session)
        .max()
        .with_context(|| format!("no session at {address}"))
}
