//! Histories with known anomalies, by hand and after Elle's paper.

use serde_json::json;

use super::*;
use crate::testing::{Did, begun, failed, history, ok, unknown};
use crate::verdict::Verdict;

fn append(value: i64, from: u64, to: u64) -> Did {
    ok("append", value, from, to, Value::Null)
}

fn read(values: &[i64], from: u64, to: u64) -> Did {
    ok("read", Value::Null, from, to, json!(values))
}

fn txn(steps: Value, from: u64, to: u64) -> Did {
    ok("txn", steps.clone(), from, to, steps)
}

fn says(did: &[Did], part: &str, processes: &[u64]) {
    let history = history(did);
    let outcome = check(&history);
    assert_eq!(outcome.verdict, Verdict::Invalid);
    let mut found = outcome.findings.iter();
    let finding = found.find(|finding| finding.what.contains(part));
    let finding = finding.unwrap_or_else(|| panic!("{:?}", outcome.findings));
    let mut ops = finding.ops.clone();
    ops.sort_unstable();
    let mut expected = begun(&history, processes);
    expected.sort_unstable();
    assert_eq!(ops, expected, "{}", finding.what);
}

#[test]
fn lists_in_one_order_are_valid() {
    let did = [
        append(1, 0, 10),
        append(2, 0, 10),
        read(&[2], 3, 9),
        unknown("append", 3, 11, 12),
        read(&[2, 1], 13, 14),
        read(&[2, 1, 3], 15, 16),
        failed("append", 4, 17, 18),
        txn(
            json!([["r", 5, null], ["append", 5, 1], ["r", 5, [1]]]),
            20,
            21,
        )
        .on("other"),
    ];
    let outcome = check(&history(&did));
    assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
    assert_eq!(outcome.stats["reads"], 5);
}

#[test]
fn reads_that_are_no_beginning_of_each_other_are_found() {
    let did = [
        append(1, 0, 10),
        append(2, 0, 10),
        read(&[2], 3, 9),
        read(&[1, 2], 13, 14),
    ];
    says(&did, "different orders: at place 0 2 and 1", &[2, 3]);
}

#[test]
fn an_element_twice_is_found() {
    let did = [append(1, 0, 1), read(&[1, 1], 2, 3)];
    says(&did, "1 is in a list twice", &[1]);
}

#[test]
fn a_lost_append_is_found() {
    let did = [append(1, 0, 1), append(2, 2, 3), read(&[2], 4, 5)];
    says(&did, "1 was acknowledged and is lost", &[0, 2]);
}

#[test]
fn what_failed_or_was_never_appended_must_not_be_read() {
    let did = [failed("append", 1, 0, 1), read(&[1], 2, 3)];
    says(&did, "its append failed", &[0, 1]);
    says(&[read(&[1], 2, 3)], "never appended", &[0]);
}

#[test]
fn a_stale_read_is_a_cycle_through_time() {
    let did = [
        append(1, 0, 1),
        append(2, 2, 3),
        read(&[1], 4, 5),
        read(&[1, 2], 6, 7),
    ];
    says(&did, "G-single-realtime", &[1, 2]);
}

#[test]
fn a_read_of_what_comes_later_is_a_cycle_through_time() {
    let did = [read(&[1], 0, 1), unknown("append", 1, 2, 3)];
    says(&did, "G1c-realtime", &[0, 1]);
}

/// Two transactions that each miss the other's append: possible under snapshot isolation.
#[test]
fn write_skew_is_found() {
    let did = [
        txn(json!([["r", "x", []], ["append", "y", 1]]), 0, 10),
        txn(json!([["r", "y", []], ["append", "x", 1]]), 0, 10),
        txn(json!([["r", "x", [1]], ["r", "y", [1]]]), 11, 12),
    ];
    says(&did, "G2: ", &[0, 1]);
}

/// Elle's paper, section 2: a transaction that misses an append and sees a later one.
#[test]
fn a_read_skew_is_found() {
    let did = [
        txn(json!([["append", "x", 1], ["append", "y", 1]]), 0, 10),
        txn(json!([["r", "x", []], ["r", "y", [1]]]), 0, 10),
        txn(json!([["r", "x", [1]]]), 11, 12),
    ];
    says(&did, "G-single: ", &[0, 1]);
}

#[test]
fn circular_information_flow_is_found() {
    let did = [
        txn(json!([["append", "x", 1], ["r", "y", [1]]]), 0, 10),
        txn(json!([["append", "y", 1], ["r", "x", [1]]]), 0, 10),
    ];
    says(&did, "G1c: ", &[0, 1]);
}

#[test]
fn opposite_orders_of_two_lists_are_found() {
    let did = [
        txn(json!([["append", "x", 1], ["append", "y", 1]]), 0, 10),
        txn(json!([["append", "x", 2], ["append", "y", 2]]), 0, 10),
        txn(json!([["r", "x", [1, 2]], ["r", "y", [2, 1]]]), 11, 12),
    ];
    says(&did, "G0: ", &[0, 1]);
}

#[test]
fn a_transaction_seen_half_done_is_found() {
    let did = [
        txn(json!([["append", "x", 1], ["append", "x", 2]]), 0, 10),
        txn(json!([["r", "x", [1]]]), 0, 10),
        txn(json!([["r", "x", [1, 2]]]), 11, 12),
    ];
    says(&did, "from within its transaction", &[0, 1]);
}

#[test]
fn a_transaction_must_see_its_own_appends() {
    let did = [txn(json!([["append", "x", 1], ["r", "x", []]]), 0, 10)];
    says(&did, "does not see", &[0]);
}

#[test]
fn values_that_are_not_unique_or_make_no_sense_are_unknown() {
    let did = [append(1, 0, 1), append(1, 2, 3), read(&[1], 4, 5)];
    assert_eq!(check(&history(&did)).verdict, Verdict::Unknown);
    let did = [txn(json!([["w", "x", 1]]), 0, 1)];
    assert_eq!(check(&history(&did)).verdict, Verdict::Unknown);
    assert_eq!(check(&History::default()).verdict, Verdict::Unknown);
}
