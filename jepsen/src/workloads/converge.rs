//! W10 `converge`: a light load, and after all faults are healed everybody agrees within a bound:
//! Assigners, Clerks and pods; every slice is owned by a living pod, and every part of the key
//! space can be written and read.

use std::time::Duration;

use leasehold_checkers::Outcome;
use leasehold_checkers::convergence::{self, Expected};
use leasehold_checkers::run::Installed;
use serde_json::json;

use super::Settings;
use super::last::{observers, op, views};
use super::register::Register;
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// An election, the reconnection of clients, and slack for a busy machine.
const SLACK: Duration = Duration::from_secs(3);

/// How long it may take until everybody agrees: a lease runs out, its guard does, and the planner
/// waits for as long again when many ran out together.
fn bound(settings: &Settings) -> Duration {
    settings.ttl * 3 + SLACK
}

/// See the module's description.
pub(super) struct Converge {
    settings: Settings,
    register: Register,
}

impl Converge {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            register: Register::new(settings),
        }
    }
}

impl Workload for Converge {
    fn name(&self) -> &'static str {
        "converge"
    }

    fn workers(&self) -> usize {
        self.register.workers()
    }

    fn next(&mut self, worker: usize) -> Option<Invocation> {
        self.register.next(worker)
    }

    fn ended(&mut self, worker: usize, invocation: &Invocation, completion: &Completion) {
        self.register.ended(worker, invocation, completion);
    }

    fn last(&mut self) -> Vec<Invocation> {
        let bound = bound(&self.settings);
        let wait_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX);
        let wait = Invocation {
            deadline: bound * 2,
            ..op("wait", crate::leasehold::TARGET, json!(wait_ms))
        };
        let mut last = vec![wait];
        last.extend(views(&self.settings));
        last.extend(self.register.last());
        last
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let healed = evidence
            .faults
            .iter()
            .filter(|fault| !matches!(fault.installed, Installed::Skipped(_)))
            .filter_map(|fault| fault.to_ns);
        let expected = Expected {
            healed_ns: healed.max().unwrap_or(0),
            bound_ns: u64::try_from(bound(&self.settings).as_nanos()).unwrap_or(u64::MAX),
            observers: observers(&self.settings),
        };
        let mut outcomes = vec![convergence::check(evidence.history, &expected)];
        outcomes.extend(self.register.check(evidence));
        outcomes
    }
}
