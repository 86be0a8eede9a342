//! What an operator does at a bad moment.

use std::time::Duration;

use anyhow::Result;
use leasehold_faults::Effect;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::super::ClusterControl;
use super::super::claims::Part;
use super::super::strike::{Harm, Remedy, Stage};
use super::skipped;

/// Slices moved or reshaped by one call of a storm.
const SLICES: usize = 16;
/// A call that has not ended by then is left alone.
const NUDGE: Duration = Duration::from_secs(1);
/// Between two calls of a storm.
const BREATH: Duration = Duration::from_millis(100);

pub(super) async fn strike<'a>(
    stage: &Stage<'a>,
    mode: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
) -> Result<Effect> {
    let Some(cluster) = stage.field.cluster else {
        return skipped("the system cannot be operated");
    };
    let effect = begin(stage, cluster, mode, rng, harm).await?;
    if effect != Effect::Done {
        // What was not done cannot be undone: that would be skipped as well.
        harm.remedies.clear();
    }
    Ok(effect)
}

async fn begin<'a>(
    stage: &Stage<'a>,
    cluster: &dyn ClusterControl,
    mode: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
) -> Result<Effect> {
    match mode {
        "change-members" => change_members(stage, cluster, rng, harm).await,
        "drain-pod" => {
            let pods = stage.field.owners_first(rng).await;
            let pods = stage.claim(harm, &pods, 1, &[Part::Membership]);
            let Some(pod) = pods.first() else {
                return skipped("there is no pod to drain");
            };
            harm.remedies.push(Remedy::Undrain(pod.clone()));
            cluster.drain(pod).await
        }
        "change-ttl" => {
            // Shorter ones are refused where they would not outlive an election.
            let ttl = stage.field.ttl.mul_f64(rng.random_range(1.0..3.0));
            harm.detail = format!("{} ms", ttl.as_millis());
            harm.remedies.push(Remedy::Ttl);
            cluster.set_ttl(Some(ttl)).await
        }
        "flip-mode" => {
            harm.remedies.push(Remedy::Strong);
            cluster.set_strong(false).await
        }
        _ => once(stage, cluster, mode, rng).await,
    }
}

/// One call of those that are repeated.
async fn once(
    stage: &Stage<'_>,
    cluster: &dyn ClusterControl,
    mode: &str,
    rng: &mut StdRng,
) -> Result<Effect> {
    match mode {
        "transfer-leader" => cluster.transfer_leader(None).await,
        "move-storm" => cluster.move_slices(SLICES, rng.random()).await,
        "reshape-storm" => cluster.reshape_slices(SLICES, rng.random()).await,
        _ => {
            let mut hosts = stage.field.core_hosts();
            hosts.shuffle(rng);
            match hosts.first() {
                Some(host) => cluster.snapshot(host).await,
                None => skipped("there is no host to write a snapshot"),
            }
        }
    }
}

async fn change_members<'a>(
    stage: &Stage<'a>,
    cluster: &dyn ClusterControl,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
) -> Result<Effect> {
    let mut hosts = stage.field.core_hosts();
    if hosts.len() < 3 {
        return skipped("fewer than three hosts vote");
    }
    hosts.shuffle(rng);
    // One at a time: the others must be a majority with and without it.
    if stage.claims.count(Part::Membership) > 0 {
        return skipped("another change of members is under way");
    }
    let hosts = stage.claim(harm, &hosts, 1, &[Part::Membership]);
    let Some(host) = hosts.first() else {
        return skipped("another fault has hold of it");
    };
    harm.remedies.push(Remedy::Join(host.clone()));
    let effect = cluster.remove_member(host).await?;
    if effect == Effect::Done {
        let members = cluster.members().await?;
        anyhow::ensure!(!members.contains(host), "`{host}` still votes");
    }
    Ok(effect)
}

/// Gives the core something to write, by moving a slice now and then: a disk that is not written
/// to cannot fail. A system that cannot be operated writes what its clients bring.
pub(super) async fn nudge(stage: &Stage<'_>, rng: &mut StdRng, until: Instant) {
    let Some(cluster) = stage.field.cluster else {
        return;
    };
    while Instant::now() < until && !stage.is_over() {
        // Under the fault it may fail, and another fault may move slices as well.
        let _ = tokio::time::timeout(NUDGE, cluster.move_slices(1, rng.random())).await;
        stage
            .sleep_until((Instant::now() + BREATH * 2).min(until))
            .await;
    }
}

/// Calls again and again. Calls that fail are counted: under other faults they may.
pub(super) async fn repeat(
    stage: &Stage<'_>,
    mode: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'_>,
    until: Instant,
) {
    let Some(cluster) = stage.field.cluster else {
        return;
    };
    let (mut done, mut failed) = (1, 0);
    while Instant::now() < until && !stage.is_over() {
        let breath = if mode == "transfer-leader" {
            BREATH * 10
        } else {
            BREATH
        };
        stage
            .sleep_until((Instant::now() + breath).min(until))
            .await;
        match once(stage, cluster, mode, rng).await {
            Ok(Effect::Done) => done += 1,
            _ => failed += 1,
        }
    }
    harm.detail = format!("{done} calls, {failed} without success");
}
