//! A Slicelet against an Assigner: leases, handoffs, leaving.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;
mod pod;

use std::time::Duration;

use fake::Fake;
use leasehold_client::proto::target::TargetConfig;
use pod::{LONG, Pod, short_ttl};

#[tokio::test(flavor = "multi_thread")]
async fn a_slicelet_serves_what_it_is_given_and_nothing_else() {
    let fake = Fake::start().await;
    fake.create("cart", 8, TargetConfig::default());
    let a = Pod::start(&fake, "cart").await;
    a.slicelet.wait_until_owns_any(LONG).await.unwrap();
    pod::until("all slices are owned", || a.slicelet.owned().len() == 8).await;
    let guard = a.slicelet.guard(b"alice").unwrap();
    assert!(guard.verify().is_ok() && guard.slice().contains(guard.slice_key()));
    assert_eq!(guard.fencing_token(), guard.epoch().token());
    drop(guard);
    let b = Pod::start(&fake, "cart").await;
    b.slicelet.ready(LONG).await.unwrap();
    let refused = b.slicelet.guard(b"alice").unwrap_err();
    assert_eq!(refused.kind(), leasehold_client::ErrorKind::NotOwner);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_moves_without_a_failed_request() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let a = Pod::start(&fake, "cart").await;
    a.slicelet.wait_until_owns_any(LONG).await.unwrap();
    let b = Pod::start(&fake, "cart").await;
    b.slicelet.ready(LONG).await.unwrap();
    let key = a.slicelet.slice_key(b"alice");
    for n in 0..20 {
        let (to, from) = if n % 2 == 0 { (&b, &a) } else { (&a, &b) };
        let session = to.slicelet.session().unwrap();
        let begun = std::time::Instant::now();
        pod::until("the destination may receive", || fake.hand_off("cart", key, session).is_ok()).await;
        pod::until("the destination serves", || to.slicelet.guard(b"alice").is_ok()).await;
        println!("move {n}: {:?}", begun.elapsed());
        assert!(from.slicelet.guard(b"alice").is_err());
        pod::until("the handoff is completed", || !fake.has_open_handoff("cart")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_lease_comes_back_by_itself() {
    let fake = Fake::start().await;
    fake.create("cart", 1, short_ttl());
    let a = Pod::start(&fake, "cart").await;
    a.slicelet.wait_until_owns_any(LONG).await.unwrap();
    pod::until("the lease runs", || a.slicelet.guard(b"alice").is_ok()).await;
    fake.silence(true);
    pod::until("the lease has run out", || a.slicelet.guard(b"alice").is_err()).await;
    fake.silence(false);
    pod::until("the lease is back", || a.slicelet.guard(b"alice").is_ok()).await;
    let _ = Duration::ZERO;
}
