//! W7 `watch`: watches through every Assigner, given up and taken up again.
//!
//! Each event carries the generation it leads to, the one it builds on, and what changed; all
//! watchers of one generation must have the same view.

use leasehold_checkers::Outcome;
use leasehold_checkers::watch::{self, Expected};
use serde_json::Value;

use super::last::{op, views};
use super::{Settings, covered, of_ownership};
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

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
        views(&self.settings)
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let mut outcomes = vec![
            watch::check(evidence.history, &Expected::default()),
            covered(evidence.history, &[("watch", 40)]),
        ];
        outcomes.extend(of_ownership(evidence));
        outcomes
    }
}
