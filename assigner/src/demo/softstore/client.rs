//! A client of the demo: asks for keys as a crowd does, a few very often and most hardly ever
//! (Zipf), writes some, and checks every byte that it is answered.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures::StreamExt;
use leasehold_client::{Clerk, ErrorKind};
use leasehold_proto::{KeyHash, TargetName};
use rand::distr::Distribution;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::Zipf;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tonic::Response;
use tonic::transport::{Channel, Endpoint};

use super::answers::{Answer, AnswerLog, Ending};
use super::value::{key_bytes, value};
use crate::demo::client::open_loop;
use crate::demo::kv::backing_client::BackingClient;
use crate::demo::kv::softstore_client::SoftstoreClient;
use crate::demo::kv::{FindReply, FindRequest, KeepRequest, LoadRequest, SaveRequest};
use crate::demo::status;
use crate::harness::{PATIENCE, now_ns};

/// How much less often the second key is asked for than the first, and so on.
const SKEW: f64 = 0.99;
/// Requests that may be unanswered at once; beyond it a request fails without being sent.
const OUTSTANDING: usize = 4_096;
/// Requests at once while the caches are filled.
const FILLING: usize = 64;
/// How long a request may take in all, redirects and waits included.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often a client says how it fares.
const SAY: Duration = Duration::from_millis(250);

/// Options of one client.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    #[arg(long, value_delimiter = ',')]
    assigner: Vec<String>,
    #[arg(long)]
    target: Option<TargetName>,
    /// Instead of Assigners: the pods; a key is at the one that its hash says.
    #[arg(long, value_delimiter = ',')]
    pods: Vec<SocketAddr>,
    /// Where a client goes that cannot reach one of these.
    #[arg(long)]
    store: String,
    #[arg(long)]
    number: u64,
    /// How many clients there are: each writes keys of its own.
    #[arg(long)]
    clients: u64,
    #[arg(long)]
    keys: u64,
    /// How many of them are asked for in the beginning, the rarest first.
    #[arg(long)]
    fill: u64,
    #[arg(long)]
    value_bytes: usize,
    #[arg(long)]
    rate: u32,
    /// Of 100 requests.
    #[arg(long)]
    writes: u32,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    log: PathBuf,
    #[arg(long)]
    status: PathBuf,
}

/// How a client fares.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub struct Status {
    /// The caches are filled: what follows is logged.
    pub filled: bool,
    pub hits: u64,
    pub misses: u64,
    pub failed: u64,
    /// 99th percentile since the last word, in milliseconds.
    pub recent_ms_p99: f64,
}

/// How a pod is found.
enum Route {
    Clerk(Clerk),
    /// By the key's hash; behind them the store.
    Fixed(Vec<Channel>, BackingClient<Channel>),
}

struct Load {
    args: ClientArgs,
    route: Route,
    zipf: Zipf<f64>,
    /// The newest version of each key that is known to have been stored.
    known: Vec<AtomicU64>,
    /// The newest version of each key that was sent to be stored.
    sent: Vec<AtomicU64>,
    places: Arc<Semaphore>,
    log: mpsc::UnboundedSender<Answer>,
}

/// Fills the caches, then sends until it is told to stop (SIGTERM) and ends what is under way.
pub async fn run(args: ClientArgs) -> anyhow::Result<()> {
    let route = Route::new(&args)?;
    if let Route::Clerk(clerk) = &route {
        let ready = clerk.ready(PATIENCE).await;
        ready.context("no assignment became known")?;
    }
    let zeros = || (0..args.keys).map(|_| AtomicU64::new(0)).collect();
    // Bounded by OUTSTANDING: every request holds a place until it is logged.
    let (log, answers) = mpsc::unbounded_channel();
    let load = Arc::new(Load {
        route,
        zipf: Zipf::new(args.keys as f64, SKEW)?,
        known: zeros(),
        sent: zeros(),
        places: Arc::new(Semaphore::new(OUTSTANDING)),
        log,
        args: args.clone(),
    });
    let mut stop = unix::signal(SignalKind::terminate())?;
    tokio::select! {
        () = load.fill() => {}
        _ = stop.recv() => return Ok(()),
    }
    let writer = tokio::spawn(write_log(args.clone(), answers));
    open_loop(args.rate, &mut stop, |number| load.request(number)).await;
    // Every place is free again when every request has ended.
    let _ = load.places.acquire_many(OUTSTANDING as u32).await;
    drop(load);
    writer.await?
}

impl Route {
    fn new(args: &ClientArgs) -> anyhow::Result<Self> {
        let channel = |address: String| -> anyhow::Result<Channel> {
            let endpoint = Endpoint::from_shared(address)?;
            let endpoint = endpoint.connect_timeout(DEADLINE).timeout(DEADLINE);
            Ok(endpoint.tcp_nodelay(true).connect_lazy())
        };
        Ok(match &args.target {
            Some(target) => Route::Clerk(
                Clerk::builder(target.as_str())
                    .endpoints(&args.assigner)
                    .call_deadline(DEADLINE)
                    .connect_lazy()?,
            ),
            None => {
                let pods = args.pods.iter().map(|pod| channel(format!("http://{pod}")));
                let store = BackingClient::new(channel(args.store.clone())?);
                Route::Fixed(pods.collect::<anyhow::Result<_>>()?, store)
            }
        })
    }

    fn fixed(pods: &[Channel], key: u64) -> SoftstoreClient<Channel> {
        let hash = KeyHash::Xxh3.slice_key(&key_bytes(key)).as_u64();
        SoftstoreClient::new(pods[(hash % pods.len() as u64) as usize].clone())
    }

    async fn find(&self, key: u64, repeated: impl Fn()) -> Option<FindReply> {
        let request = FindRequest { key };
        match self {
            Route::Clerk(clerk) => {
                let found = ask(clerk, key, repeated, |channel| async move {
                    SoftstoreClient::new(channel).find(request).await
                });
                found.await
            }
            Route::Fixed(pods, store) => {
                if let Ok(reply) = Self::fixed(pods, key).find(request).await {
                    return Some(reply.into_inner());
                }
                let request = LoadRequest { key, token: 0 };
                let loaded = store.clone().load(request).await.ok()?.into_inner();
                Some(FindReply {
                    version: loaded.version,
                    value: loaded.value,
                    hit: false,
                })
            }
        }
    }

    async fn keep(&self, request: KeepRequest, repeated: impl Fn()) -> Option<()> {
        let key = request.key;
        match self {
            Route::Clerk(clerk) => {
                let kept = ask(clerk, key, repeated, |channel| {
                    let request = request.clone();
                    async move { SoftstoreClient::new(channel).keep(request).await }
                });
                kept.await.map(|_| ())
            }
            Route::Fixed(pods, store) => {
                let kept = Self::fixed(pods, key).keep(request.clone()).await;
                if kept.is_ok() {
                    return Some(());
                }
                // Once more does no harm: the version tells.
                let save = SaveRequest {
                    key,
                    token: 0,
                    version: request.version,
                    value: request.value,
                };
                store.clone().save(save).await.ok().map(|_| ())
            }
        }
    }
}

/// Asks the owner, and asks again where ownership was lost while the request was served: both
/// requests may be carried out twice. A failure is told to whoever reads the client's log.
async fn ask<T, F: Future<Output = Result<Response<T>, tonic::Status>>>(
    clerk: &Clerk,
    key: u64,
    repeated: impl Fn(),
    request: impl Fn(Channel) -> F,
) -> Option<T> {
    let until = Instant::now() + DEADLINE;
    loop {
        let error = match clerk.call(&key_bytes(key), |to, _| request(to)).await {
            Ok(reply) => return Some(reply.into_inner()),
            Err(error) => error,
        };
        tracing::warn!(kind = ?error.kind(), %error, "a request was not answered");
        if error.kind() != ErrorKind::Indeterminate || Instant::now() >= until {
            return None;
        }
        repeated();
    }
}

impl Load {
    /// Asks once for each of the most wanted keys, the most wanted last.
    async fn fill(&self) {
        let mine = |key: &u64| key % self.args.clients == self.args.number;
        let keys = (0..self.args.fill).rev().filter(mine);
        futures::stream::iter(keys)
            .for_each_concurrent(FILLING, |key| async move {
                let _ = self.route.find(key, || {}).await;
            })
            .await;
    }

    /// Sends a request that is due now.
    fn request(self: &Arc<Self>, number: u64) {
        let due_ns = now_ns();
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return self.note(due_ns, Ending::Failed);
        };
        let load = Arc::clone(self);
        tokio::spawn(async move {
            let ending = load.send(number).await;
            load.note(due_ns, ending);
            drop(place);
        });
    }

    fn note(&self, due_ns: u64, ending: Ending) {
        let end_ns = now_ns();
        let _ = self.log.send(Answer {
            due_ns,
            end_ns,
            ending,
        });
    }

    fn repeated(&self) {
        self.note(now_ns(), Ending::Repeated);
    }

    /// The request of this number is the same in every run with the same seed.
    async fn send(&self, number: u64) -> Ending {
        let ClientArgs { seed, clients, .. } = self.args;
        let seed = seed ^ (number * clients + self.args.number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = SmallRng::seed_from_u64(seed);
        let mut draw = || (self.zipf.sample(&mut random) as u64 - 1).min(self.args.keys - 1);
        let key = draw();
        if random.random_range(0..100) >= self.args.writes {
            return self.find(key).await;
        }
        // The nearest key of its own.
        let own = key - key % clients + self.args.number;
        self.keep(own.min(self.args.keys - clients + self.args.number))
            .await
    }

    async fn find(&self, key: u64) -> Ending {
        let at = key as usize;
        let before = self.known[at].load(Ordering::SeqCst);
        let Some(reply) = self.route.find(key, || self.repeated()).await else {
            return Ending::Failed;
        };
        let mine = key % self.args.clients == self.args.number;
        let unwritten = mine && reply.version > self.sent[at].load(Ordering::SeqCst);
        if unwritten || reply.value != value(key, reply.version, self.args.value_bytes) {
            return Ending::Wrong;
        }
        self.known[at].fetch_max(reply.version, Ordering::SeqCst);
        match reply.hit {
            _ if reply.version < before => Ending::Stale,
            true => Ending::Hit,
            false => Ending::Miss,
        }
    }

    async fn keep(&self, key: u64) -> Ending {
        let at = key as usize;
        let version = self.sent[at].fetch_add(1, Ordering::SeqCst) + 1;
        let value = value(key, version, self.args.value_bytes);
        let request = KeepRequest {
            key,
            version,
            value,
        };
        match self.route.keep(request, || self.repeated()).await {
            Some(()) => {
                self.known[at].fetch_max(version, Ordering::SeqCst);
                Ending::Written
            }
            None => Ending::Failed,
        }
    }
}

async fn write_log(
    args: ClientArgs,
    mut answers: mpsc::UnboundedReceiver<Answer>,
) -> anyhow::Result<()> {
    let mut log = AnswerLog::create(&args.log).context("cannot create the log of answers")?;
    let mut said = Status {
        filled: true,
        ..Status::default()
    };
    status::write(&args.status, &said)?;
    let mut recent_ms = Vec::new();
    let mut said_at = Instant::now();
    while let Some(answer) = answers.recv().await {
        log.write(answer)?;
        match answer.ending {
            Ending::Hit => said.hits += 1,
            Ending::Miss => said.misses += 1,
            Ending::Written | Ending::Repeated => {}
            Ending::Failed | Ending::Stale | Ending::Wrong => said.failed += 1,
        }
        recent_ms.push(answer.ms());
        if said_at.elapsed() >= SAY {
            said_at = Instant::now();
            said.recent_ms_p99 = leasehold_figures::quantile(&recent_ms, 0.99).unwrap_or_default();
            recent_ms.clear();
            status::write(&args.status, &said)?;
        }
    }
    log.finish().context("cannot write the log of answers")
}
