//! Nodes must not panic or log errors.

use std::path::PathBuf;

use crate::verdict::Outcome;

/// A log file of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Whose.
    pub node: String,
    /// Where.
    pub path: PathBuf,
}

/// Judges logs; lines that contain one of `allowed` do not count.
pub fn check(logs: &[Log], allowed: &[String]) -> Outcome {
    let mut outcome = Outcome::valid("logs");
    let _ = (logs, allowed);
    outcome.unknown(crate::Finding::new("this checker is not built yet"));
    outcome
}
