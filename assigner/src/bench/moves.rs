//! Planned moves without load: how long nobody takes requests for the slice.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use leasehold_proto::target::Consistency;
use tokio::time::Instant;

use crate::demo::analysis::{self, Planned};
use crate::demo::world::{Plan, TARGET, World};
use crate::harness::control::Control;
use crate::harness::{PATIENCE, now_ns};
use leasehold_figures::{Goal, Report};

const MOVES: usize = 1_200;

pub async fn run(dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    let plan = Plan {
        pods: 3,
        clients: 1,
        rate: 100,
        ..Plan::default()
    };
    let mut world = World::new(dir, &plan)?;
    let control = world.start(Consistency::Strong, 128).await?;
    world.start_clients().await?;
    let from_ns = now_ns();
    for number in 0..MOVES {
        one(&control, number).await?;
        world.check_alive()?;
    }
    let planned = [Planned {
        from_ns,
        to_ns: now_ns(),
    }];
    let (requests, histories) = world.finish().await?;
    let gaps = analysis::planned_gaps_ms(&histories, &planned);
    let (p50, p99) = analysis::p50_p99(&gaps);
    report.figure(
        "planned_moves_total",
        gaps.len() as f64,
        "1",
        Goal::AtLeast(1_000.0),
    );
    report.maybe(
        "planned_gap_ms_p50",
        p50,
        "ms",
        Goal::AtMost(1.0),
        "nothing moved",
    );
    report.maybe(
        "planned_gap_ms_p99",
        p99,
        "ms",
        Goal::AtMost(3.0),
        "nothing moved",
    );
    let failed = analysis::count(&requests, &planned).failed_planned;
    report.figure(
        "failed_requests_planned",
        failed as f64,
        "1",
        Goal::AtMost(0.0),
    );
    let overlaps = analysis::violations(&histories).len();
    report.figure(
        "ownership_overlaps",
        overlaps as f64,
        "1",
        Goal::AtMost(0.0),
    );
    Ok(())
}

/// Moves one slice to another pod and waits until the table says so.
async fn one(control: &Control, number: usize) -> anyhow::Result<()> {
    let rows = control.slices(TARGET).await?;
    let row = &rows[number % rows.len()];
    let (from, _) = row.owner.as_ref().context("a slice without an owner")?;
    let others: Vec<_> = rows
        .iter()
        .filter_map(|row| row.owner.as_ref())
        .filter(|(session, _)| session != from)
        .collect();
    let (to, _) = others
        .get(number % others.len().max(1))
        .context("only one pod owns slices")?;
    control.move_slice(TARGET, row.slice, *to).await?;
    let begun = Instant::now();
    loop {
        let rows = control.slices(TARGET).await?;
        let now = rows
            .iter()
            .find(|now| now.slice == row.slice)
            .context("the slice is gone")?;
        if !now.moving {
            return Ok(());
        }
        if begun.elapsed() > PATIENCE {
            bail!("{} did not finish its move", row.slice);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
