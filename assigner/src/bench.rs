//! `leasehold bench`: figures from real processes on this machine. Everything runs on loopback and
//! shares its cores, so that saturated rates are whole-machine rates.

mod commits;
mod criterion;
mod failover;
mod fanout;
mod modes;
mod moves;
mod renewals;
mod sessions;
mod slow_fsync;
pub mod transfer;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use leasehold_figures::Report;

/// Options of `leasehold bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Which benches to run; all of them if none is named.
    #[arg(value_enum)]
    only: Vec<Bench>,
    /// Seconds of each measurement of a rate.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Write the figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Take the figures of the micro-benchmarks from here: where `cargo bench` has left them.
    #[arg(long, value_name = "DIR")]
    criterion: Option<PathBuf>,
    /// Directory for data and logs, on the disk that is to be measured; a fresh temporary one under
    /// it is used and removed.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

/// One bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// Committed table commands per second over gRPC, three Assigners, real fsync.
    Commits,
    /// Renewals per second with quorum confirmation, saturated and paced.
    Renewals,
    /// How long until the last of many watchers knows a change.
    Fanout,
    /// How long nobody serves a slice that is moved, without load.
    Moves,
    /// From kill -9 of a pod to its slices being served again.
    Failover,
    /// Throughput of strong mode against eventual mode.
    Modes,
    /// State that moves with its slice: pause, speed, and what it costs the pods' requests.
    Transfer,
}

impl Bench {
    /// What it measures: absent, with the reason, where it failed.
    fn figures(self) -> &'static [&'static str] {
        match self {
            Bench::Commits => &[
                "commits_per_s_1_client",
                "commits_per_s_64_clients",
                "commits_per_s_512_clients",
                "fsyncs_per_commit",
                "commits_per_s_64_clients_slow_fsync",
            ],
            Bench::Renewals => &[
                "renewals_per_s_1k_sessions",
                "renewals_per_s_10k_sessions",
                "renewal_cpu_s_per_10k",
                "renewal_paced_ms_p99",
                "renewal_sessions_lost",
            ],
            Bench::Fanout => &["fanout_ms_p99_1k", "fanout_ms_p99_5k"],
            Bench::Moves => &[
                "planned_moves_total",
                "planned_gap_ms_p50",
                "planned_gap_ms_p99",
            ],
            Bench::Failover => &[
                "pod_kill_failover_ttl1_ms_p99",
                "pod_kill_failover_ttl3_ms_p99",
            ],
            Bench::Modes => &["strong_to_eventual_ratio"],
            Bench::Transfer => &[
                "pause_ms_p99_1mb",
                "pause_ms_1gb",
                "transfer_mb_per_s",
                "user_p99_ratio_during_transfer",
            ],
        }
    }
}

/// Runs the benches. Ends with 1 if a goal is missed.
pub async fn run(args: BenchArgs) -> anyhow::Result<ExitCode> {
    let all = Bench::value_variants();
    let chosen = if args.only.is_empty() {
        all
    } else {
        &args.only
    };
    let dir = tempfile::Builder::new()
        .prefix("leasehold-bench-")
        .tempdir_in(&args.dir);
    let dir = dir.with_context(|| format!("cannot write under {}", args.dir.display()))?;
    let mut report = Report::new("bench", dir.path());
    if let Some(results) = &args.criterion {
        criterion::read(results, &mut report);
    }
    let mut failed = false;
    for bench in chosen {
        let name = bench
            .to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default();
        eprintln!("bench {name} …");
        let place = dir.path().join(&name);
        std::fs::create_dir(&place)?;
        if let Err(error) = one(*bench, &args, &place, &mut report).await {
            let reason = format!("bench {name} failed: {error:#}");
            eprintln!("{reason}");
            bench
                .figures()
                .iter()
                .for_each(|figure| report.absent_unless_there(figure, &reason));
            failed = true;
        }
    }
    println!("{}", report.table());
    if let Some(path) = &args.json {
        report
            .write(path)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if report.all_met() && !failed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn one(
    bench: Bench,
    args: &BenchArgs,
    dir: &Path,
    report: &mut Report,
) -> anyhow::Result<()> {
    match bench {
        Bench::Commits => commits::run(args.seconds, dir, report).await,
        Bench::Renewals => renewals::run(args.seconds, dir, report).await,
        Bench::Fanout => fanout::run(dir, report).await,
        Bench::Moves => moves::run(dir, report).await,
        Bench::Failover => failover::run(dir, report).await,
        Bench::Modes => modes::run(args.seconds, dir, report).await,
        Bench::Transfer => transfer::run(dir, report).await,
    }
}
