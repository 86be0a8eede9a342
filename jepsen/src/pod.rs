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
use leasehold_client::state::StateMap;
use leasehold_client::{PeerService, SliceHandler, SliceInfo, Slicelet, Transfers};
use leasehold_proto::wire::pb;
use leasehold_proto::wire::pb::slicelet_peer_server::{SliceletPeer, SliceletPeerServer};
use leasehold_proto::{SliceKey, TargetName};
use parking_lot::RwLock;
use tokio::signal::unix::{self, SignalKind};
use tonic::{Request, Response, Status, Streaming};

use crate::register::RegisterClient;
use crate::rpc;
use crate::rpc::pod_server::{Pod, PodServer};
use app::App;
pub(crate) use app::IN_MEMORY;
use hold_log::HoldLog;
use prober::Prober;

/// How long a pod that is asked to stop waits for its last slice to move.
const DRAIN: Duration = Duration::from_secs(3);
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
    /// The target that it serves
    #[arg(long)]
    pub target: TargetName,
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
    let listen = args.listen;
    let place = Arc::new(Place::new(args)?);
    let mut stop = unix::signal(SignalKind::terminate())?;
    let leaving = Arc::clone(&place);
    let drained = async move {
        stop.recv().await;
        let Some(app) = leaving.app() else { return };
        // As the Slicelet has it: in the last part of a drain it gives state up.
        app.hurry(DRAIN - Duration::from_secs(1).max(DRAIN / 10));
        if let Err(error) = app.slicelet().drain(DRAIN).await {
            eprintln!("not every slice has moved: {error}");
        }
    };
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(2)))
        .add_service(SliceletPeerServer::new(Peers(Arc::clone(&place))))
        .add_service(PodServer::new(Service(Arc::clone(&place))))
        .serve_with_shutdown(listen, drained)
        .await
        .with_context(|| format!("cannot serve at {listen}"))?;
    // A connection that is still open keeps the services, and with them the place.
    place.leave().await
}

/// Where one Slicelet after another serves.
struct Place {
    args: Args,
    /// None once the pod has left.
    tenant: RwLock<Option<Tenant>>,
}

/// One Slicelet's time here.
struct Tenant {
    app: Arc<App>,
    prober: Option<Prober>,
}

/// Writes down which slices come with their state, before anything is served from it.
struct Passages(Arc<HoldLog>);

impl SliceHandler for Passages {
    async fn acquire(&self, slice: &SliceInfo) {
        self.0.come(slice);
    }

    async fn release(&self, slice: &SliceInfo) {
        self.0.gone(slice);
    }
}

impl Tenant {
    fn start(args: &Args) -> anyhow::Result<Self> {
        let log = match &args.hold_log {
            Some(path) => Some(Arc::new(
                HoldLog::create(path, &args.target).context("cannot create the hold log")?,
            )),
            None => None,
        };
        let memory = StateMap::new();
        // No keys are compared before a surrender: what a transfer gets wrong must show.
        let mut transfers = Transfers::default();
        transfers.samples = 0;
        let mut builder = Slicelet::builder(args.target.as_str())
            .endpoints(&args.assigner)
            .advertise(args.listen.to_string())
            .app_version(env!("CARGO_PKG_VERSION"))
            .state(memory.clone())
            .transfers(transfers);
        if let Some(log) = log.clone() {
            builder = builder.handler(Passages(Arc::clone(&log)));
            builder = builder.on_ownership(move |event| log.event(event));
        }
        let slicelet = Arc::new(builder.start()?);
        let prober = match log.clone() {
            Some(log) => Some(Prober::start(Arc::clone(&slicelet), log)?),
            None => None,
        };
        let store = RegisterClient::new(&args.register, STORE_CALL)?;
        let app = Arc::new(App::new(slicelet, memory, store, args.unfenced, log));
        Ok(Self { app, prober })
    }

    /// Serves nothing any more and tells the Assigner.
    async fn end(self) -> anyhow::Result<()> {
        self.app.hurry(Duration::ZERO);
        if let Some(prober) = self.prober {
            prober.stop();
        }
        // While a request is under way it keeps the Slicelet; dropping the last one closes as well.
        match Arc::into_inner(self.app).and_then(App::into_slicelet) {
            Some(slicelet) => Ok(slicelet.close().await?),
            None => Ok(()),
        }
    }
}

impl Place {
    fn new(args: Args) -> anyhow::Result<Self> {
        Ok(Self {
            tenant: RwLock::new(Some(Tenant::start(&args)?)),
            args,
        })
    }

    fn app(&self) -> Option<Arc<App>> {
        let tenant = self.tenant.read();
        tenant.as_ref().map(|tenant| Arc::clone(&tenant.app))
    }

    fn app_or_status(&self) -> Result<Arc<App>, Status> {
        self.app()
            .ok_or_else(|| Status::unavailable("the pod is leaving"))
    }

    /// Another Slicelet takes the place of the one that is here.
    async fn rejoin(&self) -> anyhow::Result<()> {
        let fresh = Tenant::start(&self.args)?;
        let old = self.tenant.write().replace(fresh);
        match old {
            Some(old) => old.end().await,
            None => Ok(()),
        }
    }

    async fn leave(&self) -> anyhow::Result<()> {
        let tenant = self.tenant.write().take();
        match tenant {
            Some(tenant) => tenant.end().await,
            None => Ok(()),
        }
    }
}

/// Other Slicelets speak to the one that is here now.
struct Peers(Arc<Place>);

#[tonic::async_trait]
impl SliceletPeer for Peers {
    async fn take_over(
        &self,
        request: Request<pb::ReadyRequest>,
    ) -> Result<Response<pb::ReadyReply>, Status> {
        let app = self.0.app_or_status()?;
        app.slicelet().peer_service().take_over(request).await
    }

    type PullStateStream = <PeerService as SliceletPeer>::PullStateStream;

    async fn pull_state(
        &self,
        request: Request<Streaming<pb::PullRequest>>,
    ) -> Result<Response<Self::PullStateStream>, Status> {
        let app = self.0.app_or_status()?;
        app.slicelet().peer_service().pull_state(request).await
    }
}

struct Service(Arc<Place>);

#[tonic::async_trait]
impl Pod for Service {
    async fn serves(
        &self,
        request: Request<rpc::ServesRequest>,
    ) -> Result<Response<rpc::ServesReply>, Status> {
        let key = SliceKey::from_u64(request.into_inner().slice_key);
        let app = self.0.app_or_status()?;
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
        let linger = Duration::from_millis(request.linger_ms.into());
        if linger > LONGEST_LINGER {
            return Err(Status::invalid_argument("lingers too long"));
        }
        let what = request
            .what
            .ok_or_else(|| Status::invalid_argument("an operation says what"))?;
        let app = self.0.app_or_status()?;
        let reply = app.carry_out(request.key, what, linger).await?;
        Ok(Response::new(rpc::DoReply {
            pod: self.0.args.name.clone(),
            ..reply
        }))
    }

    async fn rejoin(
        &self,
        _request: Request<rpc::RejoinRequest>,
    ) -> Result<Response<rpc::RejoinReply>, Status> {
        match self.0.rejoin().await {
            Ok(()) => Ok(Response::new(rpc::RejoinReply {})),
            Err(error) => Err(Status::unavailable(format!("{error:#}"))),
        }
    }
}
