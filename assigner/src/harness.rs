//! What demos and benches share: real processes on this machine, and an operator's hand.

pub mod assigners;
pub mod control;
pub mod procs;

use std::time::Duration;

/// Longest wait for anything that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Now, on the lease clock that every process of this host shares.
pub fn now_ns() -> u64 {
    leasehold_client::clock::SystemClock::new().stamp_ns()
}
