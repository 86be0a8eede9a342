//! Operations that never ended, and errors that nobody foresaw.
//!
//! Each operation without an end counts as unknown for every checker; that there are any means
//! that a worker hung, and is told.

use std::collections::BTreeMap;

use serde_json::json;

use crate::history::{End, History, Kind};
use crate::verdict::{Finding, Outcome};

/// Lists operations without an end and counts errors by their text. Always valid.
pub fn check(history: &History) -> Outcome {
    let mut outcome = Outcome::valid("unhandled");
    let calls = history.calls();
    let open: Vec<_> = calls
        .iter()
        .filter(|call| matches!(call.end, End::Unknown(None)))
        .collect();
    if let (Some(first), Some(last)) = (open.first(), history.0.last()) {
        let what = format!(
            "{} operations had not ended when the history did; each counts as unknown",
            open.len()
        );
        let ops = open.iter().take(24).map(|call| call.invoke.index);
        let finding = Finding::new(what).ops(ops).time(first.call_ns(), last.time);
        outcome.findings.push(finding);
    }
    let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
    for op in history.0.iter().filter(|op| op.kind != Kind::Invoke) {
        if let Some(error) = op.error.as_deref() {
            *errors.entry(error).or_default() += 1;
        }
    }
    let mut errors: Vec<_> = errors.into_iter().collect();
    errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    errors.truncate(24);
    outcome.count("without_end", open.len());
    outcome.count("errors", json!(errors));
    outcome
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::{history, ok, unknown};
    use crate::verdict::Verdict;

    #[test]
    fn an_operation_without_an_end_is_told_and_is_no_fault() {
        let mut open = ok("read", Value::Null, 5, 0, Value::Null);
        open.end = None;
        let mut history = history(&[unknown("write", 1, 0, 1), open]);
        history.0[1].error = Some("timed out".to_owned());
        let outcome = check(&history);
        assert_eq!(outcome.verdict, Verdict::Valid);
        assert_eq!(outcome.findings[0].ops, [2]);
        assert_eq!(outcome.stats["without_end"], 1);
        assert_eq!(outcome.stats["errors"], json!([["timed out", 1]]));
    }

    #[test]
    fn nothing_to_tell_is_nothing_told() {
        let outcome = check(&history(&[ok("read", Value::Null, 0, 1, 1)]));
        assert_eq!(outcome.findings, []);
    }
}
