//! State goes with its slice: transfers between real Slicelets over real connections.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;
mod pod;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fake::Fake;
use leasehold_client::proto::target::TargetConfig;
use leasehold_client::state::StateMap;
use leasehold_client::{SliceletBuilder, Transfers};
use pod::{LONG, Pod};

/// A pod with a map of counts in its memory.
struct Counter {
    pod: Pod,
    counts: StateMap<u64>,
}

impl Counter {
    async fn start(fake: &Fake) -> Counter {
        Self::start_with(fake, |builder| builder).await
    }

    async fn start_with(
        fake: &Fake,
        with: impl FnOnce(SliceletBuilder) -> SliceletBuilder,
    ) -> Counter {
        let counts = StateMap::new();
        let state = counts.clone();
        let pod = Pod::start_with(fake, "cart", |builder| with(builder.state(state))).await;
        pod.slicelet.ready(LONG).await.unwrap();
        Counter { pod, counts }
    }

    /// The count after one more, if it was served here.
    async fn increment(&self, key: &[u8]) -> Option<u64> {
        let guard = self.pod.slicelet.guard_or_wait(key).await.ok()?;
        let count = self.counts.update(&guard, key, |count| {
            let count = count.get_or_insert(0);
            *count += 1;
            *count
        });
        let count = count.ok()?;
        guard.verify().ok().map(|()| count)
    }

    fn count(&self, key: &[u8]) -> Option<u64> {
        let guard = self.pod.slicelet.guard(key).ok()?;
        self.counts.get(&guard, key)
    }

    async fn serves(&self, key: &[u8]) {
        pod::until("it is served", || self.pod.slicelet.guard(key).is_ok()).await;
    }

    async fn begin_move(&self, fake: &Fake, key: &[u8]) {
        let to = self.pod.slicelet.session().unwrap();
        let at = self.pod.slicelet.slice_key(key);
        pod::until("the destination may receive", || {
            fake.hand_off("cart", at, to).is_ok()
        })
        .await;
    }

    /// Has the slice of the key moved to here.
    async fn take(&self, fake: &Fake, key: &[u8]) {
        self.begin_move(fake, key).await;
        self.serves(key).await;
        pod::until("the handoff is completed", || {
            !fake.has_open_handoff("cart")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_arrives_with_its_state_and_leaves_none_behind() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let a = Counter::start(&fake).await;
    a.serves(b"alice").await;
    for n in 1..=3 {
        assert_eq!(a.increment(b"alice").await, Some(n));
    }
    let b = Counter::start(&fake).await;
    b.take(&fake, b"alice").await;
    assert_eq!(b.count(b"alice"), Some(3));
    let stats = b.pod.slicelet.stats();
    assert_eq!((stats.arrivals_warm, stats.transfers_in_completed), (1, 1));
    // It goes back: what the first one had before is not there any more, whatever it was.
    assert_eq!(b.increment(b"alice").await, Some(4));
    a.take(&fake, b"alice").await;
    assert_eq!(a.count(b"alice"), Some(4));
    assert_eq!(a.pod.slicelet.stats().transfers_out_completed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_increment_is_lost_or_doubled_over_moves_under_load() {
    let fake = Fake::start().await;
    fake.create("cart", 2, TargetConfig::default());
    let pods = [Counter::start(&fake).await, Counter::start(&fake).await];
    let pods = Arc::new(pods);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4u8)
        .map(|client| {
            let (pods, stop) = (Arc::clone(&pods), Arc::clone(&stop));
            tokio::spawn(async move {
                let keys: Vec<[u8; 2]> = (0..50).map(|n| [client, n]).collect();
                let mut acknowledged = vec![0; keys.len()];
                while !stop.load(Ordering::Relaxed) {
                    for (key, known) in keys.iter().zip(&mut acknowledged) {
                        for pod in pods.iter() {
                            if let Some(count) = pod.increment(key).await {
                                *known += 1;
                                assert_eq!(count, *known, "{key:?}");
                            }
                        }
                    }
                    tokio::task::yield_now().await;
                }
                acknowledged.iter().sum::<u64>()
            })
        })
        .collect();
    for n in 0..200 {
        let key = [(n % 4) as u8, (n % 50) as u8];
        pods[n % 2].serves_or_takes(&fake, &key).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = 0;
    for client in clients {
        acknowledged += client.await.unwrap();
    }
    let stats = pods.each_ref().map(|pod| pod.pod.slicelet.stats());
    println!("{acknowledged} increments; {stats:#?}");
    assert!(acknowledged > 1_000);
}

impl Counter {
    async fn serves_or_takes(&self, fake: &Fake, key: &[u8]) {
        if self.pod.slicelet.guard(key).is_err() {
            self.take(fake, key).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_that_nobody_asks_for_state_of_moves_without() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let a = Pod::start(&fake, "cart").await;
    pod::until("it is served", || a.slicelet.guard(b"alice").is_ok()).await;
    let b = Counter::start(&fake).await;
    b.take(&fake, b"alice").await;
    assert_eq!(b.pod.slicelet.stats().arrivals_cold, 1);
    assert_eq!(b.increment(b"alice").await, Some(1));
    let _ = (Duration::ZERO, Transfers::default());
}
