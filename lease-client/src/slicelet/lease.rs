//! Until when the guards of one session are valid.

use std::sync::atomic::{AtomicU64, Ordering};

use leasehold_proto::ClockTime;

use crate::clock::Clock;

/// The deadline of one session, never of another: a guard of an old session cannot be validated
/// by a new one's deadline.
#[repr(align(128))]
pub(crate) struct Lease {
    /// While `CLOCK_BOOTTIME` is below it the deadline has certainly not passed.
    fast_limit_ns: AtomicU64,
    deadline_ns: AtomicU64,
    clock: Clock,
}

impl Lease {
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            fast_limit_ns: AtomicU64::new(0),
            deadline_ns: AtomicU64::new(0),
            clock,
        }
    }

    /// Whether it runs now. Reads the clock each time: a time that something else keeps up to
    /// date would stall with the process.
    #[inline]
    pub(crate) fn runs(&self) -> bool {
        let limit = self.fast_limit_ns.load(Ordering::Acquire);
        limit == u64::MAX || self.clock.boottime_ns() < limit || self.runs_exactly()
    }

    #[cold]
    fn runs_exactly(&self) -> bool {
        let deadline = ClockTime::from_nanos(self.deadline_ns.load(Ordering::Acquire));
        self.clock.lease().for_check() < deadline
    }

    /// Sets the deadline. It may go back: a target that begins to check leases again.
    pub(crate) fn set(&self, deadline: ClockTime) {
        self.deadline_ns
            .store(deadline.as_nanos(), Ordering::Release);
        self.fast_limit_ns
            .store(self.clock.fast_limit_ns(deadline), Ordering::Release);
    }

    /// Lets it run out now.
    pub(crate) fn end(&self) {
        self.fast_limit_ns.store(0, Ordering::Release);
        self.deadline_ns.store(0, Ordering::Release);
    }

    /// The deadline as last set.
    pub(crate) fn deadline(&self) -> ClockTime {
        ClockTime::from_nanos(self.deadline_ns.load(Ordering::Acquire))
    }
}
