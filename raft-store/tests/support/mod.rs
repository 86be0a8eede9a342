//! A small replicated register map and a cluster of it over real sockets.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use leasehold_raft_store::{
    Batch, Dialer, LogPosition, MemoryStore, NodeId, PeerIo, ProposeError, RaftConfig, RaftNode,
    RestoreError, StateMachine, Storage, TcpDialer, serve_peers,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Patience of a condition that must become true; never a measure of speed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What a [`Map`] shows to tests.
#[derive(Default)]
pub struct Shown {
    pub map: BTreeMap<Vec<u8>, Vec<u8>>,
    pub restored: u64,
    pub applied: Option<LogPosition>,
    pub commands: u64,
}

/// `key=value` sets and answers the previous value; `key` alone deletes.
#[derive(Clone, Default)]
pub struct Map(pub Arc<Mutex<Shown>>);

impl Map {
    pub fn get(&self, key: &str) -> Option<String> {
        let found = self.0.lock().map.get(key.as_bytes()).cloned();
        found.map(|v| String::from_utf8_lossy(&v).into_owned())
    }

    pub fn content(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.0.lock().map.clone()
    }
}

impl StateMachine for Map {
    fn restore(
        &mut self,
        applied: Option<LogPosition>,
        records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<(), RestoreError> {
        let mut shown = self.0.lock();
        shown.map = records.collect();
        shown.restored += 1;
        shown.applied = applied;
        if shown.map.contains_key(b"poison".as_slice()) {
            return Err(RestoreError("a record of a later version".into()));
        }
        Ok(())
    }

    fn apply(&mut self, at: LogPosition, command: &[u8], batch: &mut dyn Batch) -> Bytes {
        let mut shown = self.0.lock();
        assert!(shown.applied < Some(at), "positions rise");
        shown.commands += 1;
        let mut parts = command.splitn(2, |b| *b == b'=');
        let key = parts.next().unwrap_or_default();
        let before = match parts.next() {
            Some(value) => {
                batch.put(key, value);
                shown.map.insert(key.to_vec(), value.to_vec())
            }
            None => {
                batch.delete(key);
                shown.map.remove(key)
            }
        };
        before.unwrap_or_default().into()
    }

    fn applied(&mut self, last: LogPosition) {
        self.0.lock().applied = Some(last);
    }
}

/// Cuts connections: dials fail, and what is open ends, between nodes that are apart.
#[derive(Clone, Debug, Default)]
pub struct Cuts(
    Arc<Mutex<std::collections::BTreeSet<(NodeId, NodeId)>>>,
    Arc<AtomicU64>,
    Arc<Mutex<BTreeMap<NodeId, u64>>>,
);

impl Cuts {
    pub fn isolate(&self, node: NodeId, others: &[NodeId]) {
        let mut cuts = self.0.lock();
        for other in others.iter().filter(|o| **o != node) {
            cuts.insert((node, *other));
            cuts.insert((*other, node));
        }
        self.1.fetch_add(1, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        self.0.lock().clear();
    }

    /// How often `to` was dialled so far.
    pub fn dials(&self, to: NodeId) -> u64 {
        self.2.lock().get(&to).copied().unwrap_or_default()
    }

    fn cut(&self, from: NodeId, to: NodeId) -> bool {
        self.0.lock().contains(&(from, to))
    }
}

#[derive(Debug)]
pub struct CutDialer {
    pub from: NodeId,
    pub cuts: Cuts,
}

impl Dialer for CutDialer {
    fn dial(
        &self,
        to: NodeId,
        address: &str,
    ) -> futures::future::BoxFuture<'static, std::io::Result<Box<dyn PeerIo>>> {
        let (from, cuts) = (self.from, self.cuts.clone());
        *cuts.2.lock().entry(to).or_default() += 1;
        let dialling = TcpDialer.dial(to, address);
        Box::pin(async move {
            if cuts.cut(from, to) {
                return Err(std::io::Error::other("cut"));
            }
            let mut real = dialling.await?;
            let (near, mut far) = tokio::io::duplex(64 << 10);
            tokio::spawn(async move {
                let watch = async {
                    while !cuts.cut(from, to) {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut far, &mut real) => {}
                    () = watch => {}
                }
            });
            Ok(Box::new(near) as Box<dyn PeerIo>)
        })
    }
}

pub enum Disk {
    Memory(MemoryStore),
    #[cfg(feature = "rocksdb")]
    Directory(std::path::PathBuf),
}

impl Disk {
    pub fn memory(&self) -> &MemoryStore {
        match self {
            Self::Memory(store) => store,
            #[cfg(feature = "rocksdb")]
            Self::Directory(path) => panic!("{} is not in memory", path.display()),
        }
    }

    pub fn storage(&self) -> Storage {
        match self {
            Self::Memory(store) => Storage::Memory(store.clone()),
            #[cfg(feature = "rocksdb")]
            Self::Directory(path) => Storage::Disk(path.clone()),
        }
    }
}

pub struct Running {
    pub node: RaftNode,
    pub map: Map,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
}

/// Replicas by number; a stopped one keeps its disk and its address.
pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Running>,
    pub disks: BTreeMap<NodeId, Disk>,
    pub addresses: BTreeMap<NodeId, String>,
    pub cuts: Cuts,
    pub tune: fn(&mut RaftConfig),
}

impl Cluster {
    pub fn new(tune: fn(&mut RaftConfig)) -> Self {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        Self {
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            addresses: BTreeMap::new(),
            cuts: Cuts::default(),
            tune,
        }
    }

    /// Nodes `1..=n` in memory, formed and led by somebody.
    pub async fn formed(n: u64, tune: fn(&mut RaftConfig)) -> Self {
        let mut this = Self::new(tune);
        for id in 1..=n {
            this.disks.insert(id, Disk::Memory(MemoryStore::new()));
            this.start(id).await;
        }
        this.node(1)
            .bootstrap(this.members())
            .await
            .expect("formed");
        this.leader().await;
        this
    }

    pub fn members(&self) -> BTreeMap<NodeId, String> {
        self.nodes
            .keys()
            .map(|id| (*id, self.addresses[id].clone()))
            .collect()
    }

    pub fn node(&self, id: NodeId) -> &RaftNode {
        &self.nodes[&id].node
    }

    pub fn map(&self, id: NodeId) -> &Map {
        &self.nodes[&id].map
    }

    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub fn config(&self, id: NodeId, address: &str) -> RaftConfig {
        let mut config = RaftConfig::new("test", id, address);
        // Machines that run tests are busy: elections must come from cuts, not from load.
        config.heartbeat_ms = 100;
        config.election_ms = (500, 1000);
        config.dialer = Arc::new(CutDialer {
            from: id,
            cuts: self.cuts.clone(),
        });
        (self.tune)(&mut config);
        config
    }

    pub async fn start(&mut self, id: NodeId) {
        let bind = self
            .addresses
            .get(&id)
            .cloned()
            .unwrap_or_else(|| "127.0.0.1:0".into());
        let listener = until("the address is free", || async {
            TcpListener::bind(&bind).await.ok()
        })
        .await;
        let address = listener.local_addr().expect("an address").to_string();
        self.addresses.insert(id, address.clone());
        let map = Map::default();
        let config = self.config(id, &address);
        let node = RaftNode::start(config, self.disks[&id].storage(), map.clone())
            .await
            .expect("the node starts");
        let (stop, stopped) = oneshot::channel();
        let service = node.grpc_service();
        let serving = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            // Open streams would hold a graceful end up: what counts is that it ends.
            tokio::select! {
                served = serve_peers(listener, service, std::future::pending()) => {
                    served.expect("serving");
                }
                () = stopped => {}
            }
        });
        self.nodes.insert(
            id,
            Running {
                node,
                map,
                stop,
                serving,
            },
        );
    }

    /// End a node in good order; its disk stays.
    pub async fn stop(&mut self, id: NodeId) {
        let running = self.nodes.remove(&id).expect("a running node");
        let _ = running.stop.send(());
        running.serving.await.expect("the server ends");
        running.node.shutdown().await;
    }

    /// Power fails at a node in memory; a prefix of its unsynced writes may have got through.
    pub async fn crash(&mut self, id: NodeId, keep: usize) {
        self.disks[&id].memory().crash_keeping(keep);
        self.stop(id).await;
    }

    /// Who leads with a confirmed quorum.
    pub async fn leader(&self) -> NodeId {
        until("a leader is confirmed", || async {
            for (id, running) in &self.nodes {
                let leads = running.node.leadership().borrow().leads().is_some();
                if leads && running.node.confirm().await.is_ok() {
                    return Some(*id);
                }
            }
            None
        })
        .await
    }

    /// Commit `command` through whoever leads; definite failures are tried again.
    pub async fn propose(&self, command: &str) -> (LogPosition, String) {
        until("a proposal is committed", || async {
            let leader = self.leader().await;
            let command = Bytes::copy_from_slice(command.as_bytes());
            match self.node(leader).propose(command, None, PATIENCE).await {
                Ok((at, reply)) => Some((at, String::from_utf8_lossy(&reply).into_owned())),
                Err(error) if error.is_definite() => None,
                Err(ProposeError::Indeterminate(_)) => None,
                Err(error) => panic!("{error}"),
            }
        })
        .await
    }

    /// Wait until all running nodes have applied `at`.
    pub async fn all_applied(&self, at: LogPosition) {
        for id in self.ids() {
            self.applied(id, at.index).await;
        }
    }

    pub async fn applied(&self, id: NodeId, index: u64) {
        let mut applied = self.node(id).applied();
        let reached = applied.wait_for(|p| p.is_some_and(|p| p.index >= index));
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap_or_else(|_| panic!("node {id} does not reach {index}"))
            .expect("the node lives");
    }

    pub async fn shutdown(mut self) {
        for id in self.ids() {
            self.stop(id).await;
        }
    }
}

/// Try until it gives something.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut attempt: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
