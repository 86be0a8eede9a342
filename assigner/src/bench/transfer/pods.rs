//! Two pods in this process, each with a server and a map of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use leasehold_client::state::StateMap;
use leasehold_client::{Guard, OwnershipEvent, Slicelet};
use leasehold_proto::SessionId;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::{Request, Response, Status};

use crate::demo::kv::kv_server::{Kv, KvServer};
use crate::demo::kv::{GetReply, GetRequest, PutReply, PutRequest};
use crate::demo::world::TARGET;
use crate::harness::PATIENCE;
use crate::harness::procs::Ports;

/// When slices were frozen and when they began to be served, of both pods, on the lease clock.
pub type Moments = Arc<Mutex<Vec<OwnershipEvent>>>;

/// A pod.
pub struct Pod {
    pub slicelet: Arc<Slicelet>,
    pub map: StateMap<Vec<u8>>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Pod {
    /// Starts one and waits for its session.
    pub async fn start(
        assigners: &[String],
        ports: &mut Ports,
        moments: &Moments,
    ) -> anyhow::Result<Self> {
        let listen = ports.next()?;
        let map = StateMap::new();
        let noted = Arc::clone(moments);
        let slicelet = Slicelet::builder(TARGET)
            .endpoints(assigners)
            .advertise(listen.to_string())
            .state(map.clone())
            .on_ownership(move |event| noted.lock().push(event))
            .start()?;
        let slicelet = Arc::new(slicelet);
        let service = Service {
            slicelet: Arc::clone(&slicelet),
            map: map.clone(),
        };
        let (stop, stopped) = oneshot::channel();
        let server = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(slicelet.peer_service().into_server())
            .add_service(KvServer::new(service))
            .serve_with_shutdown(listen, async {
                let _ = stopped.await;
            });
        let server = tokio::spawn(server);
        slicelet.ready(PATIENCE).await?;
        Ok(Self {
            slicelet,
            map,
            stop,
            server,
        })
    }

    /// Its session.
    pub fn session(&self) -> anyhow::Result<SessionId> {
        self.slicelet.session().context("a pod has no session")
    }

    /// Where it serves.
    pub fn address(&self) -> String {
        self.slicelet.squid().address.to_string()
    }

    /// Closes the session and the server.
    pub async fn stop(self) -> anyhow::Result<()> {
        let _ = self.stop.send(());
        // A connection may be open still: nothing is asked over it.
        self.server.abort();
        let _ = self.server.await;
        let begun = Instant::now();
        let mut slicelet = self.slicelet;
        loop {
            match Arc::try_unwrap(slicelet) {
                Ok(slicelet) => return Ok(slicelet.close().await?),
                Err(_) if begun.elapsed() > PATIENCE => return Ok(()),
                Err(shared) => slicelet = shared,
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The pod's own requests, whose quickness is watched.
struct Service {
    slicelet: Arc<Slicelet>,
    map: StateMap<Vec<u8>>,
}

impl Service {
    async fn own(&self, key: &[u8]) -> Result<Guard, Status> {
        Ok(self.slicelet.guard_or_wait(key).await?)
    }
}

#[tonic::async_trait]
impl Kv for Service {
    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutReply>, Status> {
        let begun = Instant::now();
        let PutRequest { key, value } = request.into_inner();
        let guard = self.own(&key).await?;
        self.map
            .insert(&guard, &key, value.to_be_bytes().to_vec())?;
        guard.verify()?;
        self.slicelet.observe(begun.elapsed());
        let token = guard.fencing_token().as_u64();
        Ok(Response::new(PutReply { token }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetReply>, Status> {
        let begun = Instant::now();
        let key = request.into_inner().key;
        let guard = self.own(&key).await?;
        let value = self.map.with(&guard, &key, |value| {
            let bytes = value.and_then(|value| value.get(..8)?.try_into().ok());
            bytes.map(u64::from_be_bytes)
        });
        guard.verify()?;
        self.slicelet.observe(begun.elapsed());
        let token = guard.fencing_token().as_u64();
        Ok(Response::new(GetReply { value, token }))
    }
}
