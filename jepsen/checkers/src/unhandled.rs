//! Operations that never ended. Each counts as unknown; that there are any is worth telling.

use crate::history::History;
use crate::verdict::Outcome;

/// Counts them. Always valid.
pub fn check(history: &History) -> Outcome {
    let mut outcome = Outcome::valid("unhandled");
    let _ = (history);
    outcome.unknown(crate::Finding::new("this checker is not built yet"));
    outcome
}
