//! An operator's hand: the few calls of the admin service that demos and benches need.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use leasehold_proto::target::{Consistency, Hold, TargetChange, TargetConfig};
use leasehold_proto::wire::listing::{SessionPage, SlicePage};
use leasehold_proto::wire::pb;
use leasehold_proto::wire::pb::admin_client::AdminClient;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::{SessionId, Slice};
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status};

/// How long one Assigner may take to answer before another is asked.
const ANSWER: Duration = Duration::from_millis(500);
/// Pause before the round of Assigners is made again.
const AGAIN: Duration = Duration::from_millis(10);

/// A slice as the harness looks at it.
pub struct SliceRow {
    pub slice: Slice,
    /// Its owner and where that is.
    pub owner: Option<(SessionId, String)>,
    /// Whether a handoff is open.
    pub moving: bool,
}

/// Connections to every Assigner; the one that answered last is asked first.
#[derive(Default)]
pub struct Control {
    assigners: Vec<Channel>,
    preferred: AtomicUsize,
}

impl Control {
    /// Connects when it is first used.
    pub fn new(endpoints: &[String]) -> anyhow::Result<Self> {
        let connect = |endpoint: &String| -> anyhow::Result<Channel> {
            let endpoint = Endpoint::from_shared(endpoint.clone())?;
            Ok(endpoint
                .connect_timeout(ANSWER)
                .timeout(ANSWER)
                .tcp_nodelay(true)
                .connect_lazy())
        };
        let assigners = endpoints
            .iter()
            .map(connect)
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            assigners,
            preferred: AtomicUsize::new(0),
        })
    }

    /// Asks one Assigner after another until one answers, for as long as `patience`. A request that
    /// may have taken effect is asked again: every call here may be made twice.
    async fn ask<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        patience: Duration,
        call: impl Fn(AdminClient<Channel>) -> F,
    ) -> Result<T, Status> {
        let begun = Instant::now();
        let mut at = self.preferred.load(Ordering::Relaxed);
        loop {
            let client = AdminClient::new(self.assigners[at % self.assigners.len()].clone());
            let status = match call(client).await {
                Ok(response) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(response.into_inner());
                }
                Err(status) => status,
            };
            let elsewhere = matches!(
                Refusal::from_status(&status),
                None | Some(
                    Refusal::NotLeader { .. }
                        | Refusal::Indeterminate
                        | Refusal::Overload
                        | Refusal::Halted(_)
                )
            );
            if !elsewhere || begun.elapsed() > patience {
                return Err(status);
            }
            at += 1;
            if at.is_multiple_of(self.assigners.len()) {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Creates the target; waits until there is a leader to do it.
    pub async fn create_target(
        &self,
        target: &str,
        mode: Consistency,
        ttl: Duration,
        slices: u32,
    ) -> anyhow::Result<()> {
        let config = TargetConfig {
            consistency: mode,
            ttl,
            ..TargetConfig::default()
        };
        let request = pb::CreateTargetRequest {
            target: target.to_owned(),
            config: Some((&config).into()),
            initial_slices: slices,
            reason: None,
        };
        let created = self.ask(super::PATIENCE, |mut client| {
            let request = request.clone();
            async move { client.create_target(request).await }
        });
        match created.await {
            Ok(_) => Ok(()),
            Err(status) => Err(anyhow!(
                "the target cannot be created: {}",
                status.message()
            )),
        }
    }

    /// Every slice, with its owner.
    pub async fn slices(&self, target: &str) -> anyhow::Result<Vec<SliceRow>> {
        let (mut rows, mut from_key) = (Vec::new(), Some(0));
        while let Some(key) = from_key {
            let request = pb::ListSlicesRequest {
                target: target.to_owned(),
                from_key: key,
                ..Default::default()
            };
            let reply = self
                .ask(ANSWER, |mut client| {
                    let request = request.clone();
                    async move { client.list_slices(request).await }
                })
                .await?;
            let page = SlicePage::try_from(reply)?;
            let address = |id: SessionId| {
                let pod = page.pods.iter().find(|(session, _)| *session == id);
                pod.map(|(_, address)| address.to_string())
                    .unwrap_or_default()
            };
            rows.extend(page.slices.iter().map(|info| {
                SliceRow {
                    slice: info.slice,
                    owner: info
                        .assigned
                        .owner
                        .map(|lease| (lease.session, address(lease.session))),
                    moving: info.assigned.handoff.is_some(),
                }
            }));
            from_key = page.next_key.map(|key| key.as_u64());
        }
        Ok(rows)
    }

    /// Holds a target: nothing planned changes in it. Or releases it.
    pub async fn hold(&self, target: &str, held: bool) -> anyhow::Result<()> {
        let hold = held.then(|| Hold {
            reason: "a bench measures".into(),
        });
        let change = TargetChange {
            hold: Some(hold),
            ..TargetChange::default()
        };
        let request = pb::UpdateTargetRequest {
            target: target.to_owned(),
            change: Some((&change).into()),
            ..Default::default()
        };
        self.ask(super::PATIENCE, |mut client| {
            let request = request.clone();
            async move { client.update_target(request).await }
        })
        .await?;
        Ok(())
    }

    /// The sessions that are not closed.
    pub async fn sessions(&self, target: &str) -> anyhow::Result<Vec<SessionId>> {
        let request = pb::ListSessionsRequest {
            target: target.to_owned(),
            ..Default::default()
        };
        let reply = self
            .ask(super::PATIENCE, |mut client| {
                let request = request.clone();
                async move { client.list_sessions(request).await }
            })
            .await?;
        let page = SessionPage::try_from(reply)?;
        anyhow::ensure!(
            page.next_after.is_none(),
            "the harness looks at one page of sessions"
        );
        Ok(page
            .sessions
            .iter()
            .map(|session| session.session)
            .collect())
    }

    /// Asks for a slice to be moved. A slice that has changed meanwhile, or is there already by the
    /// planner's doing, is left alone.
    pub async fn move_slice(
        &self,
        target: &str,
        slice: Slice,
        to: SessionId,
    ) -> anyhow::Result<()> {
        use pb::move_slice_request as part;
        let request = pb::MoveSliceRequest {
            target: target.to_owned(),
            which: Some(part::Which::SliceKey(slice.first().as_u64())),
            to: Some(part::To::Session(to.as_u64())),
            reason: Some("harness".into()),
        };
        let moved = self.ask(super::PATIENCE, |mut client| {
            let request = request.clone();
            async move { client.move_slice(request).await }
        });
        match moved.await {
            Ok(_) => Ok(()),
            Err(status) => match Refusal::from_status(&status) {
                Some(Refusal::Conflict(_) | Refusal::Rejected(_) | Refusal::Invalid(_)) => Ok(()),
                _ => Err(anyhow!("a slice cannot be moved: {}", status.message())),
            },
        }
    }

    /// Which Assigner leads, if one says so now.
    pub async fn known_leader(&self) -> Option<u64> {
        let ask = self.ask(Duration::ZERO, |mut client| async move {
            client.cluster_status(pb::ClusterStatusRequest {}).await
        });
        ask.await.ok()?.leader
    }

    /// Which Assigner leads.
    pub async fn leader(&self) -> anyhow::Result<u64> {
        let ask = self.ask(super::PATIENCE, |mut client| async move {
            client.cluster_status(pb::ClusterStatusRequest {}).await
        });
        ask.await?.leader.context("no leader is known")
    }

    /// Commits a change, however often it must be asked for: ends when a leader can grant again.
    pub async fn touch_until_committed(
        &self,
        target: &str,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let change = pb::TargetChange {
            description: Some("the leader was killed".into()),
            ..Default::default()
        };
        let request = pb::UpdateTargetRequest {
            target: target.to_owned(),
            change: Some(change),
            ..Default::default()
        };
        let touched = self.ask(patience, |mut client| {
            let request = request.clone();
            async move { client.update_target(request).await }
        });
        if let Err(status) = touched.await {
            bail!("no Assigner took over: {}", status.message());
        }
        Ok(())
    }
}
