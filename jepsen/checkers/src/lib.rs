//! What clients and nodes saw during a run, and the checkers that judge it.
//!
//! A run leaves files ([`run`]); checkers are pure functions from what the files hold to an
//! [`Outcome`], so that an old run can be judged again by a newer checker.

pub mod history;
pub mod run;
pub mod verdict;

pub use history::{History, Kind, Op};
pub use verdict::{Finding, Outcome, Verdict};
