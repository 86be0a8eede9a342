//! A load client: sends requests on time whether or not the last ones were answered (open loop),
//! judges every answer, and logs each request.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use leasehold_client::{Clerk, ErrorKind};
use leasehold_proto::{KeyHash, TargetName};
use parking_lot::Mutex;
use tokio::signal::unix::{self, Signal, SignalKind};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior};

use super::kv::kv_client::KvClient;
use super::kv::{GetRequest, PutRequest};
use super::requests::{Ending, Request, RequestLog};
use super::screen::Status;
use super::verdict::Knowledge;
use crate::harness::{PATIENCE, now_ns};

/// Keys of one client; each is written by it alone.
const KEYS: u32 = 1_024;
/// Requests that may be unanswered at once; beyond it a request counts as failed without being sent.
const OUTSTANDING: usize = 8_192;
/// How long a request may take in all, redirects and waits included.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often requests that are due are sent off.
const TICK: Duration = Duration::from_millis(1);

/// Options of one load client.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    #[arg(long, value_delimiter = ',')]
    assigner: Vec<String>,
    #[arg(long)]
    target: TargetName,
    #[arg(long)]
    number: u16,
    #[arg(long)]
    rate: u32,
    /// Closed loop instead of a rate: so many requests under way at any time.
    #[arg(long)]
    concurrency: Option<u32>,
    #[arg(long)]
    request_log: PathBuf,
    #[arg(long)]
    status: PathBuf,
}

struct Load {
    clerk: Clerk,
    number: u16,
    known: Mutex<Knowledge>,
    next_value: AtomicU64,
    places: Arc<Semaphore>,
    log: mpsc::UnboundedSender<Request>,
}

/// Runs until it is told to stop (SIGTERM), then ends what is under way.
pub async fn run(args: ClientArgs) -> anyhow::Result<()> {
    let clerk = Clerk::builder(args.target.as_str())
        .endpoints(&args.assigner)
        .call_deadline(DEADLINE)
        .connect_lazy()?;
    clerk
        .ready(PATIENCE)
        .await
        .context("no assignment became known")?;
    // Bounded by OUTSTANDING: every request holds a place until it is logged.
    let (log, requests) = mpsc::unbounded_channel();
    let load = Arc::new(Load {
        clerk,
        number: args.number,
        known: Mutex::default(),
        next_value: AtomicU64::new(1),
        places: Arc::new(Semaphore::new(OUTSTANDING)),
        log,
    });
    let writer = tokio::spawn(write_log(args.clone(), requests));
    let mut stop = unix::signal(SignalKind::terminate())?;
    match args.concurrency {
        None => {
            let send = |number| drop(load.request(number).map(tokio::spawn));
            open_loop(args.rate, &mut stop, send).await;
        }
        Some(workers) => load.closed_loop(workers, &mut stop).await,
    }
    // Every place is free again when every request has ended.
    let _ = load.places.acquire_many(OUTSTANDING as u32).await;
    drop(load);
    writer.await?
}

/// Sends on time, answered or not, until it is told to stop.
pub(super) async fn open_loop(rate: u32, stop: &mut Signal, mut send: impl FnMut(u64)) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let (begun, mut sent) = (Instant::now(), 0u64);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let due = (begun.elapsed().as_secs_f64() * f64::from(rate)) as u64;
                (sent..due).for_each(&mut send);
                sent = due;
            }
            _ = stop.recv() => return,
        }
    }
}

impl Load {
    /// Each worker sends its next request when its last was answered.
    async fn closed_loop(self: &Arc<Self>, workers: u32, stop: &mut Signal) {
        let mut tasks = tokio::task::JoinSet::new();
        for worker in 0..u64::from(workers) {
            let load = Arc::clone(self);
            let step = u64::from(workers);
            tasks.spawn(async move {
                let mut number = worker;
                loop {
                    if let Some(request) = load.request(number) {
                        request.await;
                    }
                    number += step;
                }
            });
        }
        stop.recv().await;
    }

    /// A request that is due now. It has its place already, so that one begun just before the end
    /// is not refused one; `None`, and noted, when too many are under way.
    fn request(
        self: &Arc<Self>,
        number: u64,
    ) -> Option<impl Future<Output = ()> + Send + 'static + use<>> {
        // A fixed mixture: consecutive requests go to keys far apart, half of them write.
        let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let key_number = ((mixed >> 32) % u64::from(KEYS)) as u32;
        let key = format!("client-{}/key-{key_number}", self.number).into_bytes();
        let due_ns = now_ns();
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.note(&key, due_ns, Ending::Failed);
            return None;
        };
        let load = Arc::clone(self);
        Some(async move {
            let write = mixed & 1 == 0;
            let ending = if write {
                load.put(&key, key_number).await
            } else {
                load.get(&key, key_number).await
            };
            load.note(&key, due_ns, ending);
            drop(place);
        })
    }

    fn note(&self, key: &[u8], due_ns: u64, ending: Ending) {
        let key = KeyHash::Xxh3.slice_key(key);
        let _ = self.log.send(Request {
            due_ns,
            end_ns: now_ns(),
            key,
            ending,
        });
    }

    async fn put(&self, key: &[u8], key_number: u32) -> Ending {
        let before = self.known.lock().before(key_number);
        let value = self.next_value.fetch_add(1, Ordering::Relaxed);
        let request = PutRequest {
            key: key.to_vec(),
            value,
        };
        let call = self.clerk.call(key, |channel, _| {
            let request = request.clone();
            async move { KvClient::new(channel).put(request).await }
        });
        match call.await {
            Ok(reply) => {
                self.known
                    .lock()
                    .wrote(key_number, before, value, reply.into_inner().token)
            }
            Err(error) => ending(error.kind()),
        }
    }

    async fn get(&self, key: &[u8], key_number: u32) -> Ending {
        let before = self.known.lock().before(key_number);
        let request = GetRequest { key: key.to_vec() };
        let call = self.clerk.call(key, |channel, _| {
            let request = request.clone();
            async move { KvClient::new(channel).get(request).await }
        });
        match call.await {
            Ok(reply) => {
                let reply = reply.into_inner();
                self.known
                    .lock()
                    .read(key_number, before, reply.value, reply.token)
            }
            Err(error) => ending(error.kind()),
        }
    }
}

fn ending(kind: ErrorKind) -> Ending {
    match kind {
        ErrorKind::Indeterminate | ErrorKind::Internal => Ending::Unknown,
        _ => Ending::Failed,
    }
}

async fn write_log(
    args: ClientArgs,
    mut requests: mpsc::UnboundedReceiver<Request>,
) -> anyhow::Result<()> {
    let mut log = RequestLog::create(&args.request_log).context("cannot create the request log")?;
    let mut status = Status::default();
    let mut recent_ms = Vec::new();
    let mut shown = Instant::now();
    while let Some(request) = requests.recv().await {
        log.write(request)?;
        if request.ending.answered() {
            status.answered += 1;
            recent_ms.push((request.end_ns - request.due_ns) as f64 / 1e6);
        } else {
            status.failed += 1;
        }
        if shown.elapsed() >= Duration::from_millis(250) {
            shown = Instant::now();
            status.recent_ms_p99 =
                leasehold_figures::quantile(&recent_ms, 0.99).unwrap_or_default();
            recent_ms.clear();
            super::status::write(&args.status, &status)?;
        }
    }
    log.finish().context("cannot write the request log")
}
