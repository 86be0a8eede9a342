//! Clocks of this process, as it is made to believe them.

pub use leasehold_faults::true_now_ns;

use std::time::{SystemTime, UNIX_EPOCH};

/// The clock that leases run on, as this process is made to believe it.
pub fn believed_now_ns() -> u64 {
    leasehold_client::clock::SystemClock::new().stamp_ns()
}

/// The wall clock as this process is made to believe it, minus the true one.
pub fn wall_offset_ns() -> i64 {
    let believed = SystemTime::now().duration_since(UNIX_EPOCH);
    let believed = believed.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    believed
        .wrapping_sub(leasehold_faults::true_wall_ns())
        .cast_signed()
}
