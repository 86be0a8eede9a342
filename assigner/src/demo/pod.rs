//! A pod of the demo: a key-value service that keeps its values in memory, where they move with
//! their slices, and answers only for keys that it owns.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use leasehold_client::state::{SliceState, StateMap};
use leasehold_client::{Guard, OwnershipEvent, Slicelet};
use leasehold_proto::{FencingToken, Slice, TargetName};
use tonic::{Request, Response, Status};

use super::kv::kv_server::{Kv, KvServer};
use super::kv::{GetReply, GetRequest, PutReply, PutRequest};
use super::ownership::{Event, Log, Span};
use super::serving::{serve_owned, server};
use crate::harness::now_ns;

/// Longest key that the service takes.
const KEY_BYTES: usize = 256;
/// Most that it keeps.
const BYTES: u64 = 256 << 20;

/// Options of one pod.
#[derive(Debug, Clone, Args)]
pub struct PodArgs {
    #[arg(long, value_delimiter = ',')]
    assigner: Vec<String>,
    #[arg(long)]
    target: TargetName,
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    ownership_log: PathBuf,
    /// How long a pod that is asked to stop waits for its last slice to move
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    drain: Duration,
}

struct Service {
    slicelet: Arc<Slicelet>,
    values: StateMap<u64>,
}

/// Serves until it is asked to stop (SIGTERM); then drains, closes its session and ends.
pub async fn run(args: PodArgs) -> anyhow::Result<()> {
    let mut log = Log::create(&args.ownership_log).context("cannot create the ownership log")?;
    // Eventual mode: the larger of two values is the later one.
    let values = StateMap::merging(|mine: &mut u64, theirs| *mine = theirs.max(*mine));
    let slicelet = Slicelet::builder(args.target.as_str())
        .endpoints(&args.assigner)
        .state(values.clone())
        .advertise(args.listen.to_string())
        .app_version(env!("CARGO_PKG_VERSION"))
        .on_ownership(move |event| {
            if let Err(error) = log.write(translate(event)) {
                // A demo whose evidence is incomplete proves nothing.
                tracing::error!(%error, "the ownership log cannot be written");
                std::process::abort();
            }
        })
        .start()?;
    let slicelet = Arc::new(slicelet);
    let peers = slicelet.peer_service();
    let service = Service {
        slicelet: Arc::clone(&slicelet),
        values,
    };
    let router = server()
        .add_service(peers.into_server())
        .add_service(KvServer::new(service));
    serve_owned(router, args.listen, slicelet, args.drain).await
}

fn translate(event: OwnershipEvent) -> Event {
    let span = |slice, token: FencingToken, at_ns| Span {
        at_ns,
        slice,
        token: token.as_u64(),
    };
    match event {
        OwnershipEvent::Begin {
            slice,
            token,
            at_ns,
        } => Event::Begin(span(slice, token, at_ns)),
        OwnershipEvent::Frozen {
            slice,
            token,
            at_ns,
        } => Event::Freeze(span(slice, token, at_ns)),
        OwnershipEvent::End {
            slice,
            token,
            at_ns,
        } => Event::End(span(slice, token, at_ns)),
        OwnershipEvent::Extended { until_ns } => Event::Lease(now_ns(), until_ns),
    }
}

impl Service {
    async fn own(&self, key: &[u8]) -> Result<Guard, Status> {
        if key.len() > KEY_BYTES {
            return Err(Status::invalid_argument(format!(
                "a key has at most {KEY_BYTES} bytes"
            )));
        }
        Ok(self.slicelet.guard_or_wait(key).await?)
    }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutReply>, Status> {
        let PutRequest { key, value } = request.into_inner();
        let guard = self.own(&key).await?;
        if self.values.bytes(Slice::ALL) >= BYTES {
            return Err(Status::resource_exhausted("the demo keeps no more keys"));
        }
        // Requests of one client may overtake each other; the larger value is the later one.
        self.values.update(&guard, &key, |stored| {
            *stored = (*stored).max(Some(value));
        })?;
        guard.verify()?;
        let token = guard.fencing_token().as_u64();
        Ok(Response::new(PutReply { token }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetReply>, Status> {
        let key = request.into_inner().key;
        let guard = self.own(&key).await?;
        let value = self.values.get(&guard, &key);
        guard.verify()?;
        let token = guard.fencing_token().as_u64();
        Ok(Response::new(GetReply { value, token }))
    }
}
