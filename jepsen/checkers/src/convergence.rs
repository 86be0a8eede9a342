//! After all faults are healed, everyone agrees within a bound.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::history::History;
use crate::verdict::{Finding, Outcome};

const NAME: &str = "convergence";

/// What is wanted of the end of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// When the last fault was healed.
    pub healed_ns: u64,
    /// How long agreement may take from then on.
    pub bound_ns: u64,
    /// The nodes whose `view` must be seen to agree, for each key.
    pub observers: Vec<String>,
}

/// What an observer believed between two times.
#[derive(Clone, Copy)]
struct View<'a> {
    from_ns: u64,
    to_ns: u64,
    value: &'a Value,
    index: u64,
}

/// Judges `view`, by key. An observer that is asked and has no complete view, or does not answer,
/// has the view `null`, which agrees with nobody.
///
/// * From the first moment on from which all observers have the same complete view and keep it,
///   they *agree*. That must be within the bound after the heal.
/// * Views that were asked for after the bound must be that one as well.
///
/// Observers must be asked from the heal on, in single glances: agreement is dated by the answer
/// that first shows it. `stats` has when it was reached. An observer that was not seen after the
/// bound makes the verdict unknown; so do observers that were first asked when it was over.
pub fn check(history: &History, expected: &Expected) -> Outcome {
    let mut outcome = Outcome::valid(NAME);
    let due_ns = expected.healed_ns.saturating_add(expected.bound_ns);
    let mut slowest_ns = 0;
    let mut keys = 0u64;
    for (key, calls) in history.calls_by_key() {
        let mut views: BTreeMap<&str, Vec<View<'_>>> = BTreeMap::new();
        for call in calls.iter().filter(|call| call.f() == "view") {
            let Some(op) = call.ok().filter(|_| call.call_ns() >= expected.healed_ns) else {
                continue;
            };
            let views = views
                .entry(op.node.as_deref().unwrap_or_default())
                .or_default();
            views.push(View {
                from_ns: call.call_ns(),
                to_ns: op.time,
                value: &op.value,
                index: call.invoke.index,
            });
        }
        if views.is_empty() && !calls.iter().any(|call| call.f() == "view") {
            continue;
        }
        keys += 1;
        check_observed(key, &views, expected, due_ns, &mut outcome);
        if check_agreement(key, &views, due_ns, &mut outcome) {
            let took_ns = check_in_time(key, &views, expected, &mut outcome);
            slowest_ns = slowest_ns.max(took_ns);
        }
    }
    if keys == 0 {
        outcome.unknown(Finding::new("no view was recorded"));
    }
    outcome.count("keys", keys);
    outcome.count("observers", expected.observers.len());
    outcome.count("agreed_after_ns", slowest_ns);
    outcome.count("bound_ns", expected.bound_ns);
    outcome
}

fn check_observed(
    key: &str,
    views: &BTreeMap<&str, Vec<View<'_>>>,
    expected: &Expected,
    due_ns: u64,
    outcome: &mut Outcome,
) {
    let wanted: BTreeSet<&str> = expected.observers.iter().map(String::as_str).collect();
    for observer in wanted {
        let late = views
            .get(observer)
            .is_some_and(|views| views.iter().any(|view| view.from_ns >= due_ns));
        if !late {
            let what = format!("{observer} was not seen after the bound");
            outcome.unknown(Finding::new(what).time(due_ns, due_ns).key(key));
        }
    }
}

/// Whether all views that were asked for after the bound are the same.
fn check_agreement(
    key: &str,
    views: &BTreeMap<&str, Vec<View<'_>>>,
    due_ns: u64,
    outcome: &mut Outcome,
) -> bool {
    let late = |(node, views): (&&'_ str, &Vec<View<'_>>)| {
        let late: Vec<(String, u64, u64, String)> = views
            .iter()
            .filter(|view| view.from_ns >= due_ns)
            .map(|view| {
                (
                    (*node).to_owned(),
                    view.index,
                    view.to_ns,
                    view.value.to_string(),
                )
            })
            .collect();
        late
    };
    let mut late: Vec<(String, u64, u64, String)> = views.iter().flat_map(late).collect();
    late.sort_by_key(|(_, index, _, _)| *index);
    // The last word is the one that the others are compared with.
    let Some((last_node, last_index, _, last)) = late.last().cloned() else {
        return false;
    };
    let mut agrees = true;
    let mut told = BTreeSet::new();
    for (node, index, to_ns, view) in &late {
        let differs = *view != last || view == "null";
        if differs && told.insert(node.clone()) {
            agrees = false;
            let what = format!(
                "after the bound {node} still had {}, and {last_node} {}",
                short(view),
                short(&last)
            );
            outcome.invalid(
                Finding::new(what)
                    .ops([*index, last_index])
                    .time(due_ns, *to_ns)
                    .key(key),
            );
        }
    }
    agrees
}

/// Judges how long agreement took, from the heal on; returns that.
fn check_in_time(
    key: &str,
    views: &BTreeMap<&str, Vec<View<'_>>>,
    expected: &Expected,
    outcome: &mut Outcome,
) -> u64 {
    let due_ns = expected.healed_ns.saturating_add(expected.bound_ns);
    let bound_ms = expected.bound_ns / 1_000_000;
    let mut slowest_ns = 0;
    for (node, views) in views {
        let Some(since) = kept_since(views) else {
            continue;
        };
        let took_ns = since.to_ns.saturating_sub(expected.healed_ns);
        slowest_ns = slowest_ns.max(took_ns);
        if since.to_ns <= due_ns {
            continue;
        }
        let finding = |what| {
            let found = Finding::new(what).ops([since.index]);
            found.time(expected.healed_ns, since.to_ns).key(key)
        };
        match views.iter().any(|view| view.from_ns < due_ns) {
            true => outcome.invalid(finding(format!(
                "{node} agreed only {} ms after the heal; {bound_ms} ms are allowed",
                took_ns / 1_000_000
            ))),
            // It may have been in time: nobody looked.
            false => outcome.unknown(finding(format!(
                "{node} was not asked within {bound_ms} ms of the heal"
            ))),
        }
    }
    slowest_ns
}

/// The first of the equal views that an observer kept to the end; `None` if it has none.
fn kept_since<'a>(views: &[View<'a>]) -> Option<View<'a>> {
    let last = views.last()?;
    let same = views
        .iter()
        .rev()
        .take_while(|view| view.value == last.value);
    same.last().copied()
}

fn short(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Did, history, ok};
    use crate::verdict::Verdict;

    fn view(node: &'static str, generation: u64, from: u64) -> Did {
        let view = json!({"generation": generation});
        ok("view", Value::Null, from, from + 1, view).by(node, 0)
    }

    fn expected() -> Expected {
        Expected {
            healed_ns: 100,
            bound_ns: 50,
            observers: vec!["a".to_owned(), "b".to_owned()],
        }
    }

    #[test]
    fn agreement_within_the_bound_is_valid_and_timed() {
        let did = [
            view("a", 1, 90),
            view("b", 2, 110),
            view("a", 1, 110),
            view("a", 3, 120),
            view("b", 3, 130),
            view("a", 3, 160),
            view("b", 3, 161),
        ];
        let outcome = check(&history(&did), &expected());
        assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
        assert_eq!(outcome.stats["agreed_after_ns"], 31);
    }

    #[test]
    fn one_that_still_differs_after_the_bound_is_found() {
        let did = [view("a", 3, 160), view("b", 2, 160), view("a", 3, 170)];
        let outcome = check(&history(&did), &expected());
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert!(outcome.findings[0].what.contains("b still had"));
    }

    #[test]
    fn one_that_agrees_too_late_is_found() {
        let did = [
            view("a", 3, 160),
            view("b", 2, 160),
            view("b", 3, 170),
            view("a", 3, 171),
        ];
        assert_eq!(check(&history(&did), &expected()).verdict, Verdict::Invalid);
    }

    #[test]
    fn one_that_agrees_after_the_bound_is_found_though_nobody_was_asked_meanwhile() {
        // A question that waits for its answer: all that is seen is the same.
        let patient = ok("view", Value::Null, 120, 230, json!({"generation": 3})).by("b", 0);
        let did = [
            view("a", 3, 120),
            patient,
            view("a", 3, 240),
            view("b", 3, 241),
        ];
        let outcome = check(&history(&did), &expected());
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert_eq!(outcome.stats["agreed_after_ns"], 130);
        assert!(outcome.findings[0].what.starts_with("b agreed only"));
    }

    #[test]
    fn one_whose_view_stays_incomplete_does_not_agree() {
        let nothing = |node, from| ok("view", Value::Null, from, from + 1, Value::Null).by(node, 0);
        let did = [
            view("a", 3, 120),
            nothing("b", 120),
            nothing("b", 160),
            view("a", 3, 161),
        ];
        assert_eq!(check(&history(&did), &expected()).verdict, Verdict::Invalid);
        let did = [nothing("a", 160), nothing("b", 161)];
        assert_eq!(check(&history(&did), &expected()).verdict, Verdict::Invalid);
        // Complete within the bound.
        let did = [
            nothing("b", 110),
            view("a", 3, 120),
            view("b", 3, 140),
            view("a", 3, 160),
            view("b", 3, 161),
        ];
        let outcome = check(&history(&did), &expected());
        assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
        assert_eq!(outcome.stats["agreed_after_ns"], 41);
    }

    #[test]
    fn agreement_that_is_lost_again_within_the_bound_counts_from_when_it_came_back() {
        let did = [
            view("a", 3, 105),
            view("b", 3, 106),
            view("b", 2, 120),
            view("b", 3, 130),
            view("a", 3, 160),
            view("b", 3, 161),
        ];
        let outcome = check(&history(&did), &expected());
        assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
        assert_eq!(outcome.stats["agreed_after_ns"], 31);
    }

    #[test]
    fn asking_only_when_the_bound_is_over_shows_nothing() {
        let did = [view("a", 3, 160), view("b", 3, 161)];
        let outcome = check(&history(&did), &expected());
        assert_eq!(outcome.verdict, Verdict::Unknown);
        assert!(outcome.findings[0].what.starts_with("a was not asked"));
    }

    #[test]
    fn one_that_was_not_seen_is_unknown() {
        let did = [view("a", 3, 160), view("b", 3, 110)];
        let outcome = check(&history(&did), &expected());
        assert_eq!(outcome.verdict, Verdict::Unknown);
        assert!(outcome.findings[0].what.starts_with("b was not seen"));
        assert_eq!(
            check(&History::default(), &expected()).verdict,
            Verdict::Unknown
        );
    }
}
