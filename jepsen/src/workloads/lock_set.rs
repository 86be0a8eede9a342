//! `lock-set` and `lock-external-set`: a list outside that clients read, change and write back
//! while they hold a lock.
//!
//! With the lock alone (`lock-set`) a client that stops for longer than the lock lasts overwrites
//! what others added meanwhile: as published for etcd, and as for every lock, this must be found
//! invalid. With the lock's token as a fence (`lock-external-set`) nothing is lost.

use leasehold_checkers::{Outcome, list_append};
use serde_json::{Value, json};

use super::last::{op, views};
use super::{DEADLINE, Settings, covered};
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// The lock, and with it the list.
const LIST: &str = "set";

/// See the module's description.
pub(super) struct LockSet {
    settings: Settings,
    fenced: bool,
    next_element: u64,
}

impl LockSet {
    pub(super) fn new(settings: &Settings, fenced: bool) -> Self {
        Self {
            settings: settings.clone(),
            fenced,
            next_element: 0,
        }
    }

    fn append(&mut self) -> Invocation {
        self.next_element += 1;
        Invocation {
            // The lock must be had first, perhaps after its holder was lost.
            deadline: DEADLINE + self.settings.ttl * 3,
            ..op("append", LIST, json!(self.next_element))
        }
    }
}

impl Workload for LockSet {
    fn name(&self) -> &'static str {
        if self.fenced {
            "lock-external-set"
        } else {
            "lock-set"
        }
    }

    fn workers(&self) -> usize {
        5
    }

    fn next(&mut self, worker: usize) -> Option<Invocation> {
        Some(match worker {
            0 => op("read", LIST, Value::Null),
            _ => self.append(),
        })
    }

    fn ended(&mut self, _worker: usize, _invocation: &Invocation, _completion: &Completion) {}

    fn last(&mut self) -> Vec<Invocation> {
        let mut last = views(&self.settings);
        last.push(self.append());
        last.push(op("read", LIST, Value::Null));
        last
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        vec![
            list_append::check(evidence.history),
            covered(evidence.history, &[("append", 10), ("read", 10)]),
            super::moves::check(evidence.holds),
        ]
    }
}
