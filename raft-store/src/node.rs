//! One replica, from start to shutdown.

pub(crate) mod leadership;
mod membership;
mod propose;
mod start;
pub(crate) mod status;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::Stream;
use openraft::async_runtime::watch::WatchReceiver as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tonic::transport::Server;

use crate::config::{
    CONNECTION_WINDOW_BYTES, KEEPALIVE_PATIENCE, KEEPALIVE_PERIOD, STREAM_WINDOW_BYTES,
};
use crate::network::client::Sender;
use crate::network::server::{PeerService, Receiver};
use crate::raft_types::Raft;
use crate::store::kv::Kv;
use crate::store::machine::Machine;
use crate::store::sync::Syncer;
use crate::wire::raft_peer_server::RaftPeerServer;
use crate::{AdminError, Export, Leadership, LogPosition, MemoryStore, RaftConfig};

/// Where a node keeps its data.
pub enum Storage {
    /// A directory of its own, created if it does not exist.
    #[cfg(feature = "rocksdb")]
    Disk(std::path::PathBuf),
    /// Memory: it lasts as long as the [`MemoryStore`].
    Memory(MemoryStore),
}

/// The gRPC service that peers call, ready to be added to a tonic server.
pub type PeerServer = RaftPeerServer<PeerService>;

/// Handle on a running replica; clones share it. The replica runs until
/// [`shutdown`](Self::shutdown), or until its disk fails.
#[derive(Clone)]
pub struct RaftNode {
    inner: Arc<Inner>,
}

struct Inner {
    config: RaftConfig,
    raft: Raft<Machine>,
    receiver: Arc<Receiver>,
    sender: Arc<Sender>,
    entries_appended: Arc<AtomicU64>,
    syncer: Arc<Syncer>,
    /// Taken at shutdown, so that the database closes while the process lives.
    kv: parking_lot::Mutex<Option<Arc<dyn Kv>>>,
    applied: watch::Receiver<Option<LogPosition>>,
    leadership: watch::Receiver<Leadership>,
    /// Places for proposals in flight.
    places: Arc<Semaphore>,
    tasks: parking_lot::Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

impl RaftNode {
    /// The service that peers call; serve it where `advertise_peer_addr` leads, with
    /// [`serve_peers`] or with a server of the same settings.
    #[must_use]
    pub fn grpc_service(&self) -> PeerServer {
        let bound = self.inner.config.max_message_bytes();
        RaftPeerServer::new(PeerService(Arc::clone(&self.inner.receiver)))
            .max_decoding_message_size(bound)
            .max_encoding_message_size(bound)
    }

    /// Who leads, as far as this node knows; changes with every term and every loss or gain of
    /// leadership.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// How far this node's state machine is, as it moves.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<Option<LogPosition>> {
        self.inner.applied.clone()
    }

    /// Take a snapshot now. Returns when it has been asked for; see [`RaftStatus::snapshot`]
    /// for its completion.
    ///
    /// [`RaftStatus::snapshot`]: crate::RaftStatus::snapshot
    ///
    /// # Errors
    ///
    /// The node has stopped.
    pub async fn snapshot_now(&self) -> Result<(), AdminError> {
        let asked = self.inner.raft.trigger().snapshot().await;
        asked.map_err(|e| AdminError::Fatal(e.to_string()))
    }

    /// The state machine's records of this moment, for a backup. Cheap to start; reads as it is
    /// iterated, while the node goes on. What it holds is what *this* node has applied: on the
    /// leader call [`confirm`](Self::confirm) first if nothing acknowledged may be missing.
    ///
    /// # Errors
    ///
    /// The node has stopped, or its disk failed.
    pub fn export(&self) -> io::Result<Export> {
        match self.inner.kv.lock().as_ref() {
            Some(kv) => Export::new(&**kv),
            None => Err(io::Error::other("this node has stopped")),
        }
    }

    /// Stop: proposals in flight become indeterminate, the sync thread ends, the database is
    /// closed. Clones of this handle remain and get errors. Returns when all is done; idempotent.
    pub async fn shutdown(self) {
        self.inner.receiver.serving.store(false, Ordering::Release);
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::error!(%error, "the replica ended badly");
        }
        for task in self.inner.tasks.lock().drain(..) {
            task.abort();
        }
        let syncer = Arc::clone(&self.inner.syncer);
        let kv = self.inner.kv.lock().take();
        let held = kv.as_ref().map(Arc::downgrade);
        let close = move || {
            syncer.close();
            if let Some(kv) = kv {
                // What is only in memory must not be lost by an orderly end.
                if let Err(error) = kv.sync() {
                    tracing::error!(%error, "the last sync failed");
                }
            }
        };
        if self.inner.receiver.snapshots.is_inline() {
            close();
        } else if tokio::task::spawn_blocking(close).await.is_err() {
            tracing::error!("closing the store failed");
        }
        if let Some(held) = held {
            released(&held).await;
        }
    }

    fn leader_hint(&self) -> Option<(crate::NodeId, String)> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let id = metrics.current_leader?;
        let membership = metrics.membership_config.membership();
        Some((
            id,
            membership
                .get_node(&id)
                .map(|p| p.address.clone())
                .unwrap_or_default(),
        ))
    }
}

/// Wait until the library's last task, or a running export, has let go of the store: only then
/// can another node open it.
async fn released(store: &std::sync::Weak<dyn Kv>) {
    for _ in 0..5000 {
        if store.strong_count() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tracing::warn!("the store is still in use after the replica has ended");
}

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What connects. An error of one connection, or a moment without free file descriptors, ends
/// nothing: the server would take it for the end of the listener.
fn connections(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> {
    futures::stream::unfold(listener, |listener| async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if stream.set_nodelay(true).is_ok() => {
                    return Some((Ok(stream), listener));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

/// Serve a node's peers, and nothing else, on `listener` until `stop` completes.
///
/// # Errors
///
/// The server could not begin.
pub async fn serve_peers(
    listener: TcpListener,
    service: PeerServer,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    serve_connections(connections(listener), service, stop).await
}

/// Like [`serve_peers`], on connections that somebody else accepts: for simulated networks. The
/// stream must not end before `stop`.
///
/// # Errors
///
/// The server could not begin.
pub async fn serve_connections<C>(
    connections: impl Stream<Item = io::Result<C>>,
    service: PeerServer,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error>
where
    C: crate::PeerIo + tonic::transport::server::Connected,
{
    Server::builder()
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_PERIOD))
        .http2_keepalive_timeout(Some(KEEPALIVE_PATIENCE))
        .max_concurrent_streams(1024)
        .add_service(service)
        .serve_with_incoming_shutdown(connections, stop)
        .await
}
