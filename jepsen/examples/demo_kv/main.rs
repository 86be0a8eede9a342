//! The harness used on a service that is built on Leasehold: the key-value application of
//! `leasehold demo ownership`, which keeps its values in the memory of whichever pod owns the key.
//!
//! `cargo run --release -p leasehold-jepsen --example demo_kv -- [--nemesis kill-leader,…] [--lose]`
//!
//! Needs `leasehold` beside the examples' directory: `cargo build --release -p leasehold-assigner`.
//! Slices move all the time, and their values with them: every history must have an order that
//! explains it, whatever befalls the Assigners, and the network for less than a lease. With `--lose` a pod is killed as
//! well: what stood in its memory alone is gone, as documented, and finding no loss would be the
//! failure.

mod kv;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use leasehold_checkers::linearizable::{self, Budget};
use leasehold_checkers::{Outcome, coverage};
use leasehold_faults::Kind;
use leasehold_jepsen::runner::{self, Plan};
use leasehold_jepsen::system::{Completion, Invocation, System};
use leasehold_jepsen::workload::{Evidence, Workload};
use serde_json::{Value, json};

use crate::kv::DemoKv;

#[derive(Parser)]
#[command(about = "Attacks the demo's key-value application and looks for lost or stale values")]
struct Args {
    /// Faults, as `leasehold-jepsen list` names them; they must leave the pods their memory
    #[arg(long, value_delimiter = ',', default_value = "kill-leader")]
    nemesis: Vec<String>,
    /// Kill pods as well: values must be lost
    #[arg(long)]
    lose: bool,
    /// How long load and faults last, in seconds
    #[arg(long, default_value_t = 30)]
    time_limit: u64,
    /// Everything random follows from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the run is kept
    #[arg(long, default_value = "store")]
    store: PathBuf,
    /// How hosts are kept apart: namespaces, rootless, proxy
    #[arg(long, default_value = "namespaces")]
    network: Kind,
    /// The program `leasehold`
    #[arg(long)]
    leasehold: Option<PathBuf>,
}

/// Keys, each written by one worker and read by all.
const KEYS_PER_WORKER: u64 = 4;
const WORKERS: usize = 4;
/// Operations on one key: the search for an order grows with them.
const PER_KEY: u64 = 150;

/// Writes rising values, and reads.
struct Values {
    turn: u64,
    /// By worker: how many operations it has begun, which gives key and value.
    begun: [u64; WORKERS],
}

impl Values {
    fn key(worker: usize, begun: u64) -> String {
        let place = begun % KEYS_PER_WORKER;
        let life = begun / (KEYS_PER_WORKER * PER_KEY / 2);
        format!("w{worker}-{place}-{life}")
    }
}

impl Workload for Values {
    fn name(&self) -> &'static str {
        "demo-kv"
    }

    fn workers(&self) -> usize {
        WORKERS
    }

    fn next(&mut self, worker: usize) -> Option<Invocation> {
        self.turn += 1;
        if self.turn.is_multiple_of(2) {
            self.begun[worker] += 1;
            let begun = self.begun[worker];
            return Some(operation("write", Self::key(worker, begun), json!(begun)));
        }
        let writer = (self.turn / 2) as usize % WORKERS;
        let key = Self::key(writer, self.begun[writer]);
        Some(operation("read", key, Value::Null))
    }

    fn ended(&mut self, _worker: usize, _invocation: &Invocation, _completion: &Completion) {}

    fn last(&mut self) -> Vec<Invocation> {
        let written = |worker: usize| {
            let newest = self.begun[worker];
            (newest.saturating_sub(KEYS_PER_WORKER - 1).max(1)..=newest)
                .map(move |begun| operation("read", Self::key(worker, begun), Value::Null))
        };
        (0..WORKERS).flat_map(written).collect()
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let model = linearizable::Register::default();
        // A run in which little succeeded would be valid for that alone.
        let required = coverage::Required {
            ok_ops: BTreeMap::from([("read".into(), 100), ("write".into(), 100)]),
            ..coverage::Required::default()
        };
        vec![
            linearizable::check(evidence.history, &model, &Budget::default()),
            coverage::check(evidence.history, &[], &BTreeMap::new(), &required),
        ]
    }
}

fn operation(f: &str, key: String, value: Value) -> Invocation {
    Invocation {
        f: f.to_owned(),
        key: Some(key),
        value,
        deadline: Duration::from_secs(5),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let mut args = Args::parse();
    leasehold_faults::prepare(args.network)?;
    if args.lose {
        args.nemesis.push("kill-owner".to_owned());
    }
    let system: Arc<dyn System> = Arc::new(DemoKv::new(args.leasehold)?);
    let values = Values {
        turn: 0,
        begun: [0; WORKERS],
    };
    let plan = Plan {
        name: if args.lose { "demo-kv-lose" } else { "demo-kv" }.to_owned(),
        nemeses: args.nemesis,
        seed: args.seed,
        time_limit: Duration::from_secs(args.time_limit),
        patience: Duration::from_secs(60),
        network: args.network,
        ttl: kv::TTL,
        rho: 500e-6,
        overlapping: false,
        clients: 2,
        rate: None,
        store: args.store,
        storm: 2,
        mutant: None,
        expect_valid: !args.lose,
        must_fail: args.lose.then(|| "linearizable".to_owned()),
        options: BTreeMap::new(),
        quiet: false,
    };
    let finished = runner::run(&plan, &system, vec![Box::new(values)])?;
    for outcome in &finished.results.outcomes {
        println!("{}: {:?}", outcome.checker, outcome.verdict);
        for finding in outcome.findings.iter().take(3) {
            println!("  {}", finding.what);
        }
    }
    let met = if finished.results.as_expected {
        "as expected"
    } else {
        "NOT as expected"
    };
    println!("{met}; {}", finished.dir.display());
    Ok(ExitCode::from(finished.exit_code()))
}
