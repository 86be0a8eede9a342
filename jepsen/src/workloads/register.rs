//! W3 `register`: read, write and compare-and-set by key through Clerks.
//!
//! The pods keep values in memory while they own the key and write them through to a fenced store.
//! Two owners at once would serve a value that the other has replaced; an owner that begins to
//! read before the last one's writes are fenced off would lose one. Both show as a history that no
//! order explains.

use leasehold_checkers::linearizable::{self, Budget};
use leasehold_checkers::{Outcome, version_order};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use super::keys::Keys;
use super::last::{op, plain, views};
use super::{Settings, covered, of_ownership};
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// Keys in use at a time: few, so that operations on one key meet.
const KEYS: usize = 4;
/// Operations on one key: more make the search for an order long.
const PER_KEY: u32 = 200;
/// Fresh keys that are written and read at the end.
const LAST: usize = 8;

/// See the module's description.
pub(super) struct Register {
    settings: Settings,
    random: SmallRng,
    keys: Keys,
    next_value: u64,
}

impl Register {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut random = SmallRng::seed_from_u64(settings.seed ^ 0x7265_6769);
        let keys = Keys::new("r", KEYS, PER_KEY, &mut random);
        Self {
            settings: settings.clone(),
            random,
            keys,
            next_value: 1,
        }
    }

    fn fresh_value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value - 1
    }
}

impl Workload for Register {
    fn name(&self) -> &'static str {
        "register"
    }

    fn workers(&self) -> usize {
        6
    }

    fn next(&mut self, _worker: usize) -> Option<Invocation> {
        let key = self.keys.pick(&mut self.random);
        Some(match self.random.random_range(0..4) {
            0 | 1 => op("read", &key.name, json!(null)),
            2 => op("write", &key.name, json!(self.fresh_value())),
            _ => {
                let to = self.fresh_value();
                op("cas", &key.name, json!([key.seen, to]))
            }
        })
    }

    fn ended(&mut self, _worker: usize, invocation: &Invocation, completion: &Completion) {
        let Some(key) = &invocation.key else { return };
        self.keys.ended(key);
        let Completion::Ok { value, .. } = completion else {
            return;
        };
        let seen = match invocation.f.as_str() {
            "cas" => &plain(value)[1],
            _ => plain(value),
        };
        self.keys.saw(key, seen.clone());
    }

    fn last(&mut self) -> Vec<Invocation> {
        let mut last = views(&self.settings);
        let mut keys = self.keys.names();
        keys.extend(self.keys.unused(LAST));
        for key in keys {
            let value = json!(self.fresh_value());
            last.push(op("write", &key, value));
            last.push(op("read", &key, json!(null)));
        }
        last
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let model = linearizable::Register::default();
        let mut outcomes = vec![
            version_order::check(evidence.history),
            linearizable::check(evidence.history, &model, &Budget::default()),
            covered(evidence.history, &[("read", 50), ("write", 25), ("cas", 5)]),
        ];
        outcomes.extend(of_ownership(evidence));
        outcomes
    }
}
