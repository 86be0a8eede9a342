//! How long requests take: counts by duration, that many threads add to at once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Threads share these: few meet.
const SHARDS: usize = 16;
/// Buckets of equal width in each doubling: durations are known to a sixteenth.
const STEPS: u64 = 16;
/// Longer durations, in microseconds, count as this: two minutes.
const LONGEST_US: u64 = (1 << 27) - 1;
const BUCKETS: usize = bucket(LONGEST_US) + 1;

/// A window is open for this long at least.
const SHORTEST: Duration = Duration::from_millis(100);
/// And for this long at most, if there are fewer requests than [`ENOUGH`].
const LONGEST: Duration = Duration::from_secs(1);
/// With fewer samples a p99 is a matter of chance.
const ENOUGH: u64 = 500;
/// With fewer there is none.
const FEW: u64 = 20;

/// Learns how long the pod's own requests take.
pub struct UserLatency {
    shards: [Shard; SHARDS],
    window: Mutex<Open>,
}

/// Only ever rise.
#[repr(align(128))]
struct Shard([AtomicU64; BUCKETS]);

/// The window that is open.
struct Open {
    since: Instant,
    /// What the shards had together when it was opened.
    counts: Box<[u64]>,
    closed: Option<LatencyWindow>,
}

/// Requests of a short time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyWindow {
    /// How many.
    pub samples: u64,
    /// The slowest percent took at least so long; `None` with fewer than 20 samples.
    pub p99: Option<Duration>,
}

impl UserLatency {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Self {
            shards: [const { Shard([const { AtomicU64::new(0) }; BUCKETS]) }; SHARDS],
            window: Mutex::new(Open {
                since: now,
                counts: vec![0; BUCKETS].into(),
                closed: None,
            }),
        }
    }

    /// A request took so long. Lock-free.
    #[inline]
    pub fn observe(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let Shard(buckets) = &self.shards[shard() % SHARDS];
        buckets[bucket(took_us.min(LONGEST_US))].fetch_add(1, Ordering::Relaxed);
    }

    /// Closes the window if it has been open for long enough, and opens the next. To be called every
    /// 100 ms while state moves; each window is returned once.
    pub fn window(&self, now: Instant) -> Option<LatencyWindow> {
        let mut open = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_duration_since(open.since);
        if age < SHORTEST {
            return None;
        }
        let counts = self.counts();
        let new: Vec<u64> = counts
            .iter()
            .zip(&open.counts)
            .map(|(all, old)| all - old)
            .collect();
        let samples = new.iter().sum();
        if samples < ENOUGH && age < LONGEST {
            return None;
        }
        let p99 = (samples >= FEW).then(|| quantile(&new, samples - samples / 100));
        let window = LatencyWindow { samples, p99 };
        *open = Open {
            since: now,
            counts,
            closed: Some(window),
        };
        Some(window)
    }

    /// The window that was closed last.
    pub fn last(&self) -> Option<LatencyWindow> {
        let open = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        open.closed
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
        write!(f, "UserLatency({:?})", self.last())
    }
}

/// Where this thread counts.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    // While the thread ends there is none.
    SHARD.try_with(|shard| *shard).unwrap_or(0)
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
    fn a_window_is_closed_when_it_says_something() {
        let start = Instant::now();
        let latency = UserLatency::new(start);
        let at = |ms| start + Duration::from_millis(ms);
        let observe = |n, ms| (0..n).for_each(|_| latency.observe(Duration::from_millis(ms)));
        observe(990, 1);
        observe(10, 20);
        assert_eq!(latency.window(at(99)), None, "too young");
        let window = latency.window(at(100)).unwrap();
        assert_eq!(window.samples, 1_000);
        assert!(
            window.p99.unwrap() < Duration::from_millis(2),
            "ten of 1000 are slower"
        );
        assert_eq!(latency.last(), Some(window));
        observe(99, 1);
        observe(1, 20);
        observe(1, 20);
        assert_eq!(latency.window(at(1_099)), None, "too few samples");
        assert!(latency.window(at(1_100)).unwrap().p99.unwrap() >= Duration::from_millis(20));
        observe(19, 1);
        let few = latency.window(at(2_100)).unwrap();
        assert_eq!((few.samples, few.p99), (19, None));
        latency.observe(Duration::MAX);
        assert_eq!(latency.window(at(3_100)).unwrap().samples, 1);
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
        let window = latency.window(start + SHORTEST).unwrap();
        assert_eq!(window.samples, 40_000);
    }
}
