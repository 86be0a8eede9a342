//! A replica is killed at random moments: while it writes, takes snapshots, installs them. What
//! it had acknowledged is there afterwards. `LEASEHOLD_SEED` repeats a run.

#![cfg(feature = "rocksdb")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use leasehold_raft_store::{RaftConfig, RaftNode, Storage, serve_peers};
use support::{Cluster, Disk, Map, PATIENCE, until};
use tokio::net::TcpListener;

const MODE: &str = "LEASEHOLD_CRASH_CHILD";

struct Random(u64);

impl Random {
    fn new() -> Self {
        let given = std::env::var("LEASEHOLD_SEED")
            .ok()
            .and_then(|s| s.parse().ok());
        let seed: u64 = given.unwrap_or_else(rand::random);
        eprintln!("LEASEHOLD_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

fn tune(config: &mut RaftConfig) {
    config.snapshot_every_entries = 40;
    config.keep_entries = 5;
    config.heartbeat_ms = 20;
    config.election_ms = (50, 100);
}

fn spawn(mode: &str, arguments: &[(&str, String)]) -> Child {
    Command::new(std::env::current_exe().expect("this binary"))
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(MODE, mode)
        .envs(arguments.iter().map(|(k, v)| (*k, v.clone())))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a child")
}

/// Not a test of its own: what the other tests run and kill.
#[test]
fn child() {
    let Ok(mode) = std::env::var(MODE) else {
        return;
    };
    let variable = |name: &str| std::env::var(name).expect("an argument");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let directory = PathBuf::from(variable("DIRECTORY"));
    match mode.as_str() {
        "writer" => runtime.block_on(writer(&directory)),
        "follower" => runtime.block_on(follower(&directory, &variable("ADDRESS"))),
        other => panic!("{other}"),
    }
}

/// Alone in its cluster, it writes `k0`, `k1`, … and prints each number once it is acknowledged.
async fn writer(directory: &Path) {
    let (node, map) = open_alone(directory).await;
    let mut next = map.content().len();
    loop {
        let large = "x".repeat(next % 2000);
        let command = Bytes::from(format!("k{next:08}={next}:{large}"));
        if node.propose(command, None, PATIENCE).await.is_ok() {
            println!("acknowledged {next}");
            next += 1;
        }
    }
}

async fn open_alone(directory: &Path) -> (RaftNode, Map) {
    let mut config = RaftConfig::new("crash", 1, "127.0.0.1:1");
    tune(&mut config);
    let map = Map::default();
    let node = RaftNode::start(config, Storage::Disk(directory.to_owned()), map.clone())
        .await
        .expect("a killed replica starts again");
    let members = BTreeMap::from([(1, "127.0.0.1:1".to_owned())]);
    node.bootstrap(members).await.expect("formed");
    until("it confirms", || async { node.confirm().await.ok() }).await;
    (node, map)
}

/// Kill `child` after `delay` and give the last number it had acknowledged.
fn kill_after(mut child: Child, delay: Duration) -> Option<usize> {
    let output = child.stdout.take().expect("its output");
    let reading = std::thread::spawn(move || {
        let numbers = BufReader::new(output).lines().map_while(Result::ok);
        numbers
            .filter_map(|l| l.strip_prefix("acknowledged ")?.parse().ok())
            .last()
    });
    std::thread::sleep(delay);
    child.kill().expect("killed");
    child.wait().expect("reaped");
    reading.join().expect("its output ends")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_every_kill() {
    let mut random = Random::new();
    let root = tempfile::tempdir().expect("a directory");
    let directory = root.path().join("data");
    let mut acknowledged = None;
    for round in 0..12 {
        let arguments = [("DIRECTORY", directory.display().to_string())];
        let child = spawn("writer", &arguments);
        let delay = Duration::from_millis(100 + random.below(900));
        let last = tokio::task::spawn_blocking(move || kill_after(child, delay));
        acknowledged = last.await.expect("killed").max(acknowledged);

        let (node, map) = open_alone(&directory).await;
        let content = map.content();
        assert!(
            acknowledged.is_none_or(|last| content.len() > last),
            "round {round}: {} entries, but {acknowledged:?} was acknowledged",
            content.len()
        );
        for (i, (key, value)) in content.iter().enumerate() {
            let expected = format!("{i}:{}", "x".repeat(i % 2000));
            assert_eq!(key, format!("k{i:08}").as_bytes(), "round {round}");
            assert_eq!(value, expected.as_bytes(), "round {round}");
        }
        // The replica may be taking one at this moment: it has two until the new one is in place.
        until("old and unfinished snapshots are deleted", || async {
            let snapshots = std::fs::read_dir(directory.join("snapshots")).expect("a listing");
            (snapshots.count() <= 1).then_some(())
        })
        .await;
        node.shutdown().await;
    }
    assert!(
        acknowledged.is_some_and(|n| n > 40),
        "snapshots were taken: {acknowledged:?}"
    );
}

/// A replica of somebody else's cluster, for ever.
async fn follower(directory: &Path, address: &str) {
    let (node, _) = open_follower(directory, address).await;
    println!("acknowledged 0");
    until("never", || async { (node.status().id == 0).then_some(()) }).await;
}

async fn open_follower(directory: &Path, address: &str) -> (RaftNode, Map) {
    let mut config = RaftConfig::new("test", 2, address);
    tune(&mut config);
    let map = Map::default();
    let listener = until("the address is free", || async {
        TcpListener::bind(address).await.ok()
    })
    .await;
    let node = RaftNode::start(config, Storage::Disk(directory.to_owned()), map.clone())
        .await
        .expect("a killed replica starts again");
    tokio::spawn(serve_peers(
        listener,
        node.grpc_service(),
        std::future::pending(),
    ));
    (node, map)
}

/// The state of a replica that nobody talks to.
async fn at_rest(directory: &Path, address: &str) -> (u64, BTreeMap<Vec<u8>, Vec<u8>>) {
    let mut config = RaftConfig::new("test", 2, address);
    tune(&mut config);
    let map = Map::default();
    let node = RaftNode::start(config, Storage::Disk(directory.to_owned()), map.clone())
        .await
        .expect("a killed replica starts again");
    let applied = node.status().applied.map_or(0, |p| p.index);
    let content = map.content();
    node.shutdown().await;
    (applied, content)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_killed_while_it_installs_snapshots_ends_up_equal() {
    let mut random = Random::new();
    let root = tempfile::tempdir().expect("a directory");
    let directory = root.path().join("data");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = free.local_addr().expect("an address").to_string();
    drop(free);
    let mut leader = Cluster::formed(1, tune).await;
    let arguments = [
        ("DIRECTORY", directory.display().to_string()),
        ("ADDRESS", address.clone()),
    ];

    let first = spawn("follower", &arguments);
    until("the follower answers", || async {
        leader.node(1).add_learner(2, &address).await.ok()
    })
    .await;
    tokio::task::spawn_blocking(move || kill_after(first, Duration::ZERO))
        .await
        .expect("killed");
    // What the state was at each position, so that a half-installed one is noticed before the
    // next snapshot covers it.
    let mut history = BTreeMap::from([(0, BTreeMap::new())]);
    let mut installed = 0;
    // On a slow machine a kill may come before anything was installed: later ones come later.
    for round in 0..80 {
        if round >= 16 && installed > 0 {
            break;
        }
        // Enough that the log the follower needs is gone; large enough that installing takes time.
        for i in 0..50 {
            let value = "v".repeat(50_000 + i);
            let command = format!("k{:04}={round}{value}", random.below(200));
            let (at, _) = leader.propose(&command).await;
            if i > 35 {
                history.insert(at.index, leader.map(1).content());
            }
        }
        let child = spawn("follower", &arguments);
        let delay = Duration::from_millis(100 + random.below(500 + 50 * round));
        let killed = tokio::task::spawn_blocking(move || kill_after(child, delay));
        killed.await.expect("killed");

        let (applied, content) = at_rest(&directory, &address).await;
        let known = history.get(&applied);
        if let Some(expected) = known {
            installed += u64::from(applied > 0);
            assert!(
                content == *expected,
                "round {round}: not the state at {applied}"
            );
        }
        let oldest = applied.saturating_sub(1);
        history.retain(|index, _| *index > oldest);
    }
    assert!(installed > 0, "not one known state was met");
    let (at, _) = leader.propose("last=1").await;
    let (node, map) = open_follower(&directory, &address).await;
    let mut applied = node.applied();
    let reached = applied.wait_for(|p| p.is_some_and(|p| p.index >= at.index));
    tokio::time::timeout(PATIENCE, reached)
        .await
        .expect("it catches up")
        .expect("it lives");
    assert!(map.content() == leader.map(1).content());
    node.shutdown().await;
    leader.stop(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_on_disk_restart_together() {
    let root = tempfile::tempdir().expect("a directory");
    let mut cluster = Cluster::new(|c| c.snapshot_every_entries = 50);
    for id in 1..=3 {
        cluster
            .disks
            .insert(id, Disk::Directory(root.path().join(id.to_string())));
        cluster.start(id).await;
    }
    cluster
        .node(1)
        .bootstrap(cluster.members())
        .await
        .expect("formed");
    for i in 0..120 {
        cluster.propose(&format!("k{i}={i}")).await;
    }
    for id in cluster.ids() {
        cluster.stop(id).await;
    }
    for id in 1..=3 {
        cluster.start(id).await;
    }
    let (at, _) = cluster.propose("after=1").await;
    cluster.all_applied(at).await;
    for id in cluster.ids() {
        assert_eq!(cluster.map(id).content().len(), 121);
    }
    cluster.shutdown().await;
}
