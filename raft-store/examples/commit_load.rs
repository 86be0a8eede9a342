//! How many commits a second? Three replicas in processes of their own, with real disks and real
//! sockets, and clients that propose one command after the other over gRPC.
//!
//! ```text
//! cargo run --release -p leasehold-raft-store --example commit_load -- [clients ...]
//! ```
//!
//! `LOAD_DIR` chooses the disk, `LOAD_SECONDS` the time per step, `LOAD_BYTES` the command.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use hdrhistogram::Histogram;
use leasehold_raft_store::{
    Batch, LogPosition, ProposeError, RaftConfig, RaftNode, RestoreError, StateMachine, Storage,
    serve_peers,
};
use tokio::net::TcpListener;
use tonic::codegen::http;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

type Error = Box<dyn std::error::Error + Send + Sync>;

const PATH: &str = "/load.Load/Propose";
const WINDOW: u32 = 16 << 20;

/// Keeps 64 Ki registers: the command's first bytes choose one.
struct Registers;

impl StateMachine for Registers {
    fn restore(
        &mut self,
        _: Option<LogPosition>,
        _: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<(), RestoreError> {
        Ok(())
    }

    fn apply(&mut self, _: LogPosition, command: &[u8], batch: &mut dyn Batch) -> Bytes {
        let (key, value) = command.split_at(command.len().min(2));
        batch.put(key, value);
        Bytes::new()
    }

    fn applied(&mut self, _: LogPosition) {}
}

/// The service that clients call: one method, bytes in, bytes out.
#[derive(Clone)]
struct Load(RaftNode);

impl tonic::server::NamedService for Load {
    const NAME: &'static str = "load.Load";
}

struct Propose(RaftNode);

impl tonic::server::UnaryService<Bytes> for Propose {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let node = self.0.clone();
        Box::pin(async move {
            match node
                .propose(request.into_inner(), None, Duration::from_secs(10))
                .await
            {
                Ok((_, reply)) => Ok(Response::new(reply)),
                Err(error @ ProposeError::NotLeader { .. }) => {
                    Err(Status::failed_precondition(error.to_string()))
                }
                Err(error) => Err(Status::unavailable(error.to_string())),
            }
        })
    }
}

impl tower::Service<http::Request<tonic::body::Body>> for Load {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let node = self.0.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Bytes, Bytes>::default());
            Ok(grpc.unary(Propose(node), request).await)
        })
    }
}

fn peer_port(base: u16, id: u64) -> u16 {
    base + u16::try_from(id).unwrap_or(0)
}

/// One replica, until the process is killed.
async fn replica(id: u64, directory: PathBuf, base: u16) -> Result<(), Error> {
    let address = |id| format!("127.0.0.1:{}", peer_port(base, id));
    let mut config = RaftConfig::new("load", id, address(id));
    // Three replicas and their clients share a few cores: no elections from load.
    config.heartbeat_ms = 200;
    config.election_ms = (1000, 2000);
    let peers = TcpListener::bind(address(id)).await?;
    let clients = TcpListener::bind(format!("127.0.0.1:{}", peer_port(base, id) + 10)).await?;
    let node = RaftNode::start(config, Storage::Disk(directory), Registers).await?;
    let serving = tokio::spawn(serve_peers(
        peers,
        node.grpc_service(),
        std::future::pending(),
    ));
    if id == 1 {
        node.bootstrap(
            (1..=3)
                .map(|id| (id, address(id)))
                .collect::<BTreeMap<_, _>>(),
        )
        .await?;
    }
    let status = node.clone();
    tokio::spawn(async move {
        let mut before = status.status();
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = status.status();
            if std::env::var_os("LOAD_STATUS").is_some() {
                eprintln!(
                    "node {id}: {} syncs, {} entries, snapshot {:?}, purged {:?}",
                    now.syncs_total - before.syncs_total,
                    now.entries_appended_total - before.entries_appended_total,
                    now.snapshot.map(|s| s.index),
                    now.purged.map(|s| s.index),
                );
            }
            before = now;
        }
    });
    // Without it the second small frame waits for the acknowledgement of the first, 40 ms.
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(clients)
        .map(|accepted| accepted.and_then(|stream| stream.set_nodelay(true).map(|()| stream)));
    Server::builder()
        .initial_connection_window_size(WINDOW)
        .add_service(Load(node))
        .serve_with_incoming(incoming)
        .await?;
    serving.await??;
    Ok(())
}

async fn ask(channel: &Channel, command: Bytes) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready()
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(PATH);
    let codec = ProstCodec::<Bytes, Bytes>::default();
    grpc.unary(Request::new(command), path, codec)
        .await
        .map(|_| ())
}

async fn dial(port: u16) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
        .initial_connection_window_size(WINDOW)
        .tcp_nodelay(true);
    Ok(endpoint.connect().await?)
}

/// The client port of the leader.
async fn leader(base: u16) -> Result<u16, Error> {
    for _ in 0..600 {
        for id in 1..=3 {
            let port = peer_port(base, id) + 10;
            if let Ok(channel) = dial(port).await
                && ask(&channel, Bytes::from_static(b"hello")).await.is_ok()
            {
                return Ok(port);
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err("nobody leads".into())
}

/// Processor time that a process has used, from `/proc`; 0 where there is none.
fn cpu(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(2)
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

async fn step(
    replicas: &Replicas,
    port: u16,
    clients: usize,
    seconds: u64,
    bytes: usize,
) -> Result<(), Error> {
    let used = || {
        let theirs: Duration = replicas.0.iter().map(|child| cpu(child.id())).sum();
        (cpu(std::process::id()), theirs)
    };
    let before = used();
    let connections = clients.div_ceil(128).max(1);
    let mut channels = Vec::new();
    for _ in 0..connections {
        channels.push(dial(port).await?);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (channel, stop) = (channels[client % connections].clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut number = client as u64;
                while !stop.load(Ordering::Relaxed) {
                    number = number
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    let mut command = vec![b'x'; bytes.max(8)];
                    command[..8].copy_from_slice(&number.to_be_bytes());
                    let sent = Instant::now();
                    ask(&channel, command.into()).await?;
                    latencies.push(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
                }
                Ok::<_, Status>(latencies)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut histogram = Histogram::<u64>::new(3)?;
    for task in tasks {
        for latency in task.await?? {
            histogram.record(latency)?;
        }
    }
    let rate = histogram.len() as f64 / start.elapsed().as_secs_f64();
    let now = used();
    let each = |used: Duration| used.as_secs_f64() * 1e6 / histogram.len() as f64;
    let ms = |q| histogram.value_at_quantile(q) as f64 / 1000.0;
    println!(
        "{clients:5} clients  {rate:8.0} commits/s   p50 {:7.2} ms   p99 {:7.2} ms   max {:7.2} ms   \
         processor per commit: clients {:5.1} us, replicas {:5.1} us",
        ms(0.5),
        ms(0.99),
        ms(1.0),
        each(now.0 - before.0),
        each(now.1 - before.1),
    );
    Ok(())
}

struct Replicas(Vec<Child>);

impl Drop for Replicas {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn run(directory: &Path, steps: Vec<usize>) -> Result<(), Error> {
    let base = 20_000 + u16::try_from(std::process::id() % 20_000).unwrap_or(0);
    let mut replicas = Replicas(Vec::new());
    for id in 1..=3 {
        let child = Command::new(std::env::current_exe()?)
            .args(["replica", &id.to_string(), &base.to_string()])
            .arg(directory.join(id.to_string()))
            .spawn()?;
        replicas.0.push(child);
    }
    let number = |name: &str, default| {
        std::env::var(name)
            .ok()
            .and_then(|v| v.parse().ok())
            .unwrap_or(default)
    };
    let (seconds, bytes) = (number("LOAD_SECONDS", 5), number("LOAD_BYTES", 100));
    let port = leader(base).await?;
    step(&replicas, port, 64, 1, bytes as usize).await?;
    for clients in steps {
        step(&replicas, port, clients, seconds, bytes as usize).await?;
    }
    Ok(())
}

fn main() -> Result<(), Error> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let threads = std::env::var("LOAD_THREADS")
        .ok()
        .and_then(|t| t.parse().ok())
        .unwrap_or(2);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [role, id, base, directory] = &arguments[..]
        && role == "replica"
    {
        return runtime.block_on(replica(id.parse()?, directory.into(), base.parse()?));
    }
    let mut steps: Vec<usize> = arguments
        .iter()
        .map(|a| a.parse())
        .collect::<Result<_, _>>()?;
    if steps.is_empty() {
        steps = vec![1, 64, 512];
    }
    let temporary = tempfile::tempdir()?;
    let directory = std::env::var_os("LOAD_DIR").map(PathBuf::from);
    runtime.block_on(run(directory.as_deref().unwrap_or(temporary.path()), steps))
}
