//! A pod: one process of the application that is attacked.
//!
//! It uses Leasehold as a careful application does. For each request it takes a guard, does the
//! work under the guard's fencing token, and asks the guard again before the answer leaves. Values
//! live in the external [store](crate::register) and are kept in memory for as long as the pod owns
//! the key: reads are served from memory, which is right only if nobody else owns the key.

mod app;
pub mod clock;
pub mod hold_log;
pub mod holds;
mod operation;
mod prober;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use leasehold_client::Slicelet;
use leasehold_proto::{SliceKey, TargetName};
use tokio::signal::unix::{self, SignalKind};
use tonic::{Request, Response, Status};

use crate::register::RegisterClient;
use crate::rpc;
use crate::rpc::pod_server::{Pod, PodServer};
use app::App;
use hold_log::HoldLog;
use prober::Prober;

/// How long a pod that is asked to stop waits for its last slice to move.
const DRAIN: Duration = Duration::from_millis(1_500);
/// How long one call to the store may take.
const STORE_CALL: Duration = Duration::from_millis(1_500);
/// Longest that a request may ask a pod to linger.
const LONGEST_LINGER: Duration = Duration::from_secs(5);

/// Options of a pod's process.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What clients and the log call it
    #[arg(long)]
    pub name: String,
    /// Assigners: HOST:PORT,…
    #[arg(long, value_delimiter = ',', required = true)]
    pub assigner: Vec<String>,
    /// The target that it serves; several with a comma between them
    #[arg(long, value_delimiter = ',', required = true)]
    pub target: Vec<TargetName>,
    /// Where it is served: IP:PORT
    #[arg(long)]
    pub listen: SocketAddr,
    /// The external store: HOST:PORT
    #[arg(long)]
    pub register: String,
    /// Writes a log of what it could serve when, in true time: FILE-START for each start
    #[arg(long, value_name = "FILE")]
    pub hold_log: Option<PathBuf>,
    /// Write to the store without a fence: a positive control, which must be caught
    #[arg(long)]
    pub unfenced: bool,
}

/// Serves until it is asked to stop (SIGTERM); then drains, closes its session and ends.
///
/// # Errors
/// It cannot listen, or write its log.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut parts = Vec::new();
    for target in &args.target {
        parts.push(start(&args, target)?);
    }
    let mut peers: Option<leasehold_client::PeerService> = None;
    for part in &parts {
        let own = part.app.slicelet().peer_service();
        peers = Some(match peers {
            Some(others) => others.and(own),
            None => own,
        });
    }
    let peers = peers.context("a pod serves at least one target")?;
    let service = Service {
        name: args.name.clone(),
        apps: parts.iter().map(|part| Arc::clone(&part.app)).collect(),
    };
    let mut stop = unix::signal(SignalKind::terminate())?;
    let leaving: Vec<Arc<App>> = parts.iter().map(|part| Arc::clone(&part.app)).collect();
    let drained = async move {
        stop.recv().await;
        let drains = leaving.iter().map(|app| app.slicelet().drain(DRAIN));
        for result in futures::future::join_all(drains).await {
            if let Err(error) = result {
                eprintln!("not every slice has moved: {error}");
            }
        }
    };
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(2)))
        .add_service(peers.into_server())
        .add_service(PodServer::new(service))
        .serve_with_shutdown(args.listen, drained)
        .await
        .with_context(|| format!("cannot serve at {}", args.listen))?;
    for part in parts {
        part.end().await?;
    }
    Ok(())
}

/// One target's part of the pod.
struct Part {
    app: Arc<App>,
    prober: Option<Prober>,
}

fn start(args: &Args, target: &TargetName) -> anyhow::Result<Part> {
    let log = match &args.hold_log {
        Some(path) => Some(Arc::new(
            HoldLog::create(path, target).context("cannot create the hold log")?,
        )),
        None => None,
    };
    let mut builder = Slicelet::builder(target.as_str())
        .endpoints(&args.assigner)
        .advertise(args.listen.to_string())
        .app_version(env!("CARGO_PKG_VERSION"));
    if let Some(log) = log.clone() {
        builder = builder.on_ownership(move |event| log.event(event));
    }
    let slicelet = Arc::new(builder.start()?);
    let prober = match log.clone() {
        Some(log) => Some(Prober::start(Arc::clone(&slicelet), log)?),
        None => None,
    };
    let store = RegisterClient::new(&args.register, STORE_CALL)?;
    let app = Arc::new(App::new(slicelet, store, args.unfenced, log));
    Ok(Part { app, prober })
}

impl Part {
    async fn end(self) -> anyhow::Result<()> {
        if let Some(prober) = self.prober {
            prober.stop();
        }
        // A connection that is still open keeps the service; dropping the last one closes as well.
        match Arc::into_inner(self.app).and_then(App::into_slicelet) {
            Some(slicelet) => Ok(slicelet.close().await?),
            None => Ok(()),
        }
    }
}

struct Service {
    name: String,
    apps: Vec<Arc<App>>,
}

impl Service {
    fn app(&self, target: &str) -> Result<&Arc<App>, Status> {
        let mut apps = self.apps.iter();
        let found = match target {
            "" => apps.next(),
            name => apps.find(|app| app.slicelet().target().as_str() == name),
        };
        found.ok_or_else(|| Status::invalid_argument("this pod does not serve that target"))
    }
}

#[tonic::async_trait]
impl Pod for Service {
    async fn serves(
        &self,
        request: Request<rpc::ServesRequest>,
    ) -> Result<Response<rpc::ServesReply>, Status> {
        let request = request.into_inner();
        let app = self.app(&request.target)?;
        let key = SliceKey::from_u64(request.slice_key);
        Ok(Response::new(match app.slicelet().guard_slice_key(key) {
            Ok(guard) => rpc::ServesReply {
                token: Some(guard.fencing_token().as_u64()),
                why_not: String::new(),
            },
            Err(error) => rpc::ServesReply {
                token: None,
                why_not: error.to_string(),
            },
        }))
    }

    async fn r#do(
        &self,
        request: Request<rpc::DoRequest>,
    ) -> Result<Response<rpc::DoReply>, Status> {
        let request = request.into_inner();
        let app = self.app(&request.target)?;
        let linger = Duration::from_millis(request.linger_ms.into());
        if linger > LONGEST_LINGER {
            return Err(Status::invalid_argument("lingers too long"));
        }
        let what = request
            .what
            .ok_or_else(|| Status::invalid_argument("an operation says what"))?;
        let reply = app.carry_out(request.key, what, linger).await?;
        Ok(Response::new(rpc::DoReply {
            pod: self.name.clone(),
            ..reply
        }))
    }
}
