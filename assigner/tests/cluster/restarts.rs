//! Rolling restarts, as the leader follows them.

use std::time::Duration;

use leasehold_assigner::PlannerConfig;
use leasehold_assigner::testing::TestCluster;

use crate::handoffs::serve_until;
use crate::support::{Pod, leader_endpoint, pods};

/// So short that nobody is suspected when the clock is moved past it between two renewals.
const PAUSE: Duration = Duration::from_millis(100);

/// Drains the first pod and starts another in its place.
async fn restart_first(cluster: &TestCluster, pods: &mut Vec<Pod>, port: u16) {
    pods[0].drain().await.unwrap();
    serve_until(cluster, pods, "the first is empty", |counts| counts[0] == 0).await;
    let gone = pods.remove(0);
    cluster.reap_session("cart", gone.session()).await;
    let endpoint = leader_endpoint(cluster).await;
    pods.push(Pod::start(&endpoint, "cart", port).await);
}

#[tokio::test]
async fn the_pod_that_came_back_last_waits_for_the_slices_of_the_next_one() {
    let planner = PlannerConfig {
        restart_pause: PAUSE,
        ..PlannerConfig::default()
    };
    let cluster = TestCluster::start_with(1, planner).await;
    cluster.create_target("cart", 6).await;
    let mut all = pods(&cluster, "cart", 3).await;
    serve_until(&cluster, &mut all, "all have slices", |counts| {
        counts == [2, 2, 2]
    })
    .await;
    restart_first(&cluster, &mut all, 9_100).await;
    for _ in 0..5 {
        serve_until(&cluster, &mut all, "nothing moves", |counts| {
            counts == [3, 3, 0]
        })
        .await;
    }
    restart_first(&cluster, &mut all, 9_101).await;
    serve_until(
        &cluster,
        &mut all,
        "what was drained went there",
        |counts| counts == [3, 3, 0],
    )
    .await;
    // The leader counts from when it noticed, which may be after the clock has moved.
    serve_until(&cluster, &mut all, "the restart is over", |counts| {
        let even = counts == [2, 2, 2];
        if !even {
            cluster.advance_time(PAUSE);
        }
        even
    })
    .await;
}
