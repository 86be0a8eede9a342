//! W5 `append`: lists that are only appended to.
//!
//! A list shows more than a register: each read tells of all writes before it, so that what was
//! lost, doubled or exchanged stands in the open.

use leasehold_checkers::linearizable::{self, Budget};
use leasehold_checkers::{Outcome, list_append};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::keys::Keys;
use super::last::{op, views};
use super::{Settings, covered, of_ownership};
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// Lists in use at a time.
const KEYS: usize = 4;
/// Operations on one list: each read carries all of it.
const PER_KEY: u32 = 120;

/// See the module's description.
pub(super) struct Append {
    settings: Settings,
    random: SmallRng,
    keys: Keys,
    next_element: u64,
}

impl Append {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut random = SmallRng::seed_from_u64(settings.seed ^ 0x6170_7065);
        let keys = Keys::new("l", KEYS, PER_KEY, &mut random);
        Self {
            settings: settings.clone(),
            random,
            keys,
            next_element: 0,
        }
    }

    fn append(&mut self, key: &str) -> Invocation {
        self.next_element += 1;
        op("append", key, json!(self.next_element))
    }
}

impl Workload for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    fn workers(&self) -> usize {
        6
    }

    fn next(&mut self, _worker: usize) -> Option<Invocation> {
        if let Some(key) = self.keys.take_left() {
            return Some(op("read", &key, Value::Null));
        }
        let key = self.keys.pick(&mut self.random).name;
        if self.random.random_range(0..2) == 0 {
            return Some(op("read", &key, Value::Null));
        }
        Some(self.append(&key))
    }

    fn ended(&mut self, _worker: usize, invocation: &Invocation, completion: &Completion) {
        let Some(key) = &invocation.key else { return };
        let counted = self.keys.ended(key);
        if !counted && !matches!(completion, Completion::Ok { .. }) {
            self.keys.put_back(key);
        }
    }

    fn last(&mut self) -> Vec<Invocation> {
        let mut last = views(&self.settings);
        for key in self.keys.names() {
            last.push(self.append(&key));
        }
        let due = self.keys.all_due();
        last.extend(due.iter().map(|key| op("read", key, Value::Null)));
        last
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let mut outcomes = vec![
            list_append::check(evidence.history),
            linearizable::check(evidence.history, &linearizable::List, &Budget::default()),
            covered(evidence.history, &[("append", 50), ("read", 50)]),
        ];
        outcomes.extend(of_ownership(evidence));
        outcomes
    }
}
