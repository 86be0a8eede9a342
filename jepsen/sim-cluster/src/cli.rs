//! The command line. Exit codes: 0 every run passed and saw all that it must; 1 a rule was broken
//! (or a planted bug went unnoticed); 2 unknown: a run that could not be judged, or rare states
//! that were never reached.

mod run;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::world::Options;

const HELP: &str = "\
Examples:
  leasehold-sim-cluster run --seeds 200                     two hundred worlds, seeds 1 to 200
  leasehold-sim-cluster run --seed 17 --trace               one world again, with every event
  leasehold-sim-cluster run --seeds 1000 --json run.json    and the figures in the project's form

A seed repeats its world exactly in a build with RUSTFLAGS='--cfg tokio_unstable', and only there.
Exit: 0 passed, 1 a rule was broken, 2 unknown.";

/// Simulated clusters of real replicas: the network, the disks and the clock are made up, the rest
/// is what ships
#[derive(Parser)]
#[command(name = "leasehold-sim-cluster", version, after_help = HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run worlds and check every rule at every event
    Run(RunArgs),
    /// Run one world in this process and print what came of it as JSON
    #[command(hide = true)]
    One(One),
    /// Plant each bug and demand that a world notices it
    #[cfg(leasehold_mutants)]
    Mutants(Mutants),
}

/// What every run takes.
#[derive(Args, Clone)]
struct Kind {
    /// Simulated seconds with faults, in each world
    #[arg(long, value_name = "N", default_value_t = 30)]
    seconds: u64,
    /// Simulated milliseconds per step
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=50))]
    step_ms: u64,
}

impl Kind {
    fn options(&self, trace: bool) -> Options {
        Options {
            faults_for_ms: self.seconds.saturating_mul(1000),
            step_ms: self.step_ms,
            trace,
        }
    }
}

#[derive(Args)]
struct RunArgs {
    /// How many worlds
    #[arg(long, value_name = "N", default_value_t = 20)]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    first: u64,
    /// This world only; rare states are not demanded of it
    #[arg(long, value_name = "SEED", conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Worlds at a time; the number of cores when left out
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
    /// Print every event
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    kind: Kind,
}

#[derive(Args)]
struct One {
    #[arg(long)]
    seed: u64,
    #[command(flatten)]
    kind: Kind,
}

#[cfg(leasehold_mutants)]
#[derive(Args)]
struct Mutants {
    /// Worlds to try for each
    #[arg(long, value_name = "N", default_value_t = 60)]
    budget: u64,
    /// This one only
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    kind: Kind,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .try_init();
    match Cli::parse().command {
        Command::One(one) => {
            crate::process::answer(one.seed, one.kind.options(false));
            ExitCode::SUCCESS
        }
        Command::Run(args) => run::run(&args),
        #[cfg(leasehold_mutants)]
        Command::Mutants(args) => mutants(&args),
    }
}

/// Worlds without a planted bug that must be clean first.
#[cfg(leasehold_mutants)]
const BASELINE: u64 = 6;

#[cfg(leasehold_mutants)]
fn mutants(args: &Mutants) -> ExitCode {
    use crate::mutants::{MUTANTS, catch_with};
    let wanted = |name: &str| args.only.as_deref().is_none_or(|only| only == name);
    let chosen: Vec<_> = MUTANTS.iter().filter(|(name, _)| wanted(name)).collect();
    // Worlds that break by themselves would notice everything.
    if let Some(broken) = catch_with("", BASELINE, args.kind.options(false)) {
        eprintln!(
            "world {} breaks although nothing is planted: {}: {}",
            broken.seed, broken.invariant, broken.why
        );
        return ExitCode::from(2);
    }
    let mut caught = 0;
    for (name, rule) in &chosen {
        let began = std::time::Instant::now();
        let took = |began: std::time::Instant| began.elapsed().as_secs_f64();
        let found = catch_with(name, args.budget, args.kind.options(false));
        let how = found.as_ref().map_or_else(String::new, |found| {
            format!("world {}: {}: {}", found.seed, found.invariant, found.why)
        });
        let noticed = found.is_some();
        leasehold_proto::mutants::record(name, "cluster", noticed, &how, took(began));
        match found {
            Some(found) => {
                caught += 1;
                println!(
                    "{name}: caught by \"{}\" in world {} after {:.1} s: {}",
                    found.invariant,
                    found.seed,
                    took(began),
                    found.why
                );
            }
            None => println!(
                "{name}: NOT CAUGHT in {} worlds, {:.1} s (left out: {rule})",
                args.budget,
                took(began)
            ),
        }
    }
    println!("{caught} of {} caught", chosen.len());
    let written = show::mutants(args.json.as_deref(), chosen.len(), caught);
    match written {
        Ok(()) if caught == chosen.len() && caught > 0 => ExitCode::SUCCESS,
        Ok(()) if chosen.is_empty() => {
            eprintln!("there is no such mutant");
            ExitCode::from(2)
        }
        Ok(()) => ExitCode::from(1),
        Err(error) => {
            eprintln!("the figures cannot be written: {error}");
            ExitCode::from(2)
        }
    }
}
