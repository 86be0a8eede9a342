//! A new cluster from a saved snapshot, on real disks.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use leasehold_assigner::clock::{Clock, ControlledClock};
use leasehold_assigner::restore::{CannotRestore, RestorePlan, restore};
use leasehold_assigner::{DataDir, Node, NodeConfig, SnapshotFile};
use leasehold_proto::id::Incarnation;
use leasehold_proto::target::TargetConfig;
use leasehold_proto::wire::listing::SnapshotPart;
use leasehold_proto::wire::pb::admin_client::AdminClient;
use leasehold_proto::wire::{AssignerMessage, admin, pb};
use tokio_stream::StreamExt;

use crate::support::{PATIENCE, Pod, connect, target};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

async fn start(
    cluster: &str,
    directory: &Path,
    listen: SocketAddr,
    clock: &ControlledClock,
) -> Node {
    let config = NodeConfig {
        clock: Clock::Controlled(clock.clone()),
        ..NodeConfig::new(cluster, 1, DataDir::Disk(directory.to_owned()), listen)
    };
    Node::start(config).await.unwrap()
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "waited in vain for: {what}"
    );
}

async fn save(endpoint: &str) -> Vec<u8> {
    let mut client = AdminClient::new(connect(endpoint).await);
    let mut parts = client
        .save_snapshot(pb::SaveSnapshotRequest {})
        .await
        .unwrap()
        .into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.next().await {
        if let SnapshotPart::Chunk(chunk) = SnapshotPart::try_from(part.unwrap()).unwrap() {
            bytes.extend_from_slice(&chunk);
        }
    }
    bytes
}

#[tokio::test]
async fn a_restored_cluster_closes_every_session_and_waits_before_it_grants() {
    let disk = tempfile::tempdir().unwrap();
    let clock = ControlledClock::default();
    let old = start("old", &disk.path().join("old"), ANY, &clock).await;
    old.bootstrap(BTreeMap::from([(1, old.address().to_owned())]))
        .await
        .unwrap();
    let endpoint = format!("http://{}", old.local_addr());
    let create = admin::CreateTarget {
        target: target("cart"),
        config: TargetConfig::default(),
        initial_slices: 4,
        reason: None,
    };
    let client = AdminClient::new(connect(&endpoint).await);
    until("the target is created", async || {
        client
            .clone()
            .create_target(pb::CreateTargetRequest::from(&create))
            .await
            .is_ok()
    })
    .await;
    clock.pause();
    let mut pod = Pod::start(&endpoint, "cart", 9001).await;
    let session = pod.session();
    pod.until("everything is its own", |view| {
        crate::support::owned(view, session) == 4
    })
    .await;
    let before = pod
        .view
        .clone()
        .unwrap()
        .get(leasehold_proto::SliceKey::MIN)
        .1
        .owner
        .unwrap()
        .epoch
        .token();
    let bytes = save(&endpoint).await;
    old.shutdown().await;

    let file = SnapshotFile::read(bytes.as_slice()).unwrap();
    let directory = disk.path().join("new");
    let listen = std::net::TcpListener::bind(ANY)
        .unwrap()
        .local_addr()
        .unwrap();
    let plan = RestorePlan {
        incarnation: Incarnation::new(2).unwrap(),
        max_ttl: Duration::ZERO,
        cluster: "new".into(),
        node_id: 1,
        advertise: listen.to_string(),
    };
    let again = RestorePlan {
        incarnation: Incarnation::FIRST,
        ..plan.clone()
    };
    assert!(matches!(
        restore(&file, &directory, &again),
        Err(CannotRestore::Rejected(_))
    ));
    let restored = restore(&file, &directory, &plan).unwrap();
    assert_eq!(
        (restored.targets, restored.wait_for_ttl),
        (1, TargetConfig::default().ttl)
    );
    assert!(
        matches!(
            restore(&file, &directory, &plan),
            Err(CannotRestore::Directory(_))
        ),
        "not empty any more"
    );

    let new = start("new", &directory, listen, &clock).await;
    until("the node leads", async || new.ready().is_ok()).await;
    let endpoint = format!("http://{}", new.local_addr());
    // The old session is closed for ever; a new one waits until every old lease must have run out.
    let channel = connect(&endpoint).await;
    let mut old_pod = Pod::attach(channel.clone(), "cart", pod.registered.clone()).await;
    assert!(matches!(
        old_pod.next().await,
        Some(AssignerMessage::Closed { .. })
    ));
    let mut pod = Pod::start(&endpoint, "cart", 9002).await;
    for _ in 0..5 {
        pod.renew().await;
    }
    assert_eq!(pod.owned(), 0);
    assert!(new.status().restore_wait);
    clock.advance(Duration::from_secs(2));
    pod.renew().await;
    clock.advance(Duration::from_secs(2));
    let session = pod.session();
    pod.until("everything is its own", |view| {
        crate::support::owned(view, session) == 4
    })
    .await;
    let after = pod
        .view
        .clone()
        .unwrap()
        .get(leasehold_proto::SliceKey::MIN)
        .1
        .owner
        .unwrap()
        .epoch
        .token();
    assert!(after > before);
    new.shutdown().await;
}
