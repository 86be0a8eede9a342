//! The client of the demo: authors who increment counters, each waiting for the acknowledgement of
//! one increment before the next, and asking again where none came.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use hdrhistogram::Histogram;
use leasehold_client::Clerk;
use leasehold_proto::TargetName;
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{self, SignalKind};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::count::{MOST_AUTHORS, Tally, key};
use crate::demo::kv::IncrementRequest;
use crate::demo::kv::counter_client::CounterClient;
use crate::demo::status;
use crate::harness::PATIENCE;

/// How long a request may take in all, redirects and waits included.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often the client says how it fares.
const SAY: Duration = Duration::from_millis(250);

/// Longest time that is told apart from longer ones.
const MOST_US: u64 = 120_000_000;

/// Options of the client.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    #[arg(long, value_delimiter = ',')]
    assigner: Vec<String>,
    #[arg(long)]
    target: TargetName,
    #[arg(long)]
    counters: usize,
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MOST_AUTHORS as i64))]
    authors: u32,
    /// Increments per second of all authors together, as long as they are acknowledged.
    #[arg(long)]
    rate: u32,
    #[arg(long)]
    seed: u64,
    #[arg(long)]
    tally: PathBuf,
    #[arg(long)]
    status: PathBuf,
}

/// How the client fares.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Status {
    pub acknowledged: u64,
    pub failed: u64,
}

struct Crowd {
    args: ClientArgs,
    clerk: Clerk,
    acknowledged: Vec<AtomicU64>,
    all_acknowledged: AtomicU64,
    failed: AtomicU64,
    took_us: Mutex<Histogram<u64>>,
    stop: CancellationToken,
}

/// Increments until it is told to stop (SIGTERM), waits for what is not acknowledged yet, and
/// writes its tally.
pub async fn run(args: ClientArgs) -> anyhow::Result<()> {
    let clerk = Clerk::builder(args.target.as_str())
        .endpoints(&args.assigner)
        .call_deadline(DEADLINE)
        .connect_lazy()?;
    let ready = clerk.ready(PATIENCE).await;
    ready.context("no assignment became known")?;
    let crowd = Arc::new(Crowd {
        clerk,
        acknowledged: (0..args.counters).map(|_| AtomicU64::new(0)).collect(),
        all_acknowledged: AtomicU64::new(0),
        failed: AtomicU64::new(0),
        took_us: Mutex::new(Histogram::new_with_bounds(1, MOST_US, 3)?),
        stop: CancellationToken::new(),
        args: args.clone(),
    });
    let mut authors = JoinSet::new();
    for author in 0..args.authors {
        authors.spawn(Arc::clone(&crowd).author(author));
    }
    let mut stop = unix::signal(SignalKind::terminate())?;
    let mut says = tokio::time::interval(SAY);
    loop {
        tokio::select! {
            _ = says.tick() => status::write(&args.status, &crowd.status())?,
            _ = stop.recv() => break,
        }
    }
    crowd.stop.cancel();
    while let Some(author) = authors.join_next().await {
        author??;
    }
    status::write(&args.tally, &crowd.tally()).context("cannot write the tally")
}

impl Crowd {
    async fn author(self: Arc<Self>, author: u32) -> anyhow::Result<()> {
        let mut random = SmallRng::seed_from_u64(self.args.seed ^ u64::from(author));
        let mut turns: HashMap<usize, u64> = HashMap::new();
        let pause = f64::from(self.args.authors) / f64::from(self.args.rate);
        let mut ticks = tokio::time::interval(Duration::from_secs_f64(pause));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.stop.is_cancelled() {
            ticks.tick().await;
            let counter = random.random_range(0..self.args.counters);
            let turn = turns.entry(counter).or_insert(0);
            *turn += 1;
            self.increment(counter, author, *turn).await?;
        }
        Ok(())
    }

    /// Ends when the increment is acknowledged; asks as often as that takes.
    async fn increment(&self, counter: usize, author: u32, turn: u64) -> anyhow::Result<()> {
        let request = IncrementRequest {
            key: key(counter),
            author,
            turn,
        };
        let begun = Instant::now();
        loop {
            let call = self.clerk.call(&request.key, |channel, _| {
                let request = request.clone();
                async move { CounterClient::new(channel).increment(request).await }
            });
            let Err(error) = call.await else { break };
            tracing::warn!(%error, "an increment is asked for again");
            self.failed.fetch_add(1, Ordering::Relaxed);
            anyhow::ensure!(
                begun.elapsed() < PATIENCE,
                "an increment was not acknowledged within {PATIENCE:?}: {error}"
            );
        }
        self.took_us
            .lock()
            .saturating_record(begun.elapsed().as_micros() as u64);
        self.acknowledged[counter].fetch_add(1, Ordering::Relaxed);
        self.all_acknowledged.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn status(&self) -> Status {
        Status {
            acknowledged: self.all_acknowledged.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }

    fn tally(&self) -> Tally {
        let took_us = self.took_us.lock();
        let ms = |us: u64| us as f64 / 1e3;
        let counts = self.acknowledged.iter();
        Tally {
            acknowledged: counts.map(|count| count.load(Ordering::Relaxed)).collect(),
            failed: self.failed.load(Ordering::Relaxed),
            ms_p50: ms(took_us.value_at_quantile(0.5)),
            ms_p99: ms(took_us.value_at_quantile(0.99)),
            ms_max: ms(took_us.max()),
        }
    }
}
