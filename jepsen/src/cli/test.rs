//! `leasehold-jepsen test`: one run.

use std::time::Duration;

use super::options::{RHO, RunArgs, SystemArgs};
use super::plan::run_name;
use super::show;
use crate::runner::{self, Plan, interrupt};
use crate::workloads;

/// Options of `test`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Workloads, with a comma between them; `list` names them
    #[arg(long, value_delimiter = ',', default_value = "register")]
    pub workload: Vec<String>,
    /// Faults, with a comma between them; `list` names them
    #[arg(long, value_delimiter = ',', default_value = "none")]
    pub nemesis: Vec<String>,
    /// Name in the store [default: workloads+faults]
    #[arg(long)]
    pub name: Option<String>,
    /// How long load and faults last, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub time_limit: u64,
    /// A positive control: the run must be found invalid
    #[arg(long)]
    pub expect_invalid: bool,
    /// With --expect-invalid: by this checker
    #[arg(long, requires = "expect_invalid", value_name = "CHECKER")]
    pub must_fail: Option<String>,
    /// Slices that are moved about at any time, beside the faults; 0: none
    #[arg(long, default_value_t = 0, value_name = "SLICES")]
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
    let system = args.system.system()?;
    let seed = args.run.seed();
    let options = args.system.describe();
    let loads = args
        .workload
        .iter()
        .map(|name| workloads::by_name(name, seed, &options))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let plan = Plan {
        name: match &args.name {
            Some(name) => name.clone(),
            None => run_name(&args.workload, &args.nemesis),
        },
        nemeses: args.nemesis.clone(),
        seed,
        time_limit: Duration::from_secs(args.time_limit),
        patience: args.run.patience,
        network,
        clients: args.run.clients,
        rate: args.run.rate(),
        store: args.run.store.clone(),
        ttl: args.system.ttl,
        rho: RHO,
        overlapping: args.nemesis.len() > 1,
        storm: args.storm,
        mutant: args.system.mutant.clone(),
        expect_valid: !args.expect_invalid,
        must_fail: args.must_fail.clone(),
        options,
        quiet: false,
    };
    let finished = runner::run(&plan, &system, loads)?;
    show::finished(&finished);
    if let Some(path) = &args.run.json {
        let mut figures = show::Sums::default();
        figures.add(&finished);
        figures.write(path, "jepsen test", &args.run.store)?;
    }
    Ok(finished.exit_code())
}
