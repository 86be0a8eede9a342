//! How long slices were served by nobody when they moved. Informative: always valid.

use std::collections::BTreeMap;

use leasehold_checkers::Outcome;
use leasehold_checkers::run::Hold;
use serde_json::json;

/// Counts moves and tells the median, the 99th percentile and the longest gap of each kind:
/// `planned` are handoffs, `unplanned` follow a lapse or a death.
pub(super) fn check(holds: &[Hold]) -> Outcome {
    let mut outcome = Outcome::valid("moves");
    let mut of_slice: BTreeMap<(&str, &str), Vec<&Hold>> = BTreeMap::new();
    for hold in holds {
        let slice = (hold.first.as_str(), hold.last.as_str());
        of_slice.entry(slice).or_default().push(hold);
    }
    let mut gaps: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for holds in of_slice.values_mut() {
        holds.sort_by_key(|hold| (hold.from_ns, hold.token));
        for pair in holds.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            if (&before.pod, before.incarnation) == (&after.pod, after.incarnation) {
                continue;
            }
            // Requests wait from the freeze on, though those under way go on until the end.
            let (kind, from_ns) = match before.frozen_ns {
                Some(frozen_ns) => ("planned", frozen_ns),
                None => ("unplanned", before.to_ns),
            };
            let gap = after.from_ns.saturating_sub(from_ns);
            gaps.entry(kind).or_default().push(gap);
        }
    }
    for (kind, mut gaps) in gaps {
        gaps.sort_unstable();
        let at = |quantile: f64| {
            let at = ((gaps.len() - 1) as f64 * quantile).round() as usize;
            gaps[at] as f64 / 1e6
        };
        outcome
            .stats
            .insert(format!("{kind}_moves"), json!(gaps.len()));
        for (name, quantile) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            let name = format!("{kind}_gap_ms_{name}");
            outcome.stats.insert(name, json!(at(quantile)));
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(pod: &str, from_ns: u64, to_ns: u64, frozen_ns: Option<u64>) -> Hold {
        Hold {
            pod: pod.into(),
            incarnation: 1,
            first: "0".into(),
            last: "f".into(),
            token: from_ns,
            from_ns,
            to_ns,
            frozen_ns,
        }
    }

    #[test]
    fn gaps_are_told_by_kind_and_a_pod_that_goes_on_makes_none() {
        let holds = [
            hold("a", 0, 10_000_000, Some(8_000_000)),
            hold("b", 11_000_000, 20_000_000, None),
            hold("b", 30_000_000, 40_000_000, None),
            hold("a", 90_000_000, 95_000_000, None),
        ];
        let stats = check(&holds).stats;
        assert_eq!(stats["planned_gap_ms_max"], json!(3.0));
        assert_eq!(stats["unplanned_moves"], json!(1));
        assert_eq!(stats["unplanned_gap_ms_p50"], json!(50.0));
    }
}
