//! Carries out a run: prepares hosts, starts the system, loads it, does it harm, heals it, stops
//! it, and leaves the files that the checkers judge.

pub mod attack;
pub mod interrupt;
pub mod judge;
pub mod load;
pub mod notes;
pub mod place;
pub mod recorder;
pub mod recovery;
pub mod storm;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use leasehold_checkers::run::{Results, Test};
use leasehold_checkers::{Finding, Outcome, Verdict};
use leasehold_faults::{Kind, TrueTime};
use serde_json::{Value, json};

use self::attack::Attack;
use self::load::{Load, Part, Share, Workers, seat::SeatReport};
use self::notes::Notes;
use self::place::{Place, Wanted};
use self::storm::Storm;
use crate::store::{RunDir, write_json, write_lines};
use crate::system::System;
use crate::workload::Workload;

/// How often a running load is looked after.
const TICK: Duration = Duration::from_millis(50);
/// How often clocks are sampled.
const SAMPLE: Duration = Duration::from_secs(1);
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(5);
/// The option of [`Test`] that tells which workers each workload has.
pub const SHARES: &str = "shares";

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name in the store.
    pub name: String,
    /// Faults, by name; `none` is none.
    pub nemeses: Vec<String>,
    /// Everything random follows from it.
    pub seed: u64,
    /// How long load and faults last.
    pub time_limit: Duration,
    /// How long the system may take to become ready, at first and after all faults were healed.
    pub patience: Duration,
    /// How hosts are kept apart.
    pub network: Kind,
    /// How long leases of the system last: some faults need to outlast one.
    pub ttl: Duration,
    /// How far rates of clocks may be off, e.g. 0.0005, within what the system assumes.
    pub rho: f64,
    /// Whether faults overlap; else there is one at a time.
    pub overlapping: bool,
    /// Hosts for clients.
    pub clients: usize,
    /// Operations a second, all workers together; `None`: as fast as answers come.
    pub rate: Option<f64>,
    /// Where runs are kept.
    pub store: PathBuf,
    /// Slices that are moved about at any time, beside what faults do; 0: none.
    pub storm: usize,
    /// The bug that was planted into the system's programs, if one was.
    pub mutant: Option<String>,
    /// Whether the run must be valid; else it is a positive control, which must not be.
    pub expect_valid: bool,
    /// The checker that must find a positive control invalid; `None`: any.
    pub must_fail: Option<String>,
    /// Whatever else is needed to make system and workloads again.
    pub options: BTreeMap<String, Value>,
    /// Nothing is shown on the terminal.
    pub quiet: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Where its files are.
    pub dir: PathBuf,
    /// What was run.
    pub test: Test,
    /// What the checkers said.
    pub results: Results,
}

impl Finished {
    /// 0: as expected; 1: not; 2: unknown; 3: the harness failed, and no verdict counts.
    pub fn exit_code(&self) -> u8 {
        match &self.results {
            Results {
                harness_error: Some(_),
                ..
            } => 3,
            Results {
                as_expected: true, ..
            } => 0,
            Results {
                verdict: Verdict::Unknown,
                ..
            } => 2,
            _ => 1,
        }
    }
}

/// Carries out a run and judges it.
///
/// # Errors
///
/// Not even a directory for the run can be made, or its results cannot be written. Whatever else
/// fails in the harness stands in [`Results::harness_error`].
pub fn run(
    plan: &Plan,
    system: &Arc<dyn System>,
    workloads: Vec<Box<dyn Workload>>,
) -> anyhow::Result<Finished> {
    let dir = RunDir::create(&plan.store, &plan.name)?;
    let origin = TrueTime::now();
    let notes = Arc::new(Notes::create(&dir.file("harness.log"), origin, plan.quiet)?);
    let shares = load::shares(workloads.iter().map(AsRef::as_ref));
    let parts: Vec<Arc<Part>> = shares
        .iter()
        .zip(workloads)
        .map(|(share, workload)| Arc::new(Part::new(share.clone(), workload)))
        .collect();
    let mut run = Run {
        plan,
        system,
        dir: &dir,
        origin,
        notes: &notes,
        test: describe(plan, &shares),
        observed: Vec::new(),
    };
    notes.say(&format!(
        "{} seed {} in {}",
        plan.name,
        plan.seed,
        dir.path().display()
    ));
    write_json(&dir.file("test.json"), &run.test)?;
    let mut failure = run.carry_out(&parts).err();
    if interrupt::came() {
        failure = None;
        let mut outcome = Outcome::valid("interrupted");
        outcome.unknown(Finding::new("the run was interrupted"));
        run.observed.push(outcome);
    }
    let Run { test, observed, .. } = run;
    judge::write_observed(&dir, &observed)?;
    notes.say("judging");
    let guards: Vec<_> = parts.iter().map(|part| part.workload.lock()).collect();
    let workloads = shares.iter().zip(guards.iter().map(|guard| guard.as_ref()));
    let mut results = match judge::judge(&dir, &test, workloads) {
        Ok(results) => results,
        Err(error) => {
            failure = failure.or(Some(error.context("judging")));
            judge::results(&test, observed)
        }
    };
    results.harness_error = failure.map(|error| format!("{error:#}"));
    finish(&dir, &notes, test, results)
}

/// Writes what came of a run, and its report.
fn finish(dir: &RunDir, notes: &Notes, test: Test, results: Results) -> anyhow::Result<Finished> {
    write_json(&dir.file("results.json"), &results)?;
    if let Err(error) = judge::write_other_forms(dir, &results) {
        notes.say(&format!("no EDN: {error:#}"));
    }
    // A page that cannot be drawn takes nothing away from the verdict.
    if let Err(error) = leasehold_report::write(dir.path()) {
        notes.say(&format!("no report: {error:#}"));
    }
    dir.ended()?;
    Ok(Finished {
        dir: dir.path().to_owned(),
        test,
        results,
    })
}

/// A run under way.
struct Run<'a> {
    plan: &'a Plan,
    system: &'a Arc<dyn System>,
    dir: &'a RunDir,
    origin: TrueTime,
    notes: &'a Arc<Notes>,
    test: Test,
    /// What only the living run can see.
    observed: Vec<Outcome>,
}

impl Run<'_> {
    /// All of it, from the first host to the last process stopped.
    fn carry_out(&mut self, parts: &[Arc<Part>]) -> anyhow::Result<()> {
        let place = Arc::new(self.place()?);
        let result = self.live(&place, parts);
        // The evidence is kept whatever became of the run.
        let stopped = place.stop(self.notes);
        let witness = self.witness(&place);
        let judged_by_hand = result.is_err() || !self.observed.iter().all(is_valid);
        if let Err(error) = place.keep_data(judged_by_hand) {
            self.notes.say(&format!("{error:#}"));
        }
        result?;
        witness?;
        self.observed.push(ends(&place, &stopped?, self.notes));
        Ok(())
    }

    fn place(&mut self) -> anyhow::Result<Place> {
        let place = Place::create(
            &Wanted {
                network: self.plan.network,
                clients: self.plan.clients,
                seed: self.plan.seed,
                dir: self.dir.path(),
                disks: self.system.core(),
            },
            self.system.as_ref(),
        )?;
        self.test.hosts = place.names();
        if place.ground.is_none() {
            self.test.network = "none".into();
        }
        write_json(&self.dir.file("test.json"), &self.test)?;
        if let Some(why) = &place.no_shims {
            self.notes
                .say(&format!("no faults of clocks and fsync: {why}"));
        }
        Ok(place)
    }

    /// While processes live.
    fn live(&mut self, place: &Arc<Place>, parts: &[Arc<Part>]) -> anyhow::Result<()> {
        let patience = self.plan.patience;
        place.start(self.system.as_ref(), self.plan.mutant.as_deref())?;
        match recovery::wait_ready(place, self.system, patience)? {
            Ok(took) => self
                .notes
                .say(&format!("ready after {:.1} s", took.as_secs_f64())),
            Err(why) => anyhow::bail!(
                "the system did not become ready (patience {} s): {why}",
                patience.as_secs()
            ),
        }
        let load = Arc::new(self.load(place, parts)?);
        let workers = load.start()?;
        let attack = self.attack(place)?;
        let storm = match self.plan.storm {
            0 => None,
            at_once => Some(Storm::start(place, self.system, at_once, self.plan.seed)?),
        };
        let watched = self.watch(place, &load, &workers, &attack);
        let stormed = storm.map_or(Ok(()), Storm::end);
        let attacked = attack.end();
        let seats = workers.stop();
        watched?;
        attacked?;
        stormed?;
        let seats = seats?;
        self.observed.push(clients(&seats));
        if interrupt::came() {
            return Ok(());
        }
        self.recover(place, &load, &seats)
    }

    fn attack(&self, place: &Arc<Place>) -> anyhow::Result<Attack> {
        Attack::start(
            self.plan,
            place,
            self.system,
            self.origin,
            self.dir,
            self.notes,
        )
    }

    fn load(&self, place: &Arc<Place>, parts: &[Arc<Part>]) -> anyhow::Result<Load> {
        let history = self.dir.file("history.jsonl");
        let recorder = recorder::Recorder::create(&history, self.origin)
            .with_context(|| format!("making {}", history.display()))?;
        let network = place
            .ground
            .as_ref()
            .map(|ground| Arc::clone(&ground.network));
        Ok(Load {
            system: Arc::clone(self.system),
            hosts: place.hosts.clone(),
            clients: place.clients.clone(),
            enter: Box::new(move |host| match &network {
                Some(network) => network.enter(host),
                None => Ok(()),
            }),
            parts: parts.to_vec(),
            recorder,
            rate: self.plan.rate,
            seed: self.plan.seed,
        })
    }

    /// Looks after the load until its time is over, or the run is interrupted.
    fn watch(
        &self,
        place: &Place,
        load: &Load,
        workers: &Workers,
        attack: &Attack,
    ) -> anyhow::Result<()> {
        let begun = Instant::now();
        let (mut sampled, mut shown) = (begun, begun);
        let mut clocks = Vec::new();
        let mut before = 0;
        while begun.elapsed() < self.plan.time_limit && !interrupt::came() {
            std::thread::sleep(TICK);
            if let Some(error) = workers.failed() {
                return Err(error);
            }
            if sampled.elapsed() >= SAMPLE {
                sampled = Instant::now();
                clocks.extend(place.clocks(self.origin));
            }
            if shown.elapsed() >= PROGRESS {
                shown = Instant::now();
                before = self.progress(place, load, attack, before);
            }
        }
        write_lines(&self.dir.file("clocks.jsonl"), &clocks)
    }

    /// Shows how far it is; returns the number of operations so far.
    fn progress(&self, place: &Place, load: &Load, attack: &Attack, before: u64) -> u64 {
        let total = load.recorder.total();
        let rate = (total.invoked - before) as f64 / PROGRESS.as_secs_f64();
        let handoffs = match self.system.handoffs(&place.hosts) {
            Some(count) => format!(", {count} handoffs"),
            None => String::new(),
        };
        let active = attack.active();
        let active = if active.is_empty() {
            String::new()
        } else {
            format!("; {}", active.join(", "))
        };
        self.notes.say(&format!(
            "{} operations ({rate:.0}/s): {} ok, {} failed, {} unknown{handoffs}{active}",
            total.invoked, total.ok, total.fail, total.info
        ));
        total.invoked
    }

    /// After everything was healed.
    fn recover(
        &mut self,
        place: &Place,
        load: &Arc<Load>,
        seats: &[SeatReport],
    ) -> anyhow::Result<()> {
        let patience = self.plan.patience;
        let mut outcome = match recovery::wait_ready(place, self.system, patience)? {
            Ok(took) => {
                let took = took.as_secs_f64();
                self.notes
                    .say(&format!("ready again {took:.1} s after healing"));
                let mut outcome = recovery::last_operations(load, seats, patience, self.notes)?;
                outcome.count("ready_after_s", took);
                outcome
            }
            Err(why) => {
                let mut outcome = Outcome::valid(recovery::CHECKER);
                let what = format!(
                    "the system was not ready again within {} s of healing: {why}",
                    patience.as_secs()
                );
                self.notes.say(&what);
                outcome.invalid(Finding::new(what));
                outcome
            }
        };
        outcome.count("patience_s", patience.as_secs());
        self.observed.push(outcome);
        Ok(())
    }

    /// Collects what the processes tell of themselves.
    fn witness(&mut self, place: &Place) -> anyhow::Result<()> {
        let witness = self
            .system
            .witness(&place.hosts, self.origin.reading_ns())
            .context("reading what the system's processes tell")?;
        write_lines(&self.dir.file("holds.jsonl"), &witness.holds)?;
        if !witness.passages.is_empty() {
            write_lines(&self.dir.file("passages.jsonl"), &witness.passages)?;
        }
        if !witness.clocks.is_empty() {
            write_lines(&self.dir.file("clocks.jsonl"), &witness.clocks)?;
        }
        if let Some(count) = witness.handoffs {
            let mut outcome = Outcome::valid(HANDOFFS);
            outcome.count("handoffs", count);
            outcome.count("holds", witness.holds.len());
            // How sharp the overlap check was.
            let trimmed = &witness.trimmed;
            outcome.count("holds_by_probe_only", trimmed.holds_by_probe_only);
            outcome.count("holds_dropped", trimmed.holds_dropped);
            outcome.count("trim_ms_max", trimmed.trim_ms_max);
            for host in &witness.silent {
                let what = format!("{host} left no log of what it held");
                outcome.unknown(Finding::new(what));
            }
            self.observed.push(outcome);
            self.notes.say(&format!("{count} handoffs"));
        }
        Ok(())
    }
}

/// The outcome whose `handoffs` counts them; only a system that tells who held what has it.
pub const HANDOFFS: &str = "handoffs";

fn is_valid(outcome: &Outcome) -> bool {
    outcome.verdict == Verdict::Valid
}

/// Whether clients kept their side of the contract: if not, nobody knows what was tried.
fn clients(seats: &[SeatReport]) -> Outcome {
    let mut outcome = Outcome::valid("clients");
    let hung: u64 = seats.iter().map(|seat| seat.hung).sum();
    let refused: u64 = seats.iter().map(|seat| seat.refused).sum();
    outcome.count("hung", hung);
    outcome.count("refused", refused);
    if hung > 0 {
        let what = format!("{hung} operations kept no deadline and were cut off");
        outcome.unknown(Finding::new(what));
    }
    outcome
}

/// Whether processes ended when and only when they were told to.
fn ends(place: &Place, stubborn: &[String], notes: &Notes) -> Outcome {
    let mut outcome = Outcome::valid("processes");
    for host in stubborn {
        let what = format!("{host} did not stop when it was asked to");
        outcome.invalid(Finding::new(what));
    }
    let processes = place.ground.as_ref().map(|ground| &ground.processes);
    for (host, status) in processes
        .map(|all| all.take_unexpected())
        .unwrap_or_default()
    {
        let what = format!("the process of {host} ended unasked: {status}");
        notes.say(&what);
        outcome.invalid(Finding::new(what));
    }
    outcome
}

/// What was run, as far as it is known before.
fn describe(plan: &Plan, shares: &[Share]) -> Test {
    let workloads: Vec<&str> = shares.iter().map(|share| share.workload.as_str()).collect();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let begun = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let mut options = plan.options.clone();
    options.insert(SHARES.into(), json!(shares));
    options.insert("rate".into(), json!(plan.rate));
    options.insert("clients".into(), json!(plan.clients));
    options.insert("storm".into(), json!(plan.storm));
    if let Some(checker) = &plan.must_fail {
        options.insert(judge::MUST_FAIL.into(), json!(checker));
    }
    Test {
        name: plan.name.clone(),
        workload: workloads.join(","),
        nemeses: plan.nemeses.clone(),
        seed: plan.seed,
        time_limit_s: plan.time_limit.as_secs(),
        hosts: Vec::new(),
        network: plan.network.to_string(),
        command: command_line(),
        revision: revision().map(str::to_owned),
        kernel: kernel.trim().to_owned(),
        begun_unix_s: begun.map(|time| time.as_secs()).unwrap_or(0),
        mutant: plan.mutant.clone(),
        expect_valid: plan.expect_valid,
        options,
    }
}

/// The command line, with the program's file name only.
fn command_line() -> String {
    let mut args = std::env::args();
    let mut program = args.next().unwrap_or_default();
    // Inside a user namespace the program was started by its link in /proc.
    if program.starts_with("/proc/")
        && let Ok(own) = std::env::current_exe()
    {
        program = own.display().to_string();
    }
    let program = std::path::Path::new(&program)
        .file_name()
        .unwrap_or_default();
    std::iter::once(program.to_string_lossy().into_owned())
        .chain(args)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The revision of the sources that this program was built from, if it was built in a git clone;
/// it ends in `-dirty` if they were not all committed.
pub fn revision() -> Option<&'static str> {
    option_env!("JEPSEN_REVISION")
}

#[cfg(test)]
mod tests;
