//! Sessions on a whole cluster, spoken by hand: registered, granted, renewed, expired, redirected.

use std::time::Duration;

use leasehold_assigner::testing::TestCluster;
use leasehold_proto::wire::admin::ListSessions;
use leasehold_proto::wire::listing::SessionPage;
use leasehold_proto::wire::pb;
use leasehold_proto::wire::pb::admin_client::AdminClient;

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
async fn the_leader_says_when_each_session_was_last_answered() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 1).await;
    let answered = support::pods(&cluster, "cart", 1).await.remove(0);
    let silent = register(&answered.channel, "cart", 9002).await.unwrap();
    let ago = Duration::from_millis(300);
    cluster.advance_time(ago);
    let wish = ListSessions {
        target: support::target("cart"),
        after: None,
        limit: 0,
    };
    let listed = AdminClient::new(answered.channel.clone())
        .list_sessions(pb::ListSessionsRequest::from(&wish))
        .await
        .unwrap();
    let listed = SessionPage::try_from(listed.into_inner()).unwrap().sessions;
    let listed: Vec<_> = listed
        .iter()
        .map(|info| (info.session, info.answered_ago))
        .collect();
    let expected = [(answered.session(), Some(ago)), (silent.session, None)];
    assert_eq!(listed, expected);
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
