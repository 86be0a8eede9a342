//! W8 `election`: whoever owns the one slice leads (`--slices 1`), and acts under its token.
//!
//! At most one leads in each epoch; no leader acts after a later one has. How long nobody led is
//! told by the times of moves.

use leasehold_checkers::linearizable::{self, Budget};
use leasehold_checkers::{Outcome, version_order};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::keys::Keys;
use super::last::{op, views};
use super::{Settings, covered, of_ownership};
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// What leaders act on.
const KEYS: usize = 2;
/// Actions on one thing.
const PER_KEY: u32 = 150;
/// Workers that have the leader act; as many others ask who leads.
const ACTORS: usize = 4;

/// See the module's description.
pub(super) struct Election {
    settings: Settings,
    random: SmallRng,
    keys: Keys,
    next_value: u64,
}

impl Election {
    pub(super) fn new(settings: &Settings) -> Self {
        let mut random = SmallRng::seed_from_u64(settings.seed ^ 0x656c_6563);
        let keys = Keys::new("e", KEYS, PER_KEY, &mut random);
        Self {
            settings: settings.clone(),
            random,
            keys,
            next_value: 1,
        }
    }
}

impl Workload for Election {
    fn name(&self) -> &'static str {
        "election"
    }

    fn workers(&self) -> usize {
        ACTORS + self.settings.pods
    }

    fn next(&mut self, worker: usize) -> Option<Invocation> {
        if worker >= ACTORS {
            let key = super::owner::middles(self.settings.slices).next()?;
            return Some(op("serve", &key, Value::Null));
        }
        let key = self.keys.pick(&mut self.random);
        if self.random.random_range(0..3) == 0 {
            return Some(op("read", &key.name, Value::Null));
        }
        self.next_value += 1;
        Some(op("write", &key.name, json!(self.next_value)))
    }

    fn ended(&mut self, _worker: usize, invocation: &Invocation, _completion: &Completion) {
        if let Some(key) = &invocation.key {
            self.keys.ended(key);
        }
    }

    fn last(&mut self) -> Vec<Invocation> {
        let mut last = views(&self.settings);
        for key in self.keys.names() {
            self.next_value += 1;
            last.push(op("write", &key, json!(self.next_value)));
            last.push(op("read", &key, Value::Null));
        }
        last
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let model = linearizable::Register::default();
        let mut outcomes = vec![
            version_order::check(evidence.history),
            linearizable::check(evidence.history, &model, &Budget::default()),
            covered(evidence.history, &[("write", 20), ("serve", 20)]),
        ];
        outcomes.extend(of_ownership(evidence));
        outcomes
    }
}
