//! Which fault has hold of what, so that faults under way at the same time do not undo each other.

use std::collections::BTreeSet;
use std::time::Duration;

use leasehold_faults::{LinkRule, Network};
use parking_lot::Mutex;

/// What of a host a fault takes hold of. Two faults never hold the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// Whether its process runs.
    Process,
    /// Its share of the processors.
    Cpu,
    /// Its clocks.
    Clock,
    /// Its disk, and what becomes of a synced byte.
    Disk,
    /// What is on its disk may be lost: at most on a minority at once.
    Data,
    /// Its place in the cluster.
    Membership,
}

/// What is held now.
#[derive(Default)]
pub(crate) struct Claims(Mutex<BTreeSet<(String, Part)>>);

impl Claims {
    /// Takes hold of these parts of the first `count` hosts of which none is held yet; fewer if
    /// there are not so many.
    pub(crate) fn take(&self, hosts: &[String], count: usize, parts: &[Part]) -> Vec<String> {
        let mut held = self.0.lock();
        let mut taken = Vec::new();
        for host in hosts {
            let key = |part: &Part| (host.clone(), *part);
            if taken.len() < count && !parts.iter().any(|part| held.contains(&key(part))) {
                held.extend(parts.iter().map(key));
                taken.push(host.clone());
            }
        }
        taken
    }

    /// On how many hosts this part is held.
    pub(crate) fn count(&self, part: Part) -> usize {
        self.0
            .lock()
            .iter()
            .filter(|(_, held)| *held == part)
            .count()
    }

    /// Lets go of these parts.
    pub(crate) fn release(&self, hosts: &[String], parts: &[Part]) {
        let mut held = self.0.lock();
        for host in hosts {
            for part in parts {
                held.remove(&(host.clone(), *part));
            }
        }
    }
}

/// An ordered pair of hosts and the rule of the link from the first to the second.
pub(crate) type LinkChange = (String, String, LinkRule);

/// The changes to links that are in force, by who made them: where several strike one link it
/// suffers from all of them.
#[derive(Default)]
pub(crate) struct Overlay(Mutex<Layers>);

#[derive(Default)]
struct Layers {
    next: u64,
    layers: Vec<(u64, Vec<LinkChange>)>,
}

impl Overlay {
    /// A number for changes to come.
    pub(crate) fn open(&self) -> u64 {
        let mut layers = self.0.lock();
        layers.next += 1;
        layers.next
    }

    /// Replaces the changes of this number; none: takes them back.
    pub(crate) fn set(
        &self,
        network: &Network,
        number: u64,
        changes: Vec<LinkChange>,
    ) -> anyhow::Result<()> {
        let mut layers = self.0.lock();
        let mut touched = changes.clone();
        if let Some(place) = layers.layers.iter().position(|layer| layer.0 == number) {
            touched.append(&mut layers.layers.remove(place).1);
        }
        if !changes.is_empty() {
            layers.layers.push((number, changes));
        }
        for (from, to, _) in &touched {
            let all = layers.layers.iter().flat_map(|layer| &layer.1);
            let rules = all.filter(|change| change.0 == *from && change.1 == *to);
            let rule = rules.fold(LinkRule::default(), |sum, change| both(&sum, &change.2));
            network.set_link(from, to, rule)?;
        }
        Ok(())
    }
}

/// The worst of both.
fn both(one: &LinkRule, two: &LinkRule) -> LinkRule {
    let rates = [one.rate_bytes_per_s, two.rate_bytes_per_s];
    LinkRule {
        cut: one.cut || two.cut,
        delay: one.delay.max(two.delay),
        jitter: one.jitter.max(two.jitter).max(Duration::ZERO),
        loss: one.loss.max(two.loss),
        duplicate: one.duplicate.max(two.duplicate),
        reorder: one.reorder.max(two.reorder),
        rate_bytes_per_s: rates.into_iter().flatten().min(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_is_held_is_not_given_twice() {
        let claims = Claims::default();
        let all = hosts(&["a", "b", "c"]);
        assert_eq!(claims.take(&all, 2, &[Part::Process]), hosts(&["a", "b"]));
        assert_eq!(claims.take(&all, 2, &[Part::Process]), hosts(&["c"]));
        assert_eq!(claims.take(&all, 1, &[Part::Clock]), hosts(&["a"]));
        claims.release(&hosts(&["b"]), &[Part::Process]);
        assert_eq!(claims.take(&all, 3, &[Part::Process]), hosts(&["b"]));
        assert_eq!(claims.count(Part::Process), 3);
    }

    #[test]
    fn a_link_struck_twice_suffers_from_both() {
        let slow = LinkRule {
            delay: Duration::from_millis(50),
            rate_bytes_per_s: Some(5),
            ..LinkRule::default()
        };
        let narrow = LinkRule {
            rate_bytes_per_s: Some(3),
            ..LinkRule::cut()
        };
        let sum = both(&slow, &narrow);
        assert!(sum.cut && sum.delay == slow.delay && sum.rate_bytes_per_s == Some(3));
        assert_eq!(both(&LinkRule::default(), &slow), slow);
    }
}
