//! W10 `converge`: a light load, and after all faults are healed everybody agrees within a bound:
//! Assigners, Clerks and pods; every slice is owned by a living pod, and every part of the key
//! space can be written and read.

use std::time::Duration;

use leasehold_checkers::Outcome;
use leasehold_checkers::convergence::{self, Expected};
use leasehold_checkers::run::Installed;
use serde_json::json;

use super::Settings;
use super::last::{observers, op};
use super::register::Register;
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// Losing a leader is noticed after 600 ms at most, and one or two votes may be split.
const ELECTION: Duration = Duration::from_secs(2);
/// A machine with two cores that runs ten processes and their clients: a process that was killed
/// runs again when its fault counts as healed, but may still be reading its disk.
const SLACK: Duration = Duration::from_secs(5);
/// Between two rounds of glances.
const PERIOD: Duration = Duration::from_millis(250);

/// How long it may take until everybody agrees, from the moment on at which the last fault is
/// undone and every process runs again: an election; the new leader's guard, in which it gives
/// nothing away that its predecessor may have leased, one time to live; the leases of those who
/// are gone, another; as much again in which the planner waits when many ran out together; slack.
fn bound(settings: &Settings) -> Duration {
    ELECTION + settings.ttl * 3 + SLACK
}

/// Rounds of glances that take as long as the bound: agreement is seen when it comes, and if it is
/// lost again.
fn glances(settings: &Settings) -> Vec<Invocation> {
    let rounds = bound(settings).as_millis() / PERIOD.as_millis() + 1;
    let pause_ms = u64::try_from(PERIOD.as_millis()).unwrap_or(u64::MAX);
    let mut all = Vec::new();
    for _ in 0..rounds {
        for observer in observers(settings) {
            let glance = json!({ "glance": observer });
            all.push(op("view", crate::leasehold::TARGET, glance));
        }
        all.push(op("wait", crate::leasehold::TARGET, json!(pause_ms)));
    }
    all
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
        let mut last = glances(&self.settings);
        // These come after the bound, and are of those that wait until they are complete.
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
