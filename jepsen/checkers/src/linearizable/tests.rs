//! Histories with known verdicts, by hand and from the literature.

use serde_json::{Value, json};

use super::*;
use crate::testing::{Did, begun, failed, history, ok, unknown};
use crate::verdict::Verdict;

fn register(did: &[Did]) -> Outcome {
    check(&history(did), &Register::default(), &Budget::default())
}

fn verdict(did: &[Did]) -> Verdict {
    register(did).verdict
}

fn write(value: i64, from: u64, to: u64) -> Did {
    ok("write", value, from, to, Value::Null)
}

fn read(value: impl Into<Value>, from: u64, to: u64) -> Did {
    ok("read", Value::Null, from, to, value)
}

#[test]
fn a_register_read_in_turn_is_linearizable() {
    let good = [
        read(Value::Null, 0, 1),
        write(1, 2, 3),
        read(1, 4, 5),
        ok("cas", json!([1, 2]), 6, 7, Value::Null),
        failed("cas", json!([1, 3]), 8, 9),
        read(2, 10, 11),
    ];
    assert_eq!(verdict(&good), Verdict::Valid);
}

#[test]
fn a_stale_read_is_not_and_is_explained_by_its_two_writes() {
    let mut did = vec![
        write(1, 0, 1),
        write(2, 20, 21),
        read(1, 40, 41),
        unknown("write", 77, 5, 6),
    ];
    // Others that have nothing to do with it.
    for at in 0..8 {
        did.push(write(100 + at as i64, 2 + 2 * at, 3 + 2 * at));
        did.push(read(2, 22 + 2 * at, 23 + 2 * at));
    }
    let history = history(&did);
    let outcome = check(&history, &Register::default(), &Budget::default());
    assert_eq!(outcome.verdict, Verdict::Invalid);
    let finding = &outcome.findings[0];
    assert_eq!(finding.ops.len(), 3, "{}", finding.what);
    assert_eq!(finding.ops.last(), begun(&history, &[2]).first());
    assert_eq!(finding.key.as_deref(), Some("k"));
    assert!(
        finding.what.contains("needs 1 where 2 is"),
        "{}",
        finding.what
    );
    assert!(finding.what.contains("no order of these 3 operations"));
}

#[test]
fn a_value_that_nobody_wrote_is_found_and_needs_no_other_operation() {
    let did = [write(1, 0, 1), read(9, 2, 3), read(1, 4, 5)];
    let outcome = register(&did);
    assert_eq!(outcome.verdict, Verdict::Invalid);
    assert_eq!(outcome.findings[0].ops.len(), 1);
}

/// Lamport, "On interprocess communication", 1986: what a regular register may do and an atomic one
/// may not.
#[test]
fn a_new_value_and_then_the_old_one_during_a_write_is_not_atomic() {
    let inversion = [
        write(1, 0, 1),
        write(2, 2, 100),
        read(2, 10, 20),
        read(1, 30, 40),
    ];
    assert_eq!(verdict(&inversion), Verdict::Invalid);
    let overlapping = [
        write(1, 0, 1),
        write(2, 2, 100),
        read(2, 10, 35),
        read(1, 30, 40),
    ];
    assert_eq!(verdict(&overlapping), Verdict::Valid);
}

#[test]
fn intervals_are_closed() {
    let same_instant = [write(1, 0, 10), write(2, 10, 20), read(1, 20, 30)];
    assert_eq!(verdict(&same_instant), Verdict::Valid);
    let one_later = [write(1, 0, 10), write(2, 11, 20), read(1, 21, 30)];
    assert_eq!(verdict(&one_later), Verdict::Invalid);
}

#[test]
fn an_unknown_write_may_take_effect_late_or_never_but_only_once() {
    let late = [
        write(1, 0, 1),
        unknown("write", 2, 2, 3),
        read(1, 4, 5),
        read(2, 6, 7),
    ];
    assert_eq!(verdict(&late), Verdict::Valid);
    assert_eq!(verdict(&late[..3]), Verdict::Valid);
    let mut twice = late.to_vec();
    twice.extend([write(3, 8, 9), read(2, 10, 11)]);
    assert_eq!(verdict(&twice), Verdict::Invalid);
}

#[test]
fn an_operation_without_an_end_is_unknown() {
    let mut open = write(2, 2, 0);
    open.end = None;
    let did = [write(1, 0, 1), open, read(2, 4, 5)];
    assert_eq!(verdict(&did), Verdict::Valid);
}

#[test]
fn what_failed_must_not_be_seen() {
    let did = [failed("write", 1, 0, 1), read(1, 2, 3)];
    assert_eq!(verdict(&did), Verdict::Invalid);
}

#[test]
fn one_of_two_compare_and_sets_from_the_same_value_must_fail() {
    let both = [
        write(1, 0, 1),
        ok("cas", json!([1, 2]), 2, 9, Value::Null),
        ok("cas", json!([1, 3]), 2, 9, Value::Null),
    ];
    assert_eq!(verdict(&both), Verdict::Invalid);
    let one = [
        both[0].clone(),
        both[1].clone(),
        unknown("cas", json!([1, 3]), 2, 9),
    ];
    assert_eq!(verdict(&one), Verdict::Valid);
}

#[test]
fn a_write_of_the_value_that_is_there_may_be_needed_later() {
    let did = [
        write(0, 0, 1),
        write(0, 2, 20),
        write(1, 3, 5),
        read(0, 4, 6),
        ok("cas", json!([0, 1]), 7, 8, Value::Null),
    ];
    assert_eq!(verdict(&did), Verdict::Valid);
}

#[test]
fn keys_are_judged_for_themselves() {
    let did = [
        write(1, 0, 1).on("a"),
        read(1, 2, 3).on("b"),
        read(1, 2, 3).on("a"),
    ];
    let outcome = register(&did);
    assert_eq!(outcome.verdict, Verdict::Invalid);
    assert_eq!(outcome.findings.len(), 1);
    assert_eq!(outcome.findings[0].key.as_deref(), Some("b"));
    assert_eq!(outcome.stats["keys_valid"], 1);
}

#[test]
fn versions_count_where_there_are_any() {
    let at = |value: i64, epoch: u64, seq: u64| json!({"value": value, "version": [epoch, seq]});
    let written = |value, from, to, epoch, seq| ok("write", value, from, to, at(value, epoch, seq));
    let good = [
        written(1, 0, 5, 1, 1),
        written(2, 0, 5, 1, 2),
        read(at(2, 1, 2), 6, 7),
    ];
    assert_eq!(verdict(&good), Verdict::Valid);
    let older = [good[0].clone(), good[1].clone(), read(at(1, 1, 1), 6, 7)];
    assert_eq!(verdict(&older), Verdict::Invalid);
}

#[test]
fn what_the_budget_does_not_decide_is_unknown() {
    let mut did: Vec<Did> = (0..40).map(|n| unknown("add", 1i64 << n, 0, 1)).collect();
    did.push(read((1i64 << 40) + 3, 2, 3));
    let budget = Budget {
        steps_per_key: 10_000,
        ..Budget::default()
    };
    let outcome = check(&history(&did), &Counter, &budget);
    assert_eq!(outcome.verdict, Verdict::Unknown);
    assert!(outcome.findings[0].what.contains("budget of steps"));
    let budget = Budget {
        memory_bytes: 100_000,
        ..Budget::default()
    };
    let outcome = check(&history(&did), &Counter, &budget);
    assert_eq!(outcome.verdict, Verdict::Unknown);
    assert!(outcome.findings[0].what.contains("budget of memory"));
}

#[test]
fn values_of_the_wrong_form_are_unknown_and_told() {
    let outcome = check(
        &history(&[ok("add", "one", 0, 1, Value::Null)]),
        &Counter,
        &Budget::default(),
    );
    assert_eq!(outcome.verdict, Verdict::Unknown);
    assert!(outcome.findings[0].what.contains("not n or [n, id]"));
}

#[test]
fn a_counter_adds_up_with_and_without_unknown_additions() {
    let counter = |did: &[Did]| check(&history(did), &Counter, &Budget::default()).verdict;
    let did = [
        ok("add", 5, 0, 1, Value::Null),
        ok("add", json!([2, "id"]), 0, 9, Value::Null),
        unknown("add", 10, 2, 3),
        unknown("add", 10, 2, 3),
        read(27, 10, 11),
    ];
    assert_eq!(counter(&did), Verdict::Valid);
    for (total, expected) in [
        (7, Verdict::Valid),
        (17, Verdict::Valid),
        (16, Verdict::Invalid),
    ] {
        let mut other = did.to_vec();
        other[4] = read(total, 10, 11);
        assert_eq!(counter(&other), expected, "{total}");
    }
    let mut lost = did.to_vec();
    lost.push(read(17, 12, 13));
    assert_eq!(counter(&lost), Verdict::Invalid);
}

#[test]
fn a_list_shows_its_elements_in_one_order() {
    let list = |did: &[Did]| check(&history(did), &List, &Budget::default()).verdict;
    let did = [
        ok("append", 1, 0, 9, Value::Null),
        ok("append", 2, 0, 9, Value::Null),
        read(json!([2, 1]), 10, 11),
        unknown("append", 3, 10, 11),
        read(json!([2, 1, 3]), 12, 13),
    ];
    assert_eq!(list(&did), Verdict::Valid);
    let mut other = did.to_vec();
    other[4] = read(json!([1, 2]), 12, 13);
    assert_eq!(list(&other), Verdict::Invalid);
}

/// A queue, as somebody may write a model for what their service does.
struct Queue;

impl Model for Queue {
    type State = Vec<u32>;
    type Op = (bool, u32);

    fn name(&self) -> &'static str {
        "queue"
    }

    fn initial(&self, _names: &mut Names) -> Vec<u32> {
        Vec::new()
    }

    fn op(&self, call: &Call<'_>, names: &mut Names) -> Result<Option<(bool, u32)>, String> {
        Ok(match (call.f(), call.ok()) {
            ("enqueue", _) => Some((true, names.number(&call.invoke.value))),
            ("dequeue", Some(ok)) => Some((false, names.number(&ok.value))),
            _ => None,
        })
    }

    fn step(&self, state: &Vec<u32>, (is_enqueue, value): &(bool, u32)) -> Option<Vec<u32>> {
        let mut after = state.clone();
        match is_enqueue {
            true => after.push(*value),
            false if state.first() == Some(value) => drop(after.remove(0)),
            false => return None,
        }
        Some(after)
    }

    fn is_read(&self, _op: &(bool, u32)) -> bool {
        false
    }

    fn show(&self, state: &Vec<u32>, _names: &Names) -> String {
        format!("{state:?}")
    }

    fn needs(&self, op: &(bool, u32), state: &Vec<u32>, _names: &Names) -> String {
        format!("{op:?} does not fit {state:?}")
    }
}

/// Herlihy & Wing, "Linearizability: a correctness condition for concurrent objects", 1990: the
/// queue histories H1 to H4, of which the first and third are linearizable.
#[test]
fn the_queues_of_herlihy_and_wing_are_judged_as_in_the_paper() {
    let queue = |did: &[Did]| check(&history(did), &Queue, &Budget::default()).verdict;
    let enqueue = |value: &str, from, to| ok("enqueue", value, from, to, Value::Null);
    let dequeue = |value: &str, from, to| ok("dequeue", Value::Null, from, to, value);
    let pending = |value: &str, from| Did {
        end: None,
        ..enqueue(value, from, 0)
    };
    let h1 = [
        enqueue("x", 1, 4),
        enqueue("y", 2, 3),
        dequeue("x", 5, 6),
        dequeue("y", 7, 8),
        pending("z", 9),
    ];
    assert_eq!(queue(&h1), Verdict::Valid);
    let h2 = [enqueue("x", 1, 2), enqueue("y", 3, 5), dequeue("y", 4, 6)];
    assert_eq!(queue(&h2), Verdict::Invalid);
    let h3 = [pending("x", 1), dequeue("x", 2, 3)];
    assert_eq!(queue(&h3), Verdict::Valid);
    let h4 = [
        enqueue("x", 1, 3),
        enqueue("y", 2, 4),
        dequeue("y", 5, 7),
        dequeue("y", 6, 8),
    ];
    assert_eq!(queue(&h4), Verdict::Invalid);
}

/// Of 3,800 operations on one key 3 in 100 are unknown, and the last read is stale.
#[test]
fn one_late_stale_read_in_a_long_history_is_found_within_the_budget() {
    let mut did = Vec::new();
    for n in 0..1_900u64 {
        let (value, at) = (n as i64, 100 * n);
        did.push(match n % 17 {
            3 => unknown("write", value, at, at + 10),
            _ => write(value, at, at + 90),
        });
        let last = match n % 34 {
            3 => value - 1,
            _ => value,
        };
        did.push(read(last, at + 95, at + 99));
    }
    assert_eq!(verdict(&did), Verdict::Valid);
    did.push(read(1_700, 190_000, 190_001));
    let outcome = register(&did);
    assert_eq!(outcome.verdict, Verdict::Invalid);
    assert_eq!(
        outcome.findings[0].ops.len(),
        3,
        "{}",
        outcome.findings[0].what
    );
}
