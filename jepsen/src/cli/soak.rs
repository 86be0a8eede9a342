//! `leasehold-jepsen soak`: everything at once, for long.

use std::time::Duration;

use leasehold_figures::{Goal, Report};

use super::options::{RHO, RunArgs, SystemArgs};
use super::plan;
use super::show::{self, say};
use crate::runner::{self, Plan, interrupt};
use crate::workloads;

/// Handoffs under faults that a recorded soak must have seen.
const HANDOFFS: f64 = 100_000.0;

/// Slices of the target: as many can be on their way at once.
const SLICES: u32 = 64;

/// Options of `soak`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// How long load and faults last
    #[arg(long, default_value_t = 30, value_name = "MINUTES")]
    pub minutes: u64,
    /// Workloads, with a comma between them [default: all that may run at once]
    #[arg(long, value_delimiter = ',')]
    pub workload: Vec<String>,
    /// Faults, with a comma between them [default: all under which every promise must hold]
    #[arg(long, value_delimiter = ',')]
    pub nemesis: Vec<String>,
    /// Slices that are moved about at any time; 0: none
    #[arg(long, default_value_t = 8, value_name = "SLICES")]
    pub storm: usize,
    /// The system under test.
    #[command(flatten)]
    pub system: SystemArgs,
    /// How runs are carried out.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Carries out the run and shows what came of it.
///
/// # Errors
///
/// The harness could not even begin.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let network = args.run.prepare_network()?;
    interrupt::watch();
    let mut made = args.system.clone();
    made.slices.get_or_insert(SLICES);
    let system = made.system()?;
    let seed = args.run.seed();
    let options = made.describe();
    let given = |given: &[String], usual: Vec<String>| match given {
        [] => usual,
        given => given.to_vec(),
    };
    let names = given(&args.workload, plan::together());
    let loads = names
        .iter()
        .map(|name| workloads::by_name(name, seed, &options))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let plan = Plan {
        name: "soak".into(),
        nemeses: given(&args.nemesis, plan::kept_groups()),
        seed,
        time_limit: Duration::from_secs(args.minutes * 60),
        patience: args.run.patience,
        network,
        clients: args.run.clients,
        rate: args.run.rate(),
        store: args.run.store.clone(),
        ttl: args.system.ttl,
        rho: RHO,
        overlapping: true,
        storm: args.storm,
        mutant: args.system.mutant.clone(),
        expect_valid: true,
        must_fail: None,
        options,
        quiet: false,
    };
    let finished = runner::run(&plan, &system, loads)?;
    show::finished(&finished);
    let mut sums = show::Sums::default();
    sums.add(&finished);
    let mut report = Report::new("jepsen soak", &args.run.store);
    let minutes = args.minutes as f64;
    report.figure("soak_minutes", minutes, "min", Goal::None);
    sums.figures(&mut report, Goal::AtLeast(HANDOFFS * minutes / 30.0));
    say!("{}", report.table());
    if let Some(path) = &args.run.json {
        report.write(path)?;
    }
    Ok(show::goals_met(finished.exit_code(), &report))
}
