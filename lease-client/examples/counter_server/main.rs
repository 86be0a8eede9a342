//! Counters in memory, each served by one process at a time.
//!
//! ```text
//! leasehold dev
//! leasehold target create counter
//! cargo run -p leasehold-client --example counter_server -- 127.0.0.1:9001
//! cargo run -p leasehold-client --example counter_server -- 127.0.0.1:9002
//! ```

mod rpc;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use leasehold_client::Slicelet;
use leasehold_client::layer::{HeldGuard, OwnershipLayer};
use rpc::{Count, Counter, CounterServer, Increment};
use tokio::signal::unix::{SignalKind, signal};
use tonic::{Request, Response, Status};
use tower::Layer;

/// The counters by key: memory that only the key's owner may use.
#[derive(Default)]
struct Counters(Mutex<HashMap<Vec<u8>, u64>>);

#[tonic::async_trait]
impl Counter for Counters {
    async fn increment(&self, request: Request<Increment>) -> Result<Response<Count>, Status> {
        // The layer has checked that this process owns the key, and checks again before the reply.
        let guard = request.extensions().get::<HeldGuard>().cloned();
        let token = guard.map_or(0, |guard| guard.fencing_token().as_u64());
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = counters.entry(request.into_inner().key).or_default();
        *value += 1;
        Ok(Response::new(Count {
            value: *value,
            token,
        }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    let slicelet = Slicelet::builder("counter")
        .endpoints(["127.0.0.1:7400"])
        .advertise(&address)
        .start()?;
    let slicelet = Arc::new(slicelet);

    let counters =
        OwnershipLayer::new(Arc::clone(&slicelet)).layer(CounterServer::new(Counters::default()));
    let server = tonic::transport::Server::builder()
        .add_service(slicelet.peer_service().into_server())
        .add_service(counters)
        .serve(address.parse::<SocketAddr>()?);

    // What Kubernetes and systemd send, and Ctrl-C.
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let stopped = async {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = interrupted.recv() => {}
        }
    };
    tokio::select! {
        served = server => served?,
        // Leaves without a failed request, if there is another process to take the slices.
        () = stopped => slicelet.drain(Duration::from_secs(30)).await?,
    }
    Ok(())
}
