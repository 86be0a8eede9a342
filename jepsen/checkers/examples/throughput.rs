//! How fast histories are judged: `checker_ops_per_s` for the search and for version order over
//! 200,000 operations on 50 keys, and how long it takes to explain a bad one.
//!
//! `cargo run --release -p leasehold-checkers --example throughput -- --json FILE`

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use leasehold_checkers::history::{History, Kind, Op};
use leasehold_checkers::linearizable::{self, Budget, Register};
use leasehold_checkers::verdict::{Outcome, Verdict};
use leasehold_checkers::version_order;
use leasehold_figures::{Goal, Report};
use serde_json::{Value, json};

/// Measures the checkers on histories that follow from a seed.
#[derive(Parser)]
struct Args {
    /// Writes the figures here too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Operations in all.
    #[arg(long, default_value_t = 200_000)]
    ops: u64,
    /// Keys; operations are spread over them evenly.
    #[arg(long, default_value_t = 50)]
    keys: u64,
    /// Of a hundred operations, how many have an unknown outcome.
    #[arg(long, default_value_t = 3)]
    unknown_percent: u64,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The best of so many, as other work may run beside.
const REPEATS: usize = 3;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut report = Report::new("checkers throughput", &std::env::temp_dir());
    let plain = generate(&args, false);
    let versioned = generate(&args, true);
    let calls = plain.calls().len() as f64;
    let search =
        |history: &History| linearizable::check(history, &Register::default(), &Budget::default());

    let search_s = best_s(Verdict::Valid, || search(&plain))?;
    let versions_s = best_s(Verdict::Valid, || version_order::check(&versioned))?;
    let bad = with_a_stale_read(&plain)?;
    let explain_s = best_s(Verdict::Invalid, || search(&bad))?;
    let explained = search(&bad);
    if let Some(finding) = explained.findings.first() {
        println!("{}\n", finding.what);
    }

    let per_key = calls / args.keys as f64;
    report.figure("checker_history_ops", calls, "ops", Goal::None);
    report.figure("checker_history_ops_per_key", per_key, "ops", Goal::None);
    report.figure(
        "checker_ops_per_s",
        calls / search_s,
        "1/s",
        Goal::AtLeast(200_000.0),
    );
    report.figure("checker_wgl_s", search_s, "s", Goal::AtMost(1.0));
    report.figure(
        "checker_version_order_s",
        versions_s,
        "s",
        Goal::AtMost(1.0),
    );
    let per_s = calls / versions_s;
    report.figure(
        "checker_version_order_ops_per_s",
        per_s,
        "1/s",
        Goal::AtLeast(200_000.0),
    );
    report.figure("checker_explain_s", explain_s, "s", Goal::None);
    let window = explained
        .findings
        .first()
        .map(|finding| finding.ops.len() as f64);
    report.maybe(
        "checker_explained_by_ops",
        window,
        "ops",
        Goal::AtMost(4.0),
        "no finding",
    );
    println!("{}", report.table());
    if let Some(path) = &args.json {
        write(&report, path)?;
    }
    ensure!(report.all_met(), "a goal was missed");
    Ok(())
}

fn write(report: &Report, path: &Path) -> anyhow::Result<()> {
    report
        .write(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

fn best_s(expected: Verdict, check: impl Fn() -> Outcome) -> anyhow::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..REPEATS {
        let begun = Instant::now();
        let outcome = check();
        best = best.min(begun.elapsed().as_secs_f64());
        ensure!(outcome.verdict == expected, "{:?}", outcome.findings);
    }
    Ok(best)
}

/// Random numbers (xorshift, Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % bound
    }
}

/// A register and the clients that work on it.
struct Simulated {
    key: String,
    value: u64,
    seq: u64,
    writes: u64,
    /// When each client is free again, and its process.
    clients: Vec<(u64, u64)>,
}

const CLIENTS: u64 = 10;

/// Ten clients on each key, half of their operations reads. Each takes effect at an instant of its
/// interval; of those with unknown outcome, half never do.
fn generate(args: &Args, versioned: bool) -> History {
    let mut random = Random(args.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut lines: Vec<Op> = Vec::with_capacity(2 * args.ops as usize);
    let mut processes = 0;
    for key in 0..args.keys {
        let mut register = Simulated {
            key: format!("k{key}"),
            value: 0,
            seq: 0,
            writes: 0,
            clients: Vec::new(),
        };
        for _ in 0..CLIENTS {
            register.clients.push((random.below(1_000), processes));
            processes += 1;
        }
        let count = args.ops / args.keys;
        register.run(
            count,
            args.unknown_percent,
            versioned,
            &mut random,
            &mut lines,
            &mut processes,
        );
    }
    lines.sort_by_key(|op| (op.time, op.kind != Kind::Invoke));
    let numbered = lines.into_iter().enumerate().map(|(at, op)| Op {
        index: at as u64,
        ..op
    });
    History(numbered.collect())
}

impl Simulated {
    fn run(
        &mut self,
        count: u64,
        unknown_percent: u64,
        versioned: bool,
        random: &mut Random,
        lines: &mut Vec<Op>,
        processes: &mut u64,
    ) {
        // Instants at which operations take effect, in order; intervals around them.
        let mut instant = 2_000;
        for _ in 0..count {
            instant += 50 + random.below(100);
            let client = random.below(CLIENTS) as usize;
            let (free_ns, process) = self.clients[client];
            instant = instant.max(free_ns + 1);
            let earliest = free_ns.max(instant.saturating_sub(400));
            let from = earliest + random.below(1 + instant - earliest);
            let to = instant + random.below(400);
            let is_read = random.below(2) == 0;
            let is_unknown = random.below(100) < unknown_percent;
            let f = if is_read { "read" } else { "write" };
            self.writes += u64::from(!is_read);
            let argument = match is_read {
                true => Value::Null,
                false => json!(self.writes),
            };
            let has_no_effect = is_unknown && random.below(2) == 0;
            if !is_read && !has_no_effect {
                self.value = self.writes;
                self.seq += 1;
            }
            let value = match self.value {
                0 => Value::Null,
                value => json!(value),
            };
            let result = match versioned {
                true => json!({"value": value, "version": [u64::from(self.seq > 0), self.seq]}),
                false => value,
            };
            self.clients[client] = (to + 1, process);
            let (kind, result) = match is_unknown {
                true => (Kind::Info, Value::Null),
                false => (Kind::Ok, result),
            };
            lines.push(self.line(from, process, Kind::Invoke, f, argument));
            lines.push(self.line(to, process, kind, f, result));
            if is_unknown {
                self.clients[client].1 = *processes;
                *processes += 1;
            }
        }
    }

    fn line(&self, time: u64, process: u64, kind: Kind, f: &str, value: Value) -> Op {
        Op {
            index: 0,
            time,
            process,
            kind,
            f: f.to_owned(),
            key: Some(self.key.clone()),
            value,
            node: None,
            epoch: None,
            error: None,
        }
    }
}

/// The last read of the first key shows what was read there long before.
fn with_a_stale_read(history: &History) -> anyhow::Result<History> {
    let mut bad = history.clone();
    let reads = bad
        .0
        .iter_mut()
        .filter(|op| op.kind == Kind::Ok && op.f == "read" && op.key.as_deref() == Some("k0"));
    let mut reads: Vec<&mut Op> = reads.collect();
    let middle = reads.get(reads.len() / 2).map(|op| op.value.clone());
    let last = reads.last_mut().context("no read of the first key")?;
    last.value = middle.context("no read of the first key")?;
    Ok(bad)
}
