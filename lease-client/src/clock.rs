//! The lease clock: elapsed time that neither slewing nor suspend can shorten.
//!
//! A reading is `CLOCK_MONOTONIC_RAW + (CLOCK_BOOTTIME − CLOCK_MONOTONIC)`. The three reads are not
//! atomic; their order decides on which side a pause between them errs. `libc::clock_gettime` is
//! used, so that the vDSO serves it and fault injection can stand in front of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_proto::{ClockClass, ClockTime, mutant};

/// Where a process's lease time comes from.
pub trait LeaseClock: Send + Sync + 'static {
    /// How far its rate may be off.
    fn class(&self) -> ClockClass;

    /// A reading for a `t0`: it may be too small, never too large.
    fn for_t0(&self) -> ClockTime;

    /// A reading for a check: it may be too large, never too small.
    fn for_check(&self) -> ClockTime;

    /// Nanoseconds of a clock that counts suspend and may be slewed by at most an eighth
    /// (`CLOCK_BOOTTIME`). One cheap read.
    fn boottime_ns(&self) -> u64;

    /// Ends when the clock shows `at` or later.
    fn sleep_until(&self, at: ClockTime) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

/// The clocks of the operating system.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    class: ClockClass,
}

fn read(clock: libc::clockid_t) -> Option<u64> {
    let clock = if mutant!("lease_clock_is_the_wall_clock") {
        libc::CLOCK_REALTIME
    } else {
        clock
    };
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec to write to; clock_gettime has no other requirement.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    (result == 0).then_some(
        (time.tv_sec as u64)
            .wrapping_mul(1_000_000_000)
            .wrapping_add(time.tv_nsec as u64),
    )
}

/// A clock that was found to exist cannot fail later; should it all the same, nothing is served
/// by it: a check sees the end of time and a `t0` its beginning.
fn nanos(clock: libc::clockid_t, when_broken: u64) -> u64 {
    read(clock).unwrap_or(when_broken)
}

/// The clocks that a reading is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Time awake, not slewed.
    Raw,
    /// Time awake and suspended, slewed.
    Boot,
    /// Time awake, slewed.
    Mono,
}

/// ◆ Time that passes between the reads makes the result smaller: RAW is from the beginning, and
/// MONO, which is subtracted, from the end. `read` is given what to answer where it cannot.
#[inline]
fn reading_for_t0(mut read: impl FnMut(Part, u64) -> u64) -> u64 {
    if mutant!("clock_reads_in_the_wrong_order") {
        let mono = read(Part::Mono, 0);
        let boot = read(Part::Boot, 0);
        return read(Part::Raw, 0).saturating_add(boot.saturating_sub(mono));
    }
    let raw = read(Part::Raw, 0);
    let boot = read(Part::Boot, 0);
    let mono = read(Part::Mono, u64::MAX);
    raw.saturating_add(boot.saturating_sub(mono))
}

/// ◆ Time that passes between the reads makes the result larger: the other way round.
#[inline]
fn reading_for_check(mut read: impl FnMut(Part, u64) -> u64) -> u64 {
    if mutant!("clock_stops_in_suspend") {
        return read(Part::Raw, u64::MAX);
    }
    let mono = read(Part::Mono, 0);
    let boot = read(Part::Boot, u64::MAX);
    let raw = read(Part::Raw, u64::MAX);
    raw.saturating_add(boot.saturating_sub(mono))
}

impl SystemClock {
    /// Finds out which clocks this platform has.
    pub fn new() -> Self {
        let class = if read(libc::CLOCK_MONOTONIC_RAW).is_some() {
            ClockClass::Raw
        } else {
            ClockClass::Slewed
        };
        Self { class }
    }

    #[inline]
    fn read(&self, part: Part, when_broken: u64) -> u64 {
        let clock = match (part, self.class) {
            (Part::Raw, ClockClass::Raw) => libc::CLOCK_MONOTONIC_RAW,
            (Part::Raw, ClockClass::Slewed) | (Part::Mono, _) => libc::CLOCK_MONOTONIC,
            (Part::Boot, _) => libc::CLOCK_BOOTTIME,
        };
        nanos(clock, when_broken)
    }

    /// The lease clock in nanoseconds, within a few microseconds on either side: for logs that are
    /// compared between processes of one host, never for a check.
    pub fn stamp_ns(&self) -> u64 {
        // A pause between the reads makes the suspend time look larger from one side and smaller
        // from the other; when both agree there was none.
        for _ in 0..16 {
            let before = nanos(libc::CLOCK_MONOTONIC, 0);
            let boot = nanos(libc::CLOCK_BOOTTIME, 0);
            let raw = self.read(Part::Raw, 0);
            let after = nanos(libc::CLOCK_MONOTONIC, 0);
            if after.saturating_sub(before) < 5_000 {
                return raw.wrapping_add(boot.saturating_sub(before));
            }
        }
        self.for_check().as_nanos()
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl LeaseClock for SystemClock {
    fn class(&self) -> ClockClass {
        self.class
    }

    fn for_t0(&self) -> ClockTime {
        ClockTime::from_nanos(reading_for_t0(|part, broken| self.read(part, broken)))
    }

    fn for_check(&self) -> ClockTime {
        ClockTime::from_nanos(reading_for_check(|part, broken| self.read(part, broken)))
    }

    #[inline]
    fn boottime_ns(&self) -> u64 {
        nanos(libc::CLOCK_BOOTTIME, u64::MAX)
    }

    fn sleep_until(&self, at: ClockTime) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            loop {
                let left = at.since(self.for_check());
                if left.is_zero() {
                    return;
                }
                // Timers of the runtime do not count suspend: look again from time to time.
                tokio::time::sleep(left.min(Duration::from_secs(1))).await;
            }
        })
    }
}

/// A clock that stands still until it is told to go on; for tests.
#[derive(Clone, Debug)]
pub struct SimulatedClock {
    inner: Arc<Simulated>,
}

#[derive(Debug)]
struct Simulated {
    now_ns: AtomicU64,
    changed: tokio::sync::watch::Sender<u64>,
}

impl SimulatedClock {
    /// A clock that shows one second.
    pub fn new() -> Self {
        let start = 1_000_000_000;
        let inner = Simulated {
            now_ns: AtomicU64::new(start),
            changed: tokio::sync::watch::Sender::new(start),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Lets the clock show `by` more.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let now = self
            .inner
            .now_ns
            .fetch_add(by, Ordering::SeqCst)
            .saturating_add(by);
        self.inner.changed.send_replace(now);
    }
}

impl Default for SimulatedClock {
    fn default() -> Self {
        Self::new()
    }
}

impl LeaseClock for SimulatedClock {
    fn class(&self) -> ClockClass {
        ClockClass::Raw
    }

    fn for_t0(&self) -> ClockTime {
        ClockTime::from_nanos(self.boottime_ns())
    }

    fn for_check(&self) -> ClockTime {
        ClockTime::from_nanos(self.boottime_ns())
    }

    fn boottime_ns(&self) -> u64 {
        self.inner.now_ns.load(Ordering::SeqCst)
    }

    fn sleep_until(&self, at: ClockTime) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        let mut changed = self.inner.changed.subscribe();
        Box::pin(async move {
            // The sender lives in `self`, so waiting can end only by the time having come.
            let _ = changed.wait_for(|now| *now >= at.as_nanos()).await;
        })
    }
}

/// The clock of one Slicelet: the system's without an indirection, or another.
#[derive(Clone)]
pub(crate) enum Clock {
    System(SystemClock),
    Other(Arc<dyn LeaseClock>),
}

impl Clock {
    pub(crate) fn lease(&self) -> &dyn LeaseClock {
        match self {
            Clock::System(clock) => clock,
            Clock::Other(clock) => clock.as_ref(),
        }
    }

    #[inline]
    pub(crate) fn boottime_ns(&self) -> u64 {
        match self {
            Clock::System(clock) => clock.boottime_ns(),
            Clock::Other(clock) => clock.boottime_ns(),
        }
    }

    /// See [`SystemClock::stamp_ns`].
    pub(crate) fn stamp_ns(&self) -> u64 {
        match self {
            Clock::System(clock) => clock.stamp_ns(),
            Clock::Other(clock) => clock.for_check().as_nanos(),
        }
    }

    /// The `CLOCK_BOOTTIME` reading before which `deadline` has certainly not passed. A pause
    /// between the two reads makes it earlier.
    pub(crate) fn fast_limit_ns(&self, deadline: ClockTime) -> u64 {
        if deadline == ClockTime::FAR {
            return u64::MAX;
        }
        let boot = self.boottime_ns();
        let left = deadline.since(self.lease().for_check());
        // The kernel slews by less than an eighth: 8/9 of the time left on BOOTTIME are at most
        // all of it on the lease clock.
        boot.saturating_add(u64::try_from(left.as_nanos() / 9 * 8).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that runs and is suspended between any two reads.
    struct Machine {
        awake_ns: u64,
        suspended_ns: u64,
        /// How fast MONO and BOOT run: so many eighths.
        slewed_to: u64,
        /// What happens before each read: so long awake, then so long suspended.
        gaps: std::array::IntoIter<(u64, u64), 3>,
    }

    impl Machine {
        fn new(slewed_to: u64, gaps: [(u64, u64); 3]) -> Self {
            Self {
                awake_ns: 8_000_000,
                suspended_ns: 1_000_000,
                slewed_to,
                gaps: gaps.into_iter(),
            }
        }

        fn truth(&self) -> u64 {
            self.awake_ns + self.suspended_ns
        }

        fn read(&mut self, part: Part) -> u64 {
            let (awake, suspended) = self.gaps.next().unwrap_or_default();
            self.awake_ns += awake;
            self.suspended_ns += suspended;
            let mono = self.awake_ns / 8 * self.slewed_to;
            match part {
                Part::Raw => self.awake_ns,
                Part::Mono => mono,
                Part::Boot => mono + self.suspended_ns,
            }
        }
    }

    /// Machines that pause or are suspended in every combination of places.
    fn machines() -> impl Iterator<Item = Machine> {
        let gap = [(0, 0), (8_000, 0), (0, 8_000_000), (80_000_000, 3_000)];
        let gaps = move |number: usize| [number % 4, number / 4 % 4, number / 16].map(|at| gap[at]);
        (7..=9).flat_map(move |rate| (0..64).map(move |number| Machine::new(rate, gaps(number))))
    }

    #[test]
    fn whatever_happens_between_the_reads_a_t0_is_not_too_large() {
        for mut machine in machines() {
            let t0 = reading_for_t0(|part, _| machine.read(part));
            assert!(
                t0 <= machine.truth(),
                "the lease counts from later than now"
            );
        }
    }

    #[test]
    fn whatever_happens_between_the_reads_a_check_is_not_too_small() {
        for mut machine in machines() {
            let asked_at = machine.truth();
            let check = reading_for_check(|part, _| machine.read(part));
            assert!(asked_at <= check, "the lease was over when it was checked");
        }
    }

    #[test]
    fn in_the_other_order_either_reading_could_be_wrong() {
        let t0_too_large = |mut machine: Machine| {
            reading_for_check(|part, _| machine.read(part)) > machine.truth()
        };
        let check_too_small = |mut machine: Machine| {
            let asked_at = machine.truth();
            reading_for_t0(|part, _| machine.read(part)) < asked_at
        };
        assert!(machines().any(t0_too_large) && machines().any(check_too_small));
    }

    #[test]
    fn a_clock_that_breaks_ends_every_lease() {
        assert_eq!(reading_for_t0(|_, broken| broken), 0);
        assert_eq!(reading_for_check(|_, broken| broken), u64::MAX);
    }

    #[test]
    fn a_t0_read_before_a_check_is_never_later_than_it() {
        let clock = SystemClock::new();
        for _ in 0..10_000 {
            let t0 = clock.for_t0();
            let check = clock.for_check();
            assert!(t0 <= check);
        }
    }

    #[test]
    fn a_stamp_lies_between_a_t0_and_a_check() {
        let clock = SystemClock::new();
        let t0 = clock.for_t0().as_nanos();
        let stamp = clock.stamp_ns();
        let check = clock.for_check().as_nanos();
        assert!(
            t0 <= stamp + 10_000 && stamp <= check + 10_000,
            "{t0} {stamp} {check}"
        );
    }

    #[test]
    fn the_fast_limit_ends_before_the_deadline_even_when_slewed() {
        let clock = Clock::Other(Arc::new(SimulatedClock::new()));
        let now = clock.lease().for_check();
        let limit = clock.fast_limit_ns(now + Duration::from_secs(9));
        assert_eq!(limit - now.as_nanos(), 8_000_000_000);
        assert_eq!(clock.fast_limit_ns(ClockTime::FAR), u64::MAX);
    }

    /// The mistakes that only these tests can show: no other ring suspends a machine, or pauses it
    /// between two reads of a clock.
    #[cfg(leasehold_mutants)]
    #[test]
    fn planted_mistakes_are_noticed() {
        let planted: [(&str, fn()); 2] = [
            (
                "clock_reads_in_the_wrong_order",
                whatever_happens_between_the_reads_a_t0_is_not_too_large,
            ),
            (
                "clock_stops_in_suspend",
                whatever_happens_between_the_reads_a_check_is_not_too_small,
            ),
        ];
        for (mutant, rule) in planted {
            let begun = std::time::Instant::now();
            let noticed = std::thread::spawn(move || {
                leasehold_proto::mutants::plant(Some(mutant));
                rule();
            });
            let caught = noticed.join().is_err();
            let seconds = begun.elapsed().as_secs_f64();
            leasehold_proto::mutants::record(
                mutant,
                "rules",
                caught,
                "the order of clock reads, in every combination of pauses",
                seconds,
            );
            assert!(caught, "{mutant} is not noticed");
        }
    }
}
