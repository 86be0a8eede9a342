//! `summary.json`: what a list of runs tells of one, so that it need not read whole histories.

use std::path::Path;

use leasehold_checkers::Kind;
use serde::{Deserialize, Serialize};

use crate::run::Run;

/// Its name in a run's directory.
pub(crate) const FILE: &str = "summary.json";

/// Counts of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Summary {
    /// Operations begun.
    pub operations: usize,
    /// Of them ended ok.
    pub ok: usize,
    /// Failed: took no effect.
    pub failed: usize,
    /// Unknown.
    pub unknown: usize,
    /// The last time that anything happened.
    pub duration_ns: u64,
    /// Faults tried.
    pub faults: usize,
    /// Holds seen.
    pub holds: usize,
}

impl Summary {
    /// Counts.
    pub fn of(run: &Run) -> Self {
        Self {
            operations: run.operations.len(),
            ok: run.ended(Kind::Ok),
            failed: run.ended(Kind::Fail),
            unknown: run.ended(Kind::Info),
            duration_ns: run.end_ns,
            faults: run.faults.len(),
            holds: run.holds.len(),
        }
    }

    /// That of the run in `dir`, if its report was written.
    pub fn read(dir: &Path) -> Option<Self> {
        crate::run::document(dir, FILE, &mut Vec::new())
    }
}
