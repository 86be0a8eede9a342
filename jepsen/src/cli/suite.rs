//! `leasehold-jepsen test-all`: every workload under every fault, and the runs that must fail.
//!
//! Each run is a process of its own, so that one that breaks takes none with it, and its command
//! line is how to have it again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use leasehold_checkers::{Outcome, Verdict};
use leasehold_figures::{Goal, Report};

use super::options::RunArgs;
use super::plan::{self, Planned, Promise};
use super::show::{self, Sums, goals_met, say, summary};
use crate::runner::{self, Finished, interrupt};
use crate::store::finished;

/// What a run takes beyond its time limit: starting, recovering, stopping, judging.
const AROUND: Duration = Duration::from_secs(25);
/// How often running children are looked at.
const TICK: Duration = Duration::from_millis(200);

/// Options of `test-all`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What continuous integration runs: every workload under a kill and a partition, and the
    /// runs that must fail
    #[arg(long, conflicts_with_all = ["full", "short"])]
    pub smoke: bool,
    /// A part: every workload, every group of faults once, several at a time
    #[arg(long, conflicts_with = "full")]
    pub short: bool,
    /// Every mode of every fault with every workload
    #[arg(long)]
    pub full: bool,
    /// How long load and faults of one run last, in seconds
    #[arg(long, default_value_t = 45, value_name = "SECONDS")]
    pub time_limit: u64,
    /// Runs at the same time
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub parallel: usize,
    /// Leave out runs of the same plan that are in the store with a result, made by a program of
    /// the same revision, all of it committed
    #[arg(long)]
    pub resume: bool,
    /// Only show the plan
    #[arg(long)]
    pub plan: bool,
    /// Only runs whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// The program `leasehold` [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    pub leasehold: Option<PathBuf>,
    /// How runs are carried out.
    #[command(flatten)]
    pub run: RunArgs,
}

impl Args {
    /// How many modes or groups of faults one run mixes.
    fn size(&self) -> plan::Size {
        match (self.smoke, self.short, self.full) {
            (true, _, _) => plan::Size::Smoke,
            (_, true, _) => plan::Size::Short,
            (_, _, true) => plan::Size::Full,
            _ => plan::Size::Usual,
        }
    }
}

/// Carries out the plan and shows what came of it.
///
/// # Errors
///
/// A run cannot be started, or the figures cannot be written.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    // The seed makes the plan the same again; resuming needs the same plan.
    let seed = args
        .run
        .seed
        .unwrap_or(if args.resume { 1 } else { args.run.seed() });
    let mut runs = plan::suite(args.size(), seed);
    if let Some(only) = &args.only {
        runs.retain(|run| run.name().contains(only.as_str()));
    }
    say!("{} runs, seed {seed}", runs.len());
    for (number, run) in runs.iter().enumerate() {
        say!("{:4}  {}", number + 1, describe(run));
    }
    if args.plan {
        return Ok(0);
    }
    let network = args.run.prepare_network()?;
    interrupt::watch();
    let mut suite = Suite {
        args,
        network: network.to_string(),
        total: runs.len(),
        done: Vec::new(),
        begun: Instant::now(),
        fresh: 0,
    };
    suite.carry_out(runs)?;
    suite.finish()
}

fn describe(run: &Planned) -> String {
    let expected = match &run.promise {
        Promise::Valid => String::new(),
        Promise::MustFail(checker) => format!("  (must fail: {checker})"),
    };
    format!("{}{expected}", run.name())
}

/// A run that has ended.
struct Done {
    name: String,
    command: String,
    result: Result<Finished, String>,
}

impl Done {
    fn exit_code(&self) -> u8 {
        self.result.as_ref().map_or(3, Finished::exit_code)
    }

    fn summary(&self) -> String {
        match &self.result {
            Ok(finished) => summary(&finished.results),
            Err(why) => format!("HARNESS FAILED, no verdict: {why}"),
        }
    }
}

/// A run under way.
struct Running {
    run: Planned,
    child: Child,
    command: String,
    /// When it was started, in seconds since 1970: what began before is not of it.
    started_unix_s: u64,
    /// The newest run of this name before it.
    before: Option<PathBuf>,
}

/// Ends a run in order, as Ctrl-C does, which it may have had already.
fn interrupt_child(one: &Running) {
    if let Ok(pid) = libc::pid_t::try_from(one.child.id()) {
        // SAFETY: no requirement; our own child, not yet reaped, so that the id is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
}

/// The results of a run whose process ended as they say; else nobody knows what they are worth.
fn agreed(finished: Finished, status: ExitStatus) -> Result<Finished, String> {
    if status.code() == Some(i32::from(finished.exit_code())) {
        return Ok(finished);
    }
    let said = summary(&finished.results);
    Err(format!("its results say: {said}; but it ended by {status}"))
}

/// Whether two programs were certainly built from the same sources: what is not known, or was not
/// committed, may be anything.
fn same_sources(one: Option<&str>, other: Option<&str>) -> bool {
    one == other && one.is_some_and(|revision| !revision.ends_with("-dirty"))
}

/// How often a positive control may be made before it counts as valid.
const CONTROL_SEEDS: u64 = 3;

/// A control asks whether the harness can see something that one schedule may not bring about: it
/// is made again with the next seed. A run that must be valid is never made again.
fn again(run: &Planned, done: &Done) -> Option<Planned> {
    let unseen = matches!(&done.result, Ok(finished) if finished.results.verdict == Verdict::Valid);
    let control = run.promise != Promise::Valid;
    (control && unseen && run.tried + 1 < CONTROL_SEEDS).then(|| Planned {
        seed: run.seed + 1,
        tried: run.tried + 1,
        ..run.clone()
    })
}

struct Suite<'a> {
    args: &'a Args,
    network: String,
    total: usize,
    done: Vec<Done>,
    begun: Instant,
    /// Runs that were not in the store already.
    fresh: u32,
}

impl Suite<'_> {
    fn carry_out(&mut self, runs: Vec<Planned>) -> anyhow::Result<()> {
        let mut waiting: VecDeque<Planned> = runs.into();
        let mut running: Vec<Running> = Vec::new();
        let mut told = false;
        loop {
            while running.len() < self.args.parallel.max(1) && !interrupt::came() {
                let Some(run) = waiting.pop_front() else {
                    break;
                };
                match self.old_result(&run) {
                    Some(done) => self.note(done),
                    None => running.push(self.start(run)?),
                }
            }
            if running.is_empty() {
                return Ok(());
            }
            std::thread::sleep(TICK);
            if interrupt::came() && !told {
                told = true;
                running.iter().for_each(interrupt_child);
            }
            let mut living = Vec::new();
            for mut one in running {
                match one.child.try_wait()? {
                    None => living.push(one),
                    Some(status) => {
                        self.fresh += 1;
                        let run = one.run.clone();
                        let done = self.ended(one, status);
                        match again(&run, &done) {
                            Some(again) => waiting.push_front(again),
                            None => self.note(done),
                        }
                    }
                }
            }
            running = living;
        }
    }

    /// The arguments that make this run.
    fn arguments(&self, run: &Planned) -> Vec<String> {
        let mut args: Vec<String> = vec![
            "test".into(),
            format!("--name={}", run.name()),
            format!("--workload={}", run.workloads.join(",")),
            format!("--nemesis={}", run.nemeses.join(",")),
            format!("--seed={}", run.seed),
            format!("--time-limit={}", self.args.time_limit),
            format!("--network={}", self.network),
            format!("--clients={}", self.args.run.clients),
            format!("--rate={}", self.args.run.rate),
            format!("--store={}", self.args.run.store.display()),
        ];
        args.extend(run.options.iter().cloned());
        if let Promise::MustFail(checker) = &run.promise {
            args.push("--expect-invalid".into());
            args.push(format!("--must-fail={checker}"));
        }
        if let Some(path) = &self.args.leasehold {
            args.push(format!("--leasehold={}", path.display()));
        }
        args
    }

    fn start(&self, run: Planned) -> anyhow::Result<Running> {
        let args = self.arguments(&run);
        let command = format!("leasehold-jepsen {}", args.join(" "));
        let before = self.found(&run).map(|finished| finished.dir);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        // What it says is in the harness.log of its directory.
        let child = Command::new(std::env::current_exe()?)
            .args(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting a run")?;
        Ok(Running {
            run,
            child,
            command,
            started_unix_s: now.map_or(0, |now| now.as_secs()),
            before,
        })
    }

    /// What came of a run, by the files that it left: only by its own.
    fn ended(&self, one: Running, status: ExitStatus) -> Done {
        let found = self.found(&one.run).filter(|finished| {
            finished.test.begun_unix_s >= one.started_unix_s
                && one.before.as_ref() != Some(&finished.dir)
        });
        Done {
            name: describe(&one.run),
            command: one.command,
            result: match found {
                Some(finished) => agreed(finished, status),
                None => Err(format!("no results ({status})")),
            },
        }
    }

    /// The newest result of this run in the store.
    fn found(&self, run: &Planned) -> Option<Finished> {
        let (dir, test, results) = finished(&self.args.run.store, &run.name())?;
        // What is found must stay it when another run of the name ends.
        let dir = dir.canonicalize().ok()?;
        let same = test.seed == run.seed && test.time_limit_s == self.args.time_limit;
        same.then_some(Finished { dir, test, results })
    }

    /// The result of the same run in the store, if it is to be used and is one.
    fn old_result(&self, run: &Planned) -> Option<Done> {
        let finished = self.args.resume.then(|| self.found(run)).flatten()?;
        let same = same_sources(finished.test.revision.as_deref(), runner::revision());
        (same && finished.results.harness_error.is_none()).then(|| Done {
            name: describe(run),
            command: finished.test.command.clone(),
            result: Ok(finished),
        })
    }

    fn note(&mut self, done: Done) {
        let left = self.total - self.done.len() - 1;
        let each = match self.fresh {
            0 => Duration::from_secs(self.args.time_limit) + AROUND,
            fresh => self.begun.elapsed() / fresh,
        };
        let minutes = each.as_secs_f64() * left as f64 / 60.0;
        say!(
            "{:4}/{}  {:<60} {}  (about {minutes:.0} min left)",
            self.done.len() + 1,
            self.total,
            done.name,
            done.summary()
        );
        self.done.push(done);
    }

    /// The table, the failures, the figures; the exit code.
    fn finish(&self) -> anyhow::Result<u8> {
        let mut sums = Sums::default();
        for done in &self.done {
            match &done.result {
                Ok(finished) => sums.add(finished),
                Err(_) => sums.add_failed(),
            }
        }
        let failures: Vec<&Done> = self.done.iter().filter(|d| d.exit_code() != 0).collect();
        if !failures.is_empty() {
            say!("\nNot as they must be:");
        }
        for done in &failures {
            say!("  {}: {}", done.name, done.summary());
            if let Ok(finished) = &done.result {
                let outcomes = finished.results.outcomes.iter();
                let worth_telling = |one: &&Outcome| one.verdict != Verdict::Valid;
                outcomes.filter(worth_telling).for_each(show::outcome);
            }
            say!("    {}", done.command);
        }
        let mut report = Report::new("jepsen test-all", &self.args.run.store);
        sums.figures(&mut report, Goal::None);
        say!("\n{}", report.table());
        if let Some(path) = &self.args.run.json {
            report.write(path)?;
        }
        // A violation is worse than what is not known, which is worse than no verdict.
        let code = [1, 2, 3]
            .into_iter()
            .find(|code| failures.iter().any(|d| d.exit_code() == *code));
        let missing = self.total - self.done.len();
        if missing > 0 {
            say!("{missing} of {} runs were not made", self.total);
        }
        Ok(match (code, missing) {
            (Some(1), _) => 1,
            (_, 1..) => 2,
            (code, 0) => goals_met(code.unwrap_or(0), &report),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;

    use leasehold_checkers::run::Test;

    use super::*;
    use crate::runner::judge;
    use crate::store::{RunDir, write_json};

    fn planned() -> Planned {
        Planned {
            workloads: vec!["toy".into()],
            nemeses: vec!["kill".into()],
            seed: 5,
            tried: 0,
            promise: Promise::Valid,
            options: Vec::new(),
        }
    }

    /// Leaves the results of the planned run, begun at this time, in the store.
    fn leave(store: &Path, begun_unix_s: u64, verdict: Verdict) {
        let test = Test {
            name: planned().name(),
            workload: "toy".into(),
            nemeses: vec!["kill".into()],
            seed: 5,
            time_limit_s: 45,
            hosts: Vec::new(),
            network: "none".into(),
            command: String::new(),
            revision: None,
            kernel: String::new(),
            begun_unix_s,
            mutant: None,
            expect_valid: true,
            options: BTreeMap::new(),
        };
        let outcome = Outcome {
            verdict,
            ..Outcome::valid("toy")
        };
        let dir = RunDir::create(store, &test.name).unwrap();
        write_json(&dir.file("test.json"), &test).unwrap();
        write_json(
            &dir.file("results.json"),
            &judge::results(&test, vec![outcome]),
        )
        .unwrap();
        dir.ended().unwrap();
    }

    /// What came of a run started at second 100 whose process ended with this code.
    fn came_of(store: &Path, before: Option<PathBuf>, code: i32) -> u8 {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let line = ["test-all".as_ref(), "--store".as_ref(), store.as_os_str()];
        let line: Line = clap::Parser::parse_from(line);
        let suite = Suite {
            args: &line.args,
            network: "none".into(),
            total: 1,
            done: Vec::new(),
            begun: Instant::now(),
            fresh: 0,
        };
        let running = Running {
            run: planned(),
            child: Command::new("true").spawn().unwrap(),
            command: String::new(),
            started_unix_s: 100,
            before,
        };
        // The code is in the second byte of what a wait returns.
        suite
            .ended(running, ExitStatus::from_raw(code << 8))
            .exit_code()
    }

    #[test]
    fn a_result_that_was_there_before_is_not_taken_for_that_of_a_run() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(came_of(store.path(), None, 0), 3, "it left nothing");
        leave(store.path(), 99, Verdict::Valid);
        assert_eq!(came_of(store.path(), None, 0), 3, "it is older");
        leave(store.path(), 100, Verdict::Valid);
        assert_eq!(came_of(store.path(), None, 0), 0);
        let latest = store.path().join("toy+kill/latest").canonicalize().unwrap();
        assert_eq!(came_of(store.path(), Some(latest), 0), 3, "it was there");
    }

    #[test]
    fn results_count_only_if_the_process_ended_as_they_say() {
        let store = tempfile::tempdir().unwrap();
        leave(store.path(), 100, Verdict::Valid);
        assert_eq!(came_of(store.path(), None, 0), 0);
        assert_eq!(came_of(store.path(), None, 3), 3);
        leave(store.path(), 100, Verdict::Unknown);
        assert_eq!(came_of(store.path(), None, 2), 2);
        assert_eq!(came_of(store.path(), None, 0), 3);
    }

    #[test]
    fn only_results_of_the_same_committed_sources_are_used_again() {
        assert!(same_sources(Some("1234"), Some("1234")));
        assert!(!same_sources(Some("1234"), Some("1235")));
        assert!(!same_sources(Some("1234-dirty"), Some("1234-dirty")));
        assert!(!same_sources(None, None));
    }
}
