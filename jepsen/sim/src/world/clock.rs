//! True time, and the lease clocks of the processes, which run at the bounds of their class.

use leasehold_proto::{ClockClass, ClockTime};
use std::time::Duration;

use super::Rng;
use crate::planted;

/// Nanoseconds of true time in one tick, the unit of true time here. A clock adds its rate in
/// nanoseconds at every tick, so that all rates are exact.
pub const TICK_NS: u64 = 2_000;

/// Ticks of true time in `duration`.
pub fn ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX) / TICK_NS
}

/// A process's lease clock.
pub struct Clock {
    local: u64,
    rate: u64,
    class: ClockClass,
    lies: bool,
}

impl Clock {
    /// One that `lies` does not keep within the bound of its class.
    pub fn new(rng: &mut Rng, lies: bool) -> Self {
        let class = *rng.pick(&[ClockClass::Slewed, ClockClass::Slewed, ClockClass::Raw]);
        let mut clock = Self {
            local: 1_000_000_000_000 + rng.below(1_000_000_000),
            rate: TICK_NS,
            class,
            lies,
        };
        clock.change_rate(rng);
        clock
    }

    pub fn now(&self) -> ClockTime {
        ClockTime::from_nanos(self.local)
    }

    pub fn class(&self) -> ClockClass {
        self.class
    }

    pub fn advance(&mut self, ticks: u64) {
        self.local += ticks * self.rate;
    }

    /// Slow, true or fast, as far as the class allows.
    pub fn change_rate(&mut self, rng: &mut Rng) {
        let rates = match self.class {
            _ if self.lies || planted("clock_rate_beyond_the_bound") => [1_000, 2_000, 3_000],
            ClockClass::Raw => [1_999, 2_000, 2_001],
            ClockClass::Slewed => [1_750, 2_000, 2_250],
        };
        self.rate = *rng.pick(&rates);
    }

    /// Somebody sets the wall clock back. A lease clock is none.
    pub fn set_wall_back(&mut self, by: Duration) {
        if planted("lease_clock_is_the_wall_clock") {
            let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
            self.local = self.local.saturating_sub(by);
        }
    }

    /// Ticks of true time until this clock shows `at`.
    pub fn until(&self, at: ClockTime) -> u64 {
        at.as_nanos().saturating_sub(self.local).div_ceil(self.rate)
    }
}
