//! A fenced store outside takes no write of a holder that was succeeded, and loses none that it
//! acknowledged. Both must be so however long processes pause and whatever their clocks do.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::history::{Call, End, History, Versioned};
use crate::verdict::{Finding, Outcome};

const NAME: &str = "fenced_register";

/// A write in the order in which the fenced store decided on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The key.
    pub key: String,
    /// The range of keys that one token guards, e.g. the slice; keys of one range share a highest
    /// token.
    pub range: String,
    /// The token it came with.
    pub token: u64,
    /// What was written; unique for its key.
    pub value: Value,
    /// Whether the store took it.
    pub accepted: bool,
}

/// Judges the store's log, in its order, and `write` and `read` of the history against it.
///
/// 1. No write was accepted whose token is smaller than one before it in its range, accepted or
///    not: a store that saw a token knows of the holder.
/// 2. Every write that was acknowledged was accepted, once, and no write that failed was.
/// 3. Nothing was read that was not accepted.
///
/// An empty log is unknown. Whether reads are current is for
/// [`linearizable`](crate::linearizable).
pub fn check(applied: &[Applied], history: &History) -> Outcome {
    let mut outcome = Outcome::valid(NAME);
    check_tokens(applied, &mut outcome);
    let mut accepted: HashMap<(&str, String), Vec<usize>> = HashMap::new();
    for (at, write) in applied.iter().enumerate().filter(|(_, w)| w.accepted) {
        let name = (write.key.as_str(), write.value.to_string());
        accepted.entry(name).or_default().push(at);
    }
    let (mut acknowledged, mut reads) = (0u64, 0u64);
    for call in history.calls() {
        match (call.f(), call.end) {
            ("write", End::Ok(_)) => {
                acknowledged += 1;
                check_write(&call, 1..=1, &accepted, &mut outcome);
            }
            ("write", End::Fail(_)) => check_write(&call, 0..=0, &accepted, &mut outcome),
            ("write", End::Unknown(_)) => check_write(&call, 0..=1, &accepted, &mut outcome),
            ("read", End::Ok(op)) => {
                reads += 1;
                let value = Versioned::of(&op.value).value;
                if !value.is_null() && !accepted.contains_key(&(call.key(), value.to_string())) {
                    let what = format!("{value} was read, which the store never accepted");
                    outcome.invalid(finding(&call, what));
                }
            }
            _ => {}
        }
    }
    if applied.is_empty() {
        outcome.unknown(Finding::new("the store's log is empty"));
    }
    let rejected = applied.iter().filter(|write| !write.accepted).count();
    outcome.count("applied", applied.len() - rejected);
    outcome.count("rejected", rejected);
    outcome.count("acknowledged", acknowledged);
    outcome.count("reads", reads);
    outcome
}

fn check_tokens(applied: &[Applied], outcome: &mut Outcome) {
    let mut highest: HashMap<&str, (u64, usize)> = HashMap::new();
    for (at, write) in applied.iter().enumerate() {
        let (token, seen_at) = *highest.entry(&write.range).or_insert((write.token, at));
        if write.token > token {
            highest.insert(&write.range, (write.token, at));
        } else if write.accepted && write.token < token {
            let what = format!(
                "line {at} of the store's log accepts {} under token {}, after line {seen_at} came \
                 with token {token}",
                write.value, write.token
            );
            outcome.invalid(Finding::new(what).key(&write.key));
        }
    }
}

fn check_write(
    call: &Call<'_>,
    expected: std::ops::RangeInclusive<usize>,
    accepted: &HashMap<(&str, String), Vec<usize>>,
    outcome: &mut Outcome,
) {
    let name = (call.key(), call.invoke.value.to_string());
    let times = accepted.get(&name).map_or(0, Vec::len);
    if expected.contains(&times) {
        return;
    }
    let value = &call.invoke.value;
    let what = match (times, expected.end()) {
        (0, _) => format!("the write of {value} was acknowledged and never accepted"),
        (_, 0) => format!("the write of {value} failed and was accepted"),
        _ => format!("the write of {value} was accepted {times} times"),
    };
    outcome.invalid(finding(call, what));
}

fn finding(call: &Call<'_>, what: String) -> Finding {
    let to_ns = call.ok().map_or(call.call_ns(), |op| op.time);
    Finding::new(what)
        .ops([call.invoke.index])
        .time(call.call_ns(), to_ns)
        .key(call.key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Did, failed, history, ok, unknown};
    use crate::verdict::Verdict;

    fn log(writes: &[(u64, i64, bool)]) -> Vec<Applied> {
        let write = |(token, value, accepted): &(u64, i64, bool)| Applied {
            key: "k".to_owned(),
            range: "r".to_owned(),
            token: *token,
            value: (*value).into(),
            accepted: *accepted,
        };
        writes.iter().map(write).collect()
    }

    fn written(value: i64) -> Did {
        ok("write", value, 0, 1, Value::Null)
    }

    fn says(log: &[Applied], did: &[Did], part: &str) {
        let outcome = check(log, &history(did));
        assert_eq!(outcome.verdict, Verdict::Invalid);
        let what = &outcome.findings[0].what;
        assert!(what.contains(part), "{what}");
    }

    #[test]
    fn a_store_that_rejects_what_is_late_is_valid() {
        let log = log(&[(1, 10, true), (2, 20, true), (1, 11, false), (2, 21, true)]);
        let did = [
            written(10),
            written(20),
            failed("write", 11, 2, 3),
            unknown("write", 21, 2, 3),
            ok("read", Value::Null, 4, 5, 21),
            ok("read", Value::Null, 0, 1, Value::Null),
        ];
        let outcome = check(&log, &history(&did));
        assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
        assert_eq!(outcome.stats["rejected"], 1);
    }

    #[test]
    fn an_accepted_write_under_a_smaller_token_is_found() {
        let log = log(&[(1, 10, true), (2, 20, true), (1, 11, true)]);
        says(
            &log,
            &[],
            "line 2 of the store's log accepts 11 under token 1, after line 1",
        );
    }

    #[test]
    fn a_rejected_write_raises_the_token_too() {
        says(&log(&[(2, 20, false), (1, 11, true)]), &[], "accepts 11");
    }

    #[test]
    fn other_ranges_have_tokens_of_their_own() {
        let mut log = log(&[(2, 20, true), (1, 11, true)]);
        log[1].range = "other".to_owned();
        assert_eq!(check(&log, &History::default()).verdict, Verdict::Valid);
    }

    #[test]
    fn lost_doubled_and_failed_writes_are_found() {
        says(&log(&[(1, 10, true)]), &[written(20)], "never accepted");
        let twice = log(&[(1, 10, true), (1, 10, true)]);
        says(&twice, &[written(10)], "accepted 2 times");
        let late = [failed("write", 10, 0, 1)];
        says(&log(&[(1, 10, true)]), &late, "failed and was accepted");
    }

    #[test]
    fn a_read_of_what_was_never_accepted_is_found() {
        let did = [ok("read", Value::Null, 0, 1, 9)];
        says(&log(&[(1, 10, true)]), &did, "9 was read");
    }

    #[test]
    fn an_empty_log_is_unknown() {
        assert_eq!(check(&[], &History::default()).verdict, Verdict::Unknown);
    }
}
