//! What came of runs, for people and as figures.

use std::fmt;
use std::io::Write;
use std::path::Path;

use leasehold_checkers::run::Results;
use leasehold_checkers::{Outcome, Verdict};
use leasehold_figures::{Goal, Report};

use super::options::short;
use crate::runner::judge::NOT_PROMISED;
use crate::runner::{Finished, HANDOFFS};

/// Findings of one checker that are shown; the report has all.
const SHOWN_FINDINGS: usize = 3;
/// Counts of one checker that are shown.
const SHOWN_STATS: usize = 6;

/// Writes a line for people, as `println!` does, which panics when nobody reads any more (behind
/// `| head`, say): that is no reason to fail, nor to end runs whose results are kept in files.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::show::line(format_args!($($text)*)) };
}
pub(crate) use say;

/// What [`say`] does.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    to(&mut std::io::stdout().lock(), text);
}

fn to(out: &mut impl Write, text: fmt::Arguments<'_>) {
    let _ = writeln!(out, "{text}");
}

/// Shows one run: a line for each checker, what it found, and where everything is.
pub fn finished(finished: &Finished) {
    let results = &finished.results;
    say!("");
    results.outcomes.iter().for_each(outcome);
    say!("\n{}: {}", finished.test.name, summary(results));
    say!("seed    {}", finished.test.seed);
    say!("report  {}", short(&finished.dir.join("index.html")));
    say!("again   {}", finished.test.command);
}

/// Shows what one checker said: its verdict, its first findings, and what it counted.
pub fn outcome(outcome: &Outcome) {
    let stats: Vec<String> = outcome
        .stats
        .iter()
        .filter(|(_, value)| value.is_number())
        .take(SHOWN_STATS)
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    let (checker, verdict) = (&outcome.checker, verdict(outcome.verdict));
    say!("{checker:<34} {verdict:<8} {}", stats.join(", "));
    for finding in outcome.findings.iter().take(SHOWN_FINDINGS) {
        say!("    {}", finding.what);
    }
    let more = outcome.findings.len().saturating_sub(SHOWN_FINDINGS);
    if more > 0 {
        say!("    … and {more} more in results.json");
    }
}

/// A verdict for people.
pub fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Valid => "valid",
        Verdict::Unknown => "UNKNOWN",
        Verdict::Invalid => "INVALID",
    }
}

/// The whole of a run in a few words.
pub fn summary(results: &Results) -> String {
    match results {
        Results {
            harness_error: Some(error),
            ..
        } => format!("HARNESS FAILED, no verdict: {error}"),
        Results {
            verdict: Verdict::Invalid,
            as_expected: true,
            ..
        } => "invalid, as it must be".into(),
        Results {
            as_expected: false,
            verdict: Verdict::Valid,
            ..
        } => "valid, and must not be".into(),
        results => verdict(results.verdict).into(),
    }
}

/// The sums of some runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Runs.
    pub total: u64,
    /// Runs that came out as they must: valid, or a positive control invalid.
    pub valid: u64,
    /// Runs without a verdict, or whose verdict is unknown.
    pub unknown: u64,
    /// Handoffs, where they were counted.
    pub handoffs: Option<u64>,
    /// Overlaps of owners found, in runs that must be valid and where one owner is promised;
    /// `None` if nothing was looked at.
    pub overlaps: Option<u64>,
    /// Overlaps of owners found where faults broke what one owner rests on; `None` if there were
    /// no such runs with overlaps.
    pub overlaps_beyond: Option<u64>,
    /// Findings of the linearizability checkers in runs that must be valid and where it is
    /// promised.
    pub linearizability: Option<u64>,
}

impl Sums {
    /// Adds a run.
    pub fn add(&mut self, finished: &Finished) {
        let results = &finished.results;
        self.total += 1;
        self.valid += u64::from(finished.exit_code() == 0);
        self.unknown += u64::from(finished.exit_code() > 1);
        for outcome in &results.outcomes {
            let name = outcome.checker.rsplit(": ").next().unwrap_or_default();
            if name == HANDOFFS {
                let count = outcome.stats.get("handoffs").and_then(|n| n.as_u64());
                *self.handoffs.get_or_insert(0) += count.unwrap_or(0);
            }
            if !finished.test.expect_valid {
                continue;
            }
            // Excused by the judge: told of their own, never among what must be zero.
            if outcome.stats.contains_key(NOT_PROMISED) {
                if name == "overlap" {
                    *self.overlaps_beyond.get_or_insert(0) += invalid(outcome);
                }
                continue;
            }
            match name {
                "overlap" => *self.overlaps.get_or_insert(0) += invalid(outcome),
                "linearizable" | "version_order" => {
                    *self.linearizability.get_or_insert(0) += invalid(outcome);
                }
                _ => {}
            }
        }
    }

    /// Adds a run that left no results.
    pub fn add_failed(&mut self) {
        self.total += 1;
        self.unknown += 1;
    }

    /// Writes them as figures.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub fn write(&self, path: &Path, name: &str, store: &Path) -> anyhow::Result<()> {
        let mut report = Report::new(name, store);
        self.figures(&mut report, Goal::None);
        say!("{}", report.table());
        Ok(report.write(path)?)
    }

    /// Adds them to figures; `handoffs` is what is wanted of their number.
    pub fn figures(&self, report: &mut Report, handoffs: Goal) {
        let number = |count: Option<u64>| count.map(|count| count as f64);
        report.figure("runs_total", self.total as f64, "runs", Goal::None);
        let all = Goal::AtLeast(self.total as f64);
        report.figure("runs_valid", self.valid as f64, "runs", all);
        report.figure(
            "runs_unknown",
            self.unknown as f64,
            "runs",
            Goal::AtMost(0.0),
        );
        let why = "no run counted handoffs";
        report.maybe(
            "real_handoffs",
            number(self.handoffs),
            "handoffs",
            handoffs,
            why,
        );
        let zero = Goal::AtMost(0.0);
        let why = "no run had holds to compare";
        report.maybe(
            "ownership_overlaps",
            number(self.overlaps),
            "overlaps",
            zero,
            why,
        );
        let count = number(self.overlaps_beyond);
        let why = "no faults beyond the assumptions led to an overlap";
        report.maybe(
            "overlaps_beyond_assumptions",
            count,
            "overlaps",
            Goal::None,
            why,
        );
        let why = "no run had a history of registers";
        let count = number(self.linearizability);
        report.maybe("linearizability_violations", count, "violations", zero, why);
    }
}

/// The exit code of a command with these figures: one that would succeed but for a missed goal
/// fails.
pub fn goals_met(code: u8, report: &Report) -> u8 {
    match code {
        0 if !report.all_met() => 1,
        code => code,
    }
}

/// How many violations a checker counted.
fn invalid(outcome: &Outcome) -> u64 {
    let counted = outcome
        .stats
        .get("invalid_findings")
        .and_then(|n| n.as_u64());
    counted.unwrap_or(u64::from(outcome.verdict == Verdict::Invalid))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use leasehold_checkers::Finding;
    use leasehold_checkers::run::Test;

    use super::*;

    fn run(outcomes: Vec<Outcome>) -> Finished {
        let test = Test {
            name: "toy".into(),
            workload: "toy".into(),
            nemeses: Vec::new(),
            seed: 1,
            time_limit_s: 1,
            hosts: Vec::new(),
            network: "none".into(),
            command: String::new(),
            revision: None,
            kernel: String::new(),
            begun_unix_s: 0,
            mutant: None,
            expect_valid: true,
            options: BTreeMap::new(),
        };
        Finished {
            dir: "toy".into(),
            results: crate::runner::judge::results(&test, outcomes),
            test,
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_reason_to_panic() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        to(&mut writer, format_args!("nobody reads this"));
    }

    #[test]
    fn a_missed_goal_fails_a_command_that_would_succeed() {
        let mut report = Report::new("toy", Path::new("."));
        report.figure("runs_unknown", 0.0, "runs", Goal::AtMost(0.0));
        assert_eq!(goals_met(0, &report), 0);
        report.figure("real_handoffs", 1.0, "handoffs", Goal::AtLeast(2.0));
        assert_eq!(goals_met(0, &report), 1);
        assert_eq!(goals_met(2, &report), 2);
    }

    #[test]
    fn overlaps_beyond_what_is_promised_are_a_figure_of_their_own() {
        let mut found = Outcome::valid("overlap");
        found.invalid(Finding::new("one"));
        found.invalid(Finding::new("two"));
        let mut excused = found.clone();
        excused.verdict = Verdict::Valid;
        excused.count(NOT_PROMISED, true);
        let mut stale = excused.clone();
        stale.checker = "version_order".into();
        let mut sums = Sums::default();
        sums.add(&run(vec![excused, stale]));
        assert_eq!((sums.overlaps, sums.overlaps_beyond), (None, Some(2)));
        assert_eq!(sums.linearizability, None);
        sums.add(&run(vec![found]));
        assert_eq!((sums.overlaps, sums.overlaps_beyond), (Some(2), Some(2)));
    }
}
