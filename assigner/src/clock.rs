//! The lease clock of an Assigner: the production one, and one that tests stop and move.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_proto::{ClockClass, ClockTime};
use parking_lot::Mutex;

/// Where the leader reads "now". Clones read the same clock.
///
/// Requires that the Grantor's granularity covers the coarseness of a reading, half a millisecond.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// CLOCK_MONOTONIC_RAW plus the time spent suspended.
    #[default]
    System,
    /// The same, but a test may stop it and move it forward.
    Controlled(ControlledClock),
}

impl Clock {
    /// A reading; never runs backwards.
    pub fn now(&self) -> ClockTime {
        match self {
            Clock::System => system_now(),
            Clock::Controlled(clock) => clock.now(),
        }
    }

    /// How far this clock may run wrong.
    pub fn class(&self) -> ClockClass {
        if cfg!(target_os = "linux") {
            ClockClass::Raw
        } else {
            ClockClass::Slewed
        }
    }
}

/// A clock that follows the system's until it is paused. It never runs backwards.
#[derive(Clone, Debug)]
pub struct ControlledClock(Arc<Mutex<Control>>);

#[derive(Debug)]
struct Control {
    /// Added to the system's reading while running.
    ahead: Duration,
    /// Subtracted from it: the time spent paused.
    behind: Duration,
    /// Reading of the system at which the clock was paused.
    paused: Option<ClockTime>,
}

impl Default for ControlledClock {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Control {
            ahead: Duration::ZERO,
            behind: Duration::ZERO,
            paused: None,
        })))
    }
}

impl ControlledClock {
    /// A reading.
    pub fn now(&self) -> ClockTime {
        let control = self.0.lock();
        let system = control.paused.unwrap_or_else(system_now);
        let shifted = system + control.ahead;
        ClockTime::from_nanos(shifted.as_nanos().saturating_sub(nanos(control.behind)))
    }

    /// Stops the clock where it stands; idempotent.
    pub fn pause(&self) {
        let mut control = self.0.lock();
        control.paused.get_or_insert_with(system_now);
    }

    /// Lets it run on from where it stands; idempotent.
    pub fn resume(&self) {
        let mut control = self.0.lock();
        if let Some(at) = control.paused.take() {
            control.behind += system_now().since(at);
        }
    }

    /// Moves it forward, paused or not.
    pub fn advance(&self, by: Duration) {
        self.0.lock().ahead += by;
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The largest reading of this process so far.
static NEWEST_NS: AtomicU64 = AtomicU64::new(0);

/// Elapsed time that neither slewing nor suspend falsifies. Readings are exact to half a
/// millisecond, so of two of them the later could be the smaller: no reading is smaller than one
/// that was given before, in the whole process.
fn system_now() -> ClockTime {
    let now = reading(read);
    let before = NEWEST_NS.fetch_max(now, Ordering::SeqCst);
    ClockTime::from_nanos(now.max(before))
}

/// RAW + (BOOTTIME − MONOTONIC). The reads are not atomic. A Slicelet may err on one side and
/// chooses the order for it; a leader must err on neither, since one reading says both when it
/// answered and whether another lease has run out. So a reading that was interrupted is taken
/// again, and of many that all were the one with the shortest interruption is used; what remains
/// is far below the Grantor's granularity.
#[cfg(target_os = "linux")]
fn reading(mut read: impl FnMut(libc::clockid_t) -> u64) -> u64 {
    let (mut shortest, mut best) = (u64::MAX, 0);
    for _ in 0..ATTEMPTS {
        let before = read(libc::CLOCK_MONOTONIC);
        let boot = read(libc::CLOCK_BOOTTIME);
        let raw = read(libc::CLOCK_MONOTONIC_RAW);
        let took = read(libc::CLOCK_MONOTONIC).saturating_sub(before);
        if took < shortest {
            (shortest, best) = (took, raw.saturating_add(boot.saturating_sub(before)));
        }
        if shortest < INTERRUPTED_NS {
            break;
        }
    }
    best
}

/// A reading that took longer was interrupted.
#[cfg(target_os = "linux")]
const INTERRUPTED_NS: u64 = 500_000;
/// A machine that interrupts so many readings in a row gets the best of them.
#[cfg(target_os = "linux")]
const ATTEMPTS: usize = 16;

#[cfg(not(target_os = "linux"))]
fn reading(mut read: impl FnMut(libc::clockid_t) -> u64) -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place to write to; these clocks exist on every supported kernel,
    // and where one does not the reading stays zero.
    unsafe { libc::clock_gettime(clock, &mut time) };
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_paused_clock_stands_and_goes_on_from_there() {
        let clock = ControlledClock::default();
        clock.pause();
        let paused = clock.now();
        assert_eq!(clock.now(), paused);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(clock.now().since(paused), Duration::from_secs(3600));
        clock.resume();
        let resumed = clock.now();
        assert!(resumed.since(paused) >= Duration::from_secs(3600));
        assert!(
            resumed.since(paused) < Duration::from_secs(7200),
            "the pause does not count"
        );
    }

    #[test]
    fn the_system_clock_never_runs_backwards() {
        let readings: Vec<ClockTime> = (0..10_000).map(|_| Clock::System.now()).collect();
        assert!(readings.windows(2).all(|pair| pair[0] <= pair[1]));
    }
    #[test]
    fn a_reading_handed_from_thread_to_thread_is_never_ahead_of_the_next() {
        let newest = Mutex::new(Clock::System.now());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        let mut newest = newest.lock();
                        let now = Clock::System.now();
                        assert!(*newest <= now);
                        *newest = now;
                    }
                });
            }
        });
    }

    /// A machine whose clocks all show `now`, and which needs `per_read` for each reading of one.
    #[cfg(target_os = "linux")]
    fn slow_machine(per_read: impl Fn(usize) -> u64) -> (u64, u64, usize) {
        let (mut now, mut reads) = (1_000_000_000, 0);
        let begun = now;
        let shown = reading(|_| {
            now += per_read(reads);
            reads += 1;
            now
        });
        (shown - begun, now - begun, reads)
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_reading_that_was_interrupted_is_taken_again() {
        let (shown, _, reads) = slow_machine(|nth| if nth == 1 { 80_000_000 } else { 100 });
        assert_eq!(reads, 8);
        assert_eq!(
            shown,
            80_000_000 + 6 * 100 + 100,
            "the RAW of the second attempt, and one read too much"
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn where_every_reading_is_interrupted_the_best_is_used() {
        let (shown, ended, reads) =
            slow_machine(|nth| if nth / 4 == 7 { 1_000_000 } else { 2_000_000 });
        assert_eq!(reads, 4 * ATTEMPTS, "it ends");
        let raw_of_the_best = 28 * 2_000_000 + 3 * 1_000_000;
        assert_eq!(
            shown,
            raw_of_the_best + 1_000_000,
            "wrong by one short interruption"
        );
        assert!(shown < ended);
    }
}
