//! kill -9 of a pod: how long until its slices are served again.

use std::path::Path;
use std::time::Duration;

use leasehold_proto::target::Consistency;

use crate::demo::analysis;
use crate::demo::requests::first_served_ms;
use crate::demo::world::{Plan, TARGET, World};
use leasehold_figures::{Goal, Report, quantile};

/// Kills for each ttl; every slice of a killed pod is one sample.
const KILLS: usize = 10;

pub async fn run(dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    for (seconds, p50_name, p99_name) in [
        (
            1,
            "pod_kill_failover_ttl1_ms_p50",
            "pod_kill_failover_ttl1_ms_p99",
        ),
        (
            3,
            "pod_kill_failover_ttl3_ms_p50",
            "pod_kill_failover_ttl3_ms_p99",
        ),
    ] {
        let place = dir.join(format!("ttl-{seconds}"));
        std::fs::create_dir(&place)?;
        let samples = kills(&place, Duration::from_secs(seconds)).await?;
        let ttl_ms = seconds as f64 * 1e3;
        report.maybe(
            p50_name,
            quantile(&samples, 0.5),
            "ms",
            Goal::AtMost(ttl_ms),
            "no slice was served again",
        );
        report.maybe(
            p99_name,
            quantile(&samples, 0.99),
            "ms",
            Goal::AtMost(ttl_ms + 300.0),
            "no slice was served again",
        );
    }
    Ok(())
}

async fn kills(dir: &Path, ttl: Duration) -> anyhow::Result<Vec<f64>> {
    let plan = Plan {
        pods: 4,
        clients: 1,
        rate: 2_000,
        ttl,
        ..Plan::default()
    };
    let mut world = World::new(dir, &plan)?;
    let control = world.start(Consistency::Strong, 64).await?;
    world.start_clients().await?;
    let mut killed = Vec::new();
    for kill in 0..KILLS {
        let index = kill % world.pods.len();
        // Spread over the phase of the pod's renewals.
        tokio::time::sleep(ttl * (kill as u32 % 7) / 42).await;
        let address = world.pods[index].address.to_string();
        let rows = control.slices(TARGET).await?;
        let owned = rows.iter().filter(|row| {
            row.owner
                .as_ref()
                .is_some_and(|(_, owner)| *owner == address)
        });
        let owned: Vec<_> = owned.map(|row| row.slice).collect();
        killed.push((world.kill_pod(index).await?, owned));
        world.settle(&control).await?;
        world.start_pod(index)?;
        world.settle(&control).await?;
    }
    let (requests, histories) = world.finish().await?;
    anyhow::ensure!(
        analysis::violations(&histories).is_empty(),
        "two pods held one slice"
    );
    let mut samples = Vec::new();
    for (at, slices) in killed {
        for served in first_served_ms(&requests, &slices, at) {
            samples.push(served.ok_or_else(|| {
                anyhow::anyhow!("a slice of a killed pod was never served again")
            })?);
        }
    }
    Ok(samples)
}
