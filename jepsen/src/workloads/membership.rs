//! W9 `membership`: what is replicated and what is served at once, for changes of members and
//! rolling restarts: [`register`](super::register) and [`store`](super::store) together.

use leasehold_checkers::Outcome;
use leasehold_checkers::history::{History, Op};

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
        // Each for itself: that one did enough says nothing of the other.
        let mut outcomes = part_of(evidence, &self.register, |key| !is_target(key));
        outcomes.extend(part_of(evidence, &self.store, is_target));
        outcomes
    }
}

fn is_target(key: &str) -> bool {
    key.starts_with(crate::leasehold::client::STORE_PREFIX)
}

/// Judges a part by the operations on its keys; findings name those of the whole.
fn part_of(
    evidence: &Evidence<'_>,
    part: &dyn Workload,
    has: impl Fn(&str) -> bool,
) -> Vec<Outcome> {
    let mut indices = Vec::new();
    let mut own = History::default();
    let ops = evidence.history.0.iter();
    for op in ops.filter(|op| has(op.key.as_deref().unwrap_or_default())) {
        indices.push(op.index);
        own.0.push(Op {
            index: own.0.len() as u64,
            ..op.clone()
        });
    }
    let mut outcomes = part.check(&Evidence {
        history: &own,
        faults: evidence.faults,
        holds: evidence.holds,
        passages: evidence.passages,
    });
    for outcome in &mut outcomes {
        outcome.checker = format!("{}: {}", part.name(), outcome.checker);
        for op in outcome.findings.iter_mut().flat_map(|found| &mut found.ops) {
            let whole = usize::try_from(*op).ok().and_then(|op| indices.get(op));
            *op = whole.copied().unwrap_or(*op);
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use leasehold_checkers::Verdict;
    use leasehold_checkers::history::Kind;
    use serde_json::{Value, json};

    use super::*;

    /// A history of so many operations of each on one key, all after one another.
    fn history(key: &str, of_each: u64, fs: &[&str]) -> Vec<Op> {
        let mut ops = Vec::new();
        for (f, nth) in fs
            .iter()
            .flat_map(|f| (1..=of_each).map(move |nth| (f, nth)))
        {
            for kind in [Kind::Invoke, Kind::Ok] {
                let value = match (*f, kind) {
                    ("read", Kind::Invoke) => Value::Null,
                    ("read", _) => json!({"value": null, "version": [0, 0]}),
                    ("write", Kind::Invoke) => json!(nth),
                    ("write", _) => json!({"value": nth, "version": [1, nth]}),
                    (_, Kind::Invoke) => json!([of_each + nth - 1, of_each + nth]),
                    (_, _) => json!({
                        "value": [of_each + nth - 1, of_each + nth],
                        "version": [1, of_each + nth],
                    }),
                };
                ops.push(Op {
                    index: 0,
                    time: 0,
                    process: 0,
                    kind,
                    f: (*f).to_owned(),
                    key: Some(key.to_owned()),
                    value,
                    node: None,
                    epoch: None,
                    error: None,
                });
            }
        }
        ops
    }

    #[test]
    fn a_register_that_did_enough_does_not_cover_for_a_store_that_did_nothing() {
        let mut ops = history("r-1", 60, &["read", "write", "cas"]);
        for (at, op) in (0u64..).zip(&mut ops) {
            (op.index, op.time) = (at, at);
        }
        let membership = Membership::new(&Settings::new(1, &BTreeMap::new()));
        let outcomes = membership.check(&Evidence {
            history: &History(ops),
            faults: &[],
            holds: &[],
            passages: &[],
        });
        let verdict = |name: &str| {
            let found = outcomes.iter().find(|outcome| outcome.checker == name);
            found.map(|outcome| outcome.verdict)
        };
        assert_eq!(
            verdict("register: operations covered"),
            Some(Verdict::Valid)
        );
        assert_eq!(verdict("store: operations covered"), Some(Verdict::Unknown));
    }
}
