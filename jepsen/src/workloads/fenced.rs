//! W2 `fenced`: writes to an external store that enforces the fencing token.
//!
//! Pods are asked to linger between the check and the write, so that pauses and clocks out of
//! bounds get in between. The store's own record of what it applied must show no write of an owner
//! behind one of a later owner, and none that was acknowledged may be missing. This must hold under
//! every fault, also those that break what leases assume. Without the fence (`--unfenced`) it must
//! fail: the positive control.

use std::collections::BTreeMap;
use std::time::Duration;

use leasehold_checkers::fenced_register::{self, Applied};
use leasehold_checkers::history::{History, Kind};
use leasehold_checkers::{Finding, Outcome, version_order};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::keys::Keys;
use super::last::{op, views};
use super::{Settings, covered, of_ownership};
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// Keys in use at a time: few, so that old and new owners meet.
const KEYS: usize = 3;
/// Operations on one key: many, so that a write that was held up for some leases finds its key in
/// use by a later owner. The order of versions is checked, which costs no search.
const PER_KEY: u32 = 800;
/// How long an operation may take: short, so that those who wait for a pod that is stopped are
/// soon there to write at its successor.
const SHORT: Duration = Duration::from_millis(1_200);

/// See the module's description.
pub(super) struct Fenced {
    settings: Settings,
    random: SmallRng,
    keys: Keys,
    next_value: u64,
}

impl Fenced {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut random = SmallRng::seed_from_u64(settings.seed ^ 0x6665_6e63);
        let keys = Keys::new("f", KEYS, PER_KEY, &mut random);
        Self {
            settings: settings.clone(),
            random,
            keys,
            next_value: 1,
        }
    }
}

impl Workload for Fenced {
    fn name(&self) -> &'static str {
        "fenced"
    }

    fn workers(&self) -> usize {
        8
    }

    fn next(&mut self, _worker: usize) -> Option<Invocation> {
        if let Some(key) = self.keys.take_left() {
            return Some(op("applied", &key, Value::Null));
        }
        let key = self.keys.pick(&mut self.random);
        let (f, value) = match self.random.random_range(0..3) {
            0 => ("read", Value::Null),
            _ => {
                self.next_value += 1;
                ("write", json!(self.next_value))
            }
        };
        Some(Invocation {
            deadline: SHORT,
            ..op(f, &key.name, value)
        })
    }

    fn ended(&mut self, _worker: usize, invocation: &Invocation, completion: &Completion) {
        let Some(key) = &invocation.key else { return };
        match (invocation.f.as_str(), completion) {
            ("applied", Completion::Ok { .. }) => {}
            ("applied", _) => self.keys.put_back(key),
            _ => {
                self.keys.ended(key);
            }
        }
    }

    fn last(&mut self) -> Vec<Invocation> {
        let mut last = views(&self.settings);
        for key in self.keys.names() {
            self.next_value += 1;
            last.push(op("write", &key, json!(self.next_value)));
            last.push(op("read", &key, Value::Null));
        }
        let due = self.keys.all_due();
        last.extend(due.iter().map(|key| op("applied", key, Value::Null)));
        last
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let (applied, judged, missing) = applied(evidence.history);
        let mut fenced = fenced_register::check(&applied, &judged);
        for key in missing.iter().take(8) {
            let what = format!("the store was not asked what it applied to {key}");
            fenced.unknown(Finding::new(what).key(key.as_str()));
        }
        let mut outcomes = vec![
            fenced,
            version_order::check(evidence.history),
            covered(
                evidence.history,
                &[("write", 30), ("read", 10), ("applied", 1)],
            ),
        ];
        outcomes.extend(of_ownership(evidence));
        outcomes
    }
}

/// What the store applied to the keys that it was asked about, the part of the history about these
/// keys, and the other keys.
fn applied(history: &History) -> (Vec<Applied>, History, Vec<String>) {
    // The last answer about a key is the longest.
    let mut of_key: BTreeMap<&str, &Value> = BTreeMap::new();
    for line in &history.0 {
        if let ("applied", Kind::Ok, Some(key)) = (line.f.as_str(), line.kind, &line.key) {
            of_key.insert(key, &line.value);
        }
    }
    let mut applied = Vec::new();
    for (key, writes) in &of_key {
        for write in writes.as_array().into_iter().flatten() {
            applied.push(Applied {
                key: (*key).to_owned(),
                range: (*key).to_owned(),
                token: write[0].as_u64().unwrap_or(0),
                value: write[2].clone(),
                accepted: true,
            });
        }
    }
    let known = |key: &Option<String>| key.as_deref().is_some_and(|key| of_key.contains_key(key));
    let judged = history.0.iter().filter(|line| known(&line.key)).cloned();
    let mut missing: Vec<String> = history
        .0
        .iter()
        .filter(|line| line.f == "write" && !known(&line.key))
        .filter_map(|line| line.key.clone())
        .collect();
    missing.sort();
    missing.dedup();
    (applied, History(judged.collect()), missing)
}
