//! A pod of the demo: counts in its memory, where counters move with their slices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use leasehold_client::Slicelet;
use leasehold_client::state::{SliceState, StateMap};
use leasehold_proto::{Slice, TargetName};
use tonic::{Request, Response, Status};

use super::count::{Count, MOST_AUTHORS};
use crate::demo::kv::counter_server::{Counter, CounterServer};
use crate::demo::kv::{CountReply, CountRequest, IncrementReply, IncrementRequest};
use crate::demo::serving::{serve_owned, server};

/// Longest key that the service takes.
const KEY_BYTES: usize = 256;
/// Most that it keeps.
const BYTES: u64 = 256 << 20;
/// How long a pod that is asked to stop waits for its last slice to move.
const DRAIN: Duration = Duration::from_secs(30);

/// Options of one pod.
#[derive(Debug, Clone, Args)]
pub struct PodArgs {
    #[arg(long, value_delimiter = ',')]
    assigner: Vec<String>,
    #[arg(long)]
    target: TargetName,
    #[arg(long)]
    listen: SocketAddr,
}

struct Service {
    slicelet: Arc<Slicelet>,
    counts: StateMap<Count>,
}

/// Serves until it is asked to stop (SIGTERM); then drains, closes its session and ends.
pub async fn run(args: PodArgs) -> anyhow::Result<()> {
    let counts = StateMap::new();
    let slicelet = Slicelet::builder(args.target.as_str())
        .endpoints(&args.assigner)
        .advertise(args.listen.to_string())
        .state(counts.clone())
        .start()?;
    let slicelet = Arc::new(slicelet);
    let peers = slicelet.peer_service();
    let service = Service {
        slicelet: Arc::clone(&slicelet),
        counts,
    };
    let router = server()
        .add_service(peers.into_server())
        .add_service(CounterServer::new(service));
    serve_owned(router, args.listen, slicelet, DRAIN).await
}

#[tonic::async_trait]
impl Counter for Service {
    async fn increment(
        &self,
        request: Request<IncrementRequest>,
    ) -> Result<Response<IncrementReply>, Status> {
        let IncrementRequest { key, author, turn } = request.into_inner();
        if key.len() > KEY_BYTES {
            return Err(Status::invalid_argument(format!(
                "a key has at most {KEY_BYTES} bytes"
            )));
        }
        let guard = self.slicelet.guard_or_wait(&key).await?;
        if self.counts.bytes(Slice::ALL) >= BYTES {
            return Err(Status::resource_exhausted(
                "the demo keeps no more counters",
            ));
        }
        let counted = self.counts.update(&guard, &key, |count| {
            count.get_or_insert_default().add(author, turn)
        })?;
        if !counted {
            return Err(Status::resource_exhausted(format!(
                "a counter has at most {MOST_AUTHORS} authors"
            )));
        }
        guard.verify()?;
        Ok(Response::new(IncrementReply {}))
    }

    async fn count(&self, request: Request<CountRequest>) -> Result<Response<CountReply>, Status> {
        let key = request.into_inner().key;
        let guard = self.slicelet.guard_or_wait(&key).await?;
        let count = self
            .counts
            .with(&guard, &key, |count| count.map_or(0, |count| count.count));
        guard.verify()?;
        Ok(Response::new(CountReply { count }))
    }
}
