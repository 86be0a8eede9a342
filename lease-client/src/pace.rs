//! The speed of transfers: as fast as the pod's own requests stay quick.
//!
//! [`UserLatency`] learns how long requests take, `Lag` how long they wait before they are begun,
//! [`Pacer`] says when bytes may go. Of a Slicelet's transfers all share one pacer, in and out.
//! Beside requests a transfer begins slowly, learns what they take so, and then goes faster by a
//! fixed step as long as their p99 is below the target; it falls by a factor when it is above.
//! Where there are no requests it goes as fast as it can.
//!
//! No clock and no timer: time is an argument.

mod lag;
mod latency;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub(crate) use lag::{LAG_EVERY, Lag};
pub use latency::{LatencyWindow, UserLatency};

/// How fast state may move in and out of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Never more than this, over any second. Without it only requests slow transfers down.
    pub most_bytes_per_s: Option<u64>,
    /// How long the slowest percent of requests may take while state moves. Without it 1.3 times
    /// what it was just before. To what the application observes is added how late the runtime
    /// comes to what is due.
    pub user_p99: Option<Duration>,
}

/// Slower than this no transfer goes, whatever requests take, so that it ends; unless
/// [`Speed::most_bytes_per_s`] is lower. See also [`Pacer::falls_behind`].
const FLOOR: f64 = (16 << 20) as f64;
/// While a transfer falls behind the writes to its slice the floor is doubled as often as this.
const FLOOR_RISES: Duration = Duration::from_secs(1);
/// A transfer begins with this, or less: so slowly that requests hardly notice.
const START: f64 = (32 << 20) as f64;
/// After this it is known whether there are requests.
const FIRST_LOOK: Duration = Duration::from_millis(50);
/// How often the speed is adjusted from then on.
const ADJUST: Duration = Duration::from_millis(100);
/// How long requests beside a transfer at the first speed are watched: what they take so is what
/// they are compared with.
const LEARN: Duration = Duration::from_millis(300);
/// Where there are hardly any requests it goes with this, and faster: as fast as a network goes.
const FREE: f64 = (4u64 << 30) as f64;
/// So long there must be hardly any requests where there were some: a moment without is chance.
const QUIET: Duration = Duration::from_millis(500);
/// Without a cap: faster than any memory.
const CEILING: f64 = (1u64 << 40) as f64;
/// What the speed rises by in a second, as long as requests are quick.
const RISE_PER_S: f64 = (48 << 20) as f64;
/// What it rises by at each adjustment while there are hardly any requests.
const FREE_RISE: f64 = 2.0;
/// Requests count as quick below this share of the target; between it and the target the speed
/// stays.
const QUICK: f64 = 0.9;
/// What the speed falls to at once, at least and at most, by how far the target is missed.
const FALL: (f64, f64) = (0.5, 0.9);
/// The target, as a multiple of the p99 before.
const SLOWER: f64 = 1.3;
/// Or this much above it, if that is more: less is within what timers and wake-ups differ by.
const SLACK: Duration = Duration::from_micros(100);
/// What may go at once after a pause.
const BURST: Duration = Duration::from_millis(2);
/// A frame is no longer than what goes in this time: a thread that prepares a large one is one that
/// serves no requests meanwhile.
const FRAME: Duration = Duration::from_micros(500);
/// But as long as this.
const LEAST_FRAME: usize = 16 << 10;
/// When nothing was sent for so long there may be requests where there were none.
const IDLE: Duration = Duration::from_millis(200);
/// What must go in time goes this much faster than it must.
const AHEAD: f64 = 1.25;
/// What must go in time is said again and again; after so long without it is over.
const MUST_GO_FOR: Duration = Duration::from_secs(3);
/// A transfer that begins no later than this after another one goes on with what was learned.
const REST: Duration = Duration::from_secs(10);

/// Says when bytes of transfers may go. One for all transfers of a pod.
///
/// In any span of time it lets no more pass than the speed times (the span and 2 ms), and one send
/// more; what [went without asking](Pacer::sent) is made up for afterwards.
#[derive(Debug)]
pub struct Pacer {
    speed: Speed,
    bytes_per_s: f64,
    /// What the speed does not fall below.
    floor: f64,
    /// When the floor last rose.
    floor_rose_at: Option<Instant>,
    /// Another floor, for what must go in time, and until when it holds.
    must_go: Option<(f64, Instant)>,
    /// Until when another pod is waited for that is about to end: only a cap holds.
    let_in_until: Option<Instant>,
    /// Bytes that may go now; below zero they were sent in advance.
    allowance: f64,
    filled_at: Instant,
    adjusted_at: Instant,
    /// Since when there are requests; `None` where there are none, or that is not known yet.
    busy_since: Option<Instant>,
    /// When there last were some.
    busy_at: Instant,
    /// Whether the speed has not been adjusted since a transfer began.
    fresh: bool,
    /// When something was sent or wanted to be.
    used_at: Option<Instant>,
    /// Whether something had to wait since the last adjustment: else a higher speed proves nothing.
    held_up: bool,
    /// The p99 that was observed before the transfers.
    observed_before: Option<Duration>,
    /// What the p99 and the lag are compared with.
    before: Option<(Duration, Duration)>,
}

impl Pacer {
    /// A pacer at rest.
    pub fn new(speed: Speed, now: Instant) -> Self {
        let mut pacer = Self {
            speed,
            bytes_per_s: START,
            floor: FLOOR,
            floor_rose_at: None,
            must_go: None,
            let_in_until: None,
            allowance: 0.0,
            filled_at: now,
            adjusted_at: now,
            busy_since: None,
            busy_at: now,
            fresh: true,
            used_at: None,
            held_up: false,
            observed_before: None,
            before: None,
        };
        pacer.set(START);
        pacer
    }

    /// Whether nothing was sent lately: the next transfer begins slowly.
    pub fn is_idle(&self, now: Instant) -> bool {
        let since = |at: Instant| now.saturating_duration_since(at);
        self.used_at.is_none_or(|at| since(at) > IDLE)
    }

    /// A transfer begins while the pacer [is idle](Pacer::is_idle). `p99` is that of the requests
    /// before it; unless others ended a moment ago it is what requests are compared with from here
    /// on.
    pub fn begin(&mut self, now: Instant, p99: Option<Duration>) {
        let rested = |used_at: Instant| now.saturating_duration_since(used_at) > REST;
        if self.used_at.is_none_or(rested) {
            *self = Self {
                observed_before: p99,
                must_go: self.must_go,
                let_in_until: self.let_in_until,
                ..Self::new(self.speed, now)
            };
        }
        self.end_urgency(now);
        (self.busy_since, self.fresh) = (None, true);
        self.set(self.bytes_per_s.min(START));
        (self.adjusted_at, self.used_at) = (now, Some(now));
    }

    /// How long a frame may be, of at most `most_bytes`.
    pub fn frame_bytes(&self, most_bytes: usize) -> usize {
        let paced = (self.bytes_per_s * FRAME.as_secs_f64()) as usize;
        paced.max(LEAST_FRAME).min(most_bytes)
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

    /// So many bytes must have gone in the time that is left, as when a process is about to end:
    /// until a few seconds after this was last said they go fast enough, whatever requests take.
    pub fn must_go(&mut self, now: Instant, bytes: u64, left: Duration) {
        let left = left.max(FLOOR_RISES);
        let least = bytes as f64 / left.as_secs_f64() * AHEAD;
        self.must_go = Some((least.min(CEILING), now + MUST_GO_FOR));
        self.set(self.bytes_per_s);
    }

    /// Whether something must go from here in time.
    pub fn is_urgent(&self, now: Instant) -> bool {
        self.must_go.is_some_and(|(_, until)| now < until)
    }

    /// What comes in is of a pod that is about to end: until a few seconds after this was last said
    /// only a cap slows anything down.
    pub fn let_in(&mut self, now: Instant) {
        self.let_in_until = Some(now + MUST_GO_FOR);
        self.set(self.bytes_per_s);
    }

    fn end_urgency(&mut self, now: Instant) {
        let over = |until: Instant| until <= now;
        if self.must_go.is_some_and(|(_, until)| over(until)) {
            self.must_go = None;
        }
        if self.let_in_until.is_some_and(over) {
            self.let_in_until = None;
            // It was faster than requests would have had it.
            self.set(self.bytes_per_s.min(START));
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        let most = self.bytes_per_s * BURST.as_secs_f64();
        self.allowance = (self.allowance + self.bytes_per_s * passed).min(most);
        self.filled_at = self.filled_at.max(now);
        self.used_at = Some(now);
    }

    /// When [`Pacer::adjust`] is to be called.
    pub fn adjusts_at(&self) -> Instant {
        self.adjusted_at + if self.fresh { FIRST_LOOK } else { ADJUST }
    }

    /// Requests were looked at: their p99 was so high, [`LatencyWindow::p99`], and the latest percent
    /// of what was due was late by `lag`. Without a `p99` there are hardly any requests. The answer
    /// says whether what was measured so far says nothing about what comes.
    pub fn adjust(&mut self, now: Instant, p99: Option<Duration>, lag: Duration) -> bool {
        let passed = now.saturating_duration_since(self.adjusted_at);
        self.adjusted_at = self.adjusted_at.max(now);
        let rose = self.floor_rose_at;
        if rose.is_some_and(|at| now.saturating_duration_since(at) > FLOOR_RISES * 2) {
            (self.floor, self.floor_rose_at) = (FLOOR, None);
        }
        self.end_urgency(now);
        let held_up = std::mem::take(&mut self.held_up);
        let fresh = std::mem::take(&mut self.fresh);
        let Some(observed) = p99 else {
            let quiet = now.saturating_duration_since(self.busy_at);
            if self.busy_since.is_some() && quiet < QUIET {
                return false;
            }
            self.busy_since = None;
            if held_up {
                self.set((self.bytes_per_s * FREE_RISE).max(FREE));
            }
            return false;
        };
        self.busy_at = now;
        let Some(since) = self.busy_since else {
            self.busy_since = Some(now);
            self.set(self.bytes_per_s.min(START));
            return !fresh;
        };
        let (seen_before, lag_before) = match self.before {
            Some(before) => before,
            None if now.saturating_duration_since(since) < LEARN => return false,
            None => (self.observed_before.unwrap_or(observed), lag),
        };
        // Beside a transfer the runtime is no earlier than without: more than this was chance.
        let lag_before = lag_before.min((lag_before + lag) / 2);
        self.before = Some((seen_before, lag_before));
        self.compare(observed + lag, seen_before + lag_before, held_up, passed)
    }

    /// Adjusts the speed by how slow requests are. Whether it fell.
    fn compare(
        &mut self,
        p99: Duration,
        before: Duration,
        held_up: bool,
        passed: Duration,
    ) -> bool {
        let relative = before.mul_f64(SLOWER).max(before + SLACK);
        let target = self.speed.user_p99.unwrap_or(relative);
        let share = p99.as_secs_f64() / target.as_secs_f64().max(f64::MIN_POSITIVE);
        if share > 1.0 {
            self.set(self.bytes_per_s * (1.0 / share).clamp(FALL.0, FALL.1));
        } else if share < QUICK && held_up {
            let step = RISE_PER_S * passed.as_secs_f64().min(1.0);
            self.set(self.bytes_per_s + step);
        }
        share > 1.0
    }

    fn set(&mut self, bytes_per_s: f64) {
        let most = self
            .speed
            .most_bytes_per_s
            .map_or(CEILING, |most| most.max(1) as f64);
        let must_go = self.must_go.map_or(0.0, |(least, _)| least);
        let let_in = self.let_in_until.map_or(0.0, |_| CEILING);
        let least = self.floor.max(must_go).max(let_in);
        self.bytes_per_s = bytes_per_s.max(least).min(most);
    }

    /// The present speed.
    pub fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s as u64
    }
}
