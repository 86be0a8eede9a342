//! A workload: what clients do, and which checkers judge it.

use leasehold_checkers::Outcome;
use leasehold_checkers::history::History;
use leasehold_checkers::run::{Fault, Hold, Passage};

use crate::system::{Completion, Invocation};

/// What a checker may look at.
pub struct Evidence<'a> {
    /// What clients saw.
    pub history: &'a History,
    /// What was done to the system.
    pub faults: &'a [Fault],
    /// Which pod could serve what.
    pub holds: &'a [Hold],
    /// Which slices came with their state in memory, and how they went.
    pub passages: &'a [Passage],
}

/// Decides what clients do. Everything random comes from the seed that made it.
pub trait Workload: Send {
    /// Its name on the command line.
    fn name(&self) -> &'static str;

    /// How many workers it wants; they are numbered from 0.
    fn workers(&self) -> usize;

    /// What this worker does next; `None`: nothing now, ask again soon.
    fn next(&mut self, worker: usize) -> Option<Invocation>;

    /// Told how it ended.
    fn ended(&mut self, worker: usize, invocation: &Invocation, completion: &Completion);

    /// What is done, one after the other, after all faults are healed and the system says that it
    /// is ready; each must succeed. Asked anew, within a bounded patience, when one did not:
    /// values that must be unique are then fresh ones.
    fn last(&mut self) -> Vec<Invocation>;

    /// Judges the run, by the evidence alone: an old run is judged again by a fresh instance of
    /// the same name, seed and options. The history holds this workload's operations only, with
    /// `index` from 0 without gaps.
    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome>;
}
