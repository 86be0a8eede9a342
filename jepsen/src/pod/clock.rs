//! Clocks of this process, as it is made to believe them.

pub use leasehold_faults::true_now_ns;

use std::time::{SystemTime, UNIX_EPOCH};

/// The clock that leases run on, as this process is made to believe it.
pub fn believed_now_ns() -> u64 {
    leasehold_client::clock::SystemClock::new().stamp_ns()
}

/// Two readings further apart than this are not of one moment.
const ONE_MOMENT_NS: u64 = 20_000;
/// Readings that are tried.
const TRIES: usize = 16;

/// True time, and the lease clock as this process is made to believe it, of one moment: a thread
/// that loses its processor between the two readings makes them again.
pub fn both_now_ns() -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..TRIES {
        let before = true_now_ns();
        let believed = believed_now_ns();
        let after = true_now_ns();
        let apart = after.saturating_sub(before);
        best = best.min((apart, before, believed));
        if apart < ONE_MOMENT_NS {
            break;
        }
    }
    (best.1, best.2)
}

/// The wall clock as this process is made to believe it, minus the true one.
pub fn wall_offset_ns() -> i64 {
    let believed = SystemTime::now().duration_since(UNIX_EPOCH);
    let believed = believed.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    believed
        .wrapping_sub(leasehold_faults::true_wall_ns())
        .cast_signed()
}
