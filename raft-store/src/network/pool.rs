//! Kept connections, three to each peer: a large snapshot must delay neither replication nor
//! heartbeats.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint, Uri};

use super::Dialer;
use crate::NodeId;
use crate::config::{
    CONNECTION_WINDOW_BYTES, KEEPALIVE_PATIENCE, KEEPALIVE_PERIOD, STREAM_WINDOW_BYTES,
};

/// A connection that has carried no answer for so long is replaced after the next failure: the
/// far end may have come back while this one waits for retransmissions.
const STALE: Duration = Duration::from_secs(1);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// Heartbeats, votes, questions.
    Control,
    /// Replication.
    Append,
    /// Snapshots.
    Snapshot,
}

struct Kept {
    address: String,
    channel: Channel,
    last_answer: Instant,
}

/// The connections of one node. Bounded by the members it has met.
pub(crate) struct Pool {
    dialer: Arc<dyn Dialer>,
    connect_timeout: Duration,
    kept: Mutex<HashMap<(NodeId, Lane), Kept>>,
}

impl Pool {
    pub(crate) fn new(dialer: Arc<dyn Dialer>, connect_timeout: Duration) -> Self {
        Self {
            dialer,
            connect_timeout,
            kept: Mutex::default(),
        }
    }

    /// The connection to `to`, made when it is first used.
    pub(crate) fn channel(&self, to: NodeId, address: &str, lane: Lane) -> Channel {
        let mut kept = self.kept.lock();
        if let Some(found) = kept.get(&(to, lane)).filter(|k| k.address == address) {
            return found.channel.clone();
        }
        let channel = self.open(to, address);
        let fresh = Kept {
            address: address.to_owned(),
            channel: channel.clone(),
            last_answer: Instant::now(),
        };
        kept.insert((to, lane), fresh);
        channel
    }

    /// The peer has answered.
    pub(crate) fn answered(&self, to: NodeId, lane: Lane) {
        if let Some(kept) = self.kept.lock().get_mut(&(to, lane)) {
            kept.last_answer = Instant::now();
        }
    }

    /// A request has failed or was not answered in time.
    pub(crate) fn failed(&self, to: NodeId, lane: Lane) {
        let mut kept = self.kept.lock();
        if kept
            .get(&(to, lane))
            .is_some_and(|k| k.last_answer.elapsed() > STALE)
        {
            kept.remove(&(to, lane));
        }
    }

    fn open(&self, to: NodeId, address: &str) -> Channel {
        let (dialer, target) = (Arc::clone(&self.dialer), address.to_owned());
        // The URI only fills the authority header; the dialer knows the address.
        Endpoint::from(Uri::from_static("http://raft.peer"))
            .connect_timeout(self.connect_timeout)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEPALIVE_PERIOD)
            .keep_alive_timeout(KEEPALIVE_PATIENCE)
            .keep_alive_while_idle(true)
            .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                let connecting = dialer.dial(to, &target);
                async move { connecting.await.map(TokioIo::new) }
            }))
    }
}
