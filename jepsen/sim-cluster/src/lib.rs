//! Whole simulated clusters around the real Raft: `leasehold-raft-store` as it ships, over a
//! simulated network, in simulated time, on disks that lose what was not synced, applying the real
//! lease table.
//!
//! Everything of one run follows from one seed. A run has a safety phase, in which faults come and
//! go and every [invariant](invariants) is asked at every event, and a liveness phase, in which all
//! faults are gone and the cluster must agree on everything again.
//!
//! Repeating a seed needs a build with `--cfg tokio_unstable`, without which the order in which
//! ready branches are looked at is random. Runs of other builds check the same things; only a seed
//! says nothing there.

pub mod cli;
mod clock;
pub mod coverage;
pub mod event;
mod faults;
pub mod invariants;
mod lead;
mod machine;
#[cfg(leasehold_mutants)]
pub mod mutants;
mod net;
mod news;
mod node;
mod observer;
mod pod;
mod post;
pub mod process;
mod random;
mod workload;
pub mod world;

/// Whether a seed of this build always gives the same run.
pub const REPEATABLE: bool = cfg!(tokio_unstable);
