//! How late the runtime comes to what is due. A request waits for its turn before its handler can
//! look at a clock, and a transfer that computes is what it waits for: of that the application's own
//! figures show nothing.
//!
//! Something is due every millisecond. What a timer is late by itself, always the same, is left
//! out: it is the least delay ever seen. What was due while the runtime was busy counts each
//! by itself, as requests that came meanwhile would.
//!
//! No clock and no timer: time is an argument.

use std::time::{Duration, Instant};

use super::latency::{BUCKETS, Recent, bucket_of};

/// How often something is due.
pub(crate) const LAG_EVERY: Duration = Duration::from_millis(1);
/// Of a longer standstill only this much counts one by one.
const LONGEST: Duration = Duration::from_secs(1);

/// See the module's description.
pub(crate) struct Lag {
    due: Instant,
    least: Duration,
    counts: Box<[u64]>,
    recent: Recent,
}

impl Lag {
    /// Nothing was late yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            due: now + LAG_EVERY,
            least: Duration::MAX,
            counts: vec![0; BUCKETS].into(),
            recent: Recent::new(now),
        }
    }

    /// When [`Lag::came`] is to be called next.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// The runtime has come to what was due.
    pub(crate) fn came(&mut self, now: Instant) {
        if now.saturating_duration_since(self.due) > LONGEST {
            self.due = now - LONGEST;
        }
        while self.due <= now {
            let late = now - self.due;
            self.least = self.least.min(late);
            self.counts[bucket_of(late - self.least)] += 1;
            self.due += LAG_EVERY;
        }
    }

    /// By how much the latest percent was late, lately.
    pub(crate) fn look(&mut self, now: Instant) -> Duration {
        let seen = self.recent.look(now, self.counts.clone());
        seen.p99.unwrap_or_default()
    }

    /// What was late before the last look is left out from here on.
    pub(crate) fn restart(&mut self) {
        self.recent.restart();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: Duration = Duration::from_micros(1);

    /// Comes so late to each that is due, up to the given moment; then looks.
    fn run(lag: &mut Lag, until: Instant, late: impl Fn(u32) -> Duration) -> Duration {
        let mut now = lag.due();
        for n in 0.. {
            now = lag.due() + late(n);
            if now >= until {
                break;
            }
            lag.came(now);
        }
        lag.look(now)
    }

    #[test]
    fn what_a_timer_adds_is_left_out() {
        let begun = Instant::now();
        let mut lag = Lag::new(begun);
        let at = |ms| begun + Duration::from_millis(ms);
        assert!(run(&mut lag, at(200), |_| US * 700) < US * 2);
        let slow = run(&mut lag, at(400), |n| US * (700 + n % 50 / 49 * 200));
        assert!(slow >= US * 199 && slow < US * 220, "{slow:?}");
        lag.restart();
        assert!(run(&mut lag, at(600), |_| US * 700) < US * 2);
    }

    #[test]
    fn what_was_due_during_a_standstill_counts_one_by_one() {
        let begun = Instant::now();
        let mut lag = Lag::new(begun);
        let at = |ms| begun + Duration::from_millis(ms);
        run(&mut lag, at(280), |_| Duration::ZERO);
        lag.came(lag.due() + Duration::from_millis(20));
        let late = lag.look(at(300));
        assert!(late >= Duration::from_millis(17), "{late:?}");
        // Of a long one only the last second.
        lag.came(lag.due() + Duration::from_secs(5));
        assert!(lag.look(lag.due()) >= Duration::from_millis(989));
    }
}
