//! From logs to figures.

use leasehold_proto::Slice;
use leasehold_proto::overlap::{self, Interval};

use super::ownership::{History, Span};
use super::requests::{Ending, Request};
use leasehold_figures::quantile;

/// A stretch of the run in which only planned things happened, on the host's lease clock.
#[derive(Clone, Copy, Debug)]
pub struct Planned {
    pub from_ns: u64,
    pub to_ns: u64,
}

impl Planned {
    fn holds(&self, at_ns: u64) -> bool {
        self.from_ns <= at_ns && at_ns <= self.to_ns
    }
}

/// What the requests say.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub total: usize,
    pub failed_planned: usize,
    pub failed_total: usize,
    pub lost_planned: usize,
    pub lost_total: usize,
    pub stale: usize,
}

/// Counts endings. A request belongs to a planned stretch when it was due and ended inside it.
pub fn count(requests: &[Request], planned: &[Planned]) -> Counts {
    let mut counts = Counts {
        total: requests.len(),
        ..Counts::default()
    };
    for request in requests {
        let inside =
            |stretch: &Planned| stretch.holds(request.due_ns) && stretch.holds(request.end_ns);
        let in_planned = || usize::from(planned.iter().any(inside));
        match request.ending {
            Ending::Ok => {}
            Ending::Lost => {
                counts.lost_total += 1;
                // What died with a pod is missed later, in a stretch in which nothing died.
                counts.lost_planned += usize::from(planned.first().is_some_and(inside));
            }
            Ending::Stale => counts.stale += 1,
            Ending::Failed | Ending::Unknown => {
                counts.failed_total += 1;
                counts.failed_planned += in_planned();
            }
        }
    }
    counts
}

/// Every overlap and every token that did not rise, with a bound on how many are told.
pub fn violations(histories: &[History]) -> Vec<overlap::Violation> {
    let held: Vec<Interval> = histories
        .iter()
        .flat_map(|history| history.held.iter().cloned())
        .collect();
    overlap::violations(&held, 1_000)
}

/// How long nobody took requests for a slice, for every planned move in `planned`, in milliseconds:
/// from the freeze at the source to the begin at its successor.
pub fn planned_gaps_ms(histories: &[History], planned: &[Planned]) -> Vec<f64> {
    let mut begins: Vec<(Slice, u64, u64)> = histories
        .iter()
        .flat_map(|history| {
            history
                .held
                .iter()
                .map(|held| (held.slice, held.token, held.begin_ns))
        })
        .collect();
    begins.sort_unstable();
    let gap = |frozen: &Span| {
        let after = begins
            .partition_point(|(slice, token, _)| (*slice, *token) <= (frozen.slice, frozen.token));
        let (slice, _, begin_ns) = begins.get(after)?;
        (*slice == frozen.slice).then(|| begin_ns.saturating_sub(frozen.at_ns) as f64 / 1e6)
    };
    let freezes = histories.iter().flat_map(|history| &history.freezes);
    freezes
        .filter(|(frozen, _)| planned.iter().any(|stretch| stretch.holds(frozen.at_ns)))
        .filter_map(|(frozen, _)| gap(frozen))
        .collect()
}

/// How often a slice went from one holder to another while only planned things happened. Counted
/// from the holders' own logs, so that it serves both modes.
pub fn planned_moves(histories: &[History], planned: &[Planned]) -> usize {
    let mut held: Vec<(Slice, u64, u64, u64)> = histories
        .iter()
        .flat_map(|history| history.held.iter())
        .map(|held| (held.slice, held.token, held.begin_ns, held.holder))
        .collect();
    held.sort_unstable();
    let moved = |pair: &&[(Slice, u64, u64, u64)]| {
        let ((slice, _, _, from), (next, _, begin_ns, to)) = (pair[0], pair[1]);
        slice == next && from != to && planned.iter().any(|stretch| stretch.holds(begin_ns))
    };
    held.windows(2).filter(moved).count()
}

/// Median and 99th percentile.
pub fn p50_p99(samples: &[f64]) -> (Option<f64>, Option<f64>) {
    (quantile(samples, 0.5), quantile(samples, 0.99))
}

#[cfg(test)]
mod tests {
    use super::*;
    use leasehold_proto::SliceKey;

    fn held(begin_ns: u64, end_ns: u64, holder: u64, token: u64) -> Interval {
        Interval {
            slice: Slice::ALL,
            begin_ns,
            end_ns,
            holder,
            token,
        }
    }

    #[test]
    fn a_gap_runs_from_the_freeze_to_the_successors_begin() {
        let frozen = Span {
            at_ns: 9_000_000,
            slice: Slice::ALL,
            token: 5,
        };
        let first = History {
            held: vec![held(0, 9_500_000, 1, 5)],
            freezes: vec![(frozen, 9_500_000)],
        };
        let second = History {
            held: vec![held(10_000_000, 20_000_000, 2, 6)],
            freezes: vec![],
        };
        let planned = [Planned {
            from_ns: 0,
            to_ns: u64::MAX,
        }];
        let both = [first, second];
        assert_eq!(planned_gaps_ms(&both, &planned), [1.0]);
        assert_eq!(planned_moves(&both, &planned), 1);
    }

    #[test]
    fn an_overlap_in_the_logs_is_found() {
        let first = History {
            held: vec![held(0, 20, 1, 5)],
            freezes: vec![],
        };
        let second = History {
            held: vec![held(10, 30, 2, 6)],
            freezes: vec![],
        };
        assert_eq!(violations(&[first, second]).len(), 1);
    }

    #[test]
    fn a_failure_counts_as_planned_only_inside_a_planned_stretch() {
        let request = |due_ns, end_ns| Request {
            due_ns,
            end_ns,
            key: SliceKey::MIN,
            ending: Ending::Unknown,
        };
        let counts = count(
            &[request(5, 8), request(15, 30)],
            &[Planned {
                from_ns: 0,
                to_ns: 20,
            }],
        );
        assert_eq!((counts.failed_planned, counts.failed_total), (1, 2));
    }
}
