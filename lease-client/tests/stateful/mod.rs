//! Pods with state of two kinds: one that says what is in it, and one of any size.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several test files"
)]

use std::sync::Arc;

use leasehold_client::state::StateMap;
use leasehold_client::{SliceletBuilder, Stats, Transfers};

use crate::fake::Fake;
use crate::pod::{self, LONG, Pod};
use crate::proxy::Proxy;
use crate::states::{Between, Bulk};

/// A pod with a map of counts in its memory.
pub struct Counter {
    pub pod: Pod,
    pub counts: StateMap<u64>,
}

impl Counter {
    pub async fn start(fake: &Fake) -> Counter {
        Self::start_with(fake, |builder| builder).await
    }

    pub async fn start_with(
        fake: &Fake,
        with: impl FnOnce(SliceletBuilder) -> SliceletBuilder,
    ) -> Counter {
        Self::with(fake, StateMap::new(), with).await
    }

    pub async fn with(
        fake: &Fake,
        counts: StateMap<u64>,
        with: impl FnOnce(SliceletBuilder) -> SliceletBuilder,
    ) -> Counter {
        let state = counts.clone();
        let pod = Pod::start_with(fake, "cart", |builder| with(builder.state(state))).await;
        pod.slicelet.ready(LONG).await.unwrap();
        Counter { pod, counts }
    }

    /// The count after one more, if it was served here.
    pub async fn increment(&self, key: &[u8]) -> Option<u64> {
        let guard = self.pod.slicelet.guard_or_wait(key).await.ok()?;
        let count = self.counts.update(&guard, key, |count| {
            let count = count.get_or_insert(0);
            *count += 1;
            *count
        });
        let count = count.ok()?;
        guard.verify().ok().map(|()| count)
    }

    pub fn count(&self, key: &[u8]) -> Option<u64> {
        let guard = self.pod.slicelet.guard(key).ok()?;
        self.counts.get(&guard, key)
    }

    pub async fn serves(&self, key: &[u8]) {
        pod::until("it is served", || self.pod.slicelet.guard(key).is_ok()).await;
    }

    pub async fn begin_move(&self, fake: &Fake, key: &[u8]) {
        let to = self.pod.slicelet.session().unwrap();
        let at = self.pod.slicelet.slice_key(key);
        pod::until("the destination may receive", || {
            fake.hand_off("cart", at, to).is_ok()
        })
        .await;
    }

    /// Has the slice of the key moved to here.
    pub async fn take(&self, fake: &Fake, key: &[u8]) {
        self.begin_move(fake, key).await;
        self.serves(key).await;
        pod::until("the handoff is completed", || {
            !fake.has_open_handoff("cart")
        })
        .await;
    }
}

/// A pod with state of any size, behind a proxy.
pub struct Large {
    pub pod: Pod,
    pub state: Bulk,
    pub proxy: Proxy,
}

impl Large {
    pub async fn start(
        fake: &Fake,
        between: &Arc<Between>,
        bytes: u64,
        transfers: Transfers,
    ) -> Large {
        let state = Bulk::new(between, bytes);
        let (lent, proxy) = (state.clone(), Proxy::start().await);
        let pod = Pod::start_with(fake, "cart", |builder| {
            builder
                .state(lent)
                .transfers(transfers)
                .advertise(&proxy.address)
        })
        .await;
        proxy.lead_to(Some(&pod.address));
        pod.slicelet.ready(LONG).await.unwrap();
        Large { pod, state, proxy }
    }

    pub fn serves(&self) -> bool {
        self.pod.slicelet.guard(b"alice").is_ok()
    }

    pub fn stats(&self) -> Stats {
        self.pod.slicelet.stats()
    }

    pub async fn begin_move(&self, fake: &Fake) {
        let slicelet = &self.pod.slicelet;
        let at = slicelet.slice_key(b"alice");
        pod::until("the destination may receive", || {
            fake.hand_off("cart", at, slicelet.session().unwrap())
                .is_ok()
        })
        .await;
    }
}

/// Two pods, of which the first serves a slice of so many bytes.
pub async fn pair(fake: &Fake, bytes: u64, transfers: Transfers) -> (Large, Large, Arc<Between>) {
    let between = Arc::default();
    let a = Large::start(fake, &between, bytes, transfers.clone()).await;
    pod::until("it is served", || a.serves()).await;
    let b = Large::start(fake, &between, bytes, transfers).await;
    (a, b, between)
}

/// Slow enough that a test can come between.
pub fn slow() -> Transfers {
    let mut transfers = Transfers::default();
    transfers.speed.most_bytes_per_s = Some(40 << 20);
    transfers
}
