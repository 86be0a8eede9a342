//! Many worlds, each in a process of its own: what libraries keep per process begins afresh, so
//! that a seed means the same alone and among many, and a world that hangs or dies ends nothing
//! else.

use std::io::Read;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Kind, RunArgs, show};
use crate::coverage::Coverage;
use crate::world::Report;

/// What the line with the result of a world begins with.
pub(super) const RESULT: &str = "result ";
/// Wall-clock time after which a world is given up, per simulated second of its faults.
const PATIENCE_PER_SECOND: Duration = Duration::from_secs(20);
/// How often a running world is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
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
    match child(seed, kind) {
        Ok(report) => Ended::Judged(report),
        Err(why) => Ended::Unknown { seed, why },
    }
}

fn child(seed: u64, kind: &Kind) -> Result<Report, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .args(["one", "--seed", &seed.to_string()])
        .args(["--seconds", &kind.seconds.to_string()])
        .args(["--step-ms", &kind.step_ms.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("no process: {error}"))?;
    let patience = PATIENCE_PER_SECOND * u32::try_from(kind.seconds.max(3)).unwrap_or(u32::MAX);
    let errors = child.stderr.take();
    let errors = std::thread::spawn(move || errors.map(last_words).unwrap_or_default());
    let ended = wait(&mut child, patience);
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        // What is missing shows as a missing result.
        let _ = out.read_to_string(&mut text);
    }
    ended?;
    let line = text.lines().find_map(|line| line.strip_prefix(RESULT));
    match line {
        Some(line) => serde_json::from_str(line).map_err(|error| error.to_string()),
        None => {
            let words = errors.join().unwrap_or_default();
            Err(format!("the world's process died: {words}"))
        }
    }
}

/// Waits for a process, and ends it when it takes too long. Its result is one line, which a pipe
/// holds without a reader.
fn wait(child: &mut Child, patience: Duration) -> Result<(), String> {
    let began = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(_)) => return Ok(()),
            Ok(None) if began.elapsed() > patience => {
                let killed = child.kill().and_then(|()| child.wait());
                return Err(match killed {
                    Ok(_) => format!("no end within {} s", patience.as_secs()),
                    Err(error) => format!("it hangs and cannot be ended: {error}"),
                });
            }
            Ok(None) => std::thread::sleep(LOOK_EVERY),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// The first panic among what a process writes; reads to the end, so that the process never waits.
fn last_words(mut errors: impl Read) -> String {
    let mut bytes = Vec::new();
    // What cannot be read is not known.
    let _ = errors.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let panicked = text.lines().skip_while(|line| !line.contains("panicked"));
    panicked.take(2).collect::<Vec<&str>>().join(" ")
}

/// Runs a world twice, and demands the same events.
fn repeats(seed: u64, kind: &Kind) -> Result<(), String> {
    let (first, second) = (child(seed, kind)?, child(seed, kind)?);
    if (first.events, first.hash) == (second.events, second.hash) {
        return Ok(());
    }
    Err(format!(
        "seed {seed} gave {} events ({:016x}), then {} events ({:016x})",
        first.events, first.hash, second.events, second.hash
    ))
}
