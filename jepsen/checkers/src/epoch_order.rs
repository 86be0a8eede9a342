//! Epochs only rise as seen by clients, and each epoch has one owner.
//!
//! No operation that began after one with a larger epoch had ended may succeed with a smaller one:
//! whoever answered it had been succeeded by then. One sweep over time, O(n log n).

use std::collections::HashMap;

use crate::history::{Call, History};
use crate::run::Hold;
use crate::verdict::{Finding, Outcome};

const NAME: &str = "epoch_order";

/// Judges `ok` operations that carry an epoch, by key, and the owners of the epochs in `holds`
/// (which may be empty). Nodes of the history and pods of the holds must have the same names; if a
/// key is a slice, the history's owners are compared with each other. Without any epoch the verdict
/// is unknown.
pub fn check(history: &History, holds: &[Hold]) -> Outcome {
    let mut outcome = Outcome::valid(NAME);
    let (mut ops, mut epochs) = (0u64, 0u64);
    for (key, calls) in history.calls_by_key() {
        let calls: Vec<Answered<'_>> = calls.iter().filter_map(Answered::of).collect();
        ops += calls.len() as u64;
        check_order(key, &calls, &mut outcome);
        epochs += check_owners(key, &calls, &mut outcome);
    }
    check_holds(holds, &mut outcome);
    if ops == 0 && holds.is_empty() {
        outcome.unknown(Finding::new("nothing carried an epoch"));
    }
    outcome.count("ops", ops);
    outcome.count("epochs", epochs);
    outcome.count("holds", holds.len());
    outcome
}

/// An operation that was answered under an epoch.
#[derive(Clone, Copy)]
struct Answered<'a> {
    call: Call<'a>,
    epoch: u64,
    node: Option<&'a str>,
}

impl<'a> Answered<'a> {
    fn of(call: &Call<'a>) -> Option<Self> {
        let op = call.ok()?;
        Some(Self {
            call: *call,
            epoch: op.epoch?,
            node: op.node.as_deref(),
        })
    }
}

fn check_order(key: &str, calls: &[Answered<'_>], outcome: &mut Outcome) {
    let mut begins = calls.to_vec();
    begins.sort_by_key(|answered| answered.call.call_ns());
    let mut ends = calls.to_vec();
    ends.sort_by_key(|answered| answered.call.return_ns());
    let mut ends = ends.into_iter().peekable();
    let mut largest: Option<Answered<'_>> = None;
    for later in begins {
        while let Some(ended) = ends.next_if(|ended| ended.call.precedes(&later.call)) {
            if largest.is_none_or(|largest| largest.epoch < ended.epoch) {
                largest = Some(ended);
            }
        }
        let Some(earlier) = largest.filter(|earlier| earlier.epoch > later.epoch) else {
            continue;
        };
        let what = format!(
            "{} answered under epoch {} what began {} ns after {} had answered under epoch {}",
            later.node.unwrap_or("somebody"),
            later.epoch,
            later.call.call_ns() - earlier.call.return_ns(),
            earlier.node.unwrap_or("somebody"),
            earlier.epoch,
        );
        outcome.invalid(
            Finding::new(what)
                .ops([earlier.call.invoke.index, later.call.invoke.index])
                .time(earlier.call.call_ns(), later.call.return_ns())
                .key(key),
        );
    }
}

/// How many epochs there are.
fn check_owners(key: &str, calls: &[Answered<'_>], outcome: &mut Outcome) -> u64 {
    let mut owners: HashMap<u64, Answered<'_>> = HashMap::new();
    for answered in calls.iter().filter(|answered| answered.node.is_some()) {
        let owner = *owners.entry(answered.epoch).or_insert(*answered);
        if owner.node != answered.node {
            let what = format!(
                "epoch {} has two owners, {} and {}",
                answered.epoch,
                owner.node.unwrap_or_default(),
                answered.node.unwrap_or_default(),
            );
            outcome.invalid(
                Finding::new(what)
                    .ops([owner.call.invoke.index, answered.call.invoke.index])
                    .time(owner.call.call_ns(), answered.call.return_ns())
                    .key(key),
            );
        }
    }
    owners.len() as u64
}

/// Of each slice: an epoch belongs to one incarnation of one pod. A split or merge leaves pieces
/// with the old token to the old holder, so pieces are compared, not exact slices.
fn check_holds(holds: &[Hold], outcome: &mut Outcome) {
    let mut by_token: HashMap<u64, Vec<&Hold>> = HashMap::new();
    for hold in holds {
        by_token.entry(hold.token).or_default().push(hold);
    }
    let mut tokens: Vec<_> = by_token.into_iter().collect();
    tokens.sort_by_key(|(token, _)| *token);
    for (token, mut holds) in tokens {
        holds.sort_by(|a, b| (&a.first, a.from_ns).cmp(&(&b.first, b.from_ns)));
        // The hold that reaches furthest so far, and the one of anybody else.
        let mut furthest: Option<&Hold> = None;
        let mut other: Option<&Hold> = None;
        for hold in holds {
            let same = |a: &Hold| (&a.pod, a.incarnation) == (&hold.pod, hold.incarnation);
            let clash = [furthest, other]
                .into_iter()
                .flatten()
                .find(|earlier| !same(earlier) && earlier.last >= hold.first);
            if let Some(earlier) = clash {
                let what = format!(
                    "epoch {token} has two owners, {}#{} and {}#{}, from {} on",
                    earlier.pod, earlier.incarnation, hold.pod, hold.incarnation, hold.first
                );
                let from_ns = earlier.from_ns.min(hold.from_ns);
                outcome.invalid(Finding::new(what).time(from_ns, earlier.to_ns.max(hold.to_ns)));
            }
            match furthest {
                Some(earlier) if same(earlier) => {
                    if earlier.last < hold.last {
                        furthest = Some(hold);
                    }
                }
                Some(earlier) if earlier.last < hold.last => {
                    other = Some(earlier);
                    furthest = Some(hold);
                }
                Some(_) if other.is_none_or(|earlier| earlier.last < hold.last) => {
                    other = Some(hold);
                }
                Some(_) => {}
                None => furthest = Some(hold),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::{Did, begun, history, ok};
    use crate::verdict::Verdict;

    fn served(node: &'static str, epoch: u64, from: u64, to: u64) -> Did {
        ok("serve", Value::Null, from, to, Value::Null).by(node, epoch)
    }

    fn hold(pod: &str, first: u64, last: u64, token: u64) -> Hold {
        Hold {
            pod: pod.to_owned(),
            incarnation: 1,
            first: format!("{first:016x}"),
            last: format!("{last:016x}"),
            token,
            from_ns: 0,
            to_ns: 10,
            frozen_ns: None,
        }
    }

    #[test]
    fn rising_epochs_are_valid_and_so_is_an_old_one_that_overlaps() {
        let did = [
            served("p1", 1, 0, 10),
            served("p2", 2, 5, 8),
            served("p1", 1, 8, 12),
            served("p2", 2, 20, 21),
            served("p3", 1, 30, 31).on("other"),
        ];
        let outcome = check(&history(&did), &[]);
        assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
        assert_eq!(outcome.stats["epochs"], 3);
    }

    #[test]
    fn an_answer_of_the_one_that_was_succeeded_is_found() {
        let did = [served("p2", 2, 5, 8), served("p1", 1, 9, 12)];
        let history = history(&did);
        let outcome = check(&history, &[]);
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert_eq!(outcome.findings[0].ops, begun(&history, &[0, 1]));
        assert!(
            outcome.findings[0]
                .what
                .starts_with("p1 answered under epoch 1")
        );
    }

    #[test]
    fn two_owners_of_one_epoch_are_found_in_answers() {
        let did = [served("p1", 2, 0, 1), served("p2", 2, 2, 3)];
        let outcome = check(&history(&did), &[]);
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert!(outcome.findings[0].what.contains("two owners, p1 and p2"));
    }

    #[test]
    fn two_owners_of_one_epoch_are_found_in_holds_of_a_common_part_only() {
        let none = History::default();
        let apart = [hold("p1", 0, 9, 3), hold("p2", 10, 19, 3)];
        assert_eq!(check(&none, &apart).verdict, Verdict::Valid);
        let common = [
            hold("p1", 0, 99, 3),
            hold("p1", 0, 4, 3),
            hold("p2", 50, 60, 3),
        ];
        assert_eq!(check(&none, &common).verdict, Verdict::Invalid);
    }

    #[test]
    fn without_epochs_nothing_is_known() {
        let did = [ok("serve", Value::Null, 0, 1, Value::Null)];
        assert_eq!(check(&history(&did), &[]).verdict, Verdict::Unknown);
    }
}
