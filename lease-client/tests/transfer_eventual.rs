//! Eventual mode: the new owner serves at once, and merges in what the one before has.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;
mod pod;
mod proxy;
mod stateful;
mod states;

use fake::Fake;
use leasehold_client::proto::command::PlanStep;
use leasehold_client::proto::target::{Consistency, Mode, TargetConfig};
use leasehold_client::state::StateMap;
use pod::LONG;
use proxy::Proxy;
use stateful::{Counter, pair, slow};

/// A target whose slices are served by their new owners at once.
fn eventual() -> TargetConfig {
    TargetConfig {
        consistency: Consistency::Eventual,
        ..TargetConfig::default()
    }
}

impl Counter {
    /// Is given the slice of the key at once.
    async fn seize(&self, fake: &Fake, key: &[u8]) {
        let slicelet = &self.pod.slicelet;
        let (to, at) = (slicelet.session().unwrap(), slicelet.slice_key(key));
        let (slice, from) = fake.owner("cart", at).unwrap();
        let from = Some(from);
        let step = || PlanStep::Reassign { slice, from, to };
        pod::until("the new owner may receive", || {
            fake.step("cart", step()).is_ok()
        })
        .await;
        self.serves(key).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_eventual_mode_the_state_follows_its_slice() {
    let fake = Fake::start().await;
    fake.create("cart", 1, eventual());
    let (a, b) = (Counter::start(&fake).await, Counter::start(&fake).await);
    a.serves(b"alice").await;
    for n in 1..=3 {
        assert_eq!(a.increment(b"alice").await, Some(n));
    }
    b.seize(&fake, b"alice").await;
    pod::until("the state has come", || b.count(b"alice") == Some(3)).await;
    pod::until("it is known to have come", || {
        a.pod.slicelet.stats().transfers_out_completed == 1
    })
    .await;
    assert_eq!(b.pod.slicelet.stats().arrivals_merging, 1);
    // What the first one had is forgotten: it has what comes from the other and nothing else.
    b.increment(b"alice").await;
    a.seize(&fake, b"alice").await;
    pod::until("the state has come back", || a.count(b"alice") == Some(4)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_eventual_mode_what_was_written_since_is_merged() {
    let fake = Fake::start().await;
    fake.create("cart", 1, eventual());
    let proxy = Proxy::start().await;
    let a = Counter::start_with(&fake, |builder| builder.advertise(&proxy.address)).await;
    a.serves(b"alice").await;
    for _ in 0..5 {
        a.increment(b"alice").await;
    }
    a.increment(b"bob").await;
    let counts = StateMap::merging(|mine: &mut u64, theirs: u64| *mine += theirs);
    let b = Counter::with(&fake, counts, |builder| builder).await;
    b.seize(&fake, b"alice").await;
    for _ in 0..2 {
        b.increment(b"alice").await;
    }
    // Only now can the state come.
    proxy.lead_to(Some(&a.pod.address));
    pod::until("the state has come", || b.count(b"bob") == Some(1)).await;
    pod::until("both count", || b.count(b"alice") == Some(7)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_eventual_mode_a_provider_that_is_dead_is_done_without() {
    let fake = Fake::start().await;
    fake.create("cart", 1, eventual());
    let (a, b) = (Counter::start(&fake).await, Counter::start(&fake).await);
    a.serves(b"alice").await;
    a.increment(b"alice").await;
    // Nothing answers at its address any more.
    a.pod.stop();
    b.seize(&fake, b"alice").await;
    assert_eq!(b.increment(b"alice").await, Some(1));
    assert_eq!(b.pod.slicelet.stats().arrivals_merging, 1);
    pod::until("it is done without", || {
        b.pod.slicelet.stats().transfers_in_failed == 1
    })
    .await;
    assert_eq!(b.increment(b"alice").await, Some(2));
}

/// ◆ What a former owner still has is not taken in by an owner that is the only one: a key that was
/// removed would be back.
#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_becomes_strong_merges_nothing_more() {
    let fake = Fake::start().await;
    fake.create("cart", 1, eventual());
    let (a, b, _) = pair(&fake, 400 << 20, slow()).await;
    let (slice, lease) = fake
        .owner("cart", a.pod.slicelet.slice_key(b"alice"))
        .unwrap();
    let step = PlanStep::Reassign {
        slice,
        from: Some(lease),
        to: b.pod.slicelet.session().unwrap(),
    };
    pod::until("the new owner may receive", || {
        fake.step("cart", step.clone()).is_ok()
    })
    .await;
    pod::until("some has arrived", || b.state.imported() > 4 << 20).await;
    let (_, owner) = fake.owner("cart", slice.first()).unwrap();
    pod::until("it is known to be on its way", || {
        fake.merging(owner.session) == Some(owner.epoch)
    })
    .await;
    fake.set_consistency("cart", Consistency::Strong);
    pod::until("it is strong", || {
        let modes = [&a, &b].map(|pod| pod.pod.slicelet.mode());
        modes == [Some(Mode::Strong); 2]
    })
    .await;
    assert!(b.serves());
    pod::until("nothing is kept", || a.state.open_exports() == 0).await;
    pod::until("nothing is on its way", || {
        fake.merging(owner.session).is_none()
    })
    .await;
    assert!(b.state.imported() < 400 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_eventual_mode_a_drain_ends_when_the_state_was_brought_away() {
    let fake = Fake::start().await;
    fake.create("cart", 1, eventual());
    let (a, b, _) = pair(&fake, 10 << 20, slow()).await;
    let (slice, lease) = fake
        .owner("cart", a.pod.slicelet.slice_key(b"alice"))
        .unwrap();
    let step = PlanStep::Reassign {
        slice,
        from: Some(lease),
        to: b.pod.slicelet.session().unwrap(),
    };
    pod::until("the new owner may receive", || {
        fake.step("cart", step.clone()).is_ok()
    })
    .await;
    pod::until("it is served elsewhere", || b.serves() && !a.serves()).await;
    fake.places(false);
    a.pod.slicelet.drain(LONG).await.unwrap();
    assert_eq!(b.state.imported(), 10 << 20);
}
