//! One replica of the Assigner, from start to shutdown.

mod config;
mod status;

use std::collections::BTreeMap;
use std::net::SocketAddr;

pub use config::{DataDir, Limits, NodeConfig, PlannerConfig, Timers};
pub use status::{MemberStatus, NodeStatus, Role};

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

/// A running replica. It runs until [`Node::shutdown`], or until its disk fails.
pub struct Node {}

impl Node {
    /// Opens the data, listens and joins the peers that it knows.
    pub async fn start(config: NodeConfig) -> Result<Node, StartError> {
        let _ = config;
        Err(StartError::Config("not built yet".into()))
    }

    /// Forms a cluster of `members` (node id → `host:port`), all of them empty. To be called on
    /// one of them, once; calling it again with the same members does nothing.
    pub async fn bootstrap(&self, members: BTreeMap<u64, String>) -> Result<(), BootstrapError> {
        let _ = members;
        Ok(())
    }

    /// Where it listens; the port is the one that was given by the system when 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// The node at this moment.
    pub fn status(&self) -> NodeStatus {
        NodeStatus::default()
    }

    /// Every metric in the OpenMetrics text format.
    pub fn metrics(&self) -> String {
        String::new()
    }

    /// Whether the node can be sent requests: it runs, and a leader is known.
    ///
    /// Errors say why not; ask again later.
    pub fn ready(&self) -> Result<(), String> {
        Err("not built yet".into())
    }

    /// Stops serving, ends every stream, closes the data. Returns when all is done.
    pub async fn shutdown(self) {}
}
