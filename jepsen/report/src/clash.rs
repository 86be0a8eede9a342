//! Holds that must not both be, found anew from the files by the sweep that all of the project
//! uses, so that the ownership plot shows them whatever the checkers were asked.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_checkers::run::Hold;
use leasehold_proto::overlap::{Interval, Violation, violations};
use leasehold_proto::{Slice, SliceKey};

use crate::text::{span, token};

/// Clashes looked for at most; the plot says when there were as many.
pub(crate) const MAX_CLASHES: usize = 300;

/// Two holds, or one whose token did not rise.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Clash {
    /// From when.
    pub from_ns: u64,
    /// Until when.
    pub to_ns: u64,
    /// The slices of the two holds, as numbers of their first and last keys.
    pub slices: [(u64, u64); 2],
    /// Whether both could serve at once, rather than only the token being wrong.
    pub both: bool,
    /// In words; not escaped.
    pub what: String,
}

/// The first and last key of a hold, if they are hexadecimal numbers in order.
pub(crate) fn range(hold: &Hold) -> Option<(u64, u64)> {
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let (first, last) = (number(&hold.first)?, number(&hold.last)?);
    (first <= last).then_some((first, last))
}

/// Finds the clashes among holds, in the order of time.
pub(crate) fn find(holds: &[Hold]) -> Vec<Clash> {
    let mut numbers: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    let mut holders: Vec<String> = Vec::new();
    let mut intervals = Vec::with_capacity(holds.len());
    for hold in holds {
        let slice = range(hold).and_then(|(first, last)| {
            Slice::new(SliceKey::from_u64(first), SliceKey::from_u64(last))
        });
        let Some(slice) = slice else { continue };
        let next = numbers.len() as u64;
        let holder = *numbers
            .entry((&hold.pod, hold.incarnation))
            .or_insert_with(|| {
                holders.push(format!("{} (incarnation {})", hold.pod, hold.incarnation));
                next
            });
        intervals.push(Interval {
            slice,
            begin_ns: hold.from_ns,
            end_ns: hold.to_ns.max(hold.from_ns),
            holder,
            token: hold.token,
        });
    }
    let name = |holder: u64| holders.get(holder as usize).map_or("?", String::as_str);
    let found: BTreeSet<Clash> = violations(&intervals, MAX_CLASHES)
        .iter()
        .map(|violation| clash(violation, name))
        .collect();
    found.into_iter().collect()
}

fn clash<'a>(violation: &Violation, name: impl Fn(u64) -> &'a str) -> Clash {
    let slice = |interval: &Interval| {
        (
            interval.slice.first().as_u64(),
            interval.slice.last().as_u64(),
        )
    };
    match violation {
        Violation::Overlap(a, b, _) => {
            let (from_ns, to_ns) = (a.begin_ns.max(b.begin_ns), a.end_ns.min(b.end_ns));
            let what = format!(
                "{} under token {} and {} under token {} both held it for {}",
                name(a.holder),
                token(a.token),
                name(b.holder),
                token(b.token),
                span(to_ns.saturating_sub(from_ns))
            );
            Clash {
                from_ns,
                to_ns,
                slices: [slice(a), slice(b)],
                both: true,
                what,
            }
        }
        Violation::TokenNotLarger(a, b) => {
            let what = format!(
                "{} had token {}, and then {} only token {}",
                name(a.holder),
                token(a.token),
                name(b.holder),
                token(b.token)
            );
            let at = b.begin_ns;
            Clash {
                from_ns: at,
                to_ns: at,
                slices: [slice(a), slice(b)],
                both: false,
                what,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(pod: &str, incarnation: u64, token: u64, from_ns: u64, to_ns: u64) -> Hold {
        Hold {
            pod: pod.to_owned(),
            incarnation,
            first: "0000000000000000".to_owned(),
            last: "ffffffffffffffff".to_owned(),
            token,
            from_ns,
            to_ns,
            frozen_ns: None,
        }
    }

    #[test]
    fn touching_is_not_clashing() {
        assert_eq!(find(&[hold("a", 1, 1, 0, 10), hold("b", 1, 2, 10, 20)]), []);
    }

    #[test]
    fn two_incarnations_of_a_pod_are_two_holders() {
        let found = find(&[hold("a", 1, 1, 0, 10), hold("a", 2, 2, 5, 20)]);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].from_ns, found[0].to_ns, found[0].both),
            (5, 10, true)
        );
    }

    #[test]
    fn a_slice_that_is_no_number_is_passed_over() {
        let mut odd = hold("a", 1, 1, 0, 10);
        odd.first = "<b>".to_owned();
        assert_eq!(find(&[odd]), []);
    }
}
