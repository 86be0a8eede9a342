//! What `benches/hot_path.rs` measures: the real checks and lookups, without an Assigner.

use std::sync::{Arc, Mutex, PoisonError};

use leasehold_proto::KeyHash;

use crate::clerk::Clerk;
use crate::clock::{Clock, SystemClock};
use crate::error::GuardError;
use crate::slicelet::offline::Offline;
use crate::slicelet::{Guard, Slicelet};

/// A Slicelet that owns everything, cut into slices.
pub struct BenchSlicelet {
    slicelet: Arc<Slicelet>,
    offline: Mutex<Offline>,
}

/// A Slicelet that owns `slices` slices for five minutes.
pub fn slicelet_of(slices: u32) -> BenchSlicelet {
    let clock = Clock::System(SystemClock::new());
    let mut offline =
        Offline::new(clock, Offline::long(), slices, None).unwrap_or_else(|| std::process::abort());
    offline.renew();
    BenchSlicelet {
        slicelet: Arc::clone(&offline.slicelet),
        offline: Mutex::new(offline),
    }
}

impl BenchSlicelet {
    /// As [`crate::Slicelet::guard`].
    #[inline]
    pub fn guard(&self, key: &[u8]) -> Result<Guard, GuardError> {
        self.slicelet.guard(key)
    }

    /// Publishes the table anew, as a change of the assignment does.
    pub fn swap(&self) {
        self.offline
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .swap();
    }
}

/// A Clerk whose map has `slices` slices on 64 pods.
pub fn clerk_of(slices: usize) -> Clerk {
    let clock = Clock::System(SystemClock::new());
    let offline = Offline::new(clock, Offline::long(), 1, None);
    let view = offline
        .and_then(|offline| offline.wide_view(slices, 64))
        .unwrap_or_else(|| std::process::abort());
    Clerk::with_view(KeyHash::default(), view)
}
