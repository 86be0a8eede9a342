//! Links that pass badly.

use std::time::Duration;

use anyhow::Result;
use leasehold_faults::{Effect, LinkRule};
use rand::rngs::StdRng;

use super::super::strike::{Harm, Remedy, Stage};
use super::skipped;

pub(super) async fn strike<'a>(
    stage: &Stage<'a>,
    mode: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
) -> Result<Effect> {
    let field = stage.field;
    let needs_packets = matches!(mode, "lossy-links" | "duplicating-links");
    if needs_packets && !field.network.has_packets() {
        return skipped("behind proxies there are no packets");
    }
    let mut all = field.servers();
    all.extend(field.clients.iter().cloned());
    harm.hosts = match mode {
        "slow-leader" => field.leader(rng).await.into_iter().take(1).collect(),
        _ => all.clone(),
    };
    if harm.hosts.is_empty() {
        return skipped("no leader is known");
    }
    let rule = rule(mode);
    let mut changes = Vec::new();
    for from in &all {
        for to in all.iter().filter(|to| *to != from) {
            if harm.hosts.contains(from) || harm.hosts.contains(to) {
                changes.push((from.clone(), to.clone(), rule.clone()));
            }
        }
    }
    if changes.is_empty() {
        return skipped("there are no two hosts");
    }
    let pairs: Vec<(String, String)> = changes
        .iter()
        .map(|(from, to, _)| (from.clone(), to.clone()))
        .collect();
    let number = stage.overlay.open();
    harm.remedies.push(Remedy::Links(number));
    stage.overlay.set(&field.network, number, changes)?;
    let mode = mode.to_owned();
    harm.must_rise("no packet was seen to suffer", move || {
        let counts = pairs
            .iter()
            .filter_map(|(from, to)| field.network.count(from, to).ok());
        counts
            .map(|count| match mode.as_str() {
                "lossy-links" => count.dropped,
                "duplicating-links" => count.duplicated,
                _ => count.delayed,
            })
            .sum()
    });
    Ok(Effect::Done)
}

fn rule(mode: &str) -> LinkRule {
    let clear = LinkRule::default();
    match mode {
        "lossy-links" => LinkRule { loss: 0.3, ..clear },
        "duplicating-links" => LinkRule {
            duplicate: 0.3,
            reorder: 0.1,
            delay: Duration::from_millis(2),
            jitter: Duration::from_millis(2),
            ..clear
        },
        "narrow-links" => LinkRule {
            rate_bytes_per_s: Some(1_000_000),
            ..clear
        },
        _ => LinkRule {
            delay: Duration::from_millis(50),
            jitter: Duration::from_millis(10),
            ..clear
        },
    }
}
