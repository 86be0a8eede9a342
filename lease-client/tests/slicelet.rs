//! A Slicelet against an Assigner: leases, handoffs, leaving.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;
mod pod;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fake::Fake;
use leasehold_client::proto::SliceKey;
use leasehold_client::proto::overlap::{Interval, violations};
use leasehold_client::proto::target::TargetConfig;
use leasehold_client::{Cause, ErrorKind, GuardError, OwnershipEvent, SliceHandler, SliceInfo};
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
        pod::until("the destination may receive", || {
            fake.hand_off("cart", key, session).is_ok()
        })
        .await;
        pod::until("the destination serves", || {
            to.slicelet.guard(b"alice").is_ok()
        })
        .await;
        println!("move {n}: served elsewhere after {:?}", begun.elapsed());
        assert!(from.slicelet.guard(b"alice").is_err());
        pod::until("the handoff is completed", || {
            !fake.has_open_handoff("cart")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lapsed_lease_comes_back_by_itself() {
    let fake = Fake::start().await;
    fake.create("cart", 1, short_ttl());
    let a = Pod::start(&fake, "cart").await;
    a.slicelet.wait_until_owns_any(LONG).await.unwrap();
    pod::until("the lease runs", || a.slicelet.guard(b"alice").is_ok()).await;
    fake.absent(true);
    pod::until("the lease has run out", || {
        a.slicelet.guard(b"alice").is_err()
    })
    .await;
    fake.absent(false);
    pod::until("the lease is back", || a.slicelet.guard(b"alice").is_ok()).await;
    assert!(a.slicelet.stats().lapses >= 1);
    assert_eq!(a.slicelet.stats().registrations, 1, "the session lived on");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assigner_that_names_the_leader_is_enough() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let follower = fake.follower().await;
    let a = Pod::start_with(&fake, "cart", |builder| builder.endpoints([follower])).await;
    pod::until("it is served", || a.slicelet.guard(b"alice").is_ok()).await;
    let Pod { slicelet, .. } = a;
    slicelet.close().await.unwrap();
    assert!(fake.live_sessions("cart").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_line_costs_no_session() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let a = Pod::start(&fake, "cart").await;
    pod::until("it is served", || a.slicelet.guard(b"alice").is_ok()).await;
    let guard = a.slicelet.guard(b"alice").unwrap();
    for _ in 0..3 {
        fake.cut();
        let before = a.slicelet.stats().renewals_answered;
        pod::until("renewals go on", || {
            a.slicelet.stats().renewals_answered > before + 1
        })
        .await;
        assert!(guard.verify().is_ok());
    }
    assert_eq!(a.slicelet.stats().registrations, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_expired_is_followed_by_a_new_one_of_the_same_slicelet() {
    let fake = Fake::start().await;
    fake.create("cart", 1, short_ttl());
    let a = Pod::start(&fake, "cart").await;
    pod::until("it is served", || a.slicelet.guard(b"alice").is_ok()).await;
    let (guard, first) = (
        a.slicelet.guard(b"alice").unwrap(),
        a.slicelet.session().unwrap(),
    );
    fake.expire("cart", first);
    pod::until("the guard is lost", || guard.verify().is_err()).await;
    pod::until("it is served again", || a.slicelet.guard(b"alice").is_ok()).await;
    assert!(a.slicelet.session().unwrap() > first);
    assert!(
        guard.verify().is_err(),
        "a new lease validates no old guard"
    );
    assert!(a.slicelet.guard(b"alice").unwrap().fencing_token() > guard.fencing_token());
}

/// ◆ A session is never revived: registering is idempotent, so the Assigner would give the same one
/// back, and with it slices that this Slicelet may have surrendered.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_was_wrongly_called_closed_is_ended_and_not_revived() {
    let fake = Fake::start().await;
    // Far longer than the test: only the word can end the session.
    let ttl = Duration::from_secs(300);
    fake.create(
        "cart",
        4,
        TargetConfig {
            ttl,
            ..TargetConfig::default()
        },
    );
    let a = Pod::start(&fake, "cart").await;
    pod::until("it owns everything", || a.slicelet.owned().len() == 4).await;
    let (guard, first) = (
        a.slicelet.guard(b"alice").unwrap(),
        a.slicelet.session().unwrap(),
    );
    fake.say_closed_wrongly(first);
    pod::until("it is served again", || {
        a.slicelet.session().is_some_and(|now| now > first) && a.slicelet.guard(b"alice").is_ok()
    })
    .await;
    assert!(guard.verify().is_err());
    assert!(a.slicelet.guard(b"alice").unwrap().fencing_token() > guard.fencing_token());
    assert_eq!(fake.live_sessions("cart"), [a.slicelet.session().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_fails_every_check_and_gives_the_slices_away_at_once() {
    let fake = Fake::start().await;
    // Far longer than the test: only the word can free the slices.
    fake.create(
        "cart",
        4,
        TargetConfig {
            ttl: Duration::from_secs(300),
            ..TargetConfig::default()
        },
    );
    let a = Pod::start(&fake, "cart").await;
    pod::until("it owns everything", || a.slicelet.owned().len() == 4).await;
    let b = Pod::start(&fake, "cart").await;
    b.slicelet.ready(LONG).await.unwrap();
    let guard = a.slicelet.guard(b"alice").unwrap();
    let Pod { slicelet, .. } = a;
    slicelet.close().await.unwrap();
    assert!(guard.verify().is_err());
    pod::until("the other owns everything", || {
        b.slicelet.owned().len() == 4
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_slicelet_closes_its_session() {
    let fake = Fake::start().await;
    fake.create(
        "cart",
        1,
        TargetConfig {
            ttl: Duration::from_secs(300),
            ..TargetConfig::default()
        },
    );
    let a = Pod::start(&fake, "cart").await;
    pod::until("it is served", || a.slicelet.guard(b"alice").is_ok()).await;
    drop(a);
    pod::until("the session is closed", || {
        fake.live_sessions("cart").is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_without_a_successor_says_so_and_serves_on() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let a = Pod::start(&fake, "cart").await;
    pod::until("it is served", || a.slicelet.guard(b"alice").is_ok()).await;
    let error = a
        .slicelet
        .drain(Duration::from_millis(300))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(a.slicelet.guard(b"alice").is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_slicelets_of_several_targets_live_in_one_process() {
    let fake = Fake::start().await;
    for target in ["cart", "user"] {
        fake.create(target, 2, TargetConfig::default());
    }
    let pods = [
        Pod::start(&fake, "cart").await,
        Pod::start(&fake, "user").await,
        Pod::start(&fake, "user").await,
    ];
    pods[0].slicelet.wait_until_owns_any(LONG).await.unwrap();
    pod::until("both owners of one target", || {
        pods[1].slicelet.guard(b"x").is_ok() || pods[2].slicelet.guard(b"x").is_ok()
    })
    .await;
    let squids: std::collections::BTreeSet<u128> =
        pods.iter().map(|pod| pod.slicelet.squid().id).collect();
    assert_eq!(squids.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_comes_early_waits_at_the_destination() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let a = Pod::start(&fake, "cart").await;
    pod::until("it is served", || a.slicelet.guard(b"alice").is_ok()).await;
    let b = Pod::start(&fake, "cart").await;
    b.slicelet.ready(LONG).await.unwrap();
    // While this guard is held the source cannot surrender.
    let guard = a.slicelet.guard(b"alice").unwrap();
    let (key, session) = (guard.slice_key(), b.slicelet.session().unwrap());
    pod::until("the handoff begins", || {
        fake.hand_off("cart", key, session).is_ok()
    })
    .await;
    pod::until("the destination knows", || {
        b.slicelet.guard(b"alice").unwrap_err() == GuardError::HandingOver
    })
    .await;
    let early = b.slicelet.guard_or_wait(b"alice");
    let (early, ()) = tokio::join!(early, async {
        pod::until("the source is frozen", || {
            a.slicelet.guard(b"alice").is_err()
        })
        .await;
        drop(guard);
    });
    assert!(early.unwrap().verify().is_ok());
}

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(&'static str, Cause)>>>);

impl Told {
    fn push(&self, what: &'static str, slice: &SliceInfo) {
        self.0.lock().unwrap().push((what, slice.cause));
    }

    fn all(&self) -> Vec<(&'static str, Cause)> {
        self.0.lock().unwrap().clone()
    }
}

impl SliceHandler for Told {
    async fn prepare(&self, slice: &SliceInfo) {
        self.push("prepare", slice);
        // What goes wrong in an application must not take the Slicelet with it.
        panic!("contained");
    }

    async fn acquire(&self, slice: &SliceInfo) {
        self.push("acquire", slice);
    }

    async fn release(&self, slice: &SliceInfo) {
        self.push("release", slice);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_told_before_guards_are_given_and_after_they_have_ended() {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let (told_a, told_b) = (Told::default(), Told::default());
    let a = Pod::start_with(&fake, "cart", |builder| builder.handler(told_a.clone())).await;
    pod::until("it is served", || a.slicelet.guard(b"alice").is_ok()).await;
    assert_eq!(told_a.all(), [("acquire", Cause::Granted)]);
    let b = Pod::start_with(&fake, "cart", |builder| builder.handler(told_b.clone())).await;
    b.slicelet.ready(LONG).await.unwrap();
    let (key, session) = (SliceKey::MIN, b.slicelet.session().unwrap());
    pod::until("the handoff begins", || {
        fake.hand_off("cart", key, session).is_ok()
    })
    .await;
    pod::until("it is served elsewhere", || {
        b.slicelet.guard(b"alice").is_ok()
    })
    .await;
    assert_eq!(
        told_b.all(),
        [
            ("prepare", Cause::HandedOver),
            ("acquire", Cause::HandedOver)
        ]
    );
    pod::until("it is released", || told_a.all().len() == 2).await;
    assert_eq!(told_a.all()[1], ("release", Cause::Surrendered));
    let Pod { slicelet, .. } = b;
    slicelet.close().await.unwrap();
    assert_eq!(told_b.all()[2], ("release", Cause::Shutdown));
}

/// The ownership logs of several Slicelets as intervals, by the rules of the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<OwnershipEvent>>>);

impl Log {
    fn hook(&self) -> impl FnMut(OwnershipEvent) + Send + 'static {
        let events = Arc::clone(&self.0);
        move |event| events.lock().unwrap().push(event)
    }

    fn intervals(&self, holder: u64) -> Vec<Interval> {
        let (mut open, mut closed, mut until) = (Vec::new(), Vec::new(), 0);
        for event in self.0.lock().unwrap().iter().copied() {
            match event {
                OwnershipEvent::Begin {
                    slice,
                    token,
                    at_ns,
                } => open.push((slice, token, at_ns)),
                OwnershipEvent::End {
                    slice,
                    token,
                    at_ns,
                } => {
                    let at = open
                        .iter()
                        .position(|(of, at, _)| (*of, *at) == (slice, token))
                        .unwrap();
                    let (_, _, begin) = open.remove(at);
                    closed.push(Interval::new(slice, begin, at_ns, holder, token));
                }
                OwnershipEvent::Extended { until_ns } => until = until_ns,
                OwnershipEvent::Frozen { .. } => {}
            }
        }
        let left = open.into_iter().map(|(slice, token, begin)| {
            Interval::new(slice, begin, until.max(begin), holder, token)
        });
        closed.into_iter().chain(left).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_logs_of_two_slicelets_never_overlap() {
    let fake = Fake::start().await;
    fake.create("cart", 4, short_ttl());
    let logs = [Log::default(), Log::default()];
    let a = Pod::start_with(&fake, "cart", |builder| {
        builder.on_ownership(logs[0].hook())
    })
    .await;
    pod::until("it owns everything", || a.slicelet.owned().len() == 4).await;
    let b = Pod::start_with(&fake, "cart", |builder| {
        builder.on_ownership(logs[1].hook())
    })
    .await;
    b.slicelet.ready(LONG).await.unwrap();
    for n in 0..10u8 {
        let key = a.slicelet.slice_key(&[n]);
        let owner = fake.owner("cart", key).unwrap().1.session;
        let to = if Some(owner) == a.slicelet.session() {
            &b
        } else {
            &a
        };
        let session = to.slicelet.session().unwrap();
        pod::until("the handoff begins", || {
            fake.hand_off("cart", key, session).is_ok()
        })
        .await;
        pod::until("the handoff ends", || !fake.has_open_handoff("cart")).await;
    }
    // A pod that lapses and expires, not asked.
    let sessions = [a.slicelet.session().unwrap(), b.slicelet.session().unwrap()];
    fake.silence(true);
    pod::until("the sessions have expired", || {
        let live = fake.live_sessions("cart");
        !sessions.iter().any(|session| live.contains(session))
    })
    .await;
    fake.silence(false);
    pod::until("it is served again", || {
        a.slicelet.owned().len() + b.slicelet.owned().len() == 4
    })
    .await;
    let intervals: Vec<Interval> = logs
        .iter()
        .zip(1..)
        .flat_map(|(log, holder)| log.intervals(holder))
        .collect();
    assert!(intervals.len() >= 14, "{intervals:?}");
    assert_eq!(violations(&intervals, 10), vec![]);
}
