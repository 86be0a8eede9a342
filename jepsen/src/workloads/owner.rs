//! W1 `owner`: clients ask every pod, past any map, whether it serves a slice now.
//!
//! No answer that was asked for after another with a higher token had come may carry a lower one,
//! and each token has one owner; the pods' own logs must not overlap in true time. In eventual mode
//! under a partition this must fail: the positive control.

use leasehold_checkers::Outcome;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::last::{op, views};
use super::{Settings, covered, of_ownership};
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// Workers that ask each pod.
const PER_POD: usize = 2;

/// See the module's description.
pub(super) struct Owner {
    settings: Settings,
    random: SmallRng,
}

/// Slice keys in the middle of so many slices of equal size.
pub(super) fn middles(slices: u64) -> impl Iterator<Item = String> {
    let width = u64::MAX / slices.max(1);
    (0..slices.max(1)).map(move |number| format!("{:016x}", number * width + width / 2))
}

impl Owner {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            random: SmallRng::seed_from_u64(settings.seed ^ 0x6f77_6e65),
        }
    }
}

impl Workload for Owner {
    fn name(&self) -> &'static str {
        "owner"
    }

    fn workers(&self) -> usize {
        PER_POD * self.settings.pods
    }

    fn next(&mut self, _worker: usize) -> Option<Invocation> {
        let slices = self.settings.slices;
        let number = self.random.random_range(0..slices);
        let key = middles(slices).nth(usize::try_from(number).ok()?)?;
        Some(op("serve", &key, Value::Null))
    }

    fn ended(&mut self, _worker: usize, _invocation: &Invocation, _completion: &Completion) {}

    fn last(&mut self) -> Vec<Invocation> {
        // The view of the pods asks each of them for every slice.
        views(&self.settings)
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let mut outcomes = vec![covered(evidence.history, &[("serve", 100)])];
        outcomes.extend(of_ownership(evidence));
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slice_has_a_key_in_its_middle() {
        let keys: Vec<String> = middles(4).collect();
        let firsts: Vec<&str> = keys.iter().map(|key| &key[..1]).collect();
        assert_eq!(firsts, ["1", "5", "9", "d"]);
    }
}
