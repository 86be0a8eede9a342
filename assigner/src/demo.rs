//! `leasehold demo`: real processes on this machine, under load, with the claims checked.

pub mod analysis;
mod client;
mod counter;
mod fleet;
pub(crate) mod kv;
mod ownership;
mod phases;
mod pod;
pub mod requests;
mod screen;
mod serving;
mod softstore;
mod status;
mod verdict;
pub mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use leasehold_figures::Report;
use leasehold_proto::target::Consistency;

/// The demos, and the processes that they start.
#[derive(Debug, Subcommand)]
pub enum Demo {
    /// Assigners, pods and clients as real processes: load, moves, restarts, kills; then a table of
    /// what was claimed and what was seen. Ends with 1 if a claim fails.
    Ownership(OwnershipArgs),
    /// A sharded cache through a rolling restart of every pod: with what is cached moving along,
    /// without it, and without Leasehold; hit rates, a plot. Ends with 1 if a goal is missed.
    Softstore(softstore::SoftstoreArgs),
    /// Counters in the memory of pods while a thousand slices move under load: no acknowledged
    /// increment is lost or doubled. Ends with 1 if one is.
    Counter(counter::CounterArgs),
    /// One pod of the demo's key-value application (started by the demo).
    #[command(hide = true)]
    Pod(pod::PodArgs),
    /// One load client of the demo (started by the demo).
    #[command(hide = true)]
    Client(client::ClientArgs),
    /// The backing store of the softstore (started by the demo).
    #[command(hide = true)]
    SoftStore(softstore::store::StoreArgs),
    /// One pod of the softstore (started by the demo).
    #[command(hide = true)]
    SoftPod(softstore::pod::PodArgs),
    /// One client of the softstore (started by the demo).
    #[command(hide = true)]
    SoftClient(softstore::client::ClientArgs),
    /// One pod of the counters (started by the demo).
    #[command(hide = true)]
    CounterPod(counter::pod::PodArgs),
    /// The client of the counters (started by the demo).
    #[command(hide = true)]
    CounterClient(counter::client::ClientArgs),
}

/// Options of `leasehold demo ownership`.
#[derive(Debug, Clone, Args)]
pub struct OwnershipArgs {
    /// How long steady load and moves together last; restarts and kills take what they take.
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    pub duration: Duration,
    /// How many pods serve the target.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=64))]
    pub pods: u16,
    /// How many Assigners decide.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=9))]
    pub assigners: u16,
    /// Strong: one owner at a time. Eventual: no lease check; overlaps are reported, not failed.
    #[arg(long, default_value = "strong")]
    pub mode: Consistency,
    /// Time to live of a pod's session. Below 2 s the Assigners use their fast timers.
    #[arg(long, default_value = "3s", value_parser = humantime::parse_duration)]
    pub ttl: Duration,
    /// How many slices the key space is cut into.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub slices: u32,
    /// Requests per second that the clients send, whether or not they are answered (open loop).
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub rate: u32,
    /// Client processes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub clients: u16,
    /// How often a pod is killed.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(0..=100))]
    pub pod_kills: u16,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Keep data, logs and histories in this directory instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

impl OwnershipArgs {
    fn plan(&self) -> world::Plan {
        world::Plan {
            assigners: self.assigners,
            pods: self.pods,
            clients: self.clients,
            rate: self.rate,
            concurrency: None,
            ttl: self.ttl,
        }
    }
}

/// Runs a demo, or one of its processes.
pub async fn run(demo: Demo) -> anyhow::Result<ExitCode> {
    match demo {
        Demo::Ownership(args) => return phases::run(args).await,
        Demo::Softstore(args) => return softstore::run(args).await,
        Demo::Counter(args) => return counter::run(args).await,
        Demo::Pod(args) => pod::run(args).await,
        Demo::Client(args) => client::run(args).await,
        Demo::SoftStore(args) => softstore::store::run(args).await,
        Demo::SoftPod(args) => softstore::pod::run(args).await,
        Demo::SoftClient(args) => softstore::client::run(args).await,
        Demo::CounterPod(args) => counter::pod::run(args).await,
        Demo::CounterClient(args) => counter::client::run(args).await,
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the figures to `json` if it is given, and says whether every goal was met.
fn conclude(report: &Report, json: Option<&Path>) -> anyhow::Result<ExitCode> {
    if let Some(path) = json {
        report
            .write(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    let (verdict, code) = match report.all_met() {
        true => ("every claim held", ExitCode::SUCCESS),
        false => ("a claim FAILED", ExitCode::FAILURE),
    };
    println!("{verdict}");
    Ok(code)
}
