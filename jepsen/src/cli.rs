//! The commands of `leasehold-jepsen`.

pub mod analyze;
pub mod list;
pub mod mutants;
pub mod options;
pub mod plan;
pub mod recheck;
pub mod show;
pub mod soak;
pub mod suite;
pub mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{pod, register};

/// Attacks a cluster of real processes and judges what its clients saw.
///
/// Exit codes: 0 valid, or invalid where that is expected; 1 not so, or a figure missed its goal;
/// 2 unknown, which is never a pass; 3 the harness failed, and there is no verdict.
#[derive(Debug, Parser)]
#[command(name = "leasehold-jepsen", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One run: some workloads under some faults
    Test(test::Args),
    /// Every workload under every fault at least once, and the runs that must fail
    TestAll(suite::Args),
    /// All workloads under overlapping faults for long, with as many handoffs as go
    Soak(soak::Args),
    /// Judge an old run again
    Recheck(recheck::Args),
    /// Judge a history that another program wrote
    Analyze(analyze::Args),
    /// Show the store to a browser
    Serve(ServeArgs),
    /// What workloads and faults there are
    List,
    /// Which ring notices which planted bug (the last step of `./x mutants`)
    Mutants(mutants::Args),
    #[command(hide = true)]
    Pod(pod::Args),
    #[command(hide = true)]
    Register(register::Args),
}

#[derive(Debug, clap::Args)]
struct ServeArgs {
    /// Where runs are kept
    #[arg(long, default_value = options::STORE)]
    store: PathBuf,
    /// Where to serve: IP:PORT
    #[arg(long, default_value = "127.0.0.1:7480")]
    listen: std::net::SocketAddr,
}

/// Runs the command that the command line names.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Test(args) => test::run(&args),
        Command::TestAll(args) => suite::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Recheck(args) => recheck::run(&args),
        Command::Analyze(args) => analyze::run(&args),
        Command::Serve(args) => process(leasehold_report::serve(args.store, args.listen)),
        Command::List => {
            list::run();
            Ok(0)
        }
        Command::Mutants(args) => mutants::run(&args),
        Command::Pod(args) => process(pod::run(args)),
        Command::Register(args) => process(register::run(args)),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("leasehold-jepsen: {error:#}");
            ExitCode::from(HARNESS_FAILED)
        }
    }
}

/// The harness failed: no verdict.
const HARNESS_FAILED: u8 = 3;

/// Runs one of the processes that the harness starts.
fn process(body: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(body).map(|()| 0)
}
