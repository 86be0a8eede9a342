//! What a schedule that broke something says.

use std::fmt;

use crate::options::Options;

/// Lines of the trace that a failure prints.
const LAST_LINES: usize = 40;

/// A schedule that broke an invariant, or did not heal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The schedule.
    pub seed: u64,
    /// How it was played.
    pub options: Options,
    /// The number of the event after which it was broken; that of the last where healing failed.
    pub step: u64,
    /// What was broken, by name.
    pub invariant: &'static str,
    /// How.
    pub what: String,
    /// Everything that happened.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = self.trace.len().saturating_sub(LAST_LINES);
        if from > 0 {
            writeln!(f, "... {from} lines before")?;
        }
        for line in &self.trace[from..] {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "broken: {}", self.invariant)?;
        writeln!(f, "  {}", self.what)?;
        writeln!(f, "  in schedule {}, at event {}", self.seed, self.step)?;
        write!(f, "replay: {}", self.options.replay(self.seed))
    }
}

impl std::error::Error for Failure {}
