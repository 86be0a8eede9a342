//! The lease clock of a simulated machine: simulated time at a rate of its own, within the bound
//! that the protocol assumes.

use leasehold_proto::{ClockClass, ClockTime};

use crate::random::Random;

/// A clock whose rate is off by a constant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    ahead_ns: u64,
    off_ppm: i64,
}

impl Clock {
    /// Some clock of class [`ClockClass::Raw`]: as often as not at one end of the bound.
    pub(crate) fn some(random: &mut Random) -> Self {
        let bound = ClockClass::Raw.rho_ppm().cast_signed();
        let off_ppm = match random.below(4) {
            0 => bound,
            1 => -bound,
            _ => random.between(0, 2 * bound.unsigned_abs()).cast_signed() - bound,
        };
        Self {
            ahead_ns: random.between(0, 1 << 40),
            off_ppm,
        }
    }

    /// The reading at a simulated time.
    pub(crate) fn at_ns(&self, true_ns: u64) -> ClockTime {
        let off = i128::from(true_ns) * i128::from(self.off_ppm) / 1_000_000;
        let ns = i128::from(self.ahead_ns) + i128::from(true_ns) + off;
        ClockTime::from_nanos(u64::try_from(ns).unwrap_or_default())
    }

    /// The reading now; only on a simulated machine.
    pub(crate) fn now(&self) -> ClockTime {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        self.at_ns(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX))
    }
}
