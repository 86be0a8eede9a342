//! How long nothing succeeded, under which fault. Informative: always valid.

use std::collections::BTreeMap;

use serde_json::json;

use crate::history::{History, Kind};
use crate::run::{Fault, Installed};
use crate::verdict::{Finding, Outcome};

const NAME: &str = "availability";

/// A shorter time without success is not told: single operations may be slow.
const TOLD_NS: u64 = 1_000_000_000;

/// Measures times without an `ok` operation. In `stats`:
///
/// * `ok_share`: of operations that ended `ok`;
/// * `latency_p50_ns`, `latency_p99_ns`: of those;
/// * `longest_gap_ns`, and `gaps_over_1s_ns` together;
/// * `by_fault`: for each kind, the p50 and p99 over its faults of the longest time without success
///   between its beginning and its end.
pub fn check(history: &History, faults: &[Fault]) -> Outcome {
    let mut outcome = Outcome::valid(NAME);
    let calls = history.calls();
    let mut latencies: Vec<u64> = calls
        .iter()
        .filter(|call| call.ok().is_some())
        .map(|call| call.return_ns() - call.call_ns())
        .collect();
    latencies.sort_unstable();
    let ends: Vec<u64> = history
        .0
        .iter()
        .filter(|op| op.kind == Kind::Ok)
        .map(|op| op.time)
        .collect();
    let from_ns = history.0.first().map_or(0, |op| op.time);
    let to_ns = history.0.last().map_or(0, |op| op.time);
    let gaps = gaps(&ends, from_ns, to_ns);
    let long = gaps.iter().filter(|(from, to)| to - from >= TOLD_NS);
    for (from, to) in long.clone().take(24) {
        let seconds = (to - from) as f64 / 1e9;
        let under: Vec<String> = faults
            .iter()
            .filter(|fault| fault.from_ns <= *to && fault.to_ns.is_none_or(|end| end >= *from))
            .filter(|fault| !matches!(fault.installed, Installed::Skipped(_)))
            .map(|fault| format!("{}/{}", fault.kind, fault.mode))
            .collect();
        let under = match under.is_empty() {
            true => "no fault".to_owned(),
            false => under.join(", "),
        };
        let what = format!("nothing succeeded for {seconds:.1} s under {under}");
        outcome.findings.push(Finding::new(what).time(*from, *to));
    }
    let by_fault: BTreeMap<String, _> = by_fault(&ends, faults, to_ns)
        .into_iter()
        .map(|(kind, mut longest)| {
            longest.sort_unstable();
            let row = json!({
                "faults": longest.len(),
                "p50_ns": quantile(&longest, 0.5),
                "p99_ns": quantile(&longest, 0.99),
            });
            (kind, row)
        })
        .collect();
    outcome.count(
        "ok_share",
        latencies.len() as f64 / calls.len().max(1) as f64,
    );
    outcome.count("latency_p50_ns", quantile(&latencies, 0.5));
    outcome.count("latency_p99_ns", quantile(&latencies, 0.99));
    let longest = gaps.iter().map(|(from, to)| to - from).max();
    outcome.count("longest_gap_ns", longest);
    let sum: u64 = long.map(|(from, to)| to - from).sum();
    outcome.count("gaps_over_1s_ns", sum);
    outcome.count("by_fault", json!(by_fault));
    outcome
}

/// Times between successes, from the beginning to the end.
fn gaps(ends: &[u64], from_ns: u64, to_ns: u64) -> Vec<(u64, u64)> {
    let mut gaps = Vec::with_capacity(ends.len() + 1);
    let mut before = from_ns;
    for end in ends.iter().copied().chain([to_ns]) {
        gaps.push((before, end.max(before)));
        before = end.max(before);
    }
    gaps
}

/// For each kind, the longest time without success within each of its faults.
fn by_fault(ends: &[u64], faults: &[Fault], to_ns: u64) -> BTreeMap<String, Vec<u64>> {
    let mut by_kind: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for fault in faults {
        if matches!(fault.installed, Installed::Skipped(_)) {
            continue;
        }
        let end_ns = fault.to_ns.unwrap_or(to_ns).max(fault.from_ns);
        let first = ends.partition_point(|end| *end <= fault.from_ns);
        let last = ends.partition_point(|end| *end < end_ns).max(first);
        let within = gaps(&ends[first..last], fault.from_ns, end_ns);
        let longest = within.iter().map(|(from, to)| to - from).max();
        let longest_of = by_kind.entry(fault.kind.clone()).or_default();
        longest_of.push(longest.unwrap_or(0));
    }
    by_kind
}

/// By nearest rank; `None` of none.
fn quantile(sorted: &[u64], q: f64) -> Option<u64> {
    let rank = (sorted.len() as f64 * q).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::{failed, history, ok};
    use crate::verdict::Verdict;

    #[test]
    fn the_longest_gap_is_told_with_its_fault() {
        let s = 1_000_000_000;
        let read = |from, to| ok("read", Value::Null, from, to, 1);
        let did = [
            read(0, 100),
            read(200, 300),
            failed("read", Value::Null, s, 2 * s),
            read(4 * s, 5 * s),
        ];
        let fault = Fault {
            kind: "pause".to_owned(),
            mode: "leader".to_owned(),
            hosts: vec!["a1".to_owned()],
            detail: String::new(),
            installed: Installed::Installed,
            from_ns: s,
            to_ns: Some(3 * s),
        };
        let outcome = check(&history(&did), &[fault]);
        assert_eq!(outcome.verdict, Verdict::Valid);
        assert_eq!(outcome.findings.len(), 1);
        assert!(
            outcome.findings[0]
                .what
                .ends_with("for 5.0 s under pause/leader")
        );
        assert_eq!(outcome.stats["longest_gap_ns"], 5 * s - 300);
        assert_eq!(outcome.stats["by_fault"]["pause"]["p50_ns"], 2 * s);
        assert_eq!(outcome.stats["ok_share"], 0.75);
        assert_eq!(outcome.stats["latency_p50_ns"], 100);
    }

    #[test]
    fn an_empty_history_has_no_figures() {
        let outcome = check(&History::default(), &[]);
        assert_eq!(outcome.stats["latency_p50_ns"], Value::Null);
    }
}
