//! `leasehold-sim`: plays random schedules of the machines that ship.
//!
//! Exits with 0 when every schedule was clean and every rare situation was reached, with 1 when an
//! invariant broke, and with 2 when it cannot be told: coverage unmet, or the run itself failed.

mod campaign;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use leasehold_sim::{EVENTS, Fault, Options, fingerprint, run, trace};

/// Random schedules of the machines that ship, in a deterministic world.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Play many schedules, or one.
    Run(Run),
    /// Plant each protocol bug and demand that random schedules notice it.
    #[cfg(leasehold_mutants)]
    Mutants(campaign::Mutants),
}

#[derive(Args)]
struct Run {
    /// How many schedules.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Only this schedule.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Events of one schedule before it is healed.
    #[arg(long, default_value_t = EVENTS)]
    events: u64,
    /// Kinds of faults to leave out.
    #[arg(long, value_delimiter = ',', value_name = "KIND")]
    without: Vec<Fault>,
    /// Clocks run wrong beyond their bound: only what does not rest on clocks is judged.
    #[arg(long)]
    clocks_lie: bool,
    /// Only these events happen, by number.
    #[arg(long, value_delimiter = ',', requires = "seed", value_name = "EVENT")]
    only: Option<Vec<u64>>,
    /// Threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Print everything that happens in the one schedule.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Print a number that two plays share only if they are the same, byte by byte.
    #[arg(long, requires = "seed")]
    fingerprint: bool,
    /// Write figures.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Could not be told.
const UNKNOWN: u8 = 2;

fn main() -> ExitCode {
    // clap exits with 2 where the command line is wrong.
    let done = match Cli::parse().verb {
        Verb::Run(args) => match args.seed {
            Some(seed) => Ok(one(seed, &args)),
            None => campaign::run(&args),
        },
        #[cfg(leasehold_mutants)]
        Verb::Mutants(args) => campaign::mutants(&args),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("leasehold-sim: error: {error:#}");
            ExitCode::from(UNKNOWN)
        }
    }
}

impl Run {
    fn options(&self) -> Options {
        Options {
            events: self.events,
            without: self.without.clone(),
            clocks_lie: self.clocks_lie,
            only: self.only.clone(),
        }
    }
}

/// One schedule; its coverage is that of one, and no verdict follows from it.
fn one(seed: u64, args: &Run) -> u8 {
    let options = args.options();
    if args.fingerprint {
        println!("{:016x}", fingerprint(&trace(seed, &options)));
    }
    match run(seed, &options) {
        Ok(_) => {
            if args.trace {
                for line in trace(seed, &options) {
                    println!("{line}");
                }
            }
            println!("schedule {seed} is clean");
            0
        }
        Err(failure) => {
            if args.trace {
                for line in &failure.trace {
                    println!("{line}");
                }
            }
            println!("{failure}");
            1
        }
    }
}
