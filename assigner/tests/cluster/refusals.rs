//! What is refused: followers, strangers, bad secrets, messages outside their bounds.

use leasehold_assigner::testing::TestCluster;
use leasehold_proto::SessionId;
use leasehold_proto::message::Renew;
use leasehold_proto::target::SessionSecret;
use leasehold_proto::wire::pb::admin_client::AdminClient;
use leasehold_proto::wire::pb::sessions_client::SessionsClient;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{AssignerMessage, Hello, RefusedReason, SliceletMessage, pb};

use crate::support::{Pod, connect, leader_endpoint, owned, pods, register, target};

async fn refused(pod: &mut Pod) -> RefusedReason {
    loop {
        match pod.next().await {
            Some(AssignerMessage::Refused { reason, .. }) => return reason,
            Some(AssignerMessage::Renewed(_) | AssignerMessage::Pushed { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_follower_names_the_leader() {
    let cluster = TestCluster::start(3).await;
    cluster.create_target("cart", 4).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let channel = connect(&format!("http://{}", cluster.node(follower).local_addr())).await;
    let status = register(&channel, "cart", 9001).await.unwrap_err();
    let named = match Refusal::from_status(&status) {
        Some(Refusal::NotLeader {
            leader: Some(named),
        }) => named,
        other => panic!("{other:?}"),
    };
    assert_eq!(named.as_str(), cluster.node(leader).address());
    let empty = tokio_stream::empty::<pb::SliceletMessage>();
    let status = SessionsClient::new(channel)
        .attach(empty)
        .await
        .unwrap_err();
    assert!(
        matches!(
            Refusal::from_status(&status),
            Some(Refusal::NotLeader { leader: Some(_) })
        ),
        "{status}"
    );
}

#[tokio::test]
async fn an_unknown_target_is_refused() {
    let cluster = TestCluster::start(1).await;
    let channel = connect(&cluster.endpoints()[0]).await;
    let status = register(&channel, "cart", 9001).await.unwrap_err();
    assert_eq!(Refusal::from_status(&status), Some(Refusal::UnknownTarget));
}

#[tokio::test]
async fn a_wrong_secret_attaches_closes_and_drains_nothing() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut honest = pods(&cluster, "cart", 1).await.remove(0);
    let mut forged = honest.registered.clone();
    forged.secret = SessionSecret::from_bytes([0; 16]);
    let mut thief = Pod::attach(honest.channel.clone(), "cart", forged).await;
    assert_eq!(refused(&mut thief).await, RefusedReason::BadSecret);
    assert_eq!(thief.close().await, Err(Refusal::BadSecret));
    assert_eq!(thief.drain().await, Err(Refusal::BadSecret));
    thief.say(Vec::new(), None).await;
    assert!(matches!(
        refused(&mut thief).await,
        RefusedReason::NotAttached | RefusedReason::Superseded
    ));
    honest.renew().await;
}

#[tokio::test]
async fn a_session_that_was_not_introduced_is_refused() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut pod = pods(&cluster, "cart", 1).await.remove(0);
    let stranger = SessionId::from_u64(pod.session().as_u64() + 77);
    let renew = Renew {
        session: stranger,
        seq: 1,
        known: None,
        words: Vec::new(),
        armed: None,
        merging: None,
    };
    pod.send(SliceletMessage::Renew(renew)).await;
    assert_eq!(refused(&mut pod).await, RefusedReason::NotAttached);
    pod.renew().await;
}

#[tokio::test]
async fn the_newest_stream_of_a_session_wins() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut old = pods(&cluster, "cart", 1).await.remove(0);
    let mut new = Pod::attach(old.channel.clone(), "cart", old.registered.clone()).await;
    new.renew().await;
    assert_eq!(refused(&mut old).await, RefusedReason::Superseded);
    old.say(Vec::new(), None).await;
    assert_eq!(refused(&mut old).await, RefusedReason::Superseded);
    new.renew().await;
}

#[tokio::test]
async fn a_message_outside_its_bounds_ends_the_stream_and_nothing_else() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut pod = pods(&cluster, "cart", 1).await.remove(0);
    let hello = Hello {
        session: pod.session(),
        secret: pod.registered.secret,
        target: target("cart"),
    };
    let mut broken = pb::Hello::from(&hello);
    broken.target = "NOT A NAME".into();
    let (to, messages) = tokio::sync::mpsc::channel(4);
    to.send(pb::SliceletMessage {
        message: Some(pb::slicelet_message::Message::Hello(broken)),
    })
    .await
    .unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(messages);
    let mut answers = SessionsClient::new(pod.channel.clone())
        .attach(stream)
        .await
        .unwrap()
        .into_inner();
    let answer = AssignerMessage::try_from(answers.message().await.unwrap().unwrap()).unwrap();
    assert!(
        matches!(
            answer,
            AssignerMessage::Refused {
                reason: RefusedReason::Invalid,
                ..
            }
        ),
        "{answer:?}"
    );
    assert!(answers.message().await.unwrap().is_none());
    pod.renew().await;
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_only_its_stream() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut pod = pods(&cluster, "cart", 1).await.remove(0);
    let word = pb::Word {
        handoff: 1,
        kind: 1,
        digest: vec![0; 5 << 20],
    };
    let renew = pb::Renew {
        session: pod.session().as_u64(),
        words: vec![word],
        ..pb::Renew::default()
    };
    let huge = pb::SliceletMessage {
        message: Some(pb::slicelet_message::Message::Renew(renew)),
    };
    let mut client = SessionsClient::new(pod.channel.clone());
    if let Ok(answers) = client.attach(tokio_stream::once(huge)).await {
        let ended = answers.into_inner().message().await;
        assert!(!matches!(ended, Ok(Some(_))), "{ended:?}");
    }
    pod.renew().await;
}

#[tokio::test]
async fn operators_are_sent_to_the_leader_and_read_anywhere() {
    let cluster = TestCluster::start(3).await;
    cluster.create_target("cart", 4).await;
    let leader = cluster.leader().await;
    let follower = (1..=3).find(|id| *id != leader).unwrap();
    let mut client =
        AdminClient::new(connect(&format!("http://{}", cluster.node(follower).local_addr())).await);
    let delete = pb::DeleteTargetRequest {
        target: "cart".into(),
        ..pb::DeleteTargetRequest::default()
    };
    let status = client.delete_target(delete).await.unwrap_err();
    assert!(
        matches!(
            Refusal::from_status(&status),
            Some(Refusal::NotLeader { leader: Some(_) })
        ),
        "{status}"
    );
    let reply = client
        .cluster_status(pb::ClusterStatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((reply.leader, reply.members.len()), (Some(leader), 3));
    // The follower may lag a moment behind; it answers with what it has.
    let deadline = tokio::time::Instant::now() + crate::support::PATIENCE;
    while client
        .list_targets(pb::ListTargetsRequest {})
        .await
        .unwrap()
        .into_inner()
        .targets
        .len()
        != 1
    {
        assert!(tokio::time::Instant::now() < deadline);
    }
    assert!(
        leader_endpoint(&cluster)
            .await
            .contains(&cluster.node(leader).local_addr().to_string())
    );
}

#[tokio::test]
async fn a_leader_that_meets_a_higher_incarnation_halts_and_says_why() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut all = pods(&cluster, "cart", 2).await;
    let known = Some(pb::Generation {
        incarnation: 9,
        number: 1,
    });
    let renew = pb::Renew {
        session: all[0].session().as_u64(),
        seq: 99,
        known,
        ..pb::Renew::default()
    };
    all[0]
        .send_raw(pb::SliceletMessage {
            message: Some(pb::slicelet_message::Message::Renew(renew)),
        })
        .await;
    assert_eq!(refused(&mut all[0]).await, RefusedReason::HigherIncarnation);
    all[1].say(Vec::new(), None).await;
    assert_eq!(refused(&mut all[1]).await, RefusedReason::HigherIncarnation);
    let why = cluster.node(1).status().halted.unwrap();
    assert!(why.contains("9#1"), "{why}");
    let status = register(&all[0].channel, "cart", 9100).await.unwrap_err();
    assert!(
        matches!(Refusal::from_status(&status), Some(Refusal::Halted(_))),
        "{status}"
    );
}

#[tokio::test]
async fn a_leader_that_meets_a_session_of_a_later_life_halts_instead_of_calling_it_closed() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut all = pods(&cluster, "cart", 1).await;
    let session = "s9.1".parse::<leasehold_proto::SessionId>().unwrap();
    let hello = pb::Hello {
        session: session.as_u64(),
        secret: Some((&leasehold_proto::target::SessionSecret::from_bytes([7; 16])).into()),
        target: "cart".into(),
    };
    all[0]
        .send_raw(pb::SliceletMessage {
            message: Some(pb::slicelet_message::Message::Hello(hello)),
        })
        .await;
    assert_eq!(refused(&mut all[0]).await, RefusedReason::HigherIncarnation);
    let why = cluster.node(1).status().halted.unwrap();
    assert!(why.contains("s9.1"), "{why}");
}

#[tokio::test]
async fn no_slice_is_moved_to_a_session_that_was_never_heard_of() {
    use leasehold_proto::SliceKey;
    use leasehold_proto::wire::admin::{MoveSlice, MoveTo, SliceToMove};
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut pod = pods(&cluster, "cart", 1).await.remove(0);
    let session = pod.session();
    pod.until("everything is its own", |view| owned(view, session) == 4)
        .await;
    cluster.hold("cart").await;
    let silent = register(&pod.channel, "cart", 9009).await.unwrap();
    let which = SliceToMove::Holding(SliceKey::MIN);
    let wish = MoveSlice {
        target: target("cart"),
        which,
        to: MoveTo::Session(silent.session),
        reason: None,
    };
    let mut client = AdminClient::new(pod.channel.clone());
    let status = client
        .move_slice(pb::MoveSliceRequest::from(&wish))
        .await
        .unwrap_err();
    assert!(
        matches!(Refusal::from_status(&status), Some(Refusal::Rejected(_))),
        "{status}"
    );
    let mut heard = Pod::attach(pod.channel.clone(), "cart", silent).await;
    heard.renew().await;
    let moved = client
        .move_slice(pb::MoveSliceRequest::from(&wish))
        .await
        .unwrap()
        .into_inner();
    assert!(moved.handoff.is_some());
}

#[tokio::test]
async fn no_slice_is_moved_to_a_session_that_drains() {
    use leasehold_proto::SliceKey;
    use leasehold_proto::wire::admin::{DrainSession, MoveSlice, MoveTo, SliceToMove};
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let mut pods = pods(&cluster, "cart", 2).await;
    let (first, second) = (pods[0].session(), pods[1].session());
    let pod = &mut pods[0];
    pod.until("every slice is owned", |view| {
        owned(view, first) + owned(view, second) == 4
    })
    .await;
    let mut client = AdminClient::new(pod.channel.clone());
    let drain = DrainSession {
        target: target("cart"),
        session: second,
        reason: None,
    };
    let drain = pb::DrainSessionRequest::from(&drain);
    client.drain_session(drain).await.unwrap();
    let wish = MoveSlice {
        target: target("cart"),
        which: SliceToMove::Holding(SliceKey::MIN),
        to: MoveTo::Session(second),
        reason: None,
    };
    let status = client
        .move_slice(pb::MoveSliceRequest::from(&wish))
        .await
        .unwrap_err();
    assert!(
        matches!(Refusal::from_status(&status), Some(Refusal::Rejected(_))),
        "{status}"
    );
}

#[tokio::test]
async fn a_listing_does_not_show_what_one_registers_with() {
    let cluster = TestCluster::start(1).await;
    cluster.create_target("cart", 4).await;
    let channel = connect(&cluster.endpoints()[0]).await;
    let id = vec![0xab; 16];
    let squid = Some(pb::Squid {
        address: "127.0.0.1:9001".into(),
        id: id.clone(),
    });
    let clock = i32::from(pb::ClockClass::Raw);
    let request = pb::RegisterRequest {
        target: "cart".into(),
        squid,
        clock,
        app_version: String::new(),
    };
    SessionsClient::new(channel.clone())
        .register(request)
        .await
        .unwrap();
    let list = pb::ListSessionsRequest {
        target: "cart".into(),
        ..pb::ListSessionsRequest::default()
    };
    let listed = AdminClient::new(channel)
        .list_sessions(list)
        .await
        .unwrap()
        .into_inner()
        .sessions
        .remove(0);
    let shown = listed.squid.unwrap().id;
    assert_eq!((&shown[..4], &shown[4..]), (&id[..4], &[0; 12][..]));
}
