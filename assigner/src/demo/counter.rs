//! `leasehold demo counter`: counters in the memory of pods, incremented by clients while their
//! slices move, and then compared with what was acknowledged.

pub mod client;
mod count;
mod moves;
pub mod pod;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use futures::StreamExt;
use leasehold_client::Clerk;
use leasehold_figures::{Goal, Report};
use leasehold_proto::target::Consistency;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::fleet::{Fleet, Size, TARGET};
use super::kv::CountRequest;
use super::kv::counter_client::CounterClient;
use super::status;
use crate::harness::PATIENCE;
use crate::harness::control::Control;
use crate::harness::procs::Ports;
use client::Status;
use count::{Tally, Wrong, compare, key};
use moves::Mover;

/// Between two lines of progress.
const SAY: Duration = Duration::from_secs(2);
/// Counters that are read at once at the end.
const READING: usize = 32;

/// Options of `leasehold demo counter`.
#[derive(Debug, Clone, Args)]
pub struct CounterArgs {
    /// A small and short form: 1 Assigner, 3 pods, 100 moves.
    #[arg(long)]
    quick: bool,
    /// How many slices are moved, one by one; unless given 1,000, with --quick 100.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    moves: Option<u64>,
    /// How many of them are on their way at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    at_once: u16,
    /// How many pods count; unless given 5, with --quick 3.
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=64))]
    pods: Option<u16>,
    /// How many slices the key space is cut into.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    slices: u32,
    /// How many counters there are.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    counters: u32,
    /// Who increment, each one increment after the other.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    authors: u32,
    /// Increments per second of all authors together; unless given 3,000, with --quick 500.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rate: Option<u32>,
    /// Of which slices move where, and which counters are incremented.
    #[arg(long)]
    seed: Option<u64>,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl CounterArgs {
    fn or<T>(&self, given: Option<T>, full: T, quick: T) -> T {
        given.unwrap_or(if self.quick { quick } else { full })
    }

    fn size(&self) -> Size {
        Size {
            assigners: self.or(None, 3, 1),
            pods: self.or(self.pods, 5, 3),
            ttl: Duration::from_secs(3),
        }
    }
}

/// Everything that was seen.
struct Seen {
    tally: Tally,
    counted: Vec<u64>,
    moves: u64,
    moving_s: f64,
}

/// Runs the demo. Ends with 1 if a goal is missed.
pub async fn run(args: CounterArgs) -> anyhow::Result<ExitCode> {
    let data = tempfile::Builder::new()
        .prefix("leasehold-counter-")
        .tempdir()?;
    let seed = args.seed.unwrap_or_else(rand::random);
    println!(
        "{} pods, {} counters; seed {seed}",
        args.size().pods,
        args.counters
    );
    let mut script = Script {
        fleet: Fleet::new(data.path(), args.size(), &mut Ports::default())?,
        moves: args.or(args.moves, 1_000, 100),
        seed,
        begun: Instant::now(),
        args,
    };
    let seen = tokio::select! {
        seen = script.play() => seen?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted; every process of the demo was killed"),
    };
    let mut report = Report::new("demo counter", data.path());
    figures(&mut report, &seen, script.moves);
    let json = script.args.json.clone();
    script.fleet.finish().await?;
    println!("{}", report.table());
    super::conclude(&report, json.as_deref())
}

struct Script {
    fleet: Fleet,
    args: CounterArgs,
    moves: u64,
    seed: u64,
    begun: Instant,
}

impl Script {
    async fn play(&mut self) -> anyhow::Result<Seen> {
        self.say("Assigners and pods start");
        let words = ["demo", "counter-pod"].map(str::to_owned).to_vec();
        let slices = self.args.slices;
        let control = self.fleet.start(Consistency::Strong, slices, words).await?;
        // The planner would move slices of its own, to even out what we make uneven.
        control.hold(TARGET, true).await?;
        let clerk = Clerk::builder(TARGET)
            .endpoints(self.fleet.assigners.endpoints())
            .connect_lazy()?;
        let words = self.client_words();
        self.fleet.start_other("client", &words)?;
        self.increments().await?;
        self.say("slices move");
        let moving = Instant::now();
        let moves = self.move_slices(&control).await?;
        let moving_s = moving.elapsed().as_secs_f64();
        self.say("the last increments are acknowledged, the counters are read");
        self.fleet.stop_others().await?;
        let tally: Tally = status::read(&self.fleet.dir.join("tally"));
        let numbers = 0..tally.acknowledged.len();
        let reads = numbers.map(|number| read_counter(&clerk, number));
        let counted: Vec<anyhow::Result<u64>> = futures::stream::iter(reads)
            .buffered(READING)
            .collect()
            .await;
        Ok(Seen {
            tally,
            counted: counted.into_iter().collect::<anyhow::Result<_>>()?,
            moves,
            moving_s,
        })
    }

    fn client_words(&self) -> Vec<String> {
        let rate = self.args.or(self.args.rate, 3_000, 500);
        let dir = &self.fleet.dir;
        vec![
            "demo".to_owned(),
            "counter-client".to_owned(),
            self.fleet.assigner_words(),
            format!("--target={TARGET}"),
            format!("--counters={}", self.args.counters),
            format!("--authors={}", self.args.authors),
            format!("--rate={rate}"),
            format!("--seed={}", self.seed),
            format!("--tally={}", dir.join("tally").display()),
            format!("--status={}", dir.join("status").display()),
        ]
    }

    fn status(&self) -> Status {
        status::read(&self.fleet.dir.join("status"))
    }

    async fn increments(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.status().acknowledged == 0 {
            anyhow::ensure!(
                begun.elapsed() < PATIENCE,
                "nothing was acknowledged within {PATIENCE:?}"
            );
            self.fleet.check_alive()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Returns how many slices have moved.
    async fn move_slices(&mut self, control: &Control) -> anyhow::Result<u64> {
        let random = SmallRng::seed_from_u64(self.seed);
        let mut mover = Mover::new(random, usize::from(self.args.at_once));
        let mut said = Instant::now();
        while mover.arrived < self.moves || !mover.is_idle() {
            mover.step(control, self.moves).await?;
            if said.elapsed() >= SAY {
                said = Instant::now();
                self.fleet.check_alive()?;
                let Status {
                    acknowledged,
                    failed,
                } = self.status();
                self.say(&format!(
                    "{} of {} moves, {acknowledged} increments acknowledged, {failed} requests failed",
                    mover.arrived, self.moves
                ));
            }
        }
        Ok(mover.arrived)
    }

    fn say(&self, what: &str) {
        println!("{:6.1}s  {what}", self.begun.elapsed().as_secs_f64());
    }
}

/// Asks the counter's present owner.
async fn read_counter(clerk: &Clerk, number: usize) -> anyhow::Result<u64> {
    let key = key(number);
    let call = clerk.call(&key, |channel, _| {
        let request = CountRequest { key: key.clone() };
        async move { CounterClient::new(channel).count(request).await }
    });
    let reply = call.await;
    let reply = reply.with_context(|| format!("counter {number} cannot be read"))?;
    Ok(reply.into_inner().count)
}

fn figures(report: &mut Report, seen: &Seen, moves: u64) {
    let Seen {
        tally,
        counted,
        moves: moved,
        moving_s,
    } = seen;
    let acknowledged: u64 = tally.acknowledged.iter().sum();
    let Wrong { lost, doubled } = compare(&tally.acknowledged, counted);
    let (none, some) = (Goal::AtMost(0.0), Goal::AtLeast(1.0));
    let mut count = |name, count: u64, goal| report.figure(name, count as f64, "1", goal);
    count("increments_acknowledged", acknowledged, some);
    count("increments_lost", lost, none);
    count("increments_doubled", doubled, none);
    count("planned_moves_total", *moved, Goal::AtLeast(moves as f64));
    count("failed_requests", tally.failed, none);
    report.figure("moves_per_s", *moved as f64 / moving_s, "1/s", Goal::None);
    report.figure("increment_ms_p50", tally.ms_p50, "ms", Goal::None);
    report.figure("increment_ms_p99", tally.ms_p99, "ms", Goal::None);
    report.figure("increment_ms_max", tally.ms_max, "ms", Goal::None);
}
