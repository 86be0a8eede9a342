//! What strangers and broken peers may send: a refusal each time, and the node goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::wire::{self, raft_peer_client::RaftPeerClient};
use crate::{
    Batch, LogPosition, MemoryStore, RaftConfig, RaftNode, RestoreError, StateMachine, Storage,
    serve_peers,
};

struct Nothing;

impl StateMachine for Nothing {
    fn restore(
        &mut self,
        _: Option<LogPosition>,
        _: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<(), RestoreError> {
        Ok(())
    }

    fn apply(&mut self, _: LogPosition, _: &[u8], _: &mut dyn Batch) -> Bytes {
        Bytes::new()
    }

    fn applied(&mut self, _: LogPosition) {}
}

async fn node() -> (RaftNode, RaftPeerClient<Channel>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let config = RaftConfig::new("ours", 1, &address);
    let storage = Storage::Memory(MemoryStore::new());
    let node = RaftNode::start(config, storage, Nothing)
        .await
        .expect("started");
    tokio::spawn(serve_peers(
        listener,
        node.grpc_service(),
        std::future::pending(),
    ));
    node.bootstrap(BTreeMap::from([(1, address.clone())]))
        .await
        .expect("formed");
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    (
        node,
        RaftPeerClient::new(endpoint.connect().await.expect("connected")),
    )
}

fn envelope() -> Option<wire::Envelope> {
    let (cluster, to_disk) = ("ours".to_owned(), Bytes::new());
    Some(wire::Envelope {
        cluster,
        from: 2,
        to: 1,
        to_disk,
    })
}

fn vote(term: u64, committed: bool) -> Option<wire::Vote> {
    Some(wire::Vote {
        term,
        node: 2,
        committed,
    })
}

fn entry(term: u64, index: u64) -> wire::LogEntry {
    let payload = wire::log_entry::Payload::Command(Bytes::from_static(b"evil"));
    wire::LogEntry {
        term,
        index,
        payload: Some(payload),
    }
}

#[tokio::test]
async fn messages_for_others_are_refused() {
    let (node, mut client) = node().await;
    let good = wire::VoteRequest {
        envelope: envelope(),
        vote: vote(1, false),
        pre_vote: true,
        ..wire::VoteRequest::default()
    };
    client
        .vote(good.clone())
        .await
        .expect("a question of a peer is answered");
    let mut wrong = vec![None];
    for change in [
        |e: &mut wire::Envelope| e.cluster = "theirs".into(),
        |e: &mut wire::Envelope| e.to = 7,
        |e: &mut wire::Envelope| e.from = 1,
        |e: &mut wire::Envelope| e.to_disk = Bytes::from_static(b"another disk"),
    ] {
        let mut e = envelope().unwrap_or_default();
        change(&mut e);
        wrong.push(Some(e));
    }
    for envelope in wrong {
        let refused = client
            .vote(wire::VoteRequest {
                envelope,
                ..good.clone()
            })
            .await;
        let code = refused.expect_err("refused").code();
        assert!(
            matches!(code, Code::FailedPrecondition | Code::InvalidArgument),
            "{code}"
        );
    }
    node.shutdown().await;
}

#[tokio::test]
async fn malformed_appends_change_nothing() {
    let (node, mut client) = node().await;
    let append = |vote, previous: Option<(u64, u64)>, entries| wire::AppendRequest {
        envelope: envelope(),
        vote,
        previous: previous.map(|(term, index)| wire::LogId { term, index }),
        leader_commit: None,
        entries,
    };
    let bare = wire::LogEntry {
        term: 9,
        index: 1,
        payload: None,
    };
    let impossible = wire::Membership {
        voter_sets: vec![wire::VoterSet { ids: vec![5] }],
        nodes: Vec::new(),
    };
    let stranger = wire::LogEntry {
        payload: Some(wire::log_entry::Payload::Membership(impossible)),
        ..entry(9, 1)
    };
    for request in [
        append(None, None, vec![]),
        append(vote(9, false), None, vec![]),
        append(vote(9, true), Some((1, 3)), vec![entry(9, 9)]),
        append(vote(9, true), Some((1, u64::MAX)), vec![entry(9, 0)]),
        append(vote(9, true), Some((1, u64::MAX)), vec![]),
        append(vote(u64::MAX, true), None, vec![]),
        append(vote(9, true), Some((8, 3)), vec![entry(7, 4)]),
        append(vote(9, true), None, vec![entry(10, 0)]),
        append(vote(9, true), Some((1, 0)), vec![bare]),
        append(vote(9, true), Some((1, 0)), vec![stranger]),
    ] {
        let refused = client.append(request.clone()).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        let stream = futures::stream::iter([request]);
        let mut replies = client
            .append_stream(stream)
            .await
            .expect("headers")
            .into_inner();
        assert!(replies.message().await.is_err());
    }
    let done = node
        .propose(Bytes::from_static(b"x"), None, Duration::from_secs(30))
        .await;
    done.expect("the node goes on");
    node.shutdown().await;
}

#[tokio::test]
async fn broken_snapshots_change_nothing() {
    use wire::snapshot_part::Part;
    let (node, mut client) = node().await;
    let part = |part| wire::SnapshotPart { part: Some(part) };
    let head = |total_bytes| {
        part(Part::Head(wire::SnapshotHead {
            envelope: envelope(),
            vote: vote(9, true),
            total_bytes,
        }))
    };
    let chunk = |n: usize| part(Part::Chunk(Bytes::from(vec![0xff; n])));
    for parts in [
        vec![],
        vec![wire::SnapshotPart { part: None }],
        vec![chunk(10)],
        vec![head(10)],
        vec![head(10), chunk(11)],
        vec![head(10), chunk(10)],
        vec![head(20), chunk(10), head(10)],
        vec![head(u64::MAX), chunk(10)],
    ] {
        let refused = client.install_snapshot(futures::stream::iter(parts)).await;
        assert_eq!(refused.expect_err("refused").code(), Code::InvalidArgument);
    }
    let done = node
        .propose(Bytes::from_static(b"x"), None, Duration::from_secs(30))
        .await;
    done.expect("the node goes on");
    node.shutdown().await;
}
