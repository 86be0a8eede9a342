//! `leasehold demo softstore`: a sharded cache through a rolling restart of every pod, with what is
//! cached moving along, without it, and without Leasehold.

mod answers;
mod arm;
mod cache;
pub mod client;
mod figures;
mod plot;
pub mod pod;
pub mod store;
mod value;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use leasehold_figures::Report;

use crate::bench;

pub use arm::Arm;

/// Options of `leasehold demo softstore`.
#[derive(Debug, Clone, Args)]
pub struct SoftstoreArgs {
    /// What is compared, in this order: `strong` and `eventual` move what is cached with its slice,
    /// `cold` does not, `static` is without Leasehold (hash of the key modulo pods; a client that
    /// reaches no pod goes to the store). Unless given: all, with --quick strong and cold.
    #[arg(long, value_delimiter = ',')]
    arms: Vec<Arm>,
    /// A small and short form: 4 pods, 20,000 keys, under a minute.
    #[arg(long)]
    quick: bool,
    /// How many pods cache; unless given 10, with --quick 4.
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=64))]
    pods: Option<u16>,
    /// How many keys there are; unless given 1,000,000, with --quick 20,000.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    keys: Option<u64>,
    /// How many of them the caches of all pods hold together, of 100.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u8).range(1..=100))]
    cached_percent: u8,
    /// Length of every value.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    value_bytes: u32,
    /// Requests per second of all clients together, whether or not they are answered (open loop);
    /// unless given 4,000, with --quick 1,000.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rate: Option<u32>,
    /// Of 100 requests, how many write.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    writes_percent: u32,
    /// How many slices the key space is cut into.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=4096))]
    slices: u32,
    /// From one restart to the next, at least; unless given 4 s, with --quick 1 s.
    #[arg(long, value_parser = humantime::parse_duration)]
    every: Option<Duration>,
    /// How long the load is steady before the first restart; unless given 10 s, with --quick 3 s.
    #[arg(long, value_parser = humantime::parse_duration)]
    steady: Option<Duration>,
    /// How long a pod that is asked to stop may take to give its slices away.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// What a read or a write of the backing store takes beside the disk's own time.
    #[arg(long, default_value = "2ms", value_parser = humantime::parse_duration)]
    store_latency: Duration,
    /// Of the order in which keys are asked for.
    #[arg(long)]
    seed: Option<u64>,
    /// Put the plot and the logs into this directory, which should be fresh; unless given a new
    /// temporary one, which is named at the end and stays.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is played.
pub struct Plan {
    assigners: u16,
    pods: u16,
    clients: u16,
    slices: u32,
    ttl: Duration,
    keys: u64,
    /// Keys that are asked for before anything is measured.
    fill: u64,
    cache_bytes: u64,
    value_bytes: u32,
    rate: u32,
    writes: u32,
    seed: u64,
    store_latency: Duration,
    grace: Duration,
    before: Duration,
    every: Duration,
    after: Duration,
}

impl Plan {
    fn new(args: &SoftstoreArgs) -> Self {
        let or = |full: u64, quick: u64| if args.quick { quick } else { full };
        let seconds = |full, quick| Duration::from_secs(or(full, quick));
        let clients = or(2, 1);
        let pods = args.pods.unwrap_or(or(10, 4) as u16);
        // Each client writes as many.
        let keys = args.keys.unwrap_or(or(1_000_000, 20_000)) / clients * clients;
        let fill = keys * u64::from(args.cached_percent) / 100;
        Self {
            assigners: or(3, 1) as u16,
            pods,
            clients: clients as u16,
            slices: args.slices,
            ttl: Duration::from_secs(3),
            keys,
            fill,
            // One pod is always away in a restart.
            cache_bytes: cache::bytes_for(fill / u64::from(pods - 1), u64::from(args.value_bytes)),
            value_bytes: args.value_bytes,
            rate: args.rate.unwrap_or(or(4_000, 1_000) as u32),
            writes: args.writes_percent,
            seed: args.seed.unwrap_or_else(rand::random),
            store_latency: args.store_latency,
            grace: args.grace,
            before: args.steady.unwrap_or(seconds(10, 3)),
            every: args.every.unwrap_or(seconds(4, 1)),
            after: seconds(5, 1),
        }
    }

    fn store_words(&self, dir: &Path, address: &str) -> Vec<String> {
        vec![
            "demo".to_owned(),
            "soft-store".to_owned(),
            format!("--listen={address}"),
            format!("--file={}", store_file(dir).display()),
            format!("--keys={}", self.keys),
            format!("--value-bytes={}", self.value_bytes),
            format!(
                "--latency={}",
                humantime::format_duration(self.store_latency)
            ),
        ]
    }

    fn pod_words(&self, store: &str, cold: bool) -> Vec<String> {
        let mut words = vec![
            "demo".to_owned(),
            "soft-pod".to_owned(),
            format!("--store={store}"),
            format!("--cache-bytes={}", self.cache_bytes),
            format!("--grace={}", humantime::format_duration(self.grace)),
        ];
        words.extend(cold.then(|| "--cold".to_owned()));
        words
    }

    fn client_words(&self, dir: &Path, store: &str, number: u16) -> Vec<String> {
        let rate = (self.rate / u32::from(self.clients)).max(1);
        vec![
            "demo".to_owned(),
            "soft-client".to_owned(),
            format!("--store={store}"),
            format!("--number={number}"),
            format!("--clients={}", self.clients),
            format!("--keys={}", self.keys),
            format!("--fill={}", self.fill),
            format!("--value-bytes={}", self.value_bytes),
            format!("--rate={rate}"),
            format!("--writes={}", self.writes),
            format!("--seed={}", self.seed),
            format!("--log={}", arm::log_file(dir, number).display()),
            format!("--status={}", arm::status_file(dir, number).display()),
        ]
    }
}

/// Runs the demo; the whole of it ends with what moves a single slice costs (`leasehold bench
/// transfer`). Ends with 1 if a goal is missed.
pub async fn run(args: SoftstoreArgs) -> anyhow::Result<ExitCode> {
    let out = out_dir(args.out.as_deref())?;
    let plan = Plan::new(&args);
    println!(
        "{} pods cache {} of {} keys; seed {}",
        plan.pods, plan.fill, plan.keys, plan.seed
    );
    let begun = Instant::now();
    let mut all = Vec::new();
    for arm in arms(&args) {
        let dir = out.join(format!("{arm:?}").to_lowercase());
        std::fs::create_dir(&dir)
            .with_context(|| format!("cannot create {}: name a fresh directory", dir.display()))?;
        let seen = tokio::select! {
            seen = arm::play(arm, &plan, &dir, begun) => seen,
            _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted; every process of the demo was killed")),
        };
        // As large as all values together; logs and answers stay. It may not have come to be.
        let _ = std::fs::remove_file(store_file(&dir));
        all.push(seen?);
    }
    let mut report = Report::new("demo softstore", &out);
    // In the short form a few thousand reads stand against a few thousand: chance alone moves their
    // rates by one percent.
    let kept = if args.quick { 0.95 } else { 0.99 };
    figures::figures(&mut report, &all, kept);
    let plot = out.join("softstore.svg");
    plot::draw(&all, &plot)?;
    if args.arms.is_empty() && !args.quick {
        println!("moving slices of a MiB and a GiB, about a minute");
        let dir = out.join("transfer");
        std::fs::create_dir(&dir)?;
        bench::transfer::run(&dir, &mut report).await?;
    }
    println!("{}", report.table());
    println!("the plot is {}, beside the logs", plot.display());
    super::conclude(&report, args.json.as_deref())
}

fn arms(args: &SoftstoreArgs) -> Vec<Arm> {
    match args.arms.as_slice() {
        [] if args.quick => vec![Arm::Strong, Arm::Cold],
        [] => vec![Arm::Strong, Arm::Eventual, Arm::Cold, Arm::Static],
        arms => arms.to_vec(),
    }
}

fn store_file(dir: &Path) -> PathBuf {
    dir.join("values")
}

/// A directory that stays.
fn out_dir(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(dir) = given {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        return Ok(dir.to_owned());
    }
    let fresh = tempfile::Builder::new()
        .prefix("leasehold-softstore-")
        .tempdir()?;
    Ok(fresh.keep())
}
