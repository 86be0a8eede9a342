//! One replica of the Assigner, from start to shutdown.

mod config;
mod status;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use config::{DataDir, Limits, NodeConfig, PlannerConfig, Timers};
use leasehold_proto::command::{Command, Reply};
use leasehold_proto::table::LeaseTable;
use leasehold_proto::wire::status::Refusal;
use leasehold_raft_store::{RaftNode, Storage};
use parking_lot::Mutex;
pub use status::{MemberStatus, NodeStatus, Role};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::ages::Ages;
use crate::leader;
use crate::loads::Loads;
use crate::machine::Machine;
use crate::metrics::{Metrics, Moment};
use crate::replica::Replica;
use crate::service;
use crate::service::feed::{self, Feeds};
use crate::shared::Shared;

/// How long connections may take to end at a shutdown.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a node did not start. Nothing runs and nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself; the text says where.
    #[error("invalid configuration: {0}")]
    Config(String),
    /// The listener could not be opened.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// The replica could not be opened; the text says what the operator can do.
    #[error(transparent)]
    Raft(#[from] leasehold_raft_store::StartError),
}

/// Why a cluster was not formed; nothing was changed unless the text says so.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BootstrapError(#[from] leasehold_raft_store::AdminError);

/// A running replica. It runs until [`Node::shutdown`], or until its disk fails. Dropping it ends
/// it abruptly.
pub struct Node {
    shared: Arc<Shared>,
    local: SocketAddr,
    stop: CancellationToken,
    /// Cuts every connection.
    cut: CancellationToken,
    server: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    /// Opens the data, listens and joins the peers that it knows.
    ///
    /// A node that belongs to no cluster yet waits to be added to one, or for [`Node::bootstrap`].
    pub async fn start(config: NodeConfig) -> Result<Node, StartError> {
        check(&config)?;
        let failed = |error| StartError::Listen {
            address: config.listen,
            error,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let address = if config.advertise.is_empty() {
            local.to_string()
        } else {
            config.advertise.clone()
        };
        let replica = Arc::new(Replica::default());
        let mut raft_config = config
            .timers
            .raft(&config.cluster, config.node_id, &address);
        raft_config.max_in_flight = config.limits.proposals;
        let raft = RaftNode::start(
            raft_config,
            storage(&config.data)?,
            Machine::new(Arc::clone(&replica)),
        )
        .await?;
        let shared = Arc::new(Shared {
            address,
            replica,
            raft,
            metrics: Metrics::default(),
            feeds: Feeds::default(),
            loads: Loads::default(),
            ages: Ages::default(),
            leader: Mutex::new(None),
            halted: Mutex::new(None),
            config,
        });
        tracing::info!(node = shared.config.node_id, %local, advertise = shared.address, "listening");
        Ok(Self::run(shared, local, listener))
    }

    fn run(shared: Arc<Shared>, local: SocketAddr, listener: TcpListener) -> Self {
        let stop = CancellationToken::new();
        let tasks = vec![
            tokio::spawn(leader::supervise(Arc::clone(&shared), stop.clone())),
            tokio::spawn(feed::publish(Arc::clone(&shared), stop.clone())),
        ];
        let cut = CancellationToken::new();
        let serving = service::serve(Arc::clone(&shared), listener, stop.clone(), cut.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the listener failed");
            }
        });
        Self {
            shared,
            local,
            stop,
            cut,
            server,
            tasks,
        }
    }

    /// Forms a cluster of `members` (node id → `host:port`), all of them empty. To be called on
    /// one of them, once; calling it again with the same members does nothing.
    pub async fn bootstrap(&self, members: BTreeMap<u64, String>) -> Result<(), BootstrapError> {
        Ok(self.shared.raft.bootstrap(members).await?)
    }

    /// Where it listens; the port is the one that the system gave when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Where others reach it: `host:port`.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// The node at this moment.
    pub fn status(&self) -> NodeStatus {
        NodeStatus::of(&self.shared)
    }

    /// Every metric in the OpenMetrics text format.
    pub fn metrics(&self) -> String {
        let (sessions, targets) = {
            let table = self.shared.replica.table();
            (
                table
                    .targets()
                    .map(|target| target.live_sessions().count())
                    .sum(),
                table.targets().count(),
            )
        };
        let halted = self.shared.halted.lock().is_some();
        self.shared.metrics.encode(&Moment {
            raft: self.shared.raft.status(),
            sessions,
            targets,
            halted,
        })
    }

    /// Whether the node can be sent requests: it runs, and a leader is known.
    ///
    /// Errors say why not; ask again later.
    pub fn ready(&self) -> Result<(), String> {
        if self.stop.is_cancelled() || self.server.is_finished() {
            return Err("the node has stopped".into());
        }
        if let Some(why) = self.shared.halted.lock().clone() {
            return Err(why);
        }
        let leadership = self.shared.raft.leadership().borrow().clone();
        if leadership.role == leasehold_raft_store::Role::Stopped {
            return Err("the replica has stopped; look for the reason in the log".into());
        }
        match leadership.leader {
            Some(_) => Ok(()),
            None if self.shared.raft.status().members.is_empty() => {
                Err("the node belongs to no cluster yet".into())
            }
            None => Err("no leader is known".into()),
        }
    }

    /// Stops serving, ends every stream, closes the data. Returns when all is done.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        self.shared.feeds.stop();
        if tokio::time::timeout(FAREWELL, &mut self.server)
            .await
            .is_err()
        {
            self.server.abort();
        }
        self.cut.cancel();
        for task in self.tasks.drain(..) {
            // Each ends by itself when told to stop.
            let _ = task.await;
        }
        self.shared.raft.clone().shutdown().await;
    }

    /// Whether it leads and its table shows everything committed before its term.
    pub(crate) fn leads_and_is_ready(&self) -> bool {
        self.shared
            .leader
            .lock()
            .as_ref()
            .is_some_and(|leader| *leader.ready.borrow())
    }

    /// Reads the table as this node has applied it.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&LeaseTable) -> T) -> T {
        look(&self.shared.replica.table())
    }

    /// Commits a command, if this node leads.
    pub(crate) async fn propose(&self, command: &Command) -> Result<Reply, Refusal> {
        self.shared.propose(command).await
    }

    /// Ends without a word to anybody, as a crash would.
    pub(crate) async fn kill(mut self) {
        self.cut.cancel();
        self.server.abort();
        for task in self.tasks.drain(..) {
            task.abort();
        }
        if let Some(leader) = self.shared.leader.lock().take() {
            leader.ended.cancel();
        }
        self.shared.raft.clone().shutdown().await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
        self.cut.cancel();
        self.server.abort();
    }
}

fn check(config: &NodeConfig) -> Result<(), StartError> {
    let bad = |why: &str| Err(StartError::Config(why.into()));
    if config.node_id == 0 {
        return bad("the node's number must not be 0");
    }
    if config.advertise.is_empty() && config.listen.ip().is_unspecified() {
        return bad("a node that listens on every address needs an address to advertise");
    }
    if !config.advertise.is_empty()
        && let Err(error) = leasehold_proto::target::PodAddress::new(&config.advertise)
    {
        return bad(&error
            .to_string()
            .replace("a pod address", "an address to advertise"));
    }
    Ok(())
}

fn storage(data: &DataDir) -> Result<Storage, StartError> {
    match data {
        DataDir::Memory(store) => Ok(Storage::Memory(store.clone())),
        #[cfg(feature = "rocksdb")]
        DataDir::Disk(path) => Ok(Storage::Disk(path.clone())),
        #[cfg(not(feature = "rocksdb"))]
        DataDir::Disk(path) => Err(StartError::Config(format!(
            "{}: this program was built without storage on disk",
            path.display()
        ))),
    }
}
