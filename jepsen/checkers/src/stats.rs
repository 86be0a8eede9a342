//! Counts of operations by `f` and outcome. Informative: always valid.

use std::collections::BTreeMap;

use serde_json::json;

use crate::history::{End, History};
use crate::verdict::Outcome;

/// Counts: `ok`, `fail` and `info` of all operations, and of each `f`; `info` has those without an
/// end in it.
pub fn check(history: &History) -> Outcome {
    let mut outcome = Outcome::valid("stats");
    let mut by_f: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    let mut all = [0u64; 3];
    for call in history.calls() {
        let kind = match call.end {
            End::Ok(_) => 0,
            End::Fail(_) => 1,
            End::Unknown(_) => 2,
        };
        all[kind] += 1;
        by_f.entry(call.f()).or_default()[kind] += 1;
    }
    outcome.count("ok", all[0]);
    outcome.count("fail", all[1]);
    outcome.count("info", all[2]);
    for (f, [ok, fail, info]) in by_f {
        outcome.count(f, json!({"ok": ok, "fail": fail, "info": info}));
    }
    outcome
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::{failed, history, ok, unknown};

    #[test]
    fn operations_are_counted_by_what_they_did_and_how_they_ended() {
        let did = [
            ok("read", Value::Null, 0, 1, 5),
            ok("write", 1, 0, 1, Value::Null),
            failed("write", 1, 0, 1),
            unknown("write", 1, 0, 1),
        ];
        let outcome = check(&history(&did));
        assert_eq!(outcome.stats["ok"], 2);
        assert_eq!(
            outcome.stats["write"],
            json!({"ok": 1, "fail": 1, "info": 1})
        );
    }
}
