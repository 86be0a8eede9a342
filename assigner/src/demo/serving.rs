//! How every process of a demo that others call serves, and how it ends.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use leasehold_client::Slicelet;
use tokio::signal::unix::{self, SignalKind};
use tonic::transport::Server;
use tonic::transport::server::Router;

/// A server for small requests, and for state on its way.
pub fn server() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .initial_connection_window_size(16 << 20)
}

/// Serves until it is asked to stop (SIGTERM).
pub async fn serve(router: Router, listen: SocketAddr) -> anyhow::Result<()> {
    let mut stop = unix::signal(SignalKind::terminate())?;
    let stopped = async move {
        stop.recv().await;
    };
    run(router, listen, stopped).await
}

/// Serves until it is asked to stop; then gives its slices away within `grace`, closes its session
/// and ends.
pub async fn serve_owned(
    router: Router,
    listen: SocketAddr,
    slicelet: Arc<Slicelet>,
    grace: Duration,
) -> anyhow::Result<()> {
    let mut stop = unix::signal(SignalKind::terminate())?;
    let draining = Arc::clone(&slicelet);
    let drained = async move {
        stop.recv().await;
        if let Err(error) = draining.drain(grace).await {
            // Nobody was left to take them, or there was no time: their state goes with this pod.
            tracing::warn!(%error, "not every slice has moved");
        }
    };
    run(router, listen, drained).await?;
    // To the pod's log: what moved, and what did not.
    println!("{:#?}", slicelet.stats());
    match Arc::into_inner(slicelet) {
        Some(slicelet) => Ok(slicelet.close().await?),
        // A connection that is still open keeps the service; dropping the last one closes as well.
        None => Ok(()),
    }
}

async fn run(
    router: Router,
    listen: SocketAddr,
    stopped: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let served = router.serve_with_shutdown(listen, stopped).await;
    served.with_context(|| format!("cannot serve at {listen}"))
}
