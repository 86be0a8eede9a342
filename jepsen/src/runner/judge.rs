//! Judges a run by its files: each workload its own part of the history, the harness the rest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};

use leasehold_checkers::coverage::Required;
use leasehold_checkers::logs::Log;
use leasehold_checkers::run::{Fault, Hold, Passage, Results, Test};
use leasehold_checkers::{self as checkers, History, Outcome, Verdict};

use super::HANDOFFS;
use super::load::Share;
use super::place::CLIENT;
use crate::nemesis;
use crate::store::{RunDir, read_lines, write_lines};
use crate::workload::{Evidence, Workload};

/// What a run leaves beside the files that [`leasehold_checkers::run`] names: outcomes that only
/// the living run could see (recovery, processes that died, clients that hung).
pub const OBSERVED: &str = "observed.jsonl";

/// Writes what the living run saw.
///
/// # Errors
///
/// The file system refuses.
pub fn write_observed(run: &RunDir, observed: &[Outcome]) -> anyhow::Result<()> {
    write_lines(&run.file(OBSERVED), observed)
}

/// Judges the run in this directory.
///
/// # Errors
///
/// Its files cannot be read: no verdict.
pub fn judge<'a>(
    run: &RunDir,
    test: &Test,
    parts: impl IntoIterator<Item = (&'a Share, &'a dyn Workload)>,
) -> anyhow::Result<Results> {
    let parts: Vec<_> = parts.into_iter().collect();
    let history = History(read_lines(&run.file("history.jsonl"))?);
    // A history that cannot be one says nothing about the system.
    checkers::history::validate(&history)?;
    let faults: Vec<Fault> = read_lines(&run.file("faults.jsonl"))?;
    let holds: Vec<Hold> = read_lines(&run.file("holds.jsonl"))?;
    let passages: Vec<Passage> = match run.file("passages.jsonl") {
        file if file.exists() => read_lines(&file)?,
        _ => Vec::new(),
    };
    let mut outcomes: Vec<Outcome> = read_lines(&run.file(OBSERVED))?;
    let workers: u64 = parts.iter().map(|(share, _)| share.count).sum();
    for (share, workload) in &parts {
        let (part, indices) = part_of(&history, share, workers);
        let evidence = Evidence {
            history: &part,
            faults: &faults,
            holds: &holds,
            passages: &passages,
        };
        for mut outcome in workload.check(&evidence) {
            in_whole_history(&mut outcome, &indices);
            if parts.len() > 1 {
                outcome.checker = format!("{}: {}", share.workload, outcome.checker);
            }
            outcomes.push(outcome);
        }
    }
    let whole = Evidence {
        history: &history,
        faults: &faults,
        holds: &holds,
        passages: &passages,
    };
    let tells = outcomes.iter().any(|outcome| outcome.checker == HANDOFFS);
    outcomes.extend(always(run, test, &whole, tells));
    // A positive control is there to show what happens beyond the assumptions.
    if test.expect_valid && !nemesis::keeps_promises(&test.nemeses) {
        outcomes.iter_mut().for_each(not_promised);
    }
    Ok(results(test, outcomes))
}

/// What rests on the time of leases, or on the mode, and is not promised where faults break those.
const BY_TIME: &[&str] = &["overlap", "epoch_order", "linearizable", "version_order"];

/// The count that marks an outcome whose violations are beyond what is promised: the run's faults
/// break what the promise assumes.
pub const NOT_PROMISED: &str = "not promised under these faults";

/// Keeps what a checker found, but does not hold it against the run: its faults break what this
/// promise assumes. What is not known stays unknown: no assumption that is broken makes it known.
fn not_promised(outcome: &mut Outcome) {
    let name = outcome.checker.rsplit(": ").next().unwrap_or_default();
    if outcome.verdict == Verdict::Invalid && BY_TIME.contains(&name) {
        let unknown = outcome.stats.contains_key("unknown_findings");
        outcome.count(NOT_PROMISED, true);
        outcome.verdict = if unknown {
            Verdict::Unknown
        } else {
            Verdict::Valid
        };
    }
}

/// Writes the forms that other tools read: `history.edn` for Knossos and Elle, `history.txt` for
/// people, and `results.edn`.
///
/// # Errors
///
/// The history cannot be read, or the file system refuses.
pub fn write_other_forms(run: &RunDir, results: &Results) -> anyhow::Result<()> {
    let history = History(read_lines(&run.file("history.jsonl"))?);
    let create = |name: &str| File::create(run.file(name)).map(BufWriter::new);
    let mut edn = create("history.edn")?;
    checkers::history::write_edn(&history, &mut edn)?;
    edn.flush()?;
    let mut text = create("history.txt")?;
    checkers::history::write_text(&history, &mut text)?;
    text.flush()?;
    let mut edn = checkers::history::to_edn(&serde_json::to_value(results)?);
    edn.push('\n');
    std::fs::write(run.file("results.edn"), edn)?;
    Ok(())
}

/// The results that follow from what all checkers said.
pub fn results(test: &Test, outcomes: Vec<Outcome>) -> Results {
    // A run that nothing judged is no pass.
    let verdict = outcomes
        .iter()
        .map(|outcome| outcome.verdict)
        .max()
        .unwrap_or(Verdict::Unknown);
    let must_fail = test.options.get(MUST_FAIL).and_then(|name| name.as_str());
    let as_expected = match (test.expect_valid, must_fail) {
        (true, _) => verdict == Verdict::Valid,
        (false, None) => verdict == Verdict::Invalid,
        (false, Some(checker)) => outcomes.iter().any(|outcome| {
            outcome.verdict == Verdict::Invalid && outcome.checker.ends_with(checker)
        }),
    };
    Results {
        verdict,
        as_expected,
        outcomes,
        harness_error: None,
    }
}

/// The option of a positive control that names the checker which must find it invalid: that it
/// failed for another reason shows nothing.
pub const MUST_FAIL: &str = "must_fail";

/// This workload's operations, numbered from 0, and the number that each has in the whole.
fn part_of(history: &History, share: &Share, workers: u64) -> (History, Vec<u64>) {
    let mut indices = Vec::new();
    let mut part = Vec::new();
    for op in &history.0 {
        if share.has(op.process, workers) {
            let mut op = op.clone();
            indices.push(op.index);
            op.index = part.len() as u64;
            part.push(op);
        }
    }
    (History(part), indices)
}

/// Turns the numbers of operations back into those of the whole history.
fn in_whole_history(outcome: &mut Outcome, indices: &[u64]) {
    for finding in &mut outcome.findings {
        for op in &mut finding.ops {
            let whole = usize::try_from(*op).ok().and_then(|op| indices.get(op));
            *op = whole.copied().unwrap_or(*op);
        }
    }
}

/// What the harness judges in every run, whatever the workload; `tells`: the system is one whose
/// processes tell what they held, so that no holds are no evidence and not a reason to look away.
fn always(run: &RunDir, test: &Test, evidence: &Evidence<'_>, tells: bool) -> Vec<Outcome> {
    let required = Required {
        faults: required(&test.nemeses),
        ..Required::default()
    };
    let counters = BTreeMap::new();
    let mut outcomes = vec![
        checkers::stats::check(evidence.history),
        checkers::unhandled::check(evidence.history),
        checkers::availability::check(evidence.history, evidence.faults),
        checkers::coverage::check(evidence.history, evidence.faults, &counters, &required),
    ];
    let logs = logs(run, test);
    if !logs.is_empty() {
        let allowed = allowed(evidence.faults);
        outcomes.push(checkers::logs::check(&logs, &allowed));
    }
    if tells || !evidence.holds.is_empty() {
        outcomes.push(checkers::overlap::check(evidence.holds));
    }
    outcomes
}

/// The faults asked for, as coverage names them: a group as `kind`, a mode as `kind/mode`.
fn required(nemeses: &[String]) -> Vec<String> {
    let asked = nemeses.iter().filter(|name| *name != "none");
    asked
        .map(|name| {
            let mode = nemesis::MODES.iter().find(|mode| mode.name == *name);
            match mode {
                Some(mode) if mode.group != mode.name => format!("{}/{}", mode.group, mode.name),
                _ => name.clone(),
            }
        })
        .collect()
}

/// What processes may log as an error, since it is one: that their disk fails.
fn allowed(faults: &[Fault]) -> Vec<String> {
    const OF_DISKS: [&str; 4] = ["disk", "fsync", "power", "data-loss"];
    // The last is what whoever waits for a replica hears when it has stopped for such an error.
    const ERRORS: [&str; 5] = [
        "IO error",
        "when Write",
        "when Read",
        "os error",
        "failed to receive from RaftCore",
    ];
    let struck = faults
        .iter()
        .any(|fault| OF_DISKS.contains(&fault.kind.as_str()));
    let errors = if struck { &ERRORS[..] } else { &[] };
    errors.iter().map(|error| (*error).to_owned()).collect()
}

/// What the processes of the nodes said.
fn logs(run: &RunDir, test: &Test) -> Vec<Log> {
    let mut logs = Vec::new();
    for (node, role) in &test.hosts {
        if role == CLIENT {
            continue;
        }
        let paths = ["stdout", "stderr"].map(|name| run.file(node).join(name));
        logs.extend(paths.map(|path| Log {
            node: node.clone(),
            path,
        }));
    }
    logs
}

#[cfg(test)]
mod tests {
    use leasehold_checkers::{Finding, Kind, Op};

    use super::*;

    fn op(index: u64, process: u64) -> Op {
        Op {
            index,
            time: index,
            process,
            kind: Kind::Invoke,
            f: "read".into(),
            key: None,
            value: serde_json::Value::Null,
            node: None,
            epoch: None,
            error: None,
        }
    }

    fn test(expect_valid: bool, must_fail: Option<&str>) -> Test {
        let options = must_fail.map(|name| (MUST_FAIL.to_owned(), name.into()));
        Test {
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
            expect_valid,
            options: options.into_iter().collect(),
        }
    }

    fn outcome(checker: &str, verdict: Verdict) -> Outcome {
        Outcome {
            verdict,
            ..Outcome::valid(checker)
        }
    }

    #[test]
    fn a_workload_sees_its_own_operations_and_findings_name_those_of_the_whole() {
        let share = Share {
            workload: "b".into(),
            first: 2,
            count: 1,
        };
        // Three workers; processes 2 and 5 are those of worker 2.
        let history = History(
            [0, 2, 1, 5]
                .iter()
                .zip(0..)
                .map(|(p, i)| op(i, *p))
                .collect(),
        );
        let (part, indices) = part_of(&history, &share, 3);
        let seen: Vec<(u64, u64)> = part.0.iter().map(|op| (op.index, op.process)).collect();
        assert_eq!(seen, [(0, 2), (1, 5)]);
        let mut outcome = Outcome::valid("toy");
        outcome.invalid(Finding::new("both").ops([0, 1]));
        in_whole_history(&mut outcome, &indices);
        assert_eq!(outcome.findings[0].ops, [1, 3]);
    }

    #[test]
    fn the_worst_verdict_counts_and_no_checker_at_all_is_no_pass() {
        let valid = || outcome("a", Verdict::Valid);
        let verdict = |outcomes| results(&test(true, None), outcomes).verdict;
        assert_eq!(verdict(vec![]), Verdict::Unknown);
        assert_eq!(verdict(vec![valid()]), Verdict::Valid);
        let unknown = outcome("b", Verdict::Unknown);
        assert_eq!(verdict(vec![unknown.clone(), valid()]), Verdict::Unknown);
        let invalid = outcome("c", Verdict::Invalid);
        assert_eq!(verdict(vec![invalid, unknown, valid()]), Verdict::Invalid);
    }

    #[test]
    fn a_positive_control_must_fail_and_for_its_own_reason() {
        let expected = |test: &Test, outcomes| results(test, outcomes).as_expected;
        let control = test(false, Some("overlap"));
        let overlap = outcome("owner: overlap", Verdict::Invalid);
        let other = outcome("recovery", Verdict::Invalid);
        assert!(expected(&control, vec![overlap.clone(), other.clone()]));
        assert!(!expected(&control, vec![other.clone()]));
        assert!(!expected(
            &control,
            vec![outcome("overlap", Verdict::Unknown)]
        ));
        assert!(expected(&test(false, None), vec![other]));
        assert!(!expected(&test(true, None), vec![overlap]));
    }

    #[test]
    fn a_mode_is_asked_for_within_its_group() {
        let asked = ["none", "kill", "kill-leader"].map(str::to_owned);
        assert_eq!(required(&asked), ["kill", "kill/kill-leader"]);
    }

    #[test]
    fn what_rests_on_broken_assumptions_is_told_and_not_counted() {
        let mut timed = outcome("owner: overlap", Verdict::Invalid);
        not_promised(&mut timed);
        assert_eq!(timed.verdict, Verdict::Valid);
        assert!(timed.stats.contains_key(NOT_PROMISED));
        let mut fenced = outcome("fenced_register", Verdict::Invalid);
        not_promised(&mut fenced);
        assert_eq!(fenced.verdict, Verdict::Invalid);
    }

    #[test]
    fn what_is_unknown_stays_unknown_whatever_the_faults() {
        let mut timed = outcome("overlap", Verdict::Unknown);
        not_promised(&mut timed);
        assert_eq!(timed, outcome("overlap", Verdict::Unknown));
        let mut both = Outcome::valid("overlap");
        both.unknown(Finding::new("a hold makes no sense"));
        both.invalid(Finding::new("two held a slice"));
        not_promised(&mut both);
        assert_eq!(both.verdict, Verdict::Unknown);
    }
}
