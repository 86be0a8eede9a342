//! Many worlds, each in a process of its own.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Kind, RunArgs, show};
use crate::coverage::Coverage;
use crate::process;
use crate::world::Report;

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What came of one world.
pub(super) enum Ended {
    Judged(Report),
    /// It could not be judged: a failure of the harness, not of the cluster.
    Unknown {
        seed: u64,
        why: String,
    },
}

/// All worlds together.
#[derive(Default)]
pub(super) struct Total {
    pub(super) passed: u64,
    pub(super) broken: u64,
    pub(super) unknown: u64,
    pub(super) simulated_ms: u64,
    pub(super) events: u64,
    pub(super) coverage: Coverage,
}

pub(super) fn run(args: &RunArgs) -> ExitCode {
    if !crate::REPEATABLE {
        eprintln!(
            "note: this build cannot repeat a seed; for that build with RUSTFLAGS='--cfg tokio_unstable'"
        );
    }
    if args.trace
        && let Some(seed) = args.seed
    {
        return trace(seed, &args.kind);
    }
    let (first, count) = match args.seed {
        Some(seed) => (seed, 1),
        None => (args.first, args.seeds),
    };
    let began = Instant::now();
    let total = all(args, first, count, began);
    let elapsed = began.elapsed();
    let repeated = match (crate::REPEATABLE, args.seed) {
        (true, None) => repeats(first, &args.kind),
        _ => Ok(()),
    };
    let missing = match args.seed {
        Some(_) => Vec::new(),
        None => total.coverage.missing(),
    };
    show::summary(&total, &missing, elapsed);
    if let Err(why) = &repeated {
        println!("not repeatable: {why}");
    }
    if let Some(path) = &args.json
        && let Err(error) = show::figures(path, &total, elapsed)
    {
        eprintln!("the figures cannot be written: {error}");
        return ExitCode::from(2);
    }
    if total.broken > 0 {
        ExitCode::from(1)
    } else if total.unknown > 0 || !missing.is_empty() || repeated.is_err() || total.passed == 0 {
        ExitCode::from(2)
    } else {
        ExitCode::SUCCESS
    }
}

/// One world with every event on the standard output.
fn trace(seed: u64, kind: &Kind) -> ExitCode {
    let report = crate::world::run(seed, kind.options(true));
    let broken = report.violation.is_some();
    show::report(&report, kind);
    ExitCode::from(u8::from(broken))
}

fn all(args: &RunArgs, first: u64, count: u64, began: Instant) -> Total {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = args.jobs.unwrap_or(cores).max(1);
    let next = AtomicU64::new(first);
    let end = first.saturating_add(count);
    let (done, results) = mpsc::channel();
    let mut total = Total::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (done, next) = (done.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || done.send(one(seed, &args.kind)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(done);
        let mut told = Instant::now();
        for ended in results {
            total.add(ended, &args.kind);
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                show::progress(&total, count, began.elapsed());
            }
        }
    });
    total
}

impl Total {
    fn add(&mut self, ended: Ended, kind: &Kind) {
        match ended {
            Ended::Judged(report) => {
                self.simulated_ms += report.simulated_ms;
                self.events += report.events;
                self.coverage.add(&report.coverage);
                if report.violation.is_some() {
                    self.broken += 1;
                    show::report(&report, kind);
                } else {
                    self.passed += 1;
                }
            }
            Ended::Unknown { seed, why } => {
                self.unknown += 1;
                println!("seed {seed}: unknown: {why}");
                println!("  again: {}", show::again(seed, kind));
            }
        }
    }
}

/// Runs one world in a process of its own.
fn one(seed: u64, kind: &Kind) -> Ended {
    match process::run(seed, kind.options(false), None) {
        Ok(report) => Ended::Judged(report),
        Err(why) => Ended::Unknown { seed, why },
    }
}

/// Runs a world twice, and demands the same events.
fn repeats(seed: u64, kind: &Kind) -> Result<(), String> {
    let again = || process::run(seed, kind.options(false), None);
    let (first, second) = (again()?, again()?);
    if (first.events, first.hash) == (second.events, second.hash) {
        return Ok(());
    }
    Err(format!(
        "seed {seed} gave {} events ({:016x}), then {} events ({:016x})",
        first.events, first.hash, second.events, second.hash
    ))
}
