//! Time as an argument: readings of one process's lease clock, and how far a clock may run wrong.

use std::fmt;
use std::time::Duration;

/// A reading of the lease clock of one process, in nanoseconds since an unknown start. Readings of
/// two processes must never be compared.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClockTime(u64);

impl ClockTime {
    /// Later than every reading that a clock can give.
    pub const FAR: ClockTime = ClockTime(u64::MAX);

    /// A reading of `nanos` nanoseconds.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the unknown start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero when `earlier` is not earlier.
    pub fn since(self, earlier: ClockTime) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for ClockTime {
    type Output = ClockTime;

    fn add(self, duration: Duration) -> ClockTime {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        ClockTime(self.0.saturating_add(nanos))
    }
}

impl fmt::Debug for ClockTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}ns", self.0)
    }
}

/// How a process measures elapsed time, which bounds how far its rate may be off. Fixed for a
/// session when it registers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum ClockClass {
    /// CLOCK_MONOTONIC_RAW plus suspend time: never slewed; 500 ppm.
    Raw,
    /// A clock that the kernel may slew, by about 11 %: an eighth.
    Slewed,
}

impl ClockClass {
    /// The bound `rho` on the rate error, in parts per million.
    pub const fn rho_ppm(self) -> u64 {
        match self {
            ClockClass::Raw => 500,
            ClockClass::Slewed => 125_000,
        }
    }
}

/// `D`: how long an Assigner whose own clock is of class `assigner` must wait, after it last
/// answered a session, until no clock within its bound can still show that session's lease as
/// running. Rounded up, plus `granularity`.
pub fn wait_after_answer(
    ttl: Duration,
    session: ClockClass,
    assigner: ClockClass,
    granularity: Duration,
) -> Duration {
    const MILLION: u128 = 1_000_000;
    let numerator = ttl.as_nanos() * (MILLION + u128::from(assigner.rho_ppm()));
    let nanos = numerator.div_ceil(MILLION - u128::from(session.rho_ppm()));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).saturating_add(granularity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_covers_a_slow_holder_and_a_fast_assigner() {
        let ttl = Duration::from_secs(3);
        let d = wait_after_answer(ttl, ClockClass::Raw, ClockClass::Raw, Duration::ZERO);
        // The holder's clock at its slowest needs ttl/(1-rho) of true time, in which the
        // Assigner's clock at its fastest counts (1+rho) times as much.
        let worst = 3e9 * (1.0 + 5e-4) / (1.0 - 5e-4);
        assert!(d.as_nanos() as f64 >= worst && (d.as_nanos() as f64) < worst + 2.0);
        let slewed = wait_after_answer(ttl, ClockClass::Slewed, ClockClass::Raw, Duration::ZERO);
        assert!(slewed > Duration::from_millis(3_429));
    }
}
