//! What clients and nodes saw during a run, and the checkers that judge it.
//!
//! A run leaves files ([`run`]); checkers are pure functions from what the files hold to an
//! [`Outcome`], so that an old run can be judged again by a newer checker. Each checker has a file
//! of its own with one function, `check`. How workloads must write their values is told in
//! [`history`].

pub mod history;
pub mod run;
pub mod verdict;

pub mod availability;
pub mod convergence;
pub mod counter;
pub mod coverage;
pub mod epoch_order;
pub mod fenced_register;
pub mod linearizable;
pub mod list_append;
pub mod lock;
pub mod logs;
pub mod overlap;
pub mod stats;
pub mod unhandled;
pub mod version_order;
pub mod watch;

mod parallel;
#[cfg(test)]
mod testing;

pub use history::{History, Kind, Op};
pub use verdict::{Finding, Outcome, Verdict};
