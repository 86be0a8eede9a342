//! W6 `store`: compare-and-set of a target's configuration through any Assigner.
//!
//! This is the replicated state that all else rests on, as operators see it: linearizable through
//! elections, partitions, membership changes and lost disks.

use leasehold_checkers::linearizable::{self, Budget};
use leasehold_checkers::{Outcome, version_order};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::keys::Keys;
use super::last::{op, plain};
use super::{Settings, covered};
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// Targets in use at a time.
const KEYS: usize = 3;
/// Operations on one target: few, so that the cluster does not come to have many targets.
const PER_KEY: u32 = 200;

/// See the module's description.
pub(super) struct Store {
    random: SmallRng,
    keys: Keys,
    next_value: u64,
}

impl Store {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut random = SmallRng::seed_from_u64(settings.seed ^ 0x7374_6f72);
        let keys = Keys::new(
            crate::leasehold::client::STORE_PREFIX,
            KEYS,
            PER_KEY,
            &mut random,
        );
        Self {
            random,
            keys,
            next_value: 1,
        }
    }
}

impl Workload for Store {
    fn name(&self) -> &'static str {
        "store"
    }

    fn workers(&self) -> usize {
        4
    }

    fn next(&mut self, _worker: usize) -> Option<Invocation> {
        let key = self.keys.pick(&mut self.random);
        if self.random.random_range(0..2) == 0 {
            return Some(op("read", &key.name, Value::Null));
        }
        self.next_value += 1;
        Some(op("cas", &key.name, json!([key.seen, self.next_value])))
    }

    fn ended(&mut self, _worker: usize, invocation: &Invocation, completion: &Completion) {
        let Some(key) = &invocation.key else { return };
        self.keys.ended(key);
        if let Completion::Ok { value, .. } = completion {
            let seen = match invocation.f.as_str() {
                "cas" => &plain(value)[1],
                _ => plain(value),
            };
            self.keys.saw(key, seen.clone());
        }
    }

    fn last(&mut self) -> Vec<Invocation> {
        let keys = self.keys.names();
        keys.iter()
            .map(|key| op("read", key, Value::Null))
            .collect()
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let model = linearizable::Register::default();
        vec![
            version_order::check(evidence.history),
            linearizable::check(evidence.history, &model, &Budget::default()),
            covered(evidence.history, &[("read", 30), ("cas", 10)]),
        ]
    }
}
