//! The external store: a value per key behind a fence per key, as a process of its own.
//!
//! It stands for the database that outlives the pods. What it promises is what any store with
//! conditional writes can give: [`Fence`](rpc::Fence) raises a key's fence and reads its value in
//! one step, and a write under a lower fence is refused for ever. It keeps every write that it
//! applied, in order, so that a checker can see whether an old owner's write came after a newer
//! owner's.

mod client;
mod journal;
mod state;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::signal::unix::{self, SignalKind};
use tonic::{Request, Response, Status};

use crate::rpc;
use crate::rpc::register_server::{Register, RegisterServer};
use journal::Journal;
use state::{Refused, State};

pub use client::{Put, RegisterClient};

/// Longest key.
const KEY_BYTES: usize = 256;
/// Longest value.
const VALUE_BYTES: usize = 1 << 20;

/// Options of the store's process.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Where it is served: IP:PORT
    #[arg(long)]
    pub listen: SocketAddr,
    /// Where every fence and write is appended; read again at the start
    #[arg(long)]
    pub journal: PathBuf,
}

/// Serves until it is asked to stop (SIGTERM).
///
/// # Errors
/// The journal cannot be read or written, or the address cannot be listened to.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut state = State::default();
    let journal = Journal::open(&args.journal, &mut state)
        .with_context(|| format!("the journal {}", args.journal.display()))?;
    let service = Service {
        inner: Arc::new(Mutex::new(Inner { state, journal })),
    };
    let mut stop = unix::signal(SignalKind::terminate())?;
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(RegisterServer::new(service))
        .serve_with_shutdown(args.listen, async move {
            stop.recv().await;
        })
        .await
        .with_context(|| format!("cannot serve at {}", args.listen))
}

struct Inner {
    state: State,
    journal: Journal,
}

struct Service {
    inner: Arc<Mutex<Inner>>,
}

fn check_key(key: &str) -> Result<(), Status> {
    if key.is_empty() || key.len() > KEY_BYTES {
        return Err(Status::invalid_argument(format!(
            "a key has 1 to {KEY_BYTES} bytes"
        )));
    }
    Ok(())
}

/// Nothing is answered that the journal does not hold.
fn unwritten(error: std::io::Error) -> Status {
    Status::unknown(format!("the journal cannot be written: {error}"))
}

#[tonic::async_trait]
impl Register for Service {
    async fn fence(
        &self,
        request: Request<rpc::FenceRequest>,
    ) -> Result<Response<rpc::FenceReply>, Status> {
        use rpc::fence_reply::Answer;
        let request = request.into_inner();
        check_key(&request.key)?;
        let mut inner = self.inner.lock();
        let Inner { state, journal } = &mut *inner;
        let answer = match state.fence(&request.key, request.fence) {
            Ok((stored, raised)) => {
                if let Some(fence) = request.fence.filter(|_| raised) {
                    journal.fence(&request.key, fence).map_err(unwritten)?;
                }
                Answer::Stored(stored)
            }
            Err(Refused::FencedOff(fence)) => Answer::FencedOff(fence),
            Err(Refused::Full) => return Err(Status::resource_exhausted("no more keys")),
        };
        Ok(Response::new(rpc::FenceReply {
            answer: Some(answer),
        }))
    }

    async fn put(
        &self,
        request: Request<rpc::PutRequest>,
    ) -> Result<Response<rpc::PutReply>, Status> {
        use rpc::put_reply::Answer;
        let request = request.into_inner();
        check_key(&request.key)?;
        if request.value.len() > VALUE_BYTES {
            return Err(Status::invalid_argument("the value is too long"));
        }
        let mut inner = self.inner.lock();
        let Inner { state, journal } = &mut *inner;
        let answer = match state.put(&request) {
            Ok(version) => {
                journal.put(&request).map_err(unwritten)?;
                Answer::Written(version)
            }
            Err(Refused::FencedOff(fence)) => Answer::FencedOff(fence),
            Err(Refused::Full) => return Err(Status::resource_exhausted("no more keys")),
        };
        Ok(Response::new(rpc::PutReply {
            answer: Some(answer),
        }))
    }

    async fn applied(
        &self,
        request: Request<rpc::AppliedRequest>,
    ) -> Result<Response<rpc::AppliedReply>, Status> {
        let key = request.into_inner().key;
        check_key(&key)?;
        let writes = self.inner.lock().state.applied(&key);
        Ok(Response::new(rpc::AppliedReply { writes }))
    }
}
