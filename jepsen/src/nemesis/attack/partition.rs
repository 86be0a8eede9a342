//! Links that pass nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use leasehold_faults::{Effect, LinkRule};
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::super::field::Field;
use super::super::strike::{Harm, Remedy, Stage};
use super::skipped;

/// Ordered pairs of hosts between which nothing passes.
type Cuts = BTreeSet<(String, String)>;

pub(super) async fn strike<'a>(
    stage: &Stage<'a>,
    mode: &str,
    rng: &mut StdRng,
    harm: &mut Harm<'a>,
) -> Result<Effect> {
    let field = stage.field;
    let cuts = match mode {
        "isolate-leader" | "one-way-leader" | "isolate-owner" | "one-way-owner" | "isolate-pod"
        | "flap-core" | "flap-pod" => one_host(field, mode, rng, harm).await,
        _ => whole(field, mode, rng),
    };
    if cuts.is_empty() {
        return skipped("there are no two such hosts, or none is known");
    }
    if harm.hosts.is_empty() {
        let hosts: BTreeSet<&String> = cuts.iter().flat_map(|(a, b)| [a, b]).collect();
        harm.hosts = hosts.into_iter().cloned().collect();
    }
    cut(stage, harm, &cuts)?;
    Ok(Effect::Done)
}

/// Cuts one host off from the core, both ways.
pub(super) fn isolate_from_core<'a>(
    stage: &Stage<'a>,
    harm: &mut Harm<'a>,
    host: &str,
) -> Result<()> {
    let cuts = both_ways(&[host.to_owned()], &stage.field.core_hosts());
    cut(stage, harm, &cuts)
}

fn cut<'a>(stage: &Stage<'a>, harm: &mut Harm<'a>, cuts: &Cuts) -> Result<()> {
    if !harm.detail.is_empty() {
        harm.detail.push_str("; ");
    }
    harm.detail.push_str(&describe(cuts));
    let number = stage.overlay.open();
    harm.remedies.push(Remedy::Links(number));
    set(stage, number, cuts)?;
    prove(stage, harm, cuts)
}

/// Cuts around one host, which is noted as struck.
async fn one_host(field: &Field<'_>, mode: &str, rng: &mut StdRng, harm: &mut Harm<'_>) -> Cuts {
    let (core, pods) = (field.core_hosts(), field.pods());
    let hosts = match mode {
        "isolate-leader" | "one-way-leader" => field.leader(rng).await,
        "flap-core" => field.leader_first(rng).await,
        "flap-pod" => field.owners_first(rng).await,
        _ => field.owners(rng).await,
    };
    let Some(host) = hosts.into_iter().next() else {
        return Cuts::new();
    };
    harm.hosts = vec![host.clone()];
    let one = [host];
    match mode {
        "isolate-leader" | "flap-core" => both_ways(&one, &[core, pods].concat()),
        "one-way-leader" => one_way(&one, &[core, pods].concat()),
        "one-way-owner" => one_way(&core, &one),
        "isolate-pod" => both_ways(&one, &[core, pods, field.clients.to_vec()].concat()),
        // The one that matters most: the core gives its slices away while clients and other pods
        // can still reach it.
        _ => both_ways(&one, &core),
    }
}

/// Cuts through everything.
fn whole(field: &Field<'_>, mode: &str, rng: &mut StdRng) -> Cuts {
    let (mut core, mut pods, mut clients) =
        (field.core_hosts(), field.pods(), field.clients.to_vec());
    match mode {
        "halves" | "random-halves" => {
            if mode == "random-halves" {
                for hosts in [&mut core, &mut pods, &mut clients] {
                    hosts.shuffle(rng);
                }
            }
            let (mut one, mut other) = (Vec::new(), Vec::new());
            for hosts in [core, pods, clients] {
                let (a, b) = hosts.split_at(hosts.len() / 2);
                one.extend_from_slice(a);
                other.extend_from_slice(b);
            }
            both_ways(&one, &other)
        }
        "pods-from-core" => both_ways(&pods, &core),
        "pods-from-pods" => both_ways(&pods, &pods),
        "bridge" => {
            core.shuffle(rng);
            let Some(bridge) = core.pop() else {
                return Cuts::new();
            };
            let (a, b) = core.split_at(core.len() / 2);
            let mut cuts = both_ways(a, b);
            cuts.retain(|(from, to)| *from != bridge && *to != bridge);
            cuts
        }
        "majorities-ring" => ring(&core, rng),
        "clients-from-pods" => both_ways(&clients, &pods),
        "clients-from-core" => both_ways(&clients, &core),
        _ => {
            let all = [core, pods].concat();
            let mut cuts = both_ways(&all, &all);
            cuts.retain(|_| rng.random_bool(0.25));
            cuts
        }
    }
}

/// Each host sees itself and as many neighbours on a ring as make a majority.
fn ring(hosts: &[String], rng: &mut StdRng) -> Cuts {
    let mut ring = hosts.to_vec();
    ring.shuffle(rng);
    let reach = (ring.len() / 2).div_ceil(2);
    let mut cuts = Cuts::new();
    for (a, from) in ring.iter().enumerate() {
        for (b, to) in ring.iter().enumerate() {
            let apart = a.abs_diff(b).min(ring.len() - a.abs_diff(b));
            if apart > reach {
                cuts.insert((from.clone(), to.clone()));
            }
        }
    }
    if cuts.is_empty() && ring.len() == 3 {
        // Three see a majority each when one link is gone.
        return both_ways(&ring[..1], &ring[1..2]);
    }
    cuts
}

fn one_way(from: &[String], to: &[String]) -> Cuts {
    let pairs = from
        .iter()
        .flat_map(|from| to.iter().map(move |to| (from.clone(), to.clone())));
    pairs.filter(|(from, to)| from != to).collect()
}

fn both_ways(one: &[String], other: &[String]) -> Cuts {
    let mut cuts = one_way(one, other);
    cuts.append(&mut one_way(other, one));
    cuts
}

fn describe(cuts: &Cuts) -> String {
    let mut parts = Vec::new();
    let mut froms: Vec<&String> = cuts.iter().map(|(from, _)| from).collect();
    froms.dedup();
    for from in froms {
        let to = cuts.iter().filter(|cut| cut.0 == *from);
        let to: Vec<&str> = to.map(|cut| cut.1.as_str()).collect();
        parts.push(format!("{from} not to {}", to.join(",")));
    }
    parts.join("; ")
}

fn set(stage: &Stage<'_>, number: u64, cuts: &Cuts) -> Result<()> {
    let changes = cuts
        .iter()
        .map(|(from, to)| (from.clone(), to.clone(), LinkRule::cut()))
        .collect();
    stage.overlay.set(&stage.field.network, number, changes)
}

/// Every cut link must lose something, and a probe is sent over each so that there is something
/// to lose. Behind proxies no probe can be sent, and one link that holds traffic back is proof.
fn prove<'a>(stage: &Stage<'a>, harm: &mut Harm<'a>, cuts: &Cuts) -> Result<()> {
    let network = &stage.field.network;
    let dropped = move |from: &str, to: &str| network.count(from, to).map_or(0, |c| c.dropped);
    let mut before = Vec::new();
    for (from, to) in cuts {
        before.push((from.clone(), to.clone(), dropped(from, to)));
    }
    if network.has_packets() {
        let mut pairs: Vec<(String, String)> = cuts.iter().cloned().collect();
        pairs.dedup();
        network
            .probe(&pairs)
            .context("probe the links that were cut")?;
    }
    let all = network.has_packets();
    harm.proofs.push(Box::new(move || {
        let deaf = before
            .iter()
            .filter(|(from, to, before)| dropped(from, to) <= *before);
        let deaf: Vec<String> = deaf
            .map(|(from, to, _)| format!("{from} to {to}"))
            .collect();
        let failed = if all {
            !deaf.is_empty()
        } else {
            deaf.len() == before.len()
        };
        failed.then(|| format!("nothing was seen to be lost from {}", deaf.join(", ")))
    }));
    Ok(())
}

/// Heals the cut and cuts again, for moments of 50 to 800 ms.
pub(super) async fn flap(stage: &Stage<'_>, rng: &mut StdRng, harm: &mut Harm<'_>, until: Instant) {
    let Some(Remedy::Links(number)) = harm.remedies.first().cloned() else {
        return;
    };
    let network = &stage.field.network;
    let cuts: Cuts = network
        .hosts()
        .iter()
        .flat_map(|from| {
            network
                .hosts()
                .iter()
                .map(move |to| (from.clone(), to.clone()))
        })
        .filter(|(from, to)| harm.hosts.contains(from) != harm.hosts.contains(to))
        .filter(|(from, to)| network.link(from, to).is_ok_and(|rule| rule.cut))
        .collect();
    let mut flaps = 0;
    while Instant::now() < until && !stage.is_over() {
        let moment = Duration::from_millis(rng.random_range(50..800));
        stage
            .sleep_until((Instant::now() + moment).min(until))
            .await;
        let now = if flaps % 2 == 0 {
            Cuts::new()
        } else {
            cuts.clone()
        };
        if set(stage, number, &now).is_err() {
            break;
        }
        flaps += 1;
    }
    harm.detail = format!("{}, changed {flaps} times", harm.detail);
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn hosts(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("a{n}")).collect()
    }

    #[test]
    fn on_a_ring_each_sees_a_majority_and_no_two_the_same() {
        for count in [3, 5, 7] {
            let cuts = ring(&hosts(count), &mut StdRng::seed_from_u64(1));
            let mut seen = BTreeSet::new();
            for from in hosts(count) {
                let sees: Vec<String> = hosts(count)
                    .into_iter()
                    .filter(|to| !cuts.contains(&(from.clone(), to.clone())))
                    .collect();
                assert!(sees.len() > count / 2, "{from} of {count} sees {sees:?}");
                seen.insert(sees);
            }
            assert!(seen.len() > 1);
            assert!(!cuts.is_empty());
        }
    }

    #[test]
    fn a_host_is_never_parted_from_itself() {
        assert!(both_ways(&hosts(3), &hosts(3)).iter().all(|(a, b)| a != b));
        assert_eq!(both_ways(&hosts(3), &hosts(3)).len(), 6);
    }
}
