//! Checks that no two holders ever held the same key at the same instant.
//!
//! Used by demos, tests and the fault-injecting harness alike, so that all mean the same by it. A
//! sweep over time inside each elementary key range; n log n in the number of intervals for slices
//! that are the same, which nearly all are.

use std::collections::BTreeSet;

use crate::id::FencingToken;
use crate::key::SliceKey;
use crate::slice::Slice;

/// One holder held one slice for a while, on one clock that all intervals share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interval {
    /// The slice.
    pub slice: Slice,
    /// When it could first serve, in nanoseconds.
    pub begin_ns: u64,
    /// When it could last serve, in nanoseconds; at least `begin_ns`.
    pub end_ns: u64,
    /// Who.
    pub holder: u64,
    /// At which token, as the holder knew it.
    pub token: u64,
}

impl Interval {
    /// An interval of a holder that knew its token.
    pub fn new(slice: Slice, begin_ns: u64, end_ns: u64, holder: u64, token: FencingToken) -> Self {
        Self {
            slice,
            begin_ns,
            end_ns,
            holder,
            token: token.as_u64(),
        }
    }
}

/// Two intervals that must not both be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Two holders at one instant.
    #[error("holders {} and {} both held {} for {} ns (tokens {} and {})", .0.holder, .1.holder, .0.slice, .2, .0.token, .1.token)]
    Overlap(Box<Interval>, Box<Interval>, u64),
    /// A later holder with a token that is not larger.
    #[error("{} went from holder {} to {} but its token from {} to {}", .1.slice, .0.holder, .1.holder, .0.token, .1.token)]
    TokenNotLarger(Box<Interval>, Box<Interval>),
}

/// Every violation, at most `limit` of them.
pub fn violations(intervals: &[Interval], limit: usize) -> Vec<Violation> {
    let mut cuts: BTreeSet<SliceKey> = intervals
        .iter()
        .map(|interval| interval.slice.first())
        .collect();
    cuts.extend(
        intervals
            .iter()
            .filter_map(|interval| interval.slice.last().next()),
    );
    let cuts: Vec<SliceKey> = cuts.into_iter().collect();
    let mut ranges: Vec<Vec<&Interval>> = vec![Vec::new(); cuts.len()];
    for interval in intervals {
        let from = cuts.partition_point(|cut| *cut < interval.slice.first());
        for (range, cut) in ranges[from..].iter_mut().zip(&cuts[from..]) {
            if *cut > interval.slice.last() {
                break;
            }
            range.push(interval);
        }
    }
    let mut found = Vec::new();
    for mut range in ranges {
        range.sort_by_key(|interval| (interval.begin_ns, interval.token));
        sweep(&range, limit, &mut found);
        if found.len() >= limit {
            break;
        }
    }
    found
}

/// Walks one key range in time, remembering the interval that ends last and, for tokens, the
/// largest token of any holder so far.
fn sweep(range: &[&Interval], limit: usize, found: &mut Vec<Violation>) {
    let mut latest: Vec<&Interval> = Vec::new();
    for interval in range {
        for earlier in latest
            .iter()
            .filter(|earlier| earlier.holder != interval.holder)
        {
            if found.len() >= limit {
                return;
            }
            let pair = (Box::new((*earlier).clone()), Box::new((*interval).clone()));
            if earlier.end_ns > interval.begin_ns {
                let shared = earlier.end_ns.min(interval.end_ns) - interval.begin_ns;
                found.push(Violation::Overlap(pair.0, pair.1, shared));
            } else if earlier.token >= interval.token {
                found.push(Violation::TokenNotLarger(pair.0, pair.1));
            }
        }
        // Of each holder only the interval that ends last can still overlap what comes.
        match latest
            .iter_mut()
            .find(|earlier| earlier.holder == interval.holder)
        {
            Some(earlier) if earlier.end_ns <= interval.end_ns => *earlier = interval,
            Some(_) => {}
            None => latest.push(interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(
        first: u64,
        last: u64,
        begin_ns: u64,
        end_ns: u64,
        holder: u64,
        token: u64,
    ) -> Interval {
        let slice = Slice::new(SliceKey::from_u64(first), SliceKey::from_u64(last)).unwrap();
        Interval {
            slice,
            begin_ns,
            end_ns,
            holder,
            token,
        }
    }

    #[test]
    fn successive_holders_with_rising_tokens_are_fine() {
        let good = [
            held(0, 9, 0, 10, 1, 5),
            held(0, 9, 10, 20, 2, 6),
            held(0, 9, 21, 30, 1, 7),
            held(10, 19, 0, 30, 3, 1),
        ];
        assert_eq!(violations(&good, 10), vec![]);
    }

    #[test]
    fn an_overlap_is_found_across_splits_and_under_long_intervals() {
        let bad = [
            held(0, 99, 0, 1_000, 1, 5),
            held(0, 49, 10, 20, 1, 5),
            held(20, 29, 500, 501, 2, 6),
        ];
        let found = violations(&bad, 10);
        assert!(
            matches!(found.as_slice(), [Violation::Overlap(_, _, 1)]),
            "{found:?}"
        );
    }

    #[test]
    fn a_token_that_does_not_rise_is_found() {
        let bad = [held(0, 9, 0, 10, 1, 5), held(0, 9, 10, 20, 2, 5)];
        assert!(matches!(
            violations(&bad, 10).as_slice(),
            [Violation::TokenNotLarger(..)]
        ));
    }
}
