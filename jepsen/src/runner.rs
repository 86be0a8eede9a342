//! Carries out a run: prepares hosts, starts the system, loads it, does it harm, heals it, stops
//! it, and leaves the files that the checkers judge.

pub mod clock;
pub mod judge;
pub mod load;
pub mod recorder;
