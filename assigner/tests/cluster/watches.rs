//! Watches on any node: full first, then differences; the end of a target.

use leasehold_assigner::testing::TestCluster;
use leasehold_proto::Generation;
use leasehold_proto::view::{View, ViewUpdate};
use leasehold_proto::wire::pb::watch_client::WatchClient;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{WatchReply, WatchRequest, pb};
use tonic::Streaming;

use crate::support::{connect, owned, pods, target};

async fn watch(
    endpoint: &str,
    name: &str,
    known: Option<Generation>,
) -> Result<Streaming<pb::WatchReply>, Refusal> {
    let request = WatchRequest {
        target: target(name),
        known,
        client_name: "test".into(),
    };
    let watched = WatchClient::new(connect(endpoint).await)
        .watch(pb::WatchRequest::from(&request))
        .await;
    watched
        .map(tonic::Response::into_inner)
        .map_err(|status| Refusal::from_status(&status).unwrap())
}

async fn next(stream: &mut Streaming<pb::WatchReply>) -> Result<Option<ViewUpdate>, Refusal> {
    let reply = tokio::time::timeout(crate::support::PATIENCE, stream.message())
        .await
        .expect("a reply in time");
    let reply = reply
        .map_err(|status| Refusal::from_status(&status).unwrap())?
        .unwrap();
    Ok(WatchReply::try_from(reply).unwrap().update)
}

/// Reads until the view fulfils a condition; gives how many differences were applied.
async fn until(
    stream: &mut Streaming<pb::WatchReply>,
    view: &mut Option<View>,
    holds: impl Fn(&View) -> bool,
) -> usize {
    let mut diffs = 0;
    while !view.as_ref().is_some_and(&holds) {
        if let Some(update) = next(stream).await.unwrap() {
            diffs += usize::from(matches!(update, ViewUpdate::Diff(_)));
            View::advance(view, update).unwrap();
        }
    }
    diffs
}

#[tokio::test]
async fn every_node_serves_watches_and_sends_differences_after_the_first() {
    let cluster = TestCluster::start(3).await;
    cluster.create_target("cart", 32).await;
    let mut watchers = Vec::new();
    for endpoint in cluster.endpoints() {
        // A follower may not have heard of the target yet.
        let stream = loop {
            match watch(&endpoint, "cart", None).await {
                Ok(stream) => break stream,
                Err(Refusal::UnknownTarget | Refusal::NotLeader { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        };
        watchers.push((stream, None));
    }
    for (stream, view) in &mut watchers {
        until(stream, view, |_| true).await;
    }
    let mut pod = pods(&cluster, "cart", 1).await.remove(0);
    let session = pod.session();
    pod.until("all slices are its own", |view| owned(view, session) == 32)
        .await;
    for (stream, view) in &mut watchers {
        until(stream, view, |view| owned(view, session) == 32).await;
    }
    cluster.hold("cart").await;
    let other = crate::support::Pod::start(
        &crate::support::leader_endpoint(&cluster).await,
        "cart",
        9009,
    )
    .await;
    cluster
        .move_slice("cart", leasehold_proto::SliceKey::MIN, other.session())
        .await
        .unwrap();
    for (stream, view) in &mut watchers {
        let shown = |view: &View| {
            view.slices
                .iter()
                .any(|(_, assigned)| assigned.handoff.is_some())
        };
        assert_eq!(
            until(stream, view, shown).await,
            1,
            "a difference, not the whole view"
        );
        let address = view.as_ref().unwrap().pods.get(&other.session());
        assert_eq!(
            address.map(|address| address.as_str()),
            Some("127.0.0.1:9009")
        );
    }
}

#[tokio::test]
async fn a_watcher_that_returns_gets_what_it_missed() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 32).await;
    let endpoint = cluster.endpoints().remove(0);
    let mut view = None;
    let mut stream = watch(&endpoint, "cart", None).await.unwrap();
    until(&mut stream, &mut view, |_| true).await;
    let known = view.as_ref().map(|view| view.generation);
    let mut again = watch(&endpoint, "cart", known).await.unwrap();
    assert_eq!(
        next(&mut again).await.unwrap(),
        None,
        "a sign of life, because nothing is newer"
    );
    let mut pod = pods(&cluster, "cart", 1).await.remove(0);
    let session = pod.session();
    pod.until("all slices are its own", |view| owned(view, session) == 32)
        .await;
    until(&mut again, &mut view, |view| owned(view, session) == 32).await;
}

#[tokio::test]
async fn the_end_of_a_target_ends_its_watches() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let endpoint = cluster.endpoints().remove(0);
    let mut stream = watch(&endpoint, "cart", None).await.unwrap();
    next(&mut stream).await.unwrap();
    cluster.delete_target("cart").await;
    let ended = loop {
        match next(&mut stream).await {
            Ok(_) => {}
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(ended, Refusal::UnknownTarget);
    assert_eq!(
        watch(&endpoint, "cart", None).await.err(),
        Some(Refusal::UnknownTarget)
    );
    // The name can be used again, and watched again.
    cluster.create_target("cart", 4).await;
    assert!(watch(&endpoint, "cart", None).await.is_ok());
}

#[tokio::test]
async fn a_watcher_from_a_later_life_of_the_cluster_is_told_so() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let endpoint = cluster.endpoints().remove(0);
    let later = pb::Generation {
        incarnation: 2,
        number: 1,
    };
    let request = pb::WatchRequest {
        target: "cart".into(),
        known: Some(later),
        client_name: "test".into(),
    };
    let status = WatchClient::new(connect(&endpoint).await)
        .watch(request)
        .await
        .unwrap_err();
    match Refusal::from_status(&status) {
        Some(Refusal::Halted(why)) => {
            assert!(why.contains("an older life of the cluster"), "{why}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn shutdown_does_not_wait_for_watchers() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut stream = watch(&cluster.endpoints()[0], "cart", None).await.unwrap();
    next(&mut stream).await.unwrap();
    tokio::time::timeout(crate::support::PATIENCE, cluster.shutdown())
        .await
        .unwrap();
}
