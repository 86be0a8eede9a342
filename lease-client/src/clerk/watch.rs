//! Keeps a Clerk's map up to date from any Assigner.

use std::sync::Weak;
use std::time::Duration;

use leasehold_proto::wire::pb::watch_client::WatchClient;
use leasehold_proto::wire::{WatchReply, WatchRequest, pb};
use leasehold_proto::{Generation, limits};
use tokio::time::timeout;

use super::Inner;
use crate::endpoints::Endpoints;

const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// Runs until the Clerk is gone.
pub(super) async fn run(clerk: Weak<Inner>, mut endpoints: Endpoints, client_name: String) {
    let mut resync = false;
    loop {
        let Some(inner) = clerk.upgrade() else { return };
        let known = inner.known().router.generation().filter(|_| !resync);
        resync = false;
        let request = WatchRequest {
            target: inner.target.clone(),
            known,
            client_name: client_name.clone(),
        };
        let pool = inner.pool.clone();
        drop(inner);
        let opened = timeout(OPEN_TIMEOUT, open(&pool, endpoints.current(), &request)).await;
        let wait = match opened {
            Ok(Ok(stream)) => match follow(&clerk, &mut endpoints, stream).await {
                Ended::Resync => {
                    resync = true;
                    Duration::ZERO
                }
                Ended::Failed => endpoints.failed(),
                Ended::Abandoned => return,
            },
            Ok(Err(error)) => {
                tracing::debug!(%error, assigner = endpoints.current(), "cannot watch");
                endpoints.failed()
            }
            Err(_) => endpoints.failed(),
        };
        tokio::time::sleep(wait).await;
    }
}

async fn open(
    pool: &crate::ChannelPool,
    address: &str,
    request: &WatchRequest,
) -> Result<tonic::Streaming<pb::WatchReply>, crate::Error> {
    let channel = pool.get(address).await?;
    let mut client = WatchClient::new(channel)
        .max_decoding_message_size(limits::VIEW_BYTES + limits::MESSAGE_BYTES);
    let stream = client.watch(pb::WatchRequest::from(request)).await;
    stream
        .map(tonic::Response::into_inner)
        .map_err(|status| crate::Error::from_assigner("watching", status))
}

enum Ended {
    /// What came does not fit what is known.
    Resync,
    Failed,
    Abandoned,
}

async fn follow(
    clerk: &Weak<Inner>,
    endpoints: &mut Endpoints,
    mut stream: tonic::Streaming<pb::WatchReply>,
) -> Ended {
    loop {
        let Some(inner) = clerk.upgrade() else {
            return Ended::Abandoned;
        };
        let message = tokio::select! {
            message = stream.message() => message,
            () = inner.lagging.notified() => return Ended::Failed,
        };
        let reply = match message {
            Ok(Some(reply)) => reply,
            Ok(None) => return Ended::Failed,
            Err(status) => {
                tracing::debug!(%status, "the watch ended");
                return Ended::Failed;
            }
        };
        endpoints.succeeded();
        let reply = match WatchReply::try_from(reply) {
            Ok(reply) => reply,
            Err(error) => {
                tracing::error!(%error, "a message of the Assigner cannot be read");
                return Ended::Failed;
            }
        };
        if let Some(update) = reply.update
            && let Err(error) = inner.update(reply.key_hash, update)
        {
            tracing::debug!(%error, "asking for a full view");
            return Ended::Resync;
        }
    }
}

impl Inner {
    /// Waits until something newer than `serial` is published, at least of `generation`.
    pub(super) async fn newer(&self, serial: u64, generation: Option<Generation>) {
        let mut changed = self.changed.subscribe();
        let new_enough =
            |now: &u64| *now > serial && generation <= self.published.load().table.generation();
        // The sender lives in `self`.
        let _ = changed.wait_for(new_enough).await;
    }
}
