//! Clocks at a wrong rate, and wall clocks at a wrong time.

use std::time::Duration;

use anyhow::Result;
use leasehold_faults::Effect;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::super::claims::Part;
use super::super::strike::{Harm, Remedy, Stage};
use super::{or_skip, partition, skipped};

const HOUR_NS: i64 = 3_600_000_000_000;

pub(super) async fn strike<'a>(
    stage: &Stage<'a>,
    mode: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
) -> Result<Effect> {
    let field = stage.field;
    let hosts = take_clocks(stage, mode, rng, harm).await;
    if hosts.is_empty() {
        return skipped("no such host is known, or other faults have hold of its clock");
    }
    let mut details = Vec::new();
    for host in &hosts {
        let shim = or_skip!(stage.shim(host));
        harm.remedies.push(Remedy::Clock(host.clone()));
        let what = match mode {
            "wall-jump" | "wall-strobe" => {
                let by_ns = rng.random_range(-HOUR_NS..HOUR_NS);
                shim.jump_wall(by_ns);
                format!("{host} {:+} s", by_ns / 1_000_000_000)
            }
            _ => {
                let rate = rate(mode, host == &hosts[0], field.rho, rng);
                shim.set_rate(rate)?;
                format!("{host} ×{rate:.5}")
            }
        };
        details.push(what);
    }
    harm.detail = details.join(", ");
    // A process that is stopped, dead or not linked with libc reads no clock.
    let mut reached = 0;
    for host in &hosts {
        let shim = or_skip!(stage.shim(host));
        reached += usize::from(stage.until_seen(shim).await);
    }
    // A cut alone is another fault: it needs the clocks of all that it is about.
    let least = if mode.ends_with("-isolated") {
        hosts.len()
    } else {
        1
    };
    anyhow::ensure!(
        reached >= least,
        "{reached} of {} processes have read a clock since it was bent",
        hosts.len()
    );
    harm.detail = format!("{}; seen by {reached} of {}", harm.detail, hosts.len());
    if mode.ends_with("-isolated") {
        partition::isolate_from_core(stage, harm, &hosts[0])?;
    }
    Ok(Effect::Done)
}

/// Takes hold of the clocks that a mode is about, an owner's first; none if not all can be had.
async fn take_clocks<'a>(
    stage: &Stage<'a>,
    mode: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
) -> Vec<String> {
    let field = stage.field;
    let clock = |harm: &mut Harm<'a>, candidates: &[String], count| {
        stage.claim(harm, candidates, count, &[Part::Clock])
    };
    match mode {
        "clock-fast" => clock(harm, &field.leader_first(rng).await, 1),
        "clock-slow" | "clock-slow-isolated" => clock(harm, &field.owners(rng).await, 1),
        "clock-within-isolated" => {
            let mut hosts = clock(harm, &field.owners(rng).await, 1);
            hosts.extend(clock(harm, &field.leader(rng).await, 1));
            if hosts.len() < 2 {
                hosts.clear();
            }
            hosts
        }
        "wall-strobe" => {
            let mut hosts = field.servers();
            hosts.shuffle(rng);
            clock(harm, &hosts, 1)
        }
        _ => clock(harm, &field.servers(), usize::MAX),
    }
}

/// The rate of a clock; `first`: of the first host that is struck.
fn rate(mode: &str, first: bool, rho: f64, rng: &mut StdRng) -> f64 {
    match mode {
        "clock-fast" => 2.0,
        "clock-slow" | "clock-slow-isolated" => 0.5,
        // Near both ends of the bound: in the middle nothing would be tested.
        "clock-within" | "clock-within-isolated" => {
            let off = rho * rng.random_range(0.8..0.98);
            let slow = match mode {
                // A holder that counts slowly against a grantor that counts fast: the worst case.
                "clock-within-isolated" => first,
                _ => rng.random(),
            };
            if slow { 1.0 - off } else { 1.0 + off }
        }
        // Even on the scale of ratios.
        _ => 2f64.powf(rng.random_range(-1.0..1.0)),
    }
}

/// Lets a wall clock jump there and back, every 10 to 200 ms.
pub(super) async fn strobe(
    stage: &Stage<'_>,
    rng: &mut StdRng,
    harm: &mut Harm<'_>,
    until: Instant,
) {
    let mut jumps = 0;
    while Instant::now() < until && !stage.is_over() {
        for host in &harm.hosts {
            let Ok(shim) = stage.shim(host) else { return };
            let away_ns = shim.wall_offset_ns();
            let to_ns = rng.random_range(-HOUR_NS..HOUR_NS);
            shim.jump_wall(to_ns - away_ns);
        }
        jumps += 1;
        let moment = Duration::from_millis(rng.random_range(10..200));
        stage
            .sleep_until((Instant::now() + moment).min(until))
            .await;
    }
    harm.detail = format!("{}, {jumps} jumps", harm.detail);
}
