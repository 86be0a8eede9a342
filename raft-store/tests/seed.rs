//! A cluster that begins with the records of a backup.

#![cfg(feature = "rocksdb")]

mod support;

use leasehold_raft_store::{LogPosition, RaftNode, StartError, restore_records};
use support::{Cluster, Disk, Map};

fn records() -> Vec<std::io::Result<(Vec<u8>, Vec<u8>)>> {
    (0..500)
        .map(|i| Ok((format!("k{i:03}").into_bytes(), vec![b'v'; 1000])))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_join_a_seeded_node_have_its_records() {
    let root = tempfile::tempdir().expect("a directory");
    let seeded = root.path().join("1");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let at = LogPosition {
        term: 7,
        index: 1000,
    };
    restore_records(&seeded, "test", 1, &address, at, records().into_iter()).expect("seeded");

    let mut cluster = Cluster::new(|_| {});
    cluster.addresses.insert(1, address);
    cluster.disks.insert(1, Disk::Directory(seeded.clone()));
    cluster.start(1).await;
    assert_eq!(cluster.map(1).content().len(), 500);
    assert_eq!(cluster.leader().await, 1);
    for id in [2, 3] {
        cluster
            .disks
            .insert(id, Disk::Directory(root.path().join(id.to_string())));
        cluster.start(id).await;
        let address = cluster.addresses[&id].clone();
        cluster
            .node(1)
            .add_learner(id, &address)
            .await
            .expect("added");
        cluster.node(1).promote(id).await.expect("promoted");
    }
    let (position, _) = cluster.propose("k500=new").await;
    assert!(position > at, "positions go on from the backup's");
    cluster.all_applied(position).await;
    for id in cluster.ids() {
        assert_eq!(cluster.map(id).content().len(), 501, "node {id}");
    }
    cluster.shutdown().await;

    let again = restore_records(&seeded, "test", 1, "h:1", at, records().into_iter());
    assert!(
        matches!(again, Err(StartError::Foreign { .. })),
        "{again:?}"
    );
}

#[tokio::test]
async fn records_that_the_machine_refuses_stop_the_start() {
    let root = tempfile::tempdir().expect("a directory");
    let poison = [Ok((b"poison".to_vec(), Vec::new()))];
    let at = LogPosition::default();
    restore_records(root.path(), "test", 1, "h:1", at, poison.into_iter()).expect("seeded");
    let config = leasehold_raft_store::RaftConfig::new("test", 1, "h:1");
    let storage = leasehold_raft_store::Storage::Disk(root.path().to_owned());
    let refused = RaftNode::start(config, storage, Map::default()).await.err();
    let text = refused.expect("refused").to_string();
    assert!(text.contains("a record of a later version"), "{text}");
}
