//! Whether a process's lease clock has kept the rate that the protocol assumes of it.
//!
//! A deadline on the lease clock says when the process stops in true time, as far as that clock
//! kept to the rate `1 ± rho` while the lease ran: then whoever waits the time that the protocol
//! tells comes later. How far the clock is off by now does not matter, only how fast it went there.
//!
//! So of *any two* readings, not only of neighbours, the offset (lease clock minus true time) may
//! have changed by `rho` times the time between, and by what reading two clocks one after the other
//! costs. One slack for each pair of neighbours would add up to a rate of any size, since there are
//! readings every few milliseconds. All pairs are compared at once by keeping the highest and the
//! lowest offset that all readings so far allow; each reading widens both by `rho` times the time
//! since the last and then cuts them off at itself.

use leasehold_proto::clock::ClockClass;

/// What a reading may be off: a thread that loses its processor between the two clocks reads them
/// again, up to a number of times. Mostly it is 20 µs at most. A deadline that is believed is thus
/// off by no more than this over the time of a lease, beyond what the protocol allows for.
const READING_NS: u64 = 1_000_000;

/// All readings of one process's lease clock.
#[derive(Debug)]
pub(super) struct Agreement {
    at_ns: u64,
    first_ns: i64,
    offset_ns: i64,
    lowest_ns: i64,
    highest_ns: i64,
    agrees: bool,
}

fn offset(at_ns: u64, believed_ns: u64) -> i64 {
    believed_ns.wrapping_sub(at_ns).cast_signed()
}

impl Agreement {
    /// From the first reading: true time, and what the lease clock shows.
    pub(super) fn new(at_ns: u64, believed_ns: u64) -> Self {
        let offset_ns = offset(at_ns, believed_ns);
        Self {
            at_ns,
            first_ns: offset_ns,
            offset_ns,
            lowest_ns: offset_ns,
            highest_ns: offset_ns,
            agrees: true,
        }
    }

    /// Takes in another reading. Readings of two threads may stand in the log in either order.
    pub(super) fn read(&mut self, at_ns: u64, believed_ns: u64) {
        let apart_ns = u128::from(at_ns.abs_diff(self.at_ns));
        let drift_ns = apart_ns * u128::from(ClockClass::Raw.rho_ppm()) / 1_000_000 + 1;
        let drift_ns = i64::try_from(drift_ns).unwrap_or(i64::MAX);
        let offset_ns = offset(at_ns, believed_ns);
        let lowest_ns = self.lowest_ns.saturating_sub(drift_ns);
        let highest_ns = self.highest_ns.saturating_add(drift_ns);
        let beyond = |over: bool, bound: i64| over && offset_ns.abs_diff(bound) > READING_NS;
        // For good: a lease that was asked for before may be told of at any time after.
        self.agrees &= !beyond(offset_ns < lowest_ns, lowest_ns);
        self.agrees &= !beyond(offset_ns > highest_ns, highest_ns);
        self.lowest_ns = lowest_ns.max(offset_ns);
        self.highest_ns = highest_ns.min(offset_ns);
        self.offset_ns = offset_ns;
        self.at_ns = self.at_ns.max(at_ns);
    }

    /// Whether it kept its rate at all times so far.
    pub(super) fn agrees(&self) -> bool {
        self.agrees
    }

    /// How far the lease clock has drifted since the first reading.
    pub(super) fn drift_ns(&self) -> i64 {
        self.offset_ns.wrapping_sub(self.first_ns)
    }

    /// The true time at which the lease clock shows this, by the last reading; `None` if it does
    /// not keep its rate.
    pub(super) fn true_ns(&self, believed_ns: u64) -> Option<u64> {
        let there = believed_ns.wrapping_sub(self.offset_ns.cast_unsigned());
        self.agrees.then_some(there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const MS: u64 = 1_000_000;

    /// Whether it agrees after `count` readings a millisecond apart at this rate.
    fn after(count: u64, rate_ppm: i64) -> bool {
        let mut clock = Agreement::new(S, S);
        for reading in 1..=count {
            let apart = reading * MS;
            let off = apart.cast_signed() * rate_ppm / 1_000_000;
            clock.read(S + apart, (S + apart).wrapping_add_signed(off));
        }
        clock.agrees()
    }

    #[test]
    fn a_rate_within_the_bound_agrees_however_long_it_lasts() {
        assert!(after(600_000, 499));
        assert!(after(600_000, -499));
    }

    #[test]
    fn a_rate_beyond_it_is_seen_as_soon_as_it_has_cost_more_than_a_reading() {
        assert!(!after(2_100, 1_000));
        assert!(!after(2_100, -1_000));
        assert!(!after(12, 100_000));
    }

    #[test]
    fn time_that_was_kept_well_is_no_credit_for_a_jump() {
        let mut clock = Agreement::new(0, 0);
        clock.read(1_000 * S, 1_000 * S);
        clock.read(1_001 * S, 1_001 * S - 3 * MS);
        assert!(!clock.agrees());
        assert_eq!(clock.true_ns(1_002 * S), None);
    }
}
