//! Counters of rare states. A run that never came where it is dangerous has proven nothing, so one
//! that misses any of these does not pass.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Event, NodeId, Outcome, What};

/// What a run must have seen at least once.
pub const REQUIRED: &[&str] = &[
    "snapshot installed on a follower",
    "log purged",
    "conflicting entries replaced",
    "deposed leader without knowing",
    "deposed leader refused a confirmation",
    "confirmation given",
    "proposal acknowledged",
    "proposal refused",
    "proposal refused: its term was over",
    "proposal indeterminate",
    "un-synced tail lost",
    "un-synced tail kept in part",
    "sync failed",
    "slow syncs",
    "partition",
    "one-way partition",
    "messages held and released",
    "messages lost",
    "messages delayed",
    "all nodes crashed at once",
    "leader crashed",
    "leadership handed over",
    "learner added",
    "learner promoted",
    "member removed",
    "pod cut off",
    "pod crashed",
    "session expired",
    "handoff completed",
    "handoff cancelled",
    "ownership moved",
    "healed and converged",
];

/// How often each state was seen.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Coverage {
    counts: BTreeMap<String, u64>,
    #[serde(skip)]
    leading: BTreeMap<NodeId, u64>,
    #[serde(skip)]
    newest_term: u64,
    #[serde(skip)]
    restored: BTreeSet<(NodeId, u64)>,
    #[serde(skip)]
    logs: BTreeMap<NodeId, (u64, BTreeMap<u64, u64>, u64)>,
}

impl Coverage {
    /// Counts one more.
    pub fn count(&mut self, name: &str) {
        *self.counts.entry(name.to_owned()).or_default() += 1;
    }

    /// Adds what another run has seen.
    pub fn add(&mut self, other: &Coverage) {
        for (name, count) in &other.counts {
            *self.counts.entry(name.clone()).or_default() += count;
        }
    }

    /// Every counter.
    pub fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// What was never seen.
    pub fn missing(&self) -> Vec<&'static str> {
        let seen = |name: &&str| self.counts.get(*name).is_some_and(|count| *count > 0);
        REQUIRED
            .iter()
            .copied()
            .filter(|name| !seen(name))
            .collect()
    }

    /// Takes note of an event.
    pub(crate) fn see(&mut self, event: &Event) {
        let node = event.node;
        match &event.what {
            What::Role { term, leads } => self.role(node, *term, *leads),
            What::Crashed { lost, kept } => {
                if *lost > 0 {
                    self.count("un-synced tail lost");
                }
                if *kept > 0 {
                    self.count("un-synced tail kept in part");
                }
                if self.leading.remove(&node).is_some() {
                    self.count("leader crashed");
                }
            }
            What::Stopped { .. } => {
                self.leading.remove(&node);
                self.count("sync failed");
            }
            What::Restored { at, .. } => {
                let again = !self.restored.insert((node, event.life));
                if again && at.is_some() {
                    self.count("snapshot installed on a follower");
                }
            }
            What::Answered { outcome, .. } => match outcome {
                Outcome::Ok { .. } => self.count("proposal acknowledged"),
                Outcome::Failed("term changed") => {
                    self.count("proposal refused: its term was over");
                }
                Outcome::Failed(_) => self.count("proposal refused"),
                Outcome::Indeterminate => self.count("proposal indeterminate"),
            },
            What::Confirmed { .. } => self.count("confirmation given"),
            What::NotConfirmed { .. } if self.is_deposed(node) => {
                self.count("deposed leader refused a confirmation");
            }
            What::Owners { owners, .. } if !owners.is_empty() => self.count("ownership moved"),
            What::Disk(contents) => self.disk(event, contents),
            _ => {}
        }
    }

    /// Does the node say that it leads, while another one leads a newer term?
    fn is_deposed(&self, node: NodeId) -> bool {
        let term = self.leading.get(&node);
        term.is_some_and(|term| *term < self.newest_term)
    }

    fn role(&mut self, node: NodeId, term: u64, leads: bool) {
        if !leads {
            self.leading.remove(&node);
            return;
        }
        self.leading.insert(node, term);
        self.newest_term = self.newest_term.max(term);
        self.count("term led");
        if self.leading.len() > 1 {
            self.count("deposed leader without knowing");
        }
    }

    fn disk(&mut self, event: &Event, contents: &leasehold_raft_store::Contents) {
        let purged = contents.purged.map_or(0, |p| p.index);
        let log: BTreeMap<u64, u64> = contents
            .log
            .iter()
            .map(|entry| (entry.at.index, entry.at.term))
            .collect();
        if let Some((life, before, purged_before)) = self.logs.get(&event.node) {
            let replaced = before
                .iter()
                .any(|(index, term)| log.get(index).is_some_and(|now| now != term));
            let grew = purged > *purged_before;
            if *life == event.life && replaced {
                self.count("conflicting entries replaced");
            }
            if grew {
                self.count("log purged");
            }
        }
        self.logs.insert(event.node, (event.life, log, purged));
    }
}
