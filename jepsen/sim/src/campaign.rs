//! Many schedules, on some threads: progress, coverage, figures, the first failure made small.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use leasehold_figures::{Goal, Report};
use leasehold_sim::{Coverage, Failure, Options, Seen, shrink};

use crate::{Run, UNKNOWN};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);
/// Fewer schedules than this need not reach every rare situation.
const JUDGED_FROM: u64 = 5_000;
/// Schedules per second and core that make a million a matter of minutes.
const WANTED_PER_S: f64 = 1_000.0;
/// Seeds that a thread takes at once.
const CHUNK: u64 = 64;

struct Shared {
    next: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
    total: Mutex<Coverage>,
    failures: Mutex<Vec<Failure>>,
}

/// Plays them all, or until one fails.
pub fn run(args: &Run) -> Result<u8> {
    let options = args.options();
    let shared = Shared {
        next: AtomicU64::new(0),
        done: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        total: Mutex::new(Coverage::default()),
        failures: Mutex::new(Vec::new()),
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| play(args, &options, &shared, start));
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let total = shared
        .total
        .into_inner()
        .unwrap_or_else(|held| held.into_inner());
    let failures = shared
        .failures
        .into_inner()
        .unwrap_or_else(|held| held.into_inner());
    let first = failures.into_iter().min_by_key(|failure| failure.seed);
    print_coverage(&total);
    let per_s = total.schedules as f64 / seconds / f64::from(args.threads);
    println!(
        "{} schedules of {} events in {seconds:.1} s: {per_s:.0} schedules and {:.0} events per second and thread; {:.1} s of simulated time each; healed within {:.1} ttl",
        total.schedules,
        args.events,
        total.events as f64 / seconds / f64::from(args.threads),
        total.simulated_us as f64 / 1e6 / total.schedules.max(1) as f64,
        total.longest_heal_ttl_thousandths as f64 / 1e3
    );
    let unmet = total.unmet();
    if let Some(path) = &args.json {
        figures(path, args, &total, seconds, first.is_some())?;
    }
    if let Some(failure) = first {
        println!("{failure}");
        println!("\nmade small:\n{}", shrink(&failure));
        return Ok(1);
    }
    if args.seeds >= JUDGED_FROM && args.without.is_empty() && !unmet.is_empty() {
        for seen in unmet {
            println!("never reached: {}", seen.sentence());
        }
        println!("unknown: coverage is unmet");
        return Ok(UNKNOWN);
    }
    println!("clean");
    Ok(0)
}

fn play(args: &Run, options: &Options, shared: &Shared, start: Instant) {
    let mut mine = Coverage::default();
    let mut said = start;
    while !shared.stop.load(Ordering::Relaxed) {
        let from = shared.next.fetch_add(CHUNK, Ordering::Relaxed);
        if from >= args.seeds {
            break;
        }
        for at in from..(from + CHUNK).min(args.seeds) {
            match leasehold_sim::run(args.first.wrapping_add(at), options) {
                Ok(coverage) => mine.add(&coverage),
                Err(failure) => {
                    shared.stop.store(true, Ordering::Relaxed);
                    lock(&shared.failures).push(*failure);
                    break;
                }
            }
        }
        let done = shared.done.fetch_add(CHUNK, Ordering::Relaxed) + CHUNK;
        // The thread that played the first chunk reports.
        if from == 0 || said > start {
            said = said.max(start + Duration::from_nanos(1));
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                let rate = done as f64 / start.elapsed().as_secs_f64();
                eprintln!("{done} of {} schedules, {rate:.0} per second", args.seeds);
            }
        }
    }
    lock(&shared.total).add(&mine);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|held| held.into_inner())
}

fn print_coverage(total: &Coverage) {
    for seen in Seen::ALL {
        println!("{:>12}  {}", total.count(*seen), seen.sentence());
    }
}

fn figures(path: &Path, args: &Run, total: &Coverage, seconds: f64, broken: bool) -> Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut report = Report::new("sim", dir.unwrap_or(Path::new(".")));
    let per_thread = seconds * f64::from(args.threads);
    report.figure(
        "sim_schedules",
        total.schedules as f64,
        "schedules",
        Goal::AtLeast(args.seeds as f64),
    );
    report.figure(
        "sim_schedules_per_s",
        total.schedules as f64 / per_thread,
        "schedules/s per core",
        Goal::AtLeast(WANTED_PER_S),
    );
    report.figure(
        "sim_events_per_s",
        total.events as f64 / per_thread,
        "events/s per core",
        Goal::None,
    );
    report.figure("sim_commits", total.commits as f64, "entries", Goal::None);
    report.figure(
        "sim_checks_passed",
        total.checks_passed as f64,
        "checks",
        Goal::None,
    );
    report.figure(
        "sim_violations",
        f64::from(u8::from(broken)),
        "schedules",
        Goal::AtMost(0.0),
    );
    report.figure(
        "sim_situations_missed",
        total.unmet().len() as f64,
        "situations",
        Goal::AtMost(0.0),
    );
    report.figure(
        "sim_longest_heal_ttl",
        total.longest_heal_ttl_thousandths as f64 / 1e3,
        "ttl",
        Goal::AtMost(20.0),
    );
    report
        .write(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// What to plant, and how long to look.
#[cfg(leasehold_mutants)]
#[derive(clap::Args)]
pub struct Mutants {
    /// Schedules that may pass before one fails.
    #[arg(long, default_value_t = 40_000)]
    budget: u64,
    /// Only these.
    #[arg(long, value_delimiter = ',')]
    only: Option<Vec<String>>,
}

/// Plants each, and says which were noticed. Fails when one that can be noticed was not.
#[cfg(leasehold_mutants)]
pub fn mutants(args: &Mutants) -> Result<u8> {
    use leasehold_sim::mutants::{MUTANTS, catch};
    let wanted = |name: &str| {
        args.only
            .as_ref()
            .is_none_or(|only| only.iter().any(|o| o == name))
    };
    let mut missed = 0;
    for mutant in MUTANTS.iter().filter(|mutant| wanted(mutant.name)) {
        let start = Instant::now();
        let caught = catch(mutant.name, args.budget);
        let seconds = start.elapsed().as_secs_f64();
        let (mark, how) = match (&caught, mutant.hidden) {
            (Some((seed, how)), _) => ("caught", format!("schedule {seed}: {how}")),
            (None, Some(why)) => ("hidden", why.to_owned()),
            (None, None) => (
                "MISSED",
                format!("{} schedules noticed nothing", args.budget),
            ),
        };
        missed += u32::from(mark == "MISSED");
        println!(
            "{mark}  {:<42} {seconds:6.1} s  {}",
            mutant.name,
            how.chars().take(120).collect::<String>()
        );
        leasehold_proto::mutants::record(
            mutant.name,
            "simulation",
            caught.is_some(),
            &how,
            seconds,
        );
    }
    Ok(u8::from(missed > 0))
}
