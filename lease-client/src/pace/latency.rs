//! How long requests take: counts by duration, that many threads add to at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Threads share these: few meet.
const SHARDS: usize = 16;
/// Buckets of equal width in each doubling: durations are known to a sixteenth.
const STEPS: u64 = 16;
/// Longer durations, in microseconds, count as this: two minutes.
const LONGEST_US: u64 = (1 << 27) - 1;
pub(super) const BUCKETS: usize = bucket(LONGEST_US) + 1;

/// Looks are put together until there are so many samples: with fewer a p99 is a matter of chance.
const ENOUGH: u64 = 300;
/// What is older than this is left out even if there are fewer.
const LONGEST: Duration = Duration::from_secs(1);
/// With fewer in a second there are hardly any requests.
const FEW_PER_S: f64 = 20.0;

/// Learns how long the pod's own requests take.
pub struct UserLatency {
    shards: [Shard; SHARDS],
    recent: Mutex<Recent>,
}

/// Only ever rise.
#[repr(align(128))]
struct Shard([AtomicU64; BUCKETS]);

/// Requests of a short time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyWindow {
    /// How many.
    pub samples: u64,
    /// The slowest percent took at least so long; `None` with fewer than 20 samples in a second.
    pub p99: Option<Duration>,
}

/// The last few looks at counts that only ever rise.
pub(super) struct Recent {
    /// When each look was, and what was counted by then.
    looks: VecDeque<(Instant, Box<[u64]>)>,
}

impl Recent {
    pub(super) fn new(now: Instant) -> Self {
        let looks = VecDeque::from([(now, vec![0; BUCKETS].into())]);
        Self { looks }
    }

    /// What was counted lately: since the last look that has enough behind it. `counts` are those
    /// of now.
    pub(super) fn look(&mut self, now: Instant, counts: Box<[u64]>) -> LatencyWindow {
        let since = |at: Instant| now.saturating_duration_since(at);
        let new = |old: &[u64]| -> Vec<u64> {
            let pairs = counts.iter().zip(old);
            pairs.map(|(all, old)| all.saturating_sub(*old)).collect()
        };
        while let Some((at, later)) = self.looks.get(1)
            && (since(*at) >= LONGEST || new(later).iter().sum::<u64>() >= ENOUGH)
        {
            self.looks.pop_front();
        }
        let (age, new) = match self.looks.front() {
            Some((at, old)) => (since(*at), new(old)),
            None => (Duration::ZERO, Vec::new()),
        };
        self.looks.push_back((now, counts));
        let samples = new.iter().sum();
        let enough = samples > 0 && samples as f64 >= FEW_PER_S * age.as_secs_f64();
        let p99 = enough.then(|| quantile(&new, samples - samples / 100));
        LatencyWindow { samples, p99 }
    }

    /// What was counted before the last look is left out from here on.
    pub(super) fn restart(&mut self) {
        self.looks.drain(..self.looks.len().saturating_sub(1));
    }
}

impl UserLatency {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Self {
            shards: [const { Shard([const { AtomicU64::new(0) }; BUCKETS]) }; SHARDS],
            recent: Mutex::new(Recent::new(now)),
        }
    }

    /// A request took so long. Lock-free.
    #[inline]
    pub fn observe(&self, took: Duration) {
        let Shard(buckets) = &self.shards[shard() % SHARDS];
        buckets[bucket_of(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was observed lately: of the last looks as many as have 300 samples, at most those of a
    /// second. To be called every 100 ms while state moves.
    pub fn look(&self, now: Instant) -> LatencyWindow {
        self.recent().look(now, self.counts())
    }

    /// What was observed before the last look is left out from here on.
    pub fn restart(&self) {
        self.recent().restart();
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counts(&self) -> Box<[u64]> {
        let count = |bucket: usize| {
            let of = |Shard(buckets): &Shard| buckets[bucket].load(Ordering::Relaxed);
            self.shards.iter().map(of).sum()
        };
        (0..BUCKETS).map(count).collect()
    }
}

impl std::fmt::Debug for UserLatency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let samples: u64 = self.counts().iter().sum();
        write!(f, "UserLatency({samples} samples)")
    }
}

/// Where this thread counts.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    // While the thread ends there is none.
    SHARD.try_with(|shard| *shard).unwrap_or(0)
}

/// Where a duration counts.
pub(super) fn bucket_of(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    bucket(us.min(LONGEST_US))
}

const fn bucket(us: u64) -> usize {
    let doublings = if us < STEPS {
        0
    } else {
        us.ilog2() - STEPS.ilog2()
    };
    (doublings as u64 * STEPS + (us >> doublings)) as usize
}

/// The longest duration that counts in the bucket.
const fn longest_us(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let doublings = (bucket / STEPS).saturating_sub(1);
    ((bucket - doublings * STEPS + 1) << doublings) - 1
}

/// How long the `rank`th of the requests took, counted from the quickest, which is the first.
fn quantile(counts: &[u64], rank: u64) -> Duration {
    let mut quicker = 0;
    let found = counts.iter().position(|count| {
        quicker += count;
        quicker >= rank
    });
    Duration::from_micros(found.map_or(LONGEST_US, longest_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_known_to_a_sixteenth() {
        let mut last = 0;
        for us in (0..100_000)
            .chain((17..27).map(|n| (1 << n) + n))
            .chain([LONGEST_US])
        {
            let at = bucket(us);
            assert!(at == last || at == last + 1 || us >= 100_000);
            assert!(
                longest_us(at) >= us && longest_us(at) <= us + us / 16,
                "{us}"
            );
            assert_eq!(bucket(longest_us(at)), at);
            last = at;
        }
    }

    #[test]
    fn a_look_goes_back_as_far_as_it_must_to_say_something() {
        let start = Instant::now();
        let latency = UserLatency::new(start);
        let look = |ms| {
            let window = latency.look(start + Duration::from_millis(ms));
            let p99_ms = window.p99.map(|p99| p99.as_micros() / 1_000);
            (window.samples, p99_ms)
        };
        let observe = |n, ms| (0..n).for_each(|_| latency.observe(Duration::from_millis(ms)));
        observe(990, 1);
        observe(10, 20);
        assert_eq!(look(100), (1_000, Some(1)), "ten of 1000 are slower");
        observe(98, 1);
        observe(2, 20);
        assert_eq!(look(200), (1_100, Some(20)));
        observe(300, 1);
        assert_eq!(look(300), (300, Some(1)), "enough by itself");
        observe(299, 2);
        assert_eq!(look(400), (599, Some(2)));
        observe(3, 1);
        assert_eq!(look(500), (302, Some(2)));
        assert_eq!(look(1_399), (302, Some(2)));
        assert_eq!(look(1_400), (3, None), "all but these are a second old");
        latency.observe(Duration::MAX);
        assert_eq!(look(1_500).0, 1);
    }

    #[test]
    fn what_is_left_out_is_not_seen_again() {
        let start = Instant::now();
        let latency = UserLatency::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        (0..100).for_each(|_| latency.observe(Duration::from_secs(1)));
        assert_eq!(latency.look(at(100)).samples, 100);
        latency.restart();
        assert_eq!(latency.look(at(150)).p99, None);
        latency.observe(Duration::from_millis(1));
        // One in a twentieth of a second is as many as twenty in a second.
        let seen = latency.look(at(150));
        assert!(seen.samples == 1 && seen.p99.unwrap() < Duration::from_millis(2));
        assert_eq!(latency.look(at(151)).samples, 1);
    }

    #[test]
    fn threads_that_observe_at_once_are_all_counted() {
        let start = Instant::now();
        let latency = UserLatency::new(start);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let latency = &latency;
                let observe = |n| latency.observe(Duration::from_micros(n));
                scope.spawn(move || (0..10_000).map(|n| n * thread).for_each(observe));
            }
        });
        let window = latency.look(start + Duration::from_millis(100));
        assert_eq!(window.samples, 40_000);
    }
}
