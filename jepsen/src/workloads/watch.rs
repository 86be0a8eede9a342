//! W7 `watch`: watches through every Assigner, given up and taken up again.
//!
//! Each event carries the generation it leads to, the one it builds on, and what changed; all
//! watchers of one generation must have the same view. When all faults are healed, a fresh watch
//! through every Assigner must be told of a change that is made after it began: one that silently
//! stops is found by that.

use std::time::Duration;

use leasehold_checkers::Outcome;
use leasehold_checkers::watch::{self, Expected};
use serde_json::{Value, json};

use super::last::{op, views};
use super::{Settings, covered, of_ownership};
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// How long an Assigner may take to tell a watcher of a change when all is well: an election that
/// comes in between, and slack for a busy machine.
const CATCH_UP: Duration = Duration::from_secs(10);

/// See the module's description.
pub(super) struct Watch {
    settings: Settings,
}

impl Watch {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
        }
    }
}

impl Workload for Watch {
    fn name(&self) -> &'static str {
        "watch"
    }

    fn workers(&self) -> usize {
        4
    }

    fn next(&mut self, _worker: usize) -> Option<Invocation> {
        Some(op("watch", crate::leasehold::TARGET, Value::Null))
    }

    fn ended(&mut self, _worker: usize, _invocation: &Invocation, _completion: &Completion) {}

    fn last(&mut self) -> Vec<Invocation> {
        let target = crate::leasehold::TARGET;
        let through = |host: &String, value: Value| Invocation {
            deadline: CATCH_UP,
            ..op("watch", target, with_host(host, value))
        };
        let hosts = assigners(&self.settings);
        let mut last = views(&self.settings);
        // A change after all of them watch: what is to be seen is that they are told, not only
        // that they can begin.
        last.extend(hosts.iter().map(|host| through(host, json!({}))));
        last.push(op("stir", target, Value::Null));
        last.push(op("generation", target, Value::Null));
        let end = json!({ "until": "generation" });
        last.extend(hosts.iter().map(|host| through(host, end.clone())));
        last
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let calls = evidence.history.calls();
        let told = calls.iter().filter(|call| call.f() == "generation");
        let expected = Expected {
            final_generation: told.rev().find_map(|call| call.ok()?.value.as_u64()),
            at_end: assigners(&self.settings).iter().map(watcher).collect(),
        };
        let mut outcomes = vec![
            watch::check(evidence.history, &expected),
            covered(evidence.history, &[("watch", 40), ("generation", 1)]),
        ];
        outcomes.extend(of_ownership(evidence));
        outcomes
    }
}

fn assigners(settings: &Settings) -> Vec<String> {
    (1..=settings.assigners)
        .map(|number| format!("a{number}"))
        .collect()
}

/// What the watcher at the end through this Assigner is called.
fn watcher(host: &String) -> String {
    format!("last-{host}")
}

fn with_host(host: &str, mut value: Value) -> Value {
    value["last"] = json!(host);
    value
}
