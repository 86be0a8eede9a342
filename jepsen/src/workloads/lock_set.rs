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

/// Locks with a fence, each with its list. Without one there is a single one, so that clients meet.
const FENCED_LISTS: usize = 3;
/// Clients that append to one list.
const APPENDERS: usize = 4;

/// See the module's description.
pub(super) struct LockSet {
    settings: Settings,
    fenced: bool,
    next_element: u64,
    next_read: usize,
}

impl LockSet {
    pub(super) fn new(settings: &Settings, fenced: bool) -> Self {
        Self {
            settings: settings.clone(),
            fenced,
            next_element: 0,
            next_read: 0,
        }
    }

    fn lists(&self) -> usize {
        if self.fenced { FENCED_LISTS } else { 1 }
    }

    /// The lock, and with it the list.
    fn list(&self, number: usize) -> String {
        format!("set{}", number % self.lists())
    }

    fn append(&mut self, list: usize) -> Invocation {
        self.next_element += 1;
        Invocation {
            // The lock must be had first, perhaps after its holder was lost.
            deadline: DEADLINE + self.settings.ttl * 3,
            ..op("append", &self.list(list), json!(self.next_element))
        }
    }

    fn read(&mut self) -> Invocation {
        self.next_read += 1;
        op("read", &self.list(self.next_read), Value::Null)
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
        1 + APPENDERS * self.lists()
    }

    fn next(&mut self, worker: usize) -> Option<Invocation> {
        Some(match worker {
            0 => self.read(),
            _ => self.append(worker),
        })
    }

    fn ended(&mut self, _worker: usize, _invocation: &Invocation, _completion: &Completion) {}

    fn last(&mut self) -> Vec<Invocation> {
        let mut last = views(&self.settings);
        for list in 0..self.lists() {
            last.push(self.append(list));
            last.push(op("read", &self.list(list), Value::Null));
        }
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
