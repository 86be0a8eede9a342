//! Leaders and holders that die: sessions survive the one, and are succeeded after the other.

use std::time::Duration;

use leasehold_assigner::PlannerConfig;
use leasehold_assigner::testing::TestCluster;
use leasehold_proto::wire::{AssignerMessage, ClosedReason};
use leasehold_proto::{SliceKey, TargetName};

use crate::handoffs::serve_until;
use crate::support::{Pod, connect, leader_endpoint, pods, table_owned, target};

const TTL: Duration = Duration::from_secs(1);

#[tokio::test]
async fn the_death_of_the_leader_loses_no_session() {
    let mut cluster = TestCluster::start(3).await;
    cluster.create_target("cart", 8).await;
    let mut all = pods(&cluster, "cart", 2).await;
    serve_until(&cluster, &mut all, "both have slices", |counts| {
        counts == [4, 4]
    })
    .await;
    let before = cluster.look(|table| tokens(table, &target("cart"))).await;
    cluster.kill_leader().await;
    let endpoint = leader_endpoint(&cluster).await;
    let mut returned = Vec::new();
    for pod in all {
        let channel = connect(&endpoint).await;
        let mut pod = Pod::attach(channel, "cart", pod.registered).await;
        pod.renew().await;
        returned.push(pod);
    }
    serve_until(
        &cluster,
        &mut returned,
        "both have their slices",
        |counts| counts == [4, 4],
    )
    .await;
    assert_eq!(
        cluster.look(|table| tokens(table, &target("cart"))).await,
        before,
        "no slice has moved"
    );
}

fn tokens(table: &leasehold_proto::table::LeaseTable, name: &TargetName) -> Vec<Option<u64>> {
    let state = table.target(name).unwrap();
    state
        .slices()
        .map(|(_, assigned)| assigned.owner.map(|owner| owner.epoch.token().as_u64()))
        .collect()
}

#[tokio::test]
async fn a_killed_follower_comes_back_with_the_same_table() {
    let mut cluster = TestCluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(follower).await;
    cluster.create_target("cart", 8).await;
    cluster.restart(follower).await;
    let applied = || cluster.node(follower).status();
    let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
    while applied().targets != 1 {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the follower has not caught up"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_silent_session_is_succeeded_after_d_with_larger_tokens() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut all = pods(&cluster, "cart", 3).await;
    serve_until(&cluster, &mut all, "all have slices", |counts| {
        counts.iter().all(|count| *count > 0)
    })
    .await;
    let silent = all.remove(0);
    let session = silent.session();
    let key = cluster
        .look(|table| {
            let state = table.target(&target("cart")).unwrap();
            state
                .owned_slices(session)
                .next()
                .map(|(slice, assigned)| (slice.first(), assigned.owner))
        })
        .await;
    let (key, owner): (SliceKey, _) = key.unwrap();
    // Just short of D nothing happens, however long the test takes.
    for pod in &mut all {
        pod.renew().await;
    }
    cluster.advance_time(TTL);
    for pod in &mut all {
        pod.renew().await;
    }
    assert!(
        cluster
            .look(|table| table_owned(table, "cart", session))
            .await
            > 0,
        "its lease may still run"
    );
    cluster.advance_time(Duration::from_millis(50));
    cluster
        .wait_until("the silent one holds nothing", |table| {
            table_owned(table, "cart", session) == 0
        })
        .await;
    serve_until(&cluster, &mut all, "the others hold everything", |counts| {
        counts.iter().sum::<usize>() == 4
    })
    .await;
    let after = cluster
        .look(|table| {
            table
                .target(&target("cart"))
                .unwrap()
                .slice_of(key)
                .unwrap()
                .1
                .owner
        })
        .await;
    assert!(after.unwrap().epoch.token() > owner.unwrap().epoch.token());
}

#[tokio::test]
async fn a_session_that_expired_is_told_so_and_never_revived() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut pod = pods(&cluster, "cart", 1).await.remove(0);
    cluster.advance_time(TTL + Duration::from_millis(50));
    let told = loop {
        match pod.next().await {
            Some(AssignerMessage::Closed { reason, .. }) => break reason,
            Some(_) => {}
            None => panic!("the stream has ended"),
        }
    };
    assert_eq!(told, ClosedReason::Expired);
    let mut again = Pod::attach(pod.channel.clone(), "cart", pod.registered.clone()).await;
    assert!(matches!(
        again.next().await,
        Some(AssignerMessage::Closed { .. })
    ));
}

#[tokio::test]
async fn when_most_sessions_lapse_together_nothing_is_given_to_the_first_that_returns() {
    let settle = Duration::from_secs(3600);
    let planner = PlannerConfig {
        settle_window: Some(settle),
        ..PlannerConfig::default()
    };
    let cluster = TestCluster::start_with(1, planner).await;
    cluster.create_target("cart", 6).await;
    let mut all = pods(&cluster, "cart", 3).await;
    serve_until(&cluster, &mut all, "all have slices", |counts| {
        counts == [2, 2, 2]
    })
    .await;
    cluster.advance_time(TTL + Duration::from_millis(50));
    cluster
        .wait_until("all have expired", |table| {
            table
                .target(&target("cart"))
                .unwrap()
                .live_sessions()
                .count()
                == 0
        })
        .await;
    let endpoint = leader_endpoint(&cluster).await;
    let mut first = Pod::start(&endpoint, "cart", 9100).await;
    for _ in 0..5 {
        first.renew().await;
    }
    assert_eq!(
        cluster
            .look(|table| table_owned(table, "cart", first.session()))
            .await,
        0
    );
}
