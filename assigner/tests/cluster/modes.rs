//! Eventual mode, and arming on the way back to strong.

use leasehold_assigner::testing::TestCluster;
use leasehold_proto::SliceKey;
use leasehold_proto::target::{Consistency, Mode, TargetConfig};

use crate::handoffs::serve_until;
use crate::support::{pods, target};

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
