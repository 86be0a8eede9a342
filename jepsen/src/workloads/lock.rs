//! `lock`: locks that an application built on Leasehold gives out, as in the published analysis of
//! etcd's ("Jepsen: etcd 3.4.3", 2020).
//!
//! Two clients may believe at one instant that they hold a lock: no service can prevent that. What
//! they do under it must be in the order of its tokens all the same.

use std::collections::BTreeMap;

use leasehold_checkers::Outcome;
use leasehold_checkers::lock::{self, Exclusion};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::last::{op, views};
use super::{DEADLINE, Settings, covered};
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// Locks that are fought for: most of the time that faults leave, a client holds one or waits for it
/// to run out.
const LOCKS: u64 = 6;
/// What is done under a lock before it is given back.
const ACTS: u32 = 2;

/// Where a worker stands.
#[derive(Clone, Debug)]
struct Holding {
    lock: String,
    acts_left: u32,
}

/// See the module's description.
pub(super) struct Lock {
    settings: Settings,
    random: SmallRng,
    holding: BTreeMap<usize, Holding>,
    next_value: u64,
}

impl Lock {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            random: SmallRng::seed_from_u64(settings.seed ^ 0x6c6f_636b),
            holding: BTreeMap::new(),
            next_value: 1,
        }
    }
}

impl Workload for Lock {
    fn name(&self) -> &'static str {
        "lock"
    }

    fn workers(&self) -> usize {
        10
    }

    fn next(&mut self, worker: usize) -> Option<Invocation> {
        let Some(holding) = self.holding.get_mut(&worker) else {
            let lock = format!("lock{}", self.random.random_range(0..LOCKS));
            return Some(op("acquire", &lock, Value::Null));
        };
        if holding.acts_left == 0 {
            return Some(op("release", &holding.lock, Value::Null));
        }
        holding.acts_left -= 1;
        self.next_value += 1;
        Some(Invocation {
            // Long enough for a stop of the client under the lock.
            deadline: DEADLINE + self.settings.ttl * 2,
            ..op("act", &holding.lock, json!(self.next_value))
        })
    }

    fn ended(&mut self, worker: usize, invocation: &Invocation, completion: &Completion) {
        let ok = matches!(completion, Completion::Ok { .. });
        match (invocation.f.as_str(), &invocation.key) {
            ("acquire", Some(lock)) if ok => {
                let holding = Holding {
                    lock: lock.clone(),
                    acts_left: ACTS,
                };
                self.holding.insert(worker, holding);
            }
            ("act", _) if ok => {}
            // Whatever went wrong, the lock is given up for lost; it runs out.
            _ => {
                self.holding.remove(&worker);
            }
        }
    }

    fn last(&mut self) -> Vec<Invocation> {
        self.holding.clear();
        let mut last = views(&self.settings);
        // One that nobody fought for: others may still be held by clients that are gone.
        self.next_value += 1;
        let lock = format!("lock-last{}", self.next_value);
        last.push(op("acquire", &lock, Value::Null));
        last.push(Invocation {
            deadline: DEADLINE + self.settings.ttl * 2,
            ..op("act", &lock, json!(self.next_value))
        });
        last
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        vec![
            lock::check(evidence.history, Exclusion::Token),
            covered(evidence.history, &[("acquire", 10), ("act", 10)]),
            super::moves::check(evidence.holds),
        ]
    }
}
