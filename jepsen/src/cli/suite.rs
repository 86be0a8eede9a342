//! `leasehold-jepsen test-all`: every workload under every fault, and the runs that must fail.
//!
//! Each run is a process of its own, so that one that breaks takes none with it, and its command
//! line is how to have it again.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use leasehold_figures::{Goal, Report};

use super::options::RunArgs;
use super::plan::{self, Planned, Promise};
use super::show::{Sums, summary};
use crate::runner::{Finished, interrupt};
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
    /// Leave out runs of the same plan that are in the store with a result
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
    println!("{} runs, seed {seed}", runs.len());
    for (number, run) in runs.iter().enumerate() {
        println!("{:4}  {}", number + 1, describe(run));
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
}

/// Ends a run in order, as Ctrl-C does, which it may have had already.
fn interrupt_child(one: &Running) {
    if let Ok(pid) = libc::pid_t::try_from(one.child.id()) {
        // SAFETY: no requirement; our own child, not yet reaped, so that the id is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
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
                        let done = self.ended(one, &status.to_string());
                        self.note(done);
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
        })
    }

    /// What came of a run, by the file that it left.
    fn ended(&self, one: Running, status: &str) -> Done {
        let found = self.found(&one.run);
        Done {
            name: describe(&one.run),
            command: one.command,
            result: found.ok_or(format!("no results ({status})")),
        }
    }

    fn found(&self, run: &Planned) -> Option<Finished> {
        let (dir, test, results) = finished(&self.args.run.store, &run.name())?;
        let same = test.seed == run.seed && test.time_limit_s == self.args.time_limit;
        same.then_some(Finished { dir, test, results })
    }

    /// The result of the same run in the store, if it is to be used and is one.
    fn old_result(&self, run: &Planned) -> Option<Done> {
        let finished = self.args.resume.then(|| self.found(run)).flatten()?;
        (finished.results.harness_error.is_none()).then(|| Done {
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
        println!(
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
            println!("\nNot as they must be:");
        }
        for done in &failures {
            println!("  {}: {}", done.name, done.summary());
            println!("    {}", done.command);
        }
        let mut report = Report::new("jepsen test-all", &self.args.run.store);
        sums.figures(&mut report, Goal::None);
        println!("\n{}", report.table());
        if let Some(path) = &self.args.run.json {
            report.write(path)?;
        }
        if self.done.len() < self.total {
            println!(
                "{} of {} runs were not made",
                self.total - self.done.len(),
                self.total
            );
            return Ok(2);
        }
        // A violation is worse than what is not known, which is worse than no verdict.
        let code = [1, 2, 3]
            .into_iter()
            .find(|code| failures.iter().any(|d| d.exit_code() == *code));
        Ok(code.unwrap_or(0))
    }
}
