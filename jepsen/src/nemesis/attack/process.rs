//! Processes killed, stopped, starved and restarted.

use std::time::Duration;

use anyhow::{Result, ensure};
use leasehold_faults::Effect;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::super::claims::Part;
use super::super::strike::{Harm, Remedy, Stage, blocking};
use super::skipped;

/// A process that is asked to end has this long.
const GRACE: Duration = Duration::from_secs(10);
/// What a starved process is left of one processor.
const CRUMB: f64 = 0.1;
/// It is left no less than this.
const LEAST_CRUMB: f64 = 0.01;
/// A process that was not held back for so long is content.
const CONTENT: Duration = Duration::from_millis(300);

pub(super) async fn strike<'a>(
    stage: &Stage<'a>,
    mode: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
) -> Result<Effect> {
    let field = stage.field;
    let core = field.core_hosts().len();
    let (candidates, count) = match mode {
        "kill-one" | "pause-one" | "pause-blink" => (shuffled(field.servers(), rng), 1),
        "kill-minority" => (shuffled(field.core_hosts(), rng), field.minority()),
        "kill-majority" | "pause-majority" => (shuffled(field.core_hosts(), rng), core / 2 + 1),
        "kill-leader" | "pause-leader" | "starve-leader" => (field.leader(rng).await, 1),
        "kill-owner" | "pause-owner" | "pause-owner-long" | "starve-owner" => {
            (field.owners(rng).await, 1)
        }
        "restart-pods" => (field.pods(), usize::MAX),
        _ => (shuffled(field.servers(), rng), usize::MAX),
    };
    let part = if mode.starts_with("starve") {
        Part::Cpu
    } else {
        Part::Process
    };
    let hosts = stage.claim(harm, &candidates, count, &[part]);
    if hosts.is_empty() {
        return skipped("no such host is known, or other faults have hold of all of them");
    }
    if count != usize::MAX && hosts.len() < count {
        return skipped("other faults have hold of too many hosts");
    }
    match mode.split('-').next() {
        Some("kill") => kill(stage, harm, hosts).await,
        Some("pause") => pause(stage, harm, hosts).await,
        Some("starve") => starve(stage, harm, &hosts),
        // Restarts begin in `roll`.
        _ => {
            harm.remedies.extend(hosts.into_iter().map(Remedy::Start));
            Ok(Effect::Done)
        }
    }
}

fn shuffled(mut hosts: Vec<String>, rng: &mut StdRng) -> Vec<String> {
    hosts.shuffle(rng);
    hosts
}

async fn kill(stage: &Stage<'_>, harm: &mut Harm<'_>, hosts: Vec<String>) -> Result<Effect> {
    harm.remedies
        .extend(hosts.iter().cloned().map(Remedy::Start));
    let processes = stage.field.processes.clone();
    let lived = blocking(move || {
        let mut lived = 0;
        for host in &hosts {
            lived += usize::from(processes.kill(host)?);
            ensure!(!processes.is_alive(host), "`{host}` lives after a kill");
        }
        Ok(lived)
    })
    .await?;
    if lived == 0 {
        return skipped("nothing was running there");
    }
    Ok(Effect::Done)
}

async fn pause(stage: &Stage<'_>, harm: &mut Harm<'_>, hosts: Vec<String>) -> Result<Effect> {
    harm.remedies
        .extend(hosts.iter().cloned().map(Remedy::Resume));
    let processes = stage.field.processes.clone();
    blocking(move || {
        for host in &hosts {
            if let Effect::Skipped(why) = processes.pause(host)? {
                return Ok(Effect::Skipped(why));
            }
        }
        Ok(Effect::Done)
    })
    .await
}

fn starve<'a>(stage: &Stage<'a>, harm: &mut Harm<'a>, hosts: &[String]) -> Result<Effect> {
    let processes = &stage.field.processes;
    for host in hosts {
        harm.remedies.push(Remedy::Feed(host.clone()));
        if let Effect::Skipped(why) = processes.starve(host, CRUMB)? {
            return Ok(Effect::Skipped(why));
        }
    }
    let (field, starved) = (stage.field, hosts.to_vec());
    harm.must_rise("no process was ever held back", move || {
        starved
            .iter()
            .map(|host| field.processes.throttled(host))
            .sum()
    });
    Ok(Effect::Done)
}

/// A process with little to do is content with a tenth: what is left to it is halved until it is
/// held back.
pub(super) async fn starve_more(stage: &Stage<'_>, harm: &mut Harm<'_>, until: Instant) {
    let processes = &stage.field.processes;
    let mut parts: Vec<(String, f64, u64)> = harm
        .hosts
        .iter()
        .map(|host| (host.clone(), CRUMB, processes.throttled(host)))
        .collect();
    while Instant::now() < until && !stage.is_over() {
        stage
            .sleep_until((Instant::now() + CONTENT).min(until))
            .await;
        for (host, part, before) in &mut parts {
            let held_back = processes.throttled(host);
            if held_back == *before && *part > LEAST_CRUMB {
                *part /= 2.0;
                if processes.starve(host, *part).is_err() {
                    return;
                }
            }
            *before = held_back;
        }
    }
    let parts: Vec<String> = parts
        .iter()
        .map(|(host, part, _)| format!("{host} {:.1} %", part * 100.0))
        .collect();
    harm.detail = parts.join(", ");
}

/// Asks one process after the other to end, and starts it again.
pub(super) async fn roll(stage: &Stage<'_>, harm: &mut Harm<'_>, until: Instant) {
    let mut restarted = 0;
    for host in harm.hosts.clone() {
        // The last one begun is finished; another one is not begun.
        if stage.is_over() || (restarted > 0 && Instant::now() >= until) {
            break;
        }
        let processes = stage.field.processes.clone();
        let ended = blocking(move || {
            let lived = processes.terminate(&host, GRACE)?;
            processes.restart(&host)?;
            Ok(lived)
        });
        restarted += usize::from(ended.await.unwrap_or(false));
        stage
            .sleep_until(Instant::now() + Duration::from_millis(300))
            .await;
    }
    harm.detail = format!("{restarted} of {} restarted", harm.hosts.len());
    if restarted == 0 {
        harm.proofs
            .push(Box::new(|| Some("no process was restarted".to_owned())));
    }
}

/// Lets a stopped process go on and stops it again, for moments of 5 to 400 ms.
pub(super) async fn blink(
    stage: &Stage<'_>,
    rng: &mut StdRng,
    harm: &mut Harm<'_>,
    until: Instant,
) {
    let mut blinks = 0u64;
    while Instant::now() < until && !stage.is_over() {
        for host in &harm.hosts {
            let stopped = blinks % 2 == 1;
            let processes = stage.field.processes.clone();
            let host = host.clone();
            let changed = blocking(move || {
                if stopped {
                    processes.pause(&host).map(|_| ())
                } else {
                    processes.resume(&host)
                }
            });
            if changed.await.is_err() {
                return;
            }
        }
        blinks += 1;
        let moment = Duration::from_millis(rng.random_range(5..400));
        stage
            .sleep_until((Instant::now() + moment).min(until))
            .await;
    }
    harm.detail = format!("stopped {} times", blinks / 2 + 1);
}
