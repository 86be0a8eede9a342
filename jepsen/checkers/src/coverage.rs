//! Whether a run did what makes its other verdicts worth something: a run without faults, or in
//! which nothing succeeded, proves nothing. Unmet coverage is unknown, never invalid.

use std::collections::BTreeMap;

use serde_json::json;

use crate::history::{End, History};
use crate::run::{Fault, Installed};
use crate::verdict::{Finding, Outcome};

const NAME: &str = "coverage";

/// What a run must have seen. Anything missing makes its verdict unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Required {
    /// Faults, as `kind` or `kind/mode`, of which each must have been installed at least once, with
    /// an `ok` or unknown operation under way meanwhile.
    pub faults: Vec<String>,
    /// At least so many `ok` operations of an `f`.
    pub ok_ops: BTreeMap<String, u64>,
    /// At least so many of other things, e.g. `handoffs`, `leader_changes`.
    pub counters: BTreeMap<String, u64>,
}

/// Judges coverage; `counters` are what the harness counted.
///
/// A fault that was never undone makes the verdict unknown too: what came after it is not what was
/// to be tested.
pub fn check(
    history: &History,
    faults: &[Fault],
    counters: &BTreeMap<String, u64>,
    required: &Required,
) -> Outcome {
    let mut outcome = Outcome::valid(NAME);
    let mut ok_ops: BTreeMap<&str, u64> = BTreeMap::new();
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for call in history.calls() {
        if call.ok().is_some() {
            *ok_ops.entry(call.f()).or_default() += 1;
        }
        if !matches!(call.end, End::Fail(_)) {
            spans.push((call.call_ns(), call.return_ns()));
        }
    }
    for (f, least) in &required.ok_ops {
        let got = ok_ops.get(f.as_str()).copied().unwrap_or(0);
        missing(&mut outcome, &format!("ok operations of {f}"), got, *least);
    }
    for (name, least) in &required.counters {
        let got = counters.get(name).copied().unwrap_or(0);
        missing(&mut outcome, name, got, *least);
    }
    let under_way = UnderWay::of(spans);
    let mut installed: BTreeMap<String, u64> = BTreeMap::new();
    for fault in faults {
        let names = [fault.kind.clone(), format!("{}/{}", fault.kind, fault.mode)];
        let to_ns = fault.to_ns.unwrap_or(u64::MAX);
        let had_effect =
            fault.installed == Installed::Installed && under_way.any(fault.from_ns, to_ns);
        for name in names {
            *installed.entry(name).or_default() += u64::from(had_effect);
        }
        if fault.to_ns.is_none() && !matches!(fault.installed, Installed::Skipped(_)) {
            let what = format!(
                "{}/{} on {} was never undone",
                fault.kind,
                fault.mode,
                fault.hosts.join(", ")
            );
            outcome.unknown(Finding::new(what).time(fault.from_ns, fault.from_ns));
        }
    }
    for name in &required.faults {
        let got = installed.get(name).copied().unwrap_or(0);
        missing(&mut outcome, &format!("faults {name} in force"), got, 1);
    }
    outcome.count("ok_ops", json!(ok_ops));
    outcome.count("faults_installed", json!(installed));
    outcome.count("counters", json!(counters));
    outcome
}

fn missing(outcome: &mut Outcome, name: &str, got: u64, least: u64) {
    if got < least {
        let what = format!("{name}: {got}, at least {least} are needed");
        outcome.unknown(Finding::new(what));
    }
}

/// Whether any operation was under way at a time.
struct UnderWay {
    from_ns: Vec<u64>,
    /// The latest end of those that began up to here.
    latest_ns: Vec<u64>,
}

impl UnderWay {
    fn of(mut spans: Vec<(u64, u64)>) -> Self {
        spans.sort_unstable();
        let mut latest = 0;
        let latest_ns = spans.iter().map(|(_, to_ns)| {
            latest = latest.max(*to_ns);
            latest
        });
        let latest_ns = latest_ns.collect();
        Self {
            from_ns: spans.into_iter().map(|(from_ns, _)| from_ns).collect(),
            latest_ns,
        }
    }

    fn any(&self, from_ns: u64, to_ns: u64) -> bool {
        let begun = self.from_ns.partition_point(|begin| *begin <= to_ns);
        begun > 0 && self.latest_ns[begun - 1] >= from_ns
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::{failed, history, ok};
    use crate::verdict::Verdict;

    fn fault(mode: &str, installed: Installed, from_ns: u64, to_ns: Option<u64>) -> Fault {
        Fault {
            kind: "partition".to_owned(),
            mode: mode.to_owned(),
            hosts: vec!["a1".to_owned()],
            detail: String::new(),
            installed,
            from_ns,
            to_ns,
        }
    }

    fn required() -> Required {
        Required {
            faults: vec!["partition".to_owned(), "partition/halves".to_owned()],
            ok_ops: BTreeMap::from([("read".to_owned(), 2)]),
            counters: BTreeMap::from([("handoffs".to_owned(), 1)]),
        }
    }

    fn judge(faults: &[Fault], handoffs: u64) -> Outcome {
        let did = [
            ok("read", Value::Null, 0, 20, 1),
            ok("read", Value::Null, 30, 40, 1),
            failed("read", Value::Null, 50, 60),
        ];
        let counters = BTreeMap::from([("handoffs".to_owned(), handoffs)]);
        check(&history(&did), faults, &counters, &required())
    }

    #[test]
    fn what_is_required_and_was_seen_is_valid() {
        let outcome = judge(&[fault("halves", Installed::Installed, 10, Some(12))], 1);
        assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
    }

    #[test]
    fn each_thing_that_is_missing_makes_it_unknown_and_is_told() {
        let good = fault("halves", Installed::Installed, 10, Some(12));
        let told = |faults: &[Fault], handoffs: u64| {
            let outcome = judge(faults, handoffs);
            assert_eq!(outcome.verdict, Verdict::Unknown);
            outcome.findings[0].what.clone()
        };
        assert!(told(std::slice::from_ref(&good), 0).contains("handoffs: 0"));
        assert!(told(&[], 1).contains("faults partition in force: 0"));
        let other = fault("ring", Installed::Installed, 10, Some(12));
        assert!(told(&[other], 1).contains("partition/halves"));
        let skipped = fault("halves", Installed::Skipped("why".to_owned()), 10, Some(12));
        assert!(told(&[skipped], 1).contains("in force: 0"));
        let idle = fault("halves", Installed::Installed, 50, Some(60));
        assert!(told(&[idle], 1).contains("in force: 0"));
        let forgotten = fault("halves", Installed::Installed, 10, None);
        assert!(told(&[forgotten], 1).contains("never undone"));
    }
}
