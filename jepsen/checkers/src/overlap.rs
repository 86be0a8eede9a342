//! No two holders of a key at one instant of true time, and tokens that rise from one to the next.
//!
//! All hosts of a run share one true clock, so this needs no history: it is what no test over
//! several machines can see. The sweep is `leasehold_proto::overlap`, the same that demos use.

use std::collections::HashMap;

use leasehold_proto::key::SliceKey;
use leasehold_proto::overlap::{Interval, Violation, violations};
use leasehold_proto::slice::Slice;

use crate::run::Hold;
use crate::verdict::{Finding, MAX_FINDINGS, Outcome};

const NAME: &str = "overlap";

/// Judges holds. No holds at all, or one that cannot be read, is unknown.
pub fn check(holds: &[Hold]) -> Outcome {
    let mut outcome = Outcome::valid(NAME);
    let mut holders: HashMap<(&str, u64), u64> = HashMap::new();
    let mut names: Vec<String> = Vec::new();
    let mut intervals = Vec::with_capacity(holds.len());
    for (at, hold) in holds.iter().enumerate() {
        let next = names.len() as u64;
        let holder = *holders.entry((&hold.pod, hold.incarnation)).or_insert(next);
        if holder == next {
            names.push(format!("{}#{}", hold.pod, hold.incarnation));
        }
        match slice(hold).filter(|_| hold.from_ns <= hold.to_ns) {
            Some(slice) => intervals.push(Interval {
                slice,
                begin_ns: hold.from_ns,
                end_ns: hold.to_ns,
                holder,
                token: hold.token,
            }),
            None => outcome.unknown(Finding::new(format!(
                "hold {at} of {} makes no sense: from {} to {}, {} ns to {} ns",
                hold.pod, hold.first, hold.last, hold.from_ns, hold.to_ns
            ))),
        }
    }
    if holds.is_empty() {
        outcome.unknown(Finding::new("no holds were recorded"));
    }
    let name = |interval: &Interval| names.get(interval.holder as usize).cloned();
    for violation in violations(&intervals, MAX_FINDINGS) {
        outcome.invalid(tell(&violation, |interval| {
            name(interval).unwrap_or_default()
        }));
    }
    outcome.count("holds", intervals.len());
    outcome.count("holders", names.len());
    outcome.count("handoffs", handoffs(&intervals));
    outcome
}

fn slice(hold: &Hold) -> Option<Slice> {
    let key = |text: &str| u64::from_str_radix(text, 16).map(SliceKey::from_u64).ok();
    Slice::new(key(&hold.first)?, key(&hold.last)?)
}

/// How often a slice went from one holder to another.
fn handoffs(intervals: &[Interval]) -> u64 {
    let mut ordered: Vec<&Interval> = intervals.iter().collect();
    ordered.sort_by_key(|interval| (interval.slice, interval.begin_ns, interval.token));
    let moved = ordered
        .windows(2)
        .filter(|pair| pair[0].slice == pair[1].slice && pair[0].holder != pair[1].holder);
    moved.count() as u64
}

fn tell(violation: &Violation, name: impl Fn(&Interval) -> String) -> Finding {
    match violation {
        Violation::Overlap(a, b, shared_ns) => Finding::new(format!(
            "{} at token {} and {} at token {} both held {} for {shared_ns} ns",
            name(a),
            a.token,
            name(b),
            b.token,
            b.slice
        ))
        .time(b.begin_ns, b.begin_ns + shared_ns),
        Violation::TokenNotLarger(a, b) => Finding::new(format!(
            "{} went from {} to {} but its token from {} to {}",
            b.slice,
            name(a),
            name(b),
            a.token,
            b.token
        ))
        .time(a.end_ns, b.begin_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Verdict;

    fn hold(pod: &str, incarnation: u64, token: u64, from_ns: u64, to_ns: u64) -> Hold {
        Hold {
            pod: pod.to_owned(),
            incarnation,
            first: format!("{:016x}", 0x10),
            last: format!("{:016x}", 0x1f),
            token,
            from_ns,
            to_ns,
            frozen_ns: None,
        }
    }

    #[test]
    fn one_holder_after_the_other_is_valid() {
        let holds = [
            hold("p1", 1, 5, 0, 10),
            hold("p2", 1, 6, 10, 20),
            hold("p1", 2, 7, 20, 30),
        ];
        let outcome = check(&holds);
        assert_eq!(outcome.verdict, Verdict::Valid);
        assert_eq!(outcome.stats["handoffs"], 2);
    }

    #[test]
    fn two_holders_at_once_are_found_even_as_incarnations_of_one_pod() {
        let outcome = check(&[hold("p1", 1, 5, 0, 10), hold("p1", 2, 6, 8, 20)]);
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert!(
            outcome.findings[0]
                .what
                .contains("p1#1 at token 5 and p1#2")
        );
        assert_eq!(outcome.findings[0].time_ns, Some((8, 10)));
    }

    #[test]
    fn a_token_that_does_not_rise_is_found() {
        let outcome = check(&[hold("p1", 1, 5, 0, 10), hold("p2", 1, 5, 12, 20)]);
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert!(outcome.findings[0].what.contains("token from 5 to 5"));
    }

    #[test]
    fn nothing_recorded_or_nonsense_is_unknown() {
        assert_eq!(check(&[]).verdict, Verdict::Unknown);
        assert_eq!(check(&[hold("p1", 1, 5, 10, 9)]).verdict, Verdict::Unknown);
        let mut odd = hold("p1", 1, 5, 0, 9);
        odd.first = "here".to_owned();
        assert_eq!(check(&[odd]).verdict, Verdict::Unknown);
    }
}
