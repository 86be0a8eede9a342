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

/// Judges `view`, by key: the last view that each observer has after the heal must be the same, and
/// views that were asked for after the bound must be that one too.
///
/// `stats` has when agreement was reached: when the last observer was first seen with the view that
/// it then kept. An observer without a view from after the bound makes the verdict unknown.
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
            slowest_ns = slowest_ns.max(agreed_ns(&views).saturating_sub(expected.healed_ns));
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
        if *view != last && told.insert(node.clone()) {
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

/// When the last observer was first seen with the view that it kept to the end.
fn agreed_ns(views: &BTreeMap<&str, Vec<View<'_>>>) -> u64 {
    let kept_since = |views: &Vec<View<'_>>| {
        let last = views.last()?;
        let same = views
            .iter()
            .rev()
            .take_while(|view| view.value == last.value);
        same.map(|view| view.to_ns).last()
    };
    views.values().filter_map(kept_since).max().unwrap_or(0)
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
