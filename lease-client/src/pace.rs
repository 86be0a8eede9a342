//! The speed of transfers: as fast as the pod's own requests stay quick.
//!
//! [`UserLatency`] learns how long requests take, [`Pacer`] says when bytes may go. Of a pod's
//! transfers all share one pacer, in and out. The speed rises by a fixed step as long as the p99
//! of requests is below the target and falls by a factor when it is above; before it first was
//! above, the speed rises by a factor too.
//!
//! No clock and no timer: time is an argument.

mod latency;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use latency::{LatencyWindow, UserLatency};

/// How fast state may move in and out of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Never more than this, over any second. Without it only requests slow transfers down.
    pub most_bytes_per_s: Option<u64>,
    /// How long the slowest percent of requests may take while state moves. Without it 1.3 times
    /// what it was just before.
    pub user_p99: Option<Duration>,
}

/// Slower than this no transfer goes, whatever requests take, so that it ends; unless
/// [`Speed::most_bytes_per_s`] is lower. See also [`Pacer::falls_behind`].
const FLOOR: f64 = (1 << 20) as f64;
/// While a transfer falls behind the writes to its slice the floor is doubled as often as this.
const FLOOR_RISES: Duration = Duration::from_secs(1);
/// The first transfer after a rest begins with this where there are requests.
const START: f64 = (64 << 20) as f64;
/// It begins with this where there are hardly any requests: as fast as a network goes, and not so far
/// above it that the speed would take long to fall when requests come.
const FREE: f64 = (4u64 << 30) as f64;
/// Without a cap: faster than any memory.
const CEILING: f64 = (1u64 << 40) as f64;
/// What the speed rises by in a second, as long as requests are quick.
const RISE_PER_S: f64 = (80 << 20) as f64;
/// What it rises by at each adjustment before requests were slow for the first time.
const FIRST_RISE: f64 = 1.5;
/// What it rises by at each adjustment while there are hardly any requests.
const FREE_RISE: f64 = 2.0;
/// Requests count as quick below this share of the target; between it and the target the speed
/// stays.
const QUICK: f64 = 0.9;
/// What the speed falls to at once, at least and at most, by how far the target is missed.
const FALL: (f64, f64) = (0.5, 0.9);
/// The target, as a multiple of the p99 before.
const SLOWER: f64 = 1.3;
/// What may go at once after a pause.
const BURST: Duration = Duration::from_millis(10);
/// A transfer that begins no later than this after another one goes on with what was learned.
const REST: Duration = Duration::from_secs(10);

/// Says when bytes of transfers may go. One for all transfers of a pod.
///
/// In any span of time it lets no more pass than the speed times (the span and 10 ms), and one send
/// more; what [went without asking](Pacer::sent) is made up for afterwards.
#[derive(Debug)]
pub struct Pacer {
    speed: Speed,
    bytes_per_s: f64,
    /// What the speed does not fall below.
    floor: f64,
    /// When the floor last rose.
    floor_rose_at: Option<Instant>,
    /// Bytes that may go now; below zero they were sent in advance.
    allowance: f64,
    filled_at: Instant,
    adjusted_at: Instant,
    /// When something was sent or wanted to be.
    used_at: Option<Instant>,
    /// Whether something had to wait since the last adjustment: else a higher speed proves nothing.
    held_up: bool,
    /// Before the speed first had to fall.
    first_rise: bool,
    /// The p99 before the transfers.
    before: Option<Duration>,
    /// The p99 now: of two windows the mean, and so on, since one alone is noise for the most part.
    p99: Option<Duration>,
}

impl Pacer {
    /// A pacer at rest.
    pub fn new(speed: Speed, now: Instant) -> Self {
        let mut pacer = Self {
            speed,
            bytes_per_s: START,
            floor: FLOOR,
            floor_rose_at: None,
            allowance: 0.0,
            filled_at: now,
            adjusted_at: now,
            used_at: None,
            held_up: false,
            first_rise: true,
            before: None,
            p99: None,
        };
        pacer.set(START);
        pacer
    }

    /// A transfer begins. `p99` is that of the requests of the last window. Unless others were
    /// under way a moment ago it is what requests are compared with from here on.
    pub fn begin(&mut self, now: Instant, p99: Option<Duration>) {
        let rested = |used_at: Instant| now.saturating_duration_since(used_at) > REST;
        if self.used_at.is_none_or(rested) {
            *self = Self {
                before: p99,
                ..Self::new(self.speed, now)
            };
            // There is nobody to slow down.
            if p99.is_none() {
                self.set(FREE);
            }
        }
        self.used_at = Some(now);
    }

    /// Whether so many bytes may go now; then they count as sent.
    ///
    /// # Errors
    /// How long to wait before asking again. Others may be quicker then.
    pub fn may_send(&mut self, now: Instant, bytes: usize) -> Result<(), Duration> {
        self.fill(now);
        if self.allowance < 0.0 {
            self.held_up = true;
            let wait = Duration::try_from_secs_f64(-self.allowance / self.bytes_per_s);
            // Timers are no finer than this.
            return Err(wait.unwrap_or(Duration::MAX).max(Duration::from_millis(1)));
        }
        self.allowance -= bytes as f64;
        Ok(())
    }

    /// So many bytes went without asking, such as what may not wait: others wait for longer.
    pub fn sent(&mut self, now: Instant, bytes: usize) {
        self.fill(now);
        self.allowance -= bytes as f64;
    }

    /// A transfer does not gain on the writes to its slice, so that it would never end: for as long
    /// as this is said the speed falls less and less far, whatever requests take.
    pub fn falls_behind(&mut self, now: Instant) {
        let since = |at| now.saturating_duration_since(at);
        if self.floor_rose_at.is_none_or(|at| since(at) >= FLOOR_RISES) {
            self.floor = (self.floor * 2.0).min(CEILING);
            self.floor_rose_at = Some(now);
            self.set(self.bytes_per_s);
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        let most = self.bytes_per_s * BURST.as_secs_f64();
        self.allowance = (self.allowance + self.bytes_per_s * passed).min(most);
        self.filled_at = self.filled_at.max(now);
        self.used_at = Some(now);
    }

    /// A window of requests is over: [`LatencyWindow::p99`]. `None` says that there were hardly
    /// any.
    pub fn adjust(&mut self, now: Instant, p99: Option<Duration>) {
        let passed = now.saturating_duration_since(self.adjusted_at);
        self.adjusted_at = self.adjusted_at.max(now);
        let rose = self.floor_rose_at;
        if rose.is_some_and(|at| now.saturating_duration_since(at) > FLOOR_RISES * 2) {
            (self.floor, self.floor_rose_at) = (FLOOR, None);
        }
        self.p99 = p99.map(|p99| self.p99.map_or(p99, |known| (known + p99) / 2));
        let held_up = std::mem::take(&mut self.held_up);
        let Some(p99) = self.p99 else {
            if held_up {
                self.set(self.bytes_per_s * FREE_RISE);
            }
            return;
        };
        // Where nothing was measured before, the first window is nearest to it: it is at the speed
        // of the start.
        let before = *self.before.get_or_insert(p99);
        let target = self.speed.user_p99.unwrap_or(before.mul_f64(SLOWER));
        let share = p99.as_secs_f64() / target.as_secs_f64().max(f64::MIN_POSITIVE);
        if share > 1.0 {
            self.first_rise = false;
            self.set(self.bytes_per_s * (1.0 / share).clamp(FALL.0, FALL.1));
        } else if share < QUICK && held_up {
            let step = RISE_PER_S * passed.as_secs_f64().min(1.0);
            let first = self.bytes_per_s * FIRST_RISE;
            let rise = self.bytes_per_s + step;
            self.set(if self.first_rise {
                first.max(rise)
            } else {
                rise
            });
        }
    }

    fn set(&mut self, bytes_per_s: f64) {
        let most = self
            .speed
            .most_bytes_per_s
            .map_or(CEILING, |most| most.max(1) as f64);
        self.bytes_per_s = bytes_per_s.max(self.floor).min(most);
    }

    /// The present speed.
    pub fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s as u64
    }
}
