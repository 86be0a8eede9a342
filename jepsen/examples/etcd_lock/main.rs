//! The harness used on somebody else's service: a lock of etcd around a read-modify-write, first
//! as it is commonly used, then with the lock's revision as a fencing token.
//!
//! `cargo run --release -p leasehold-jepsen --example etcd_lock -- [--fenced] [--nemesis pause,…]`
//!
//! Needs `etcd` on PATH (Debian and Ubuntu: `apt-get install etcd-server`). Without the fence the
//! run is a positive control: acknowledged appends are lost, as published
//! (<https://jepsen.io/analyses/etcd-3.4.3>), and finding none would be the failure.

mod etcd;
mod lock;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use leasehold_checkers::{Outcome, list_append};
use leasehold_faults::Kind;
use leasehold_jepsen::runner::{self, Plan};
use leasehold_jepsen::system::{Completion, Invocation, System};
use leasehold_jepsen::workload::{Evidence, Workload};
use serde_json::{Value, json};

use crate::etcd::Etcd;
use crate::lock::Resource;

#[derive(Parser)]
#[command(
    about = "Appends to a list under a lock of etcd, with faults, and looks for lost appends"
)]
struct Args {
    /// Give the lock's revision to the list, which refuses older ones
    #[arg(long)]
    fenced: bool,
    /// Faults, as `leasehold-jepsen list` names them
    #[arg(long, value_delimiter = ',', default_value = "none")]
    nemesis: Vec<String>,
    /// How long load and faults last, in seconds
    #[arg(long, default_value_t = 60)]
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
}

/// Appends unique values to one list, under the lock.
struct Appends {
    next: u64,
}

impl Workload for Appends {
    fn name(&self) -> &'static str {
        "append-under-lock"
    }

    fn workers(&self) -> usize {
        4
    }

    fn next(&mut self, _worker: usize) -> Option<Invocation> {
        self.next += 1;
        Some(invocation("append", json!(self.next), 20))
    }

    fn ended(&mut self, _worker: usize, _invocation: &Invocation, _completion: &Completion) {}

    fn last(&mut self) -> Vec<Invocation> {
        vec![invocation("read", Value::Null, 5)]
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        vec![list_append::check(evidence.history)]
    }
}

fn invocation(f: &str, value: Value, deadline_s: u64) -> Invocation {
    Invocation {
        f: f.to_owned(),
        key: Some("list".to_owned()),
        value,
        deadline: Duration::from_secs(deadline_s),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    leasehold_faults::prepare(args.network)?;
    let system: Arc<dyn System> = Arc::new(Etcd {
        resource: Resource::new(args.fenced),
    });
    let plan = Plan {
        name: if args.fenced {
            "etcd-lock-fenced"
        } else {
            "etcd-lock"
        }
        .to_owned(),
        nemeses: args.nemesis,
        seed: args.seed,
        time_limit: Duration::from_secs(args.time_limit),
        patience: Duration::from_secs(60),
        network: args.network,
        ttl: Duration::from_secs(etcd::TTL_S),
        // No fault is asked to keep within a bound of clocks: etcd states none.
        rho: 0.0,
        overlapping: false,
        clients: 2,
        rate: None,
        store: args.store,
        storm: 0,
        mutant: None,
        expect_valid: args.fenced,
        must_fail: (!args.fenced).then(|| "list_append".to_owned()),
        options: BTreeMap::new(),
        quiet: false,
    };
    let finished = runner::run(&plan, &system, vec![Box::new(Appends { next: 0 })])?;
    for outcome in &finished.results.outcomes {
        println!("{}: {:?}", outcome.checker, outcome.verdict);
        for finding in &outcome.findings {
            println!("  {}", finding.what);
        }
    }
    let expected = if args.fenced {
        "nothing lost"
    } else {
        "appends lost"
    };
    let met = if finished.results.as_expected {
        "as expected"
    } else {
        "NOT as expected"
    };
    println!("expected: {expected}; {met}; {}", finished.dir.display());
    Ok(ExitCode::from(finished.exit_code()))
}
