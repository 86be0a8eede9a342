//! Sessions on a whole cluster, spoken by hand: registered, granted, renewed, expired, redirected.

use leasehold_assigner::testing::TestCluster;

use crate::support::{self, Pod, connect, register};

#[tokio::test]
async fn a_session_is_registered_renewed_and_granted_slices() {
    let cluster = TestCluster::start(1).await;
    cluster.pause_time();
    cluster.create_target("cart", 8).await;
    let mut pod = Pod::start(&cluster.endpoints()[0], "cart", 9001).await;
    pod.renew().await;
    assert!(pod.known() >= Some(pod.registered.not_before));
    let session = pod.session();
    pod.until("all slices are its own", |view| {
        support::owned(view, session) == 8
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn registering_again_gives_the_same_session() {
    let cluster = TestCluster::start(1).await;
    cluster.pause_time();
    cluster.create_target("cart", 8).await;
    let channel = connect(&cluster.endpoints()[0]).await;
    let first = register(&channel, "cart", 9001).await.unwrap();
    let again = register(&channel, "cart", 9001).await.unwrap();
    assert_eq!(first, again);
    cluster.shutdown().await;
}
