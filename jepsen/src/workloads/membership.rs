//! W9 `membership`: what is replicated and what is served at once, for changes of members and
//! rolling restarts: [`register`](super::register) and [`store`](super::store) together.

use leasehold_checkers::Outcome;

use super::Settings;
use super::register::Register;
use super::store::Store;
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// See the module's description.
pub(super) struct Membership {
    register: Register,
    store: Store,
}

impl Membership {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            register: Register::new(settings),
            store: Store::new(settings),
        }
    }

    /// Whose worker it is, and which of its workers.
    fn part(&mut self, worker: usize) -> (&mut dyn Workload, usize) {
        let first = self.register.workers();
        match worker.checked_sub(first) {
            Some(worker) => (&mut self.store, worker),
            None => (&mut self.register, worker),
        }
    }
}

impl Workload for Membership {
    fn name(&self) -> &'static str {
        "membership"
    }

    fn workers(&self) -> usize {
        self.register.workers() + self.store.workers()
    }

    fn next(&mut self, worker: usize) -> Option<Invocation> {
        let (part, worker) = self.part(worker);
        part.next(worker)
    }

    fn ended(&mut self, worker: usize, invocation: &Invocation, completion: &Completion) {
        let (part, worker) = self.part(worker);
        part.ended(worker, invocation, completion);
    }

    fn last(&mut self) -> Vec<Invocation> {
        let mut last = self.register.last();
        last.extend(self.store.last());
        last
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        // Both are registers, on keys of different names; one judgement holds for both.
        self.register.check(evidence)
    }
}
