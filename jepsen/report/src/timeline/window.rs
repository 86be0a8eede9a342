//! Which operations a timeline shows: all of a short run; of a long one those around findings, and
//! a sample of the rest.

use std::collections::BTreeSet;

use leasehold_checkers::{Finding, Kind};

use crate::axis::TimeAxis;
use crate::run::{Operation, Run};
use crate::text::{clip, count, seconds, span};

/// A run with so many operations is shown whole.
const WHOLE: usize = 1_200;
/// Operations of one window at most.
const MAX_OPERATIONS: usize = 400;
/// Windows around findings at most.
const MAX_FINDINGS: usize = 20;

/// A span of time and the operations shown in it.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    /// Why it is shown.
    pub title: String,
    /// What is left out of it.
    pub notes: Vec<String>,
    /// The time it covers.
    pub axis: TimeAxis,
    /// Positions in the run's operations; those that are marked come first.
    pub operations: Vec<usize>,
    /// Indices of lines that a finding points at.
    pub marked: BTreeSet<u64>,
}

impl Window {
    /// Whether a finding points at the operation.
    pub fn marks(&self, operation: &Operation) -> bool {
        operation.is_among(&self.marked)
    }

    /// The windows of a run, and what they leave out.
    pub fn of(run: &Run) -> (Vec<Window>, Option<String>) {
        let findings = findings(run);
        let total = run.operations.len();
        if total <= WHOLE {
            let axis = run.axis();
            let marked = findings
                .iter()
                .flat_map(|f| f.ops.iter().copied())
                .collect();
            let mut windows = vec![Self::filled(
                "The whole run".to_owned(),
                run,
                axis,
                marked,
                None,
                WHOLE,
            )];
            windows.extend(
                findings
                    .iter()
                    .take(MAX_FINDINGS)
                    .filter_map(|f| Self::around(run, f)),
            );
            let left = left_out(&findings, None);
            return (windows, left);
        }
        let mut windows: Vec<Window> = findings
            .iter()
            .take(MAX_FINDINGS)
            .filter_map(|f| Self::around(run, f))
            .collect();
        windows.extend(sample(run));
        let shown: BTreeSet<usize> = windows
            .iter()
            .flat_map(|w| w.operations.iter().copied())
            .collect();
        let left = format!(
            "The run has {} operations; shown are {} of them: windows around findings, and a sample from its beginning, its middle, its end and the first unknown outcome.",
            count(total),
            count(shown.len())
        );
        let left = left_out(&findings, Some(left));
        (windows, left)
    }

    /// The window of a finding: its time, or that of its operations, with as much again around it.
    pub fn around(run: &Run, finding: &Finding) -> Option<Window> {
        let marked: BTreeSet<u64> = finding.ops.iter().copied().collect();
        let mut from = finding.time_ns.map(|(from, _)| from);
        let mut to = finding.time_ns.map(|(_, to)| to);
        for operation in run.operations.iter().filter(|o| o.is_among(&marked)) {
            let end = operation.end.map_or(operation.from_ns, |(_, at)| at);
            from = Some(from.map_or(operation.from_ns, |f| f.min(operation.from_ns)));
            to = Some(to.map_or(end, |t| t.max(end)));
        }
        let (from, to) = (from?, to?);
        let margin = (to.saturating_sub(from) / 4).max(5_000_000);
        let to = to.saturating_add(margin).min(run.end_ns.max(to));
        let axis = TimeAxis::new(from.saturating_sub(margin), to);
        let title = format!(
            "{} to {}: {}",
            seconds(axis.from_ns),
            seconds(axis.to_ns),
            clip(&finding.what, 110)
        );
        Some(Self::filled(
            title,
            run,
            axis,
            marked,
            finding.key.as_deref(),
            MAX_OPERATIONS,
        ))
    }

    /// What was under way in `axis`, of `key` only if there is one; marked operations first.
    fn filled(
        title: String,
        run: &Run,
        axis: TimeAxis,
        marked: BTreeSet<u64>,
        key: Option<&str>,
        most: usize,
    ) -> Window {
        let mut window = Window {
            title,
            notes: Vec::new(),
            axis,
            operations: Vec::new(),
            marked,
        };
        let under_way = |o: &Operation| {
            let end = o.end.map_or(o.from_ns, |(_, at)| at);
            axis.shows(o.from_ns, end)
        };
        let mut ranked: Vec<(u8, usize)> = run
            .operations
            .iter()
            .enumerate()
            .filter_map(|(at, operation)| {
                let rank = match operation {
                    o if window.marks(o) => 0,
                    o if !under_way(o) => return None,
                    o if key.is_some() && o.key.as_deref() != key => return None,
                    _ => 1,
                };
                Some((rank, at))
            })
            .collect();
        ranked.sort_unstable();
        if let Some(key) = key {
            window
                .notes
                .push(format!("only operations of key {}", clip(key, 60)));
        }
        let found = ranked.len();
        ranked.truncate(most);
        if found > ranked.len() {
            window.notes.push(format!(
                "{} of {} operations under way in {}: those of the finding, then the first",
                ranked.len(),
                count(found),
                span(axis.span_ns())
            ));
        }
        window.operations = ranked.into_iter().map(|(_, at)| at).collect();
        window
    }
}

/// Everything that any checker points at.
pub(crate) fn findings(run: &Run) -> Vec<Finding> {
    let outcomes = run.results.iter().flat_map(|results| &results.outcomes);
    outcomes
        .flat_map(|outcome| outcome.findings.iter().cloned())
        .collect()
}

fn left_out(findings: &[Finding], words: Option<String>) -> Option<String> {
    let more = findings.len().saturating_sub(MAX_FINDINGS);
    if more == 0 {
        return words;
    }
    let more = format!("{more} further findings have no window.");
    Some(words.map_or(more.clone(), |words| format!("{words} {more}")))
}

/// Beginning, middle, end, and the first operation of unknown outcome.
fn sample(run: &Run) -> Vec<Window> {
    const EACH: usize = 250;
    let total = run.operations.len();
    let unknown = run.operations.iter().position(|o| o.outcome == Kind::Info);
    let places = [
        ("The beginning", Some(0)),
        ("The middle", Some(total / 2)),
        ("The end", Some(total.saturating_sub(EACH))),
        (
            "Around the first unknown outcome",
            unknown.map(|at| at.saturating_sub(EACH / 2)),
        ),
    ];
    let window = |(title, at): (&str, Option<usize>)| {
        let operations: Vec<usize> = (at?..total).take(EACH).collect();
        let shown = || operations.iter().filter_map(|at| run.operations.get(*at));
        let from = shown().map(|o| o.from_ns).min()?;
        let to = shown().map(|o| o.from_ns).max()?;
        let axis = TimeAxis::new(from, to.saturating_add((to - from) / 10));
        Some(Window {
            title: format!(
                "{title}: {} to {}",
                seconds(axis.from_ns),
                seconds(axis.to_ns)
            ),
            notes: Vec::new(),
            axis,
            operations,
            marked: BTreeSet::new(),
        })
    };
    places.into_iter().filter_map(window).collect()
}
