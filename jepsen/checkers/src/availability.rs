//! How long nothing succeeded, under which fault. Informative: always valid.

use crate::history::History;
use crate::run::Fault;
use crate::verdict::Outcome;

/// Measures times without an `ok` operation.
pub fn check(history: &History, faults: &[Fault]) -> Outcome {
    let mut outcome = Outcome::valid("availability");
    let _ = (history, faults);
    outcome.unknown(crate::Finding::new("this checker is not built yet"));
    outcome
}
