//! The speed of a Slicelet's transfers: one pacer for all, adjusted by how long requests take.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;

use super::super::Shared;
use crate::pace::{Pacer, Speed, UserLatency};

/// How often the speed is adjusted.
const ADJUST: Duration = Duration::from_millis(100);

/// See the module's description.
pub(super) struct Throttle(Mutex<Pacer>);

impl Throttle {
    pub(super) fn new(speed: Speed) -> Self {
        Self(Mutex::new(Pacer::new(speed, Instant::now())))
    }

    fn pacer(&self) -> MutexGuard<'_, Pacer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transfer begins.
    pub(super) fn begin(&self, latency: &UserLatency) {
        let now = Instant::now();
        let window = latency.window(now).or_else(|| latency.last());
        self.pacer()
            .begin(now, window.and_then(|window| window.p99));
    }

    /// How long a transfer must wait before it may go on, if it must.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.pacer().may_send(Instant::now(), 0).err()
    }

    /// A transfer does not gain on the writes to its slice.
    pub(super) fn falls_behind(&self) {
        self.pacer().falls_behind(Instant::now());
    }

    /// So many bytes go now.
    pub(super) fn charge(&self, bytes: usize) {
        // What may not wait, the last change of a frozen slice, goes in any case.
        self.pacer().sent(Instant::now(), bytes);
    }
}

/// Adjusts the speed for as long as it is polled.
pub(super) async fn adjust(throttle: Arc<Throttle>, shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(ADJUST);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = Instant::now();
        if let Some(window) = shared.latency.window(now) {
            throttle.pacer().adjust(now, window.p99);
        }
    }
}
