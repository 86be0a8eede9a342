//! The speed of a Slicelet's transfers: one pacer for all, adjusted by how long requests take.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::Shared;
use super::tick::Tick;
use crate::pace::{LAG_EVERY, Lag, Pacer, Speed, UserLatency};

/// See the module's description.
pub(crate) struct Throttle(Mutex<Pacer>);

impl Throttle {
    pub(super) fn new(speed: Speed) -> Self {
        Self(Mutex::new(Pacer::new(speed, Instant::now())))
    }

    fn pacer(&self) -> MutexGuard<'_, Pacer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transfer begins.
    pub(super) fn begin(&self, latency: &UserLatency) {
        let (now, mut pacer) = (Instant::now(), self.pacer());
        if pacer.is_idle(now) {
            pacer.begin(now, latency.look(now).p99);
            latency.restart();
        }
    }

    /// How long the next frame may be, of at most `most_bytes`.
    pub(super) fn frame_bytes(&self, most_bytes: usize) -> usize {
        self.pacer().frame_bytes(most_bytes)
    }

    /// How long a transfer must wait before it may go on, if it must.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.pacer().may_send(Instant::now(), 0).err()
    }

    /// A transfer does not gain on the writes to its slice.
    pub(super) fn falls_behind(&self) {
        self.pacer().falls_behind(Instant::now());
    }

    /// So many bytes must have gone in the time that is left.
    pub(crate) fn must_go(&self, bytes: u64, left: Duration) {
        self.pacer().must_go(Instant::now(), bytes, left);
    }

    /// Whether some must go in time.
    pub(super) fn is_urgent(&self) -> bool {
        self.pacer().is_urgent(Instant::now())
    }

    /// What comes in must come in time.
    pub(super) fn let_in(&self) {
        self.pacer().let_in(Instant::now());
    }

    /// So many bytes go now.
    pub(super) fn charge(&self, bytes: usize) {
        // What may not wait, the last change of a frozen slice, goes in any case.
        self.pacer().sent(Instant::now(), bytes);
    }
}

/// Adjusts the speed for as long as it is polled.
pub(super) async fn adjust(throttle: Arc<Throttle>, shared: Arc<Shared>) {
    let mut lag = Lag::new(Instant::now());
    let mut exact = Tick::every(LAG_EVERY).ok();
    loop {
        match &exact {
            Some(tick) if tick.next().await.is_err() => exact = None,
            Some(_) => {}
            // Coarser, but it does.
            None => tokio::time::sleep_until(lag.due().into()).await,
        }
        let now = Instant::now();
        lag.came(now);
        let mut pacer = throttle.pacer();
        if now < pacer.adjusts_at() {
            continue;
        }
        let observed = shared.latency.look(now).p99;
        if pacer.adjust(now, observed, lag.look(now)) {
            shared.latency.restart();
            lag.restart();
        }
    }
}
