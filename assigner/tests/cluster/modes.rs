//! Eventual mode, and arming on the way back to strong.

use std::cell::Cell;
use std::time::Duration;

use leasehold_assigner::testing::TestCluster;
use leasehold_proto::SliceKey;
use leasehold_proto::target::{Consistency, Mode, TargetConfig};
use leasehold_proto::view::View;

use crate::handoffs::serve_until;
use crate::support::{Pod, owned, pods, target};

/// At least so long the leader waits for a merge while the owner drains.
const WAITED_FOR: Duration = Duration::from_secs(5);
/// So short that nobody is suspected when the clock is moved past it between two renewals.
const STEP: Duration = Duration::from_millis(100);

fn eventual() -> TargetConfig {
    TargetConfig {
        consistency: Consistency::Eventual,
        ..TargetConfig::default()
    }
}

#[tokio::test]
async fn in_an_eventual_target_slices_move_at_once() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target_with("cart", 4, eventual()).await;
    let mut all = pods(&cluster, "cart", 2).await;
    serve_until(&cluster, &mut all, "both have slices", |counts| {
        counts == [2, 2]
    })
    .await;
    cluster.hold("cart").await;
    let owner = cluster.look(owner_at_start).await;
    let other = all
        .iter()
        .map(|pod| pod.session())
        .find(|session| Some(*session) != owner)
        .unwrap();
    cluster
        .move_slice("cart", SliceKey::MIN, other)
        .await
        .unwrap();
    assert_eq!(cluster.look(owner_at_start).await, Some(other));
}

/// Two pods of an eventual target with one slice; the second one has got it from the first, and
/// says that it still merges what that one had.
async fn a_merge_that_goes_on(cluster: &TestCluster) -> Vec<Pod> {
    cluster.create_target_with("cart", 1, eventual()).await;
    let mut all = pods(cluster, "cart", 2).await;
    serve_until(cluster, &mut all, "one has the slice", |counts| {
        counts.iter().sum::<usize>() == 1
    })
    .await;
    if all[1].owned() == 1 {
        all.swap(0, 1);
    }
    let owner = all[1].session();
    cluster
        .move_slice("cart", SliceKey::MIN, owner)
        .await
        .unwrap();
    all[1]
        .until("it owns the slice", |view| owned(view, owner) == 1)
        .await;
    let lease = |view: &View| view.get(SliceKey::MIN).1.owner;
    all[1].merging = all[1]
        .view
        .as_ref()
        .and_then(lease)
        .map(|owner| owner.epoch);
    all[1].renew().await;
    all
}

/// Else what the new owner has not merged yet stays behind with the one before it.
#[tokio::test]
async fn in_an_eventual_target_a_slice_moves_on_only_when_its_state_was_merged() {
    let cluster = TestCluster::start(1).await;
    let mut all = a_merge_that_goes_on(&cluster).await;
    let (former, owner) = (all[0].session(), all[1].session());
    all[1].drain().await.unwrap();
    for _ in 0..3 {
        all[1].renew().await;
    }
    assert_eq!(cluster.look(owner_at_start).await, Some(owner));
    all[1].merging = None;
    all[1].renew().await;
    cluster
        .wait_until("the pod that leaves is emptied", |table| {
            owner_at_start(table) == Some(former)
        })
        .await;
}

#[tokio::test]
async fn a_pod_that_leaves_an_eventual_target_is_emptied_although_it_has_not_merged() {
    let cluster = TestCluster::start(1).await;
    let mut all = a_merge_that_goes_on(&cluster).await;
    let owner = all[1].session();
    all[1].drain().await.unwrap();
    let waited = Cell::new(Duration::ZERO);
    serve_until(&cluster, &mut all, "it is emptied", |counts| {
        let emptied = counts == [1, 0];
        if !emptied {
            cluster.advance_time(STEP);
            waited.set(waited.get() + STEP);
        }
        emptied
    })
    .await;
    assert!(waited.get() >= WAITED_FOR, "{waited:?}");
    let lives = |table: &leasehold_proto::table::LeaseTable| {
        let mut live = table.target(&target("cart"))?.live_sessions();
        live.find(|session| session.id == owner).map(|_| ())
    };
    assert_eq!(cluster.look(lives).await, Some(()), "it has not expired");
}

fn owner_at_start(
    table: &leasehold_proto::table::LeaseTable,
) -> Option<leasehold_proto::SessionId> {
    table
        .target(&target("cart"))?
        .slice_of(SliceKey::MIN)?
        .1
        .owner
        .map(|owner| owner.session)
}

fn mode(table: &leasehold_proto::table::LeaseTable) -> Mode {
    table.target(&target("cart")).unwrap().mode()
}

#[tokio::test]
async fn a_target_is_strong_again_only_when_every_session_has_acknowledged_the_arming() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target_with("cart", 4, eventual()).await;
    let mut all = pods(&cluster, "cart", 2).await;
    cluster.set_consistency("cart", Consistency::Strong).await;
    let arming = match cluster.look(mode).await {
        Mode::Arming(generation) => generation,
        other => panic!("{other}"),
    };
    for pod in &mut all {
        pod.until("the arming is shown", |view| {
            view.mode == Mode::Arming(arming)
        })
        .await;
    }
    all[0].renew_saying(Vec::new(), Some(arming)).await;
    assert_eq!(cluster.look(mode).await, Mode::Arming(arming));
    all[1].say(Vec::new(), Some(arming)).await;
    cluster
        .wait_until("the target is strong", |table| mode(table) == Mode::Strong)
        .await;
}
