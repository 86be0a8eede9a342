//! State goes with its slice: transfers between real Slicelets over real connections.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;
mod pod;
mod proxy;
mod stateful;
mod states;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fake::Fake;
use leasehold_client::proto::target::TargetConfig;
use leasehold_client::{OnTransferFailure, Transfers};
use pod::{LONG, Pod};
use proxy::Proxy;
use stateful::{Counter, Large, pair, slow};

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
    pod::until("all is served", || {
        let owned = pods.iter().map(|pod| pod.pod.slicelet.owned().len());
        owned.sum::<usize>() == 2
    })
    .await;
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
        let at = self.pod.slicelet.slice_key(key);
        let owner = fake.owner("cart", at).unwrap().1.session;
        if Some(owner) != self.pod.slicelet.session() {
            self.take(fake, key).await;
        }
    }
}

/// ◆ What was written under the last guard before the surrender goes with the slice.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_at_the_last_moment_moves_too() {
    last_moment().await;
}

async fn last_moment() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    // The comparison of keys would show what is lost, and stop the move.
    let mut transfers = Transfers::default();
    transfers.samples = 0;
    let start = || Counter::start_with(&fake, |builder| builder.transfers(transfers.clone()));
    let pods = [start().await, start().await];
    pods[0].serves(b"alice").await;
    for n in 0..10 {
        let (from, to) = (&pods[n % 2], &pods[(n + 1) % 2]);
        let guard = from.pod.slicelet.guard(b"alice").unwrap();
        to.begin_move(&fake, b"alice").await;
        pod::until("the slice is frozen", || {
            from.pod.slicelet.guard(b"alice").is_err()
        })
        .await;
        let count = n as u64;
        from.counts.insert(&guard, b"alice", count).unwrap();
        drop(guard);
        to.serves(b"alice").await;
        assert_eq!(to.count(b"alice"), Some(count));
        pod::until("the handoff is completed", || {
            !fake.has_open_handoff("cart")
        })
        .await;
    }
}

#[cfg(leasehold_mutants)]
#[test]
fn planted_mistakes_are_noticed() {
    let how = "a value written just before the surrender";
    pod::noticed("surrender_before_last_change", how, last_moment);
    let how = "a slice whose export panics";
    pod::noticed("surrendered_without_its_state", how, broken_export);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slice_whose_owner_keeps_no_state_begins_cold() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let a = Pod::start(&fake, "cart").await;
    pod::until("it is served", || a.slicelet.guard(b"alice").is_ok()).await;
    let b = Counter::start(&fake).await;
    b.take(&fake, b"alice").await;
    assert_eq!(b.pod.slicelet.stats().arrivals_cold, 1);
    assert_eq!(b.increment(b"alice").await, Some(1));
}

/// ◆ As when a release that keeps state is rolled back to one that does not: what is in memory is
/// worth more than the move.
#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_keeps_no_state_gets_the_slice_only_when_its_owner_ends() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let a = Counter::start(&fake).await;
    a.serves(b"alice").await;
    assert_eq!(a.increment(b"alice").await, Some(1));
    let b = Pod::start(&fake, "cart").await;
    let at = b.slicelet.slice_key(b"alice");
    let hand_off = || {
        let to = b.slicelet.session();
        to.is_some_and(|to| fake.hand_off("cart", at, to).is_ok())
    };
    pod::until("the destination may receive", hand_off).await;
    pod::until("the handoff has ended", || !fake.has_open_handoff("cart")).await;
    a.serves(b"alice").await;
    assert_eq!(a.count(b"alice"), Some(1));
    assert_eq!(a.pod.slicelet.stats().transfers_out_failed, 1);

    pod::until("it may be handed off again", hand_off).await;
    // Of this the last second is left to go cold.
    let grace = Duration::from_millis(1_500);
    let _ = a.pod.slicelet.drain(grace).await;
    pod::until("it is served", || b.slicelet.guard(b"alice").is_ok()).await;
}

/// ◆ What the destination has already is not the whole: the slice is not surrendered with less.
#[tokio::test(flavor = "multi_thread")]
async fn a_slice_whose_export_panics_before_the_last_change_stays_where_it_is() {
    broken_export().await;
}

async fn broken_export() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let (a, b, _) = pair(&fake, 1 << 20, Transfers::default()).await;
    let guard = a.pod.slicelet.guard(b"alice").unwrap();
    b.begin_move(&fake).await;
    pod::until("the slice is frozen", || !a.serves()).await;
    a.state.break_exports();
    pod::until("the export has ended", || a.state.open_exports() == 0).await;
    drop(guard);
    pod::until("it is served where it was", || a.serves()).await;
    assert!(!b.serves());
    assert_eq!(b.stats().arrivals_cold, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_slice_moves_through_small_buffers() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let (a, b, between) = pair(&fake, 300 << 20, Transfers::default()).await;
    b.begin_move(&fake).await;
    pod::until("it is served", || b.serves()).await;
    assert_eq!(b.state.imported(), 300 << 20);
    let window = Transfers::default().window_bytes as u64 + (1 << 20);
    assert!(between.most() <= window, "{} bytes", between.most());
    pod::until("its export has ended", || a.state.open_exports() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_goes_on_where_its_connection_broke() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let (a, b, _) = pair(&fake, 40 << 20, slow()).await;
    b.begin_move(&fake).await;
    for cut in 1..=3 {
        let some = cut * (4 << 20);
        pod::until("some has arrived", || b.state.imported() > some).await;
        a.proxy.cut();
    }
    pod::until("it is served", || b.serves()).await;
    assert_eq!(b.state.imported(), 40 << 20);
    assert_eq!(a.state.exports(), 1, "it was exported once");
    assert!(b.stats().transfers_in_resumed >= 3, "{:?}", b.stats());
    assert_eq!(b.stats().arrivals_warm, 1);
}

/// ◆ Wherever the connection breaks between the freeze and the acknowledgement of the last change,
/// the slice is served again, by one of the two, with everything.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_while_the_slice_is_frozen_lose_nothing() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let proxies = [Proxy::start().await, Proxy::start().await];
    let start = async |proxy: &Proxy| {
        let pod = Counter::start_with(&fake, |builder| builder.advertise(&proxy.address)).await;
        proxy.lead_to(Some(&pod.pod.address));
        pod
    };
    let pods = [start(&proxies[0]).await, start(&proxies[1]).await];
    pods[0].serves(b"alice").await;
    let mut owner = 0;
    let mut moved = 0;
    for n in 0..40u32 {
        let (from, to) = (&pods[owner], &pods[1 - owner]);
        let guard = from.pod.slicelet.guard(b"alice").unwrap();
        to.begin_move(&fake, b"alice").await;
        pod::until("the slice is frozen", || {
            from.pod.slicelet.guard(b"alice").is_err()
        })
        .await;
        let count = u64::from(n);
        from.counts.insert(&guard, b"alice", count).unwrap();
        drop(guard);
        // From before the last change is sent to after it was acknowledged.
        for _ in 0..n {
            tokio::task::yield_now().await;
        }
        proxies[owner].cut();
        pod::until("the handoff has ended", || !fake.has_open_handoff("cart")).await;
        pod::until("it is served", || {
            pods.iter().any(|pod| pod.count(b"alice").is_some())
        })
        .await;
        let serving = pods.iter().position(|pod| pod.count(b"alice").is_some());
        let serving = serving.unwrap();
        assert_eq!(pods[serving].count(b"alice"), Some(count), "round {n}");
        moved += usize::from(serving != owner);
        owner = serving;
    }
    let resumed = |pod: &Counter| pod.pod.slicelet.stats().transfers_in_resumed;
    let resumed: u64 = pods.iter().map(resumed).sum();
    println!("{moved} moved, {resumed} resumed");
    assert!(moved > 0 && resumed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_away_half_way_costs_nothing() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let (_a, b, _) = pair(&fake, 20 << 20, slow()).await;
    b.begin_move(&fake).await;
    pod::until("some has arrived", || b.state.imported() > 4 << 20).await;
    fake.absent(true);
    pod::until("all has arrived", || b.stats().transfers_in_completed == 1).await;
    fake.absent(false);
    pod::until("it is served", || b.serves()).await;
    assert_eq!(b.stats().arrivals_warm, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_transfer_outlasts_the_deadline_of_its_handoff() {
    let fake = Fake::start().await;
    let config = TargetConfig {
        handoff_deadline: Duration::from_millis(500),
        ..TargetConfig::default()
    };
    fake.create("cart", 1, config);
    let (_a, b, _) = pair(&fake, 60 << 20, slow()).await;
    b.begin_move(&fake).await;
    pod::until("it is served", || b.serves()).await;
    assert_eq!(b.stats().arrivals_warm, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_dies_half_way_costs_the_owner_nothing() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let (a, b, _) = pair(&fake, 40 << 20, slow()).await;
    let guard = a.pod.slicelet.guard(b"alice").unwrap();
    b.begin_move(&fake).await;
    pod::until("some has arrived", || b.state.imported() > 4 << 20).await;
    a.proxy.stop();
    fake.expire("cart", b.pod.slicelet.session().unwrap());
    pod::until("the handoff has ended", || !fake.has_open_handoff("cart")).await;
    assert!(a.serves() && guard.verify().is_ok());
    pod::until("what had arrived is forgotten", || b.state.imported() == 0).await;
    pod::until("its export has ended", || a.state.open_exports() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_source_that_dies_half_way_nothing_is_served() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let (a, b, _) = pair(&fake, 40 << 20, slow()).await;
    b.begin_move(&fake).await;
    pod::until("some has arrived", || b.state.imported() > 4 << 20).await;
    a.proxy.stop();
    // Its slice is the destination's now.
    fake.expire("cart", a.pod.slicelet.session().unwrap());
    pod::until("it is served", || b.serves()).await;
    assert_eq!((b.stats().arrivals_cold, b.state.imported()), (1, 0));
}

/// ◆ What the destination has lacks what the last guard may have written.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_source_that_dies_frozen_nothing_is_served() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let start = || Counter::start_with(&fake, |builder| builder.drain_deadline(LONG));
    let (a, b) = (start().await, start().await);
    a.serves(b"alice").await;
    assert_eq!(a.increment(b"alice").await, Some(1));
    let guard = a.pod.slicelet.guard(b"alice").unwrap();
    b.begin_move(&fake, b"alice").await;
    pod::until("the slice is frozen", || {
        a.pod.slicelet.guard(b"alice").is_err()
    })
    .await;
    assert!(b.pod.slicelet.stats().state_bytes_in > 0);
    fake.expire("cart", a.pod.slicelet.session().unwrap());
    b.serves(b"alice").await;
    drop(guard);
    assert_eq!(b.pod.slicelet.stats().arrivals_cold, 1);
    assert_eq!(b.increment(b"alice").await, Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handoff_that_is_cancelled_leaves_nothing_at_its_destination() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let (a, b, _) = pair(&fake, 40 << 20, slow()).await;
    b.begin_move(&fake).await;
    pod::until("some has arrived", || b.state.imported() > 4 << 20).await;
    fake.ask_cancel("cart");
    pod::until("the handoff has ended", || !fake.has_open_handoff("cart")).await;
    assert!(a.serves());
    pod::until("what had arrived is forgotten", || b.state.imported() == 0).await;
    // And again, now to the end.
    b.begin_move(&fake).await;
    pod::until("it is served", || b.serves()).await;
    assert_eq!(b.state.imported(), 40 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_read_are_sent_once_more_from_the_beginning() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let (_a, b, _) = pair(&fake, 4 << 20, Transfers::default()).await;
    b.state.refuse(1);
    b.begin_move(&fake).await;
    pod::until("it is served", || b.serves()).await;
    assert_eq!(
        (b.state.imported(), b.stats().state_bad_records),
        (4 << 20, 1)
    );
    assert_eq!(b.stats().transfers_in_begun_anew, 1);
}

/// A target whose handoffs are soon given up, and transfers that fail by `on_failure`.
fn hasty(on_failure: OnTransferFailure) -> (TargetConfig, Transfers) {
    let config = TargetConfig {
        handoff_deadline: Duration::from_millis(500),
        ..TargetConfig::default()
    };
    let mut transfers = Transfers::default();
    transfers.on_failure = on_failure;
    transfers.finish_deadline = Duration::from_millis(300);
    (config, transfers)
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_differ_leave_the_slice_where_it_is() {
    let fake = Fake::start().await;
    let (config, transfers) = hasty(OnTransferFailure::Stay);
    fake.create("cart", 1, config);
    let (a, b, _) = pair(&fake, 4 << 20, transfers).await;
    b.state.say_in_samples(1);
    let guard = a.pod.slicelet.guard(b"alice").unwrap();
    drop(guard);
    b.begin_move(&fake).await;
    pod::until("the handoff has ended", || !fake.has_open_handoff("cart")).await;
    pod::until("it is served where it was", || a.serves()).await;
    assert!(!b.serves() && b.stats().state_samples_differ > 0);
    assert_eq!(a.stats().transfers_out_failed, 1);
    pod::until("what had arrived is forgotten", || b.state.imported() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_differ_move_the_slice_cold_where_that_is_wanted() {
    let fake = Fake::start().await;
    let (config, transfers) = hasty(OnTransferFailure::GoCold);
    fake.create("cart", 1, config);
    let (_a, b, _) = pair(&fake, 4 << 20, transfers).await;
    b.state.say_in_samples(1);
    b.begin_move(&fake).await;
    pod::until("it is served", || b.serves()).await;
    assert_eq!((b.stats().arrivals_cold, b.state.imported()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_too_large_leaves_the_slice_where_it_is() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let (a, b, _) = pair(&fake, 4 << 20, Transfers::default()).await;
    a.state.write_records_of(2 << 20);
    b.begin_move(&fake).await;
    pod::until("the handoff has ended", || !fake.has_open_handoff("cart")).await;
    assert!(a.serves() && !b.serves());
    assert_eq!(a.stats().transfers_out_failed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_that_wait_for_a_place_keep_their_handoffs() {
    let fake = Fake::start().await;
    let config = TargetConfig {
        handoff_deadline: Duration::from_millis(700),
        ..TargetConfig::default()
    };
    fake.create("cart", 6, config);
    let mut transfers = slow();
    transfers.most_at_once = 2;
    let (a, b, between) = pair(&fake, 10 << 20, transfers).await;
    pod::until("it owns everything", || a.pod.slicelet.owned().len() == 6).await;
    let to = b.pod.slicelet.session().unwrap();
    for (slice, ..) in a.pod.slicelet.owned() {
        pod::until("the destination may receive", || {
            fake.hand_off("cart", slice.first(), to).is_ok()
        })
        .await;
    }
    pod::until("all have moved", || b.pod.slicelet.owned().len() == 6).await;
    assert_eq!(b.stats().arrivals_warm, 6);
    assert_eq!(a.stats().transfers_out, 6);
    assert!(between.most() <= 3 * (9 << 20), "{} bytes", between.most());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_drains_brings_its_state_away() {
    let fake = Fake::start().await;
    fake.create("cart", 8, TargetConfig::default());
    let (a, b, _) = pair(&fake, 1 << 20, Transfers::default()).await;
    pod::until("it owns everything", || a.pod.slicelet.owned().len() == 8).await;
    a.pod.slicelet.drain(LONG).await.unwrap();
    pod::until("all have moved", || b.pod.slicelet.owned().len() == 8).await;
    assert_eq!(b.stats().arrivals_warm, 8);
    a.pod.slicelet.close().await.unwrap();
    assert_eq!(a.state.open_exports(), 0);
}

/// Its every value changes many times in the time that it takes to send them all.
#[tokio::test(flavor = "multi_thread")]
async fn a_slice_that_is_written_faster_than_it_is_sent_moves() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let mut transfers = Transfers::default();
    transfers.speed.most_bytes_per_s = Some(1 << 20);
    transfers.frame_bytes = 16 << 10;
    // Of this a quarter is longer than everything takes.
    transfers.finish_deadline = Duration::from_secs(2);
    let start = || Counter::start_with(&fake, |builder| builder.transfers(transfers.clone()));
    let (a, b) = (start().await, start().await);
    let keys: Vec<[u8; 4_000]> = (0..100).map(|n| [n; 4_000]).collect();
    a.serves(&keys[0]).await;
    let (stop, mut acknowledged) = (AtomicBool::new(false), 0);
    let writer = async {
        while !stop.load(Ordering::Relaxed) {
            for key in &keys {
                let moved = a.increment(key).await.is_none();
                acknowledged += u64::from(!moved || b.increment(key).await.is_some());
            }
            tokio::task::yield_now().await;
        }
    };
    let mover = async {
        b.take(&fake, &keys[0]).await;
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(writer, mover);
    let counted: u64 = keys.iter().filter_map(|key| b.count(key)).sum();
    assert_eq!(counted, acknowledged);
    assert_eq!(b.pod.slicelet.stats().arrivals_warm, 1);
}

/// The destination moves nothing for many times the short patience of a drain: first it is out of
/// reach, then the source is in the middle of the bulk.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_drains_waits_for_a_slow_destination() {
    let fake = Fake::start().await;
    let config = TargetConfig {
        handoff_deadline: Duration::from_millis(500),
        ..TargetConfig::default()
    };
    fake.create("cart", 1, config);
    let (a, b, _) = pair(&fake, 40 << 20, slow()).await;
    a.proxy.stop();
    b.begin_move(&fake).await;
    let patience = Duration::from_secs(1);
    let watched = async {
        tokio::time::sleep(patience).await;
        assert!(a.serves() && fake.has_open_handoff("cart"));
        a.proxy.lead_to(Some(&a.pod.address));
        pod::until("some has arrived", || b.state.imported() > 4 << 20).await;
        a.proxy.stop();
        tokio::time::sleep(patience).await;
        assert!(a.serves() && fake.has_open_handoff("cart"));
        a.proxy.lead_to(Some(&a.pod.address));
        pod::until("it is served", || b.serves()).await;
    };
    let (drained, ()) = tokio::join!(a.pod.slicelet.drain(LONG), watched);
    drained.unwrap();
    assert_eq!((b.stats().arrivals_warm, b.stats().arrivals_cold), (1, 0));
    assert_eq!(a.stats().transfers_out_failed, 0);
}

/// Neither end's requests hold up what would be lost otherwise: at the least speed this would take
/// a minute, and half of it would stay behind.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_drains_brings_its_state_away_however_slow_requests_are() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let mut transfers = Transfers::default();
    transfers.speed.user_p99 = Some(Duration::from_nanos(1));
    let (a, b, _) = pair(&fake, 1 << 30, transfers).await;
    let slow = |pod: &Large| {
        for _ in 0..1_000 {
            pod.pod.slicelet.observe(Duration::from_secs(1));
        }
    };
    b.begin_move(&fake).await;
    pod::until("it moves", || b.state.imported() > 0).await;
    let drain = a.pod.slicelet.drain(Duration::from_secs(30));
    let asked = async {
        loop {
            slow(&a);
            slow(&b);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        drained = drain => drained.unwrap(),
        () = asked => {}
    }
    pod::until("it is served", || b.serves()).await;
    assert_eq!(b.stats().arrivals_warm, 1);
    assert_eq!(b.state.imported(), 1 << 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_drains_gives_up_a_destination_that_never_comes() {
    let fake = Fake::start().await;
    let config = TargetConfig {
        handoff_deadline: Duration::from_millis(500),
        ..TargetConfig::default()
    };
    fake.create("cart", 1, config);
    let (a, b, _) = pair(&fake, 1 << 20, Transfers::default()).await;
    a.proxy.stop();
    b.begin_move(&fake).await;
    // Of this the last second is left to go cold.
    let grace = Duration::from_millis(1_500);
    let _ = a.pod.slicelet.drain(grace).await;
    pod::until("it is frozen", || !a.serves()).await;
    // The destination learns of the surrender through the view.
    pod::until("it is served", || b.serves()).await;
    assert_eq!(b.stats().arrivals_cold, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_ends_transfers_both_ways() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let (a, b, _) = pair(&fake, 40 << 20, slow()).await;
    b.begin_move(&fake).await;
    pod::until("some has arrived", || b.state.imported() > 4 << 20).await;
    b.pod.slicelet.close().await.unwrap();
    assert_eq!(b.state.imported(), 0);
    pod::until("its export has ended", || a.state.open_exports() == 0).await;
    assert!(a.serves());
}
