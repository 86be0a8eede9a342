//! Targets: deleted and named again, held, configured; snapshots of them.

use leasehold_assigner::SnapshotFile;
use leasehold_assigner::testing::TestCluster;
use leasehold_proto::target::TargetConfig;
use leasehold_proto::wire::listing::SnapshotPart;
use leasehold_proto::wire::pb::admin_client::AdminClient;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{AssignerMessage, ClosedReason, admin, pb};
use std::time::Duration;
use tokio_stream::StreamExt;

use crate::support::{connect, leader_endpoint, pods, target};

#[tokio::test]
async fn a_deleted_targets_name_is_free_when_its_sessions_have_gone() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut pod = pods(&cluster, "cart", 1).await.remove(0);
    cluster.delete_target("cart").await;
    loop {
        match pod.next().await {
            Some(AssignerMessage::Closed { reason, .. }) => {
                break assert_eq!(reason, ClosedReason::TargetDeleted);
            }
            Some(_) => {}
            None => panic!("the stream has ended"),
        }
    }
    let create = pb::CreateTargetRequest::from(&admin::CreateTarget {
        target: target("cart"),
        config: TargetConfig::default(),
        initial_slices: 4,
        reason: None,
    });
    let mut client = AdminClient::new(pod.channel.clone());
    let refused = client.create_target(create.clone()).await.unwrap_err();
    assert!(
        matches!(Refusal::from_status(&refused), Some(Refusal::Rejected(_))),
        "{refused}"
    );
    pod.close().await.unwrap();
    client.create_target(create).await.unwrap();
}

#[tokio::test]
async fn a_ttl_that_does_not_outlive_an_election_is_refused_with_the_reason() {
    let cluster = TestCluster::start(1).await;
    let mut client = AdminClient::new(connect(&cluster.endpoints()[0]).await);
    let config = TargetConfig {
        ttl: Duration::from_millis(300),
        ..TargetConfig::default()
    };
    let create = admin::CreateTarget {
        target: target("cart"),
        config,
        initial_slices: 4,
        reason: None,
    };
    let refused = client
        .create_target(pb::CreateTargetRequest::from(&create))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    assert!(
        refused.message().contains("at least"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn a_saved_snapshot_reads_back_whole() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 64).await;
    let mut client = AdminClient::new(connect(&leader_endpoint(&cluster).await).await);
    let mut parts = client
        .save_snapshot(pb::SaveSnapshotRequest {})
        .await
        .unwrap()
        .into_inner();
    let (mut bytes, mut end) = (Vec::new(), None);
    while let Some(part) = parts.next().await {
        match SnapshotPart::try_from(part.unwrap()).unwrap() {
            SnapshotPart::Chunk(chunk) => bytes.extend_from_slice(&chunk),
            SnapshotPart::End(found) => end = Some(found),
        }
    }
    let end = end.unwrap();
    assert_eq!(
        (end.total_bytes, end.crc32c),
        (bytes.len() as u64, crc32c::crc32c(&bytes))
    );
    assert_eq!(
        SnapshotFile::read(bytes.as_slice()).unwrap().applied,
        end.applied
    );
}
