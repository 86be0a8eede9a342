//! Clusters over real sockets: elections, failover, transfer, membership, snapshots.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use leasehold_raft_store::{AdminError, MemoryStore, ProposeError, Role};
use support::{Cluster, Disk, PATIENCE, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_commits_confirms_and_restarts() {
    let mut cluster = Cluster::formed(1, |_| {}).await;
    let (at, before) = cluster.propose("a=1").await;
    assert_eq!(before, "");
    let (_, before) = cluster.propose("a=2").await;
    assert_eq!(before, "1");
    let confirmed = cluster.node(1).confirm().await.expect("confirmed");
    assert!(confirmed.index > at.index);
    let first_term = confirmed.term;

    let members = cluster.members();
    cluster
        .node(1)
        .bootstrap(members.clone())
        .await
        .expect("the same members are no conflict");
    let other = BTreeMap::from([(1, members[&1].clone()), (2, "127.0.0.1:1".into())]);
    let refused = cluster.node(1).bootstrap(other).await;
    assert!(
        matches!(refused, Err(AdminError::Refused(_))),
        "{refused:?}"
    );

    cluster.stop(1).await;
    cluster.start(1).await;
    assert_eq!(
        cluster.map(1).get("a").as_deref(),
        Some("2"),
        "what was applied is there at once"
    );
    cluster.leader().await;
    let confirmed = cluster.node(1).confirm().await.expect("confirmed");
    assert!(
        confirmed.term > first_term,
        "a restarted leader never goes on in its old term"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_refuses_connections_is_dialled_with_pauses() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    let (at, _) = cluster.propose("a=1").await;
    cluster.all_applied(at).await;
    let leader = cluster.leader().await;
    let gone = (1..=3).find(|id| *id != leader).expect("a follower");
    cluster.stop(gone).await;
    // A new leader does not know yet where the log of the lost one ends, and asks.
    let next = 6 - leader - gone;
    let moved = cluster.node(leader).transfer_leader(next).await;
    moved.expect("asked to hand over");
    let began = std::time::Instant::now();
    let before = cluster.cuts.dials(gone);
    while began.elapsed() < Duration::from_secs(2) {
        cluster.propose("a=2").await;
    }
    let dials = cluster.cuts.dials(gone) - before;
    // Two lanes of two nodes, each with heartbeats every 100 ms or a pause of that order; elections.
    let allowed = 20 + began.elapsed().as_millis() as u64 / 100 * 4;
    assert!(dials <= allowed, "{dials} dials in {:?}", began.elapsed());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_survive_the_loss_of_their_leader() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    let (at, _) = cluster.propose("a=1").await;
    cluster.all_applied(at).await;
    let old = cluster.leader().await;
    cluster.stop(old).await;
    let (at, before) = cluster.propose("a=2").await;
    assert_eq!(before, "1");
    cluster.start(old).await;
    cluster.applied(old, at.index).await;
    assert_eq!(cluster.map(old).get("a").as_deref(), Some("2"));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_names_the_leader_and_appends_nothing() {
    let cluster = Cluster::formed(3, |_| {}).await;
    let leader = cluster.leader().await;
    let follower = cluster
        .ids()
        .into_iter()
        .find(|id| *id != leader)
        .expect("a follower");
    let hint = until("the follower knows the leader", || async {
        match cluster
            .node(follower)
            .propose(Bytes::from("a=1"), None, PATIENCE)
            .await
        {
            Err(ProposeError::NotLeader { leader: Some(hint) }) => Some(hint),
            Err(ProposeError::NotLeader { leader: None }) => None,
            other => panic!("{other:?}"),
        }
    })
    .await;
    assert_eq!(hint, (leader, cluster.addresses[&leader].clone()));
    assert!(matches!(
        cluster.node(follower).confirm().await,
        Err(ProposeError::NotLeader { .. })
    ));
    let refused = cluster.node(follower).remove(1).await;
    assert!(
        matches!(refused, Err(AdminError::NotLeader { .. })),
        "{refused:?}"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_of_an_old_term_is_refused_for_good() {
    let cluster = Cluster::formed(3, |_| {}).await;
    let first = cluster.leader().await;
    let term = cluster
        .node(first)
        .leadership()
        .borrow()
        .leads()
        .expect("it leads");
    let done = cluster
        .node(first)
        .propose(Bytes::from("a=1"), Some(term), PATIENCE)
        .await;
    assert_eq!(done.expect("its own term").0.term, term);

    let second = cluster
        .ids()
        .into_iter()
        .find(|id| *id != first)
        .expect("another");
    until("leadership moves", || async {
        let _ = cluster.node(first).transfer_leader(second).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        (cluster.leader().await == second).then_some(())
    })
    .await;
    until("leadership moves back", || async {
        let _ = cluster.node(second).transfer_leader(first).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        (cluster.leader().await == first).then_some(())
    })
    .await;
    // It leads again, but in a newer term: what was decided in the old one must not pass.
    let now = cluster
        .node(first)
        .leadership()
        .borrow()
        .leads()
        .expect("it leads");
    assert!(now > term);
    let refused = cluster
        .node(first)
        .propose(Bytes::from("a=stale"), Some(term), PATIENCE)
        .await;
    assert_eq!(refused, Err(ProposeError::TermChanged { now }));
    let future = cluster
        .node(first)
        .propose(Bytes::from("a=early"), Some(now + 5), PATIENCE)
        .await;
    assert_eq!(future, Err(ProposeError::TermChanged { now }));
    let (at, before) = cluster.propose("a=2").await;
    assert_eq!(before, "1", "neither was appended");
    cluster.all_applied(at).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_cut_off_confirms_nothing_and_others_take_over() {
    let cluster = Cluster::formed(3, |_| {}).await;
    let (at, _) = cluster.propose("a=1").await;
    cluster.all_applied(at).await;
    let old = cluster.leader().await;
    let mut lost = cluster.node(old).leadership();
    let term = lost.borrow().leads().expect("it leads");
    cluster.cuts.isolate(old, &cluster.ids());

    let new = until("the others elect", || async {
        for id in cluster.ids().into_iter().filter(|id| *id != old) {
            if cluster.node(id).confirm().await.is_ok() {
                return Some(id);
            }
        }
        None
    })
    .await;
    assert!(
        cluster.node(old).confirm().await.is_err(),
        "no quorum, no confirmation"
    );
    let refused = cluster
        .node(old)
        .propose(Bytes::from("a=lost"), Some(term), Duration::from_secs(2))
        .await
        .expect_err("no quorum, no commit");
    assert!(
        matches!(
            refused,
            ProposeError::NoQuorum | ProposeError::Indeterminate(_)
        ),
        "{refused:?}"
    );
    let done = cluster
        .node(new)
        .propose(Bytes::from("a=2"), None, PATIENCE)
        .await
        .expect("done");

    cluster.cuts.heal();
    tokio::time::timeout(PATIENCE, lost.wait_for(|l| l.leads() != Some(term)))
        .await
        .expect("the loss is noticed")
        .expect("the node lives");
    cluster.applied(old, done.0.index).await;
    assert_eq!(cluster.map(old).get("a").as_deref(), Some("2"));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_vote_and_go() {
    let mut cluster = Cluster::formed(1, |_| {}).await;
    cluster.propose("a=1").await;
    for id in [2, 3] {
        cluster.disks.insert(id, Disk::Memory(MemoryStore::new()));
        cluster.start(id).await;
        let address = cluster.addresses[&id].clone();
        cluster
            .node(1)
            .add_learner(id, &address)
            .await
            .expect("added");
        cluster
            .node(1)
            .add_learner(id, &address)
            .await
            .expect("again is no conflict");
        cluster.node(1).promote(id).await.expect("promoted");
    }
    let status = cluster.node(1).status();
    assert_eq!(status.members.len(), 3);
    assert!(status.members.iter().all(|m| m.voter) && !status.changing);
    let (at, _) = cluster.propose("b=2").await;
    cluster.all_applied(at).await;
    assert_eq!(cluster.map(3).content(), cluster.map(1).content());

    // A number that is known comes back with another disk.
    let wrong = cluster.addresses[&2].clone();
    let refused = cluster.node(1).add_learner(9, &wrong).await;
    assert!(
        matches!(refused, Err(AdminError::Refused(_))),
        "{refused:?}"
    );

    cluster.node(1).remove(2).await.expect("removed");
    cluster.stop(2).await;
    assert_eq!(cluster.node(1).status().members.len(), 2);
    // The leader can remove itself; somebody else leads then.
    cluster.node(1).remove(1).await.expect("removed");
    cluster.stop(1).await;
    assert_eq!(cluster.leader().await, 3);
    cluster.propose("c=3").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_does_not_come_back_with_an_empty_disk() {
    let mut cluster = Cluster::formed(3, |_| {}).await;
    let (at, _) = cluster.propose("a=1").await;
    cluster.all_applied(at).await;
    let leader = cluster.leader().await;
    let victim = cluster
        .ids()
        .into_iter()
        .find(|id| *id != leader)
        .expect("a follower");
    cluster.stop(victim).await;
    cluster
        .disks
        .insert(victim, Disk::Memory(MemoryStore::new()));
    cluster.start(victim).await;
    cluster.propose("b=2").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(
        cluster.node(victim).status().applied.is_none(),
        "an emptied disk under an old number gets nothing and votes for nobody"
    );
    let leader = cluster.leader().await;
    let address = cluster.addresses[&victim].clone();
    let refused = cluster.node(leader).add_learner(victim, &address).await;
    assert!(
        matches!(refused, Err(AdminError::Refused(_))),
        "{refused:?}"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_away_long_catches_up_by_snapshot() {
    let mut cluster = Cluster::formed(3, |c| {
        c.snapshot_every_entries = 50;
        c.keep_entries = 10;
    })
    .await;
    let leader = cluster.leader().await;
    let away = cluster
        .ids()
        .into_iter()
        .find(|id| *id != leader)
        .expect("a follower");
    cluster.stop(away).await;
    for i in 0..200 {
        cluster.propose(&format!("k{i}={i}")).await;
    }
    let (at, _) = cluster.propose("k7").await;
    until("the log is purged", || async {
        let leader = cluster.leader().await;
        cluster
            .node(leader)
            .status()
            .purged
            .filter(|p| p.index > 60)
    })
    .await;
    cluster.start(away).await;
    cluster.applied(away, at.index).await;
    let leader = cluster.leader().await;
    until("the maps agree", || async {
        (cluster.map(away).content() == cluster.map(leader).content()).then_some(())
    })
    .await;
    assert_eq!(
        cluster.map(away).0.lock().restored,
        2,
        "once at start, once from the snapshot"
    );
    assert!(cluster.node(away).status().snapshot.is_some());

    // What a snapshot brought survives a restart.
    let content = cluster.map(leader).content();
    cluster.stop(away).await;
    cluster.start(away).await;
    cluster.applied(away, at.index).await;
    assert_eq!(cluster.map(away).content(), content);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_hold() {
    let cluster = Cluster::formed(1, |c| {
        c.max_command_bytes = 1000;
        c.max_in_flight = 2;
    })
    .await;
    let node = cluster.node(1);
    let large = node
        .propose(Bytes::from(vec![b'x'; 1001]), None, PATIENCE)
        .await;
    assert_eq!(
        large,
        Err(ProposeError::TooLarge {
            bytes: 1001,
            bound: 1000
        })
    );
    let many = (0..50).map(|i| node.propose(Bytes::from(format!("k{i}=1")), None, PATIENCE));
    let results = futures::future::join_all(many).await;
    assert!(results.iter().any(Result::is_ok));
    assert!(results.contains(&Err(ProposeError::Overloaded)));
    // A place is given back just after the reply is.
    until("every place is free again", || async {
        (node.status().in_flight == 0).then_some(())
    })
    .await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_export_is_one_moment() {
    let cluster = Cluster::formed(1, |_| {}).await;
    for i in 0..100 {
        cluster.propose(&format!("k{i:03}={i}")).await;
    }
    let position = cluster.node(1).status().applied;
    let export = cluster.node(1).export().expect("an export");
    cluster.propose("k000=changed").await;
    assert_eq!(export.position, position);
    let records: Vec<_> = export.map(|r| r.expect("a record")).collect();
    assert_eq!(records.len(), 100);
    assert_eq!(records[0], (b"k000".to_vec(), b"0".to_vec()));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_disk_stops_the_node_and_is_not_tried_again() {
    let cluster = Cluster::formed(1, |_| {}).await;
    cluster.propose("a=1").await;
    let disk = cluster.disks[&1].memory();
    disk.fail_syncs(true);
    let lost = cluster
        .node(1)
        .propose(Bytes::from("a=2"), None, PATIENCE)
        .await;
    assert!(!lost.expect_err("not durable").is_definite());
    disk.fail_syncs(false);
    let mut leadership = cluster.node(1).leadership();
    tokio::time::timeout(PATIENCE, leadership.wait_for(|l| l.role == Role::Stopped))
        .await
        .expect("it stops")
        .expect("the last value stays");
    let refused = cluster
        .node(1)
        .propose(Bytes::from("a=3"), None, PATIENCE)
        .await;
    assert!(
        matches!(refused, Err(ProposeError::Fatal(_))),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_power_fails_everywhere() {
    let mut cluster = Cluster::formed(3, |c| {
        c.snapshot_every_entries = 30;
        c.keep_entries = 5;
    })
    .await;
    let mut acknowledged = 0;
    for round in 0..4 {
        for _ in 0..25 {
            cluster
                .propose(&format!("k{acknowledged}={acknowledged}"))
                .await;
            acknowledged += 1;
        }
        for id in cluster.ids() {
            cluster.crash(id, round % 3).await;
        }
        for id in 1..=3 {
            cluster.start(id).await;
        }
        let (at, _) = cluster.propose("round=1").await;
        cluster.all_applied(at).await;
        for id in cluster.ids() {
            let content = cluster.map(id).content();
            for k in 0..acknowledged {
                assert!(
                    content.contains_key(format!("k{k}").as_bytes()),
                    "node {id} lost k{k}"
                );
            }
        }
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_voted_keeps_silent_after_a_restart() {
    let mut cluster = Cluster::formed(1, |_| {}).await;
    cluster.propose("a=1").await;
    cluster.stop(1).await;
    let before = std::time::Instant::now();
    cluster.start(1).await;
    let silent = cluster.config(1, "h:1").election_timeout_max();
    assert!(
        before.elapsed() >= silent,
        "it may have promised its last leader so"
    );
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_cut_off_does_not_disturb_the_leader() {
    let cluster = Cluster::formed(3, |_| {}).await;
    let (at, _) = cluster.propose("a=1").await;
    cluster.all_applied(at).await;
    let leader = cluster.leader().await;
    let term = cluster.node(leader).leadership().borrow().term;
    let alone = cluster
        .ids()
        .into_iter()
        .find(|id| *id != leader)
        .expect("a follower");
    cluster.cuts.isolate(alone, &cluster.ids());
    // Long enough for several elections, if it held any.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        cluster.node(alone).leadership().borrow().term,
        term,
        "only questions, no terms"
    );
    cluster.cuts.heal();
    let (at, _) = cluster.propose("a=2").await;
    cluster.applied(alone, at.index).await;
    cluster.shutdown().await;
}
