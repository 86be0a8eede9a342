//! What the lease costs: the demo's load, closed loop, in strong mode and in eventual mode.

use std::path::Path;
use std::time::Duration;

use leasehold_proto::target::Consistency;

use crate::demo::world::{Plan, World};
use crate::harness::now_ns;
use leasehold_figures::{Goal, Report, quantile};

/// Measurements of each mode, taken in turn so that drift of the machine falls on both.
const ROUNDS: usize = 5;

pub async fn run(seconds: u32, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let mut per_s = Vec::new();
        for mode in [Consistency::Strong, Consistency::Eventual] {
            let place = dir.join(format!("{mode}-{round}"));
            std::fs::create_dir(&place)?;
            per_s.push(throughput(mode, seconds, &place).await?);
        }
        ratios.push(per_s[0] / per_s[1]);
    }
    report.maybe(
        "strong_to_eventual_ratio",
        quantile(&ratios, 0.5),
        "1",
        Goal::AtLeast(0.97),
        "nothing was measured",
    );
    Ok(())
}

async fn throughput(mode: Consistency, seconds: u32, dir: &Path) -> anyhow::Result<f64> {
    let plan = Plan {
        pods: 3,
        clients: 1,
        concurrency: Some(64),
        ..Plan::default()
    };
    let mut world = World::new(dir, &plan)?;
    world.start(mode, 64).await?;
    world.start_clients().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let from_ns = now_ns();
    tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
    let to_ns = now_ns();
    let (requests, _) = world.finish().await?;
    let answered = requests
        .iter()
        .filter(|r| r.ending.answered() && r.end_ns >= from_ns && r.end_ns < to_ns)
        .count();
    Ok(answered as f64 * 1e9 / (to_ns - from_ns) as f64)
}
