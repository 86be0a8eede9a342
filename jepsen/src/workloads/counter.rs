//! W4 `counter`: additions with idempotency tokens, repeated by the client until they are answered.
//!
//! The sum and the tokens stand in the fenced store; an addition that is repeated at another owner
//! must be recognised there.

use leasehold_checkers::Outcome;
use leasehold_checkers::counter;
use leasehold_checkers::linearizable::{self, Budget};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::keys::Keys;
use super::last::{op, views};
use super::{Settings, covered, of_ownership};
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// Counters in use at a time.
const KEYS: usize = 4;
/// Operations on one counter.
const PER_KEY: u32 = 150;

/// See the module's description.
pub(super) struct Counter {
    settings: Settings,
    random: SmallRng,
    keys: Keys,
    next_id: u64,
}

impl Counter {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut random = SmallRng::seed_from_u64(settings.seed ^ 0x636f_756e);
        let keys = Keys::new("c", KEYS, PER_KEY, &mut random);
        Self {
            settings: settings.clone(),
            random,
            keys,
            next_id: 1,
        }
    }

    fn add(&mut self, key: &str) -> Invocation {
        self.next_id += 1;
        let amount = self.random.random_range(1..=5);
        op("add", key, json!([amount, format!("id{}", self.next_id)]))
    }
}

impl Workload for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn workers(&self) -> usize {
        6
    }

    fn next(&mut self, _worker: usize) -> Option<Invocation> {
        if let Some(key) = self.keys.take_left() {
            return Some(op("read", &key, Value::Null));
        }
        let key = self.keys.pick(&mut self.random).name;
        if self.random.random_range(0..3) == 0 {
            return Some(op("read", &key, Value::Null));
        }
        Some(self.add(&key))
    }

    fn ended(&mut self, _worker: usize, invocation: &Invocation, completion: &Completion) {
        let Some(key) = &invocation.key else { return };
        let counted = self.keys.ended(key);
        // A last look is not counted among the operations of its key.
        if !counted && !matches!(completion, Completion::Ok { .. }) {
            self.keys.put_back(key);
        }
    }

    fn last(&mut self) -> Vec<Invocation> {
        let mut last = views(&self.settings);
        for key in self.keys.names() {
            last.push(self.add(&key));
        }
        let due = self.keys.all_due();
        last.extend(due.iter().map(|key| op("read", key, Value::Null)));
        last
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let mut outcomes = vec![
            counter::check(evidence.history),
            linearizable::check(evidence.history, &linearizable::Counter, &Budget::default()),
            covered(evidence.history, &[("add", 50), ("read", 20)]),
        ];
        outcomes.extend(of_ownership(evidence));
        outcomes
    }
}
