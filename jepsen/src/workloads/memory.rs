//! W3 and W4 in memory: `kv-memory` and `counter-memory` are the workloads `register` and `counter`
//! with values that are in no store: they live in the pods' memory, and go with their slice.
//!
//! Where an owner was lost its memory is lost with it, and the key begins anew: its history is cut
//! there into *lives*, each judged for itself. Where lives begin is not what clients say: pods write
//! down each slice that comes, with its state or without. That no bug hides behind a cold beginning
//! is judged by the same logs: who was handed a slice, by a pod that lived, has its state.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use leasehold_checkers::history::{Call, End, History, Op};
use leasehold_checkers::linearizable::{self, Budget};
use leasehold_checkers::run::{Fault, Passage, Passing};
use leasehold_checkers::verdict::Finding;
use leasehold_checkers::{Outcome, counter};
use leasehold_proto::KeyHash;

use super::{Settings, covered, of_ownership};
use super::{counter::Counter, register::Register};
use crate::pod::IN_MEMORY;
use crate::system::{Completion, Invocation};
use crate::workload::{Evidence, Workload};

/// Planned moves with state that a run must have seen.
const WARM: u64 = 20;
/// What clients repeat, under one id, until it is answered.
const REPEATED: &str = "add";
/// Between the last word of a destination and the surrender.
const SHORTLY_NS: u64 = 500_000_000;

/// See the module's description.
pub(super) struct InMemory {
    name: &'static str,
    inner: Box<dyn Workload>,
}

impl InMemory {
    pub(super) fn register(settings: &Settings) -> Self {
        Self {
            name: "kv-memory",
            inner: Box::new(Register::new(settings)),
        }
    }

    pub(super) fn counter(settings: &Settings) -> Self {
        Self {
            name: "counter-memory",
            inner: Box::new(Counter::new(settings)),
        }
    }
}

/// The same operation on the key of the same name in memory.
fn in_memory(mut invocation: Invocation) -> Invocation {
    if invocation.f != "view" {
        invocation.key = invocation.key.map(|key| format!("{IN_MEMORY}{key}"));
    }
    invocation
}

impl Workload for InMemory {
    fn name(&self) -> &'static str {
        self.name
    }

    fn workers(&self) -> usize {
        self.inner.workers()
    }

    fn next(&mut self, worker: usize) -> Option<Invocation> {
        self.inner.next(worker).map(in_memory)
    }

    fn ended(&mut self, worker: usize, invocation: &Invocation, completion: &Completion) {
        let key = invocation.key.as_deref();
        let plain = key.map(|key| key.strip_prefix(IN_MEMORY).unwrap_or(key).to_owned());
        let asked = Invocation {
            key: plain,
            ..invocation.clone()
        };
        self.inner.ended(worker, &asked, completion);
    }

    fn last(&mut self) -> Vec<Invocation> {
        self.inner.last().into_iter().map(in_memory).collect()
    }

    fn check(&self, evidence: &Evidence<'_>) -> Vec<Outcome> {
        let lives = Lives::of(evidence.history, evidence.passages);
        let budget = Budget::default();
        let mut outcomes = vec![moves_keep_memory(evidence), lives.outcome.clone()];
        let required: &[(&str, u64)] = if self.name == "kv-memory" {
            let model = linearizable::Register::default();
            let judged = linearizable::check(&lives.history, &model, &budget);
            outcomes.push(lives.in_whole(judged));
            &[("read", 50), ("write", 25), ("cas", 5)]
        } else {
            let judged = linearizable::check(&lives.history, &linearizable::Counter, &budget);
            outcomes.push(lives.in_whole(judged));
            // Only what lives to the end is read at the end.
            let (last, indices) = lives.last();
            outcomes.push(renumbered(counter::check(&last), &indices));
            &[("add", 50), ("read", 20)]
        };
        outcomes.push(covered(evidence.history, required));
        outcomes.extend(of_ownership(evidence));
        outcomes
    }
}

/// A slice as passages write it.
fn ends(passage: &Passage) -> (u64, u64) {
    let key = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0);
    (key(&passage.first), key(&passage.last))
}

fn overlap(a: &Passage, b: &Passage) -> bool {
    let ((a_first, a_last), (b_first, b_last)) = (ends(a), ends(b));
    a_first <= b_last && b_first <= a_last
}

/// A history whose keys are lives: `KEY@TOKEN`, after the owner that began without state.
struct Lives {
    history: History,
    /// The operation of the whole that each is.
    indices: Vec<u64>,
    /// The lives that were not succeeded.
    newest: BTreeSet<String>,
    outcome: Outcome,
}

impl Lives {
    fn of(history: &History, passages: &[Passage]) -> Self {
        let mut lives = Self {
            history: History::default(),
            indices: Vec::new(),
            newest: BTreeSet::new(),
            outcome: Outcome::valid("lives of memory"),
        };
        let cold: Vec<(u64, u64, u64)> = passages
            .iter()
            .filter(|passage| begins_empty(passage.what))
            .map(|passage| (ends(passage).0, ends(passage).1, passage.token))
            .collect();
        let mut lines: Vec<Op> = Vec::new();
        let mut copies = 1 + history.0.iter().map(|op| op.process).max().unwrap_or(0);
        let mut count = 0;
        for (key, calls) in history.calls_by_key() {
            if !key.starts_with(IN_MEMORY) {
                continue;
            }
            let at = KeyHash::default().slice_key(key.as_bytes()).as_u64();
            let covers = |(first, last, _): &&(u64, u64, u64)| (*first..=*last).contains(&at);
            let births: BTreeSet<u64> = cold.iter().filter(covers).map(|cold| cold.2).collect();
            count += lives.of_key(key, &calls, &births, &mut lines, &mut copies);
        }
        lines.sort_by_key(|op| (op.time, op.index));
        for (number, mut op) in (0u64..).zip(lines) {
            lives.indices.push(op.index);
            op.index = number;
            lives.history.0.push(op);
        }
        lives.outcome.count("lives", count);
        lives
    }

    /// How many lives the key had. What is unknown may have been done in any of them; what is repeated
    /// until it is answered, also in lives before the one that answered.
    fn of_key(
        &mut self,
        key: &str,
        calls: &[Call<'_>],
        births: &BTreeSet<u64>,
        lines: &mut Vec<Op>,
        copies: &mut u64,
    ) -> u64 {
        let mut of_key: BTreeMap<u64, Vec<&Call<'_>>> = BTreeMap::new();
        for call in calls {
            let Some(token) = call.ok().and_then(|op| op.epoch) else {
                continue;
            };
            match births.range(..=token).next_back() {
                Some(birth) => of_key.entry(*birth).or_default().push(call),
                None => {
                    let what = format!("token {token} answered, but no pod says how it began");
                    let finding = Finding::new(what).ops([call.invoke.index]).key(key);
                    self.outcome.unknown(finding);
                }
            }
        }
        let unknown = calls.iter().filter(|call| call.is_unknown());
        let unknown: Vec<&Call<'_>> = unknown.filter(|call| call.f() != "read").collect();
        for (birth, calls) in &of_key {
            let name = format!("{key}@{birth}");
            let until_ns = calls.iter().map(|call| call.return_ns()).max();
            for call in calls {
                push(lines, call, &name, call.invoke.process);
            }
            let later = of_key.range((Bound::Excluded(birth), Bound::Unbounded));
            let repeated = later
                .flat_map(|(_, calls)| calls)
                .filter(|call| call.f() == REPEATED);
            let may = |call: &&&Call<'_>| Some(call.call_ns()) <= until_ns;
            for call in unknown.iter().chain(repeated).filter(may) {
                *copies += 1;
                push(
                    lines,
                    &Call {
                        end: End::Unknown(None),
                        ..**call
                    },
                    &name,
                    *copies,
                );
            }
        }
        let newest = of_key.last_key_value();
        self.newest
            .extend(newest.map(|(birth, _)| format!("{key}@{birth}")));
        of_key.len() as u64
    }

    fn in_whole(&self, outcome: Outcome) -> Outcome {
        renumbered(outcome, &self.indices)
    }

    /// The newest lives alone, and which operation of the whole each is.
    fn last(&self) -> (History, Vec<u64>) {
        let mut last = History::default();
        let mut indices = Vec::new();
        for (op, index) in self.history.0.iter().zip(&self.indices) {
            if op.key.as_ref().is_some_and(|key| self.newest.contains(key)) {
                let number = indices.len() as u64;
                last.0.push(Op {
                    index: number,
                    ..op.clone()
                });
                indices.push(*index);
            }
        }
        (last, indices)
    }
}

fn push(lines: &mut Vec<Op>, call: &Call<'_>, key: &str, process: u64) {
    let end = match call.end {
        End::Ok(op) | End::Fail(op) | End::Unknown(Some(op)) => Some(op),
        End::Unknown(None) => None,
    };
    for op in std::iter::once(call.invoke).chain(end) {
        lines.push(Op {
            key: Some(key.to_owned()),
            process,
            ..op.clone()
        });
    }
}

fn renumbered(mut outcome: Outcome, indices: &[u64]) -> Outcome {
    for op in outcome.findings.iter_mut().flat_map(|found| &mut found.ops) {
        let whole = usize::try_from(*op).ok().and_then(|op| indices.get(op));
        *op = whole.copied().unwrap_or(*op);
    }
    outcome
}

fn begins_empty(what: Passing) -> bool {
    matches!(
        what,
        Passing::ColdHandedOver | Passing::ColdGranted | Passing::Merging
    )
}

/// ◆ A slice that was handed over by a pod whose session had not expired by then comes with its
/// state, as far as pods' logs show who that was: not while faults are in force.
fn moves_keep_memory(evidence: &Evidence<'_>) -> Outcome {
    let mut outcome = Outcome::valid("planned moves keep memory");
    let passages = evidence.passages;
    let count = |what: Passing| passages.iter().filter(|known| known.what == what).count() as u64;
    let warm = count(Passing::Warm);
    for (name, what) in [
        ("warm", Passing::Warm),
        ("cold_handed_over", Passing::ColdHandedOver),
        ("cold_granted", Passing::ColdGranted),
        ("surrendered", Passing::Surrendered),
        ("surrendered_in_a_hurry", Passing::Hurried),
        ("lost", Passing::Lost),
    ] {
        outcome.count(name, count(what));
    }
    if warm < WARM {
        let what = format!("{warm} slices came with their state: at least {WARM} show something");
        outcome.unknown(Finding::new(what));
    }
    let is_cold = |known: &&Passage| known.what == Passing::ColdHandedOver;
    let mut under_faults = 0u64;
    for cold in passages.iter().filter(is_cold) {
        if let Some(source) = surrendered_to(passages, cold) {
            // A pod that was killed or cut off between the two may have owned the slice and been
            // lost with it before it could write that down.
            let between = |fault: &Fault| {
                let from_ns = source.time_ns.saturating_sub(SHORTLY_NS);
                fault.from_ns <= cold.time_ns && fault.to_ns.is_none_or(|to_ns| to_ns >= from_ns)
            };
            if evidence.faults.iter().any(between) {
                under_faults += 1;
                continue;
            }
            let what = format!(
                "{} began without state under token {}, though {} surrendered the slice under \
                 token {} and had not expired",
                cold.pod, cold.token, source.pod, source.token
            );
            outcome.invalid(Finding::new(what).time(source.time_ns, cold.time_ns));
        }
    }
    outcome.count("not_judged_under_faults", under_faults);
    outcome
}

/// Who surrendered what came, if that was a pod that lived on until then and was in no hurry.
fn surrendered_to<'a>(passages: &'a [Passage], came: &Passage) -> Option<&'a Passage> {
    let before = passages
        .iter()
        .filter(|known| known.token < came.token && overlap(known, came));
    // Of one token what went stands after what came.
    let newest = before.max_by_key(|known| (known.token, known.time_ns))?;
    let lived = newest.alive_ns > came.time_ns;
    Some(newest).filter(|source| source.what == Passing::Surrendered && lived)
}

#[cfg(test)]
mod tests {
    use leasehold_checkers::Verdict;
    use leasehold_checkers::history::Kind;
    use serde_json::{Value, json};

    use super::*;

    fn passage(pod: &str, token: u64, time_ns: u64, what: Passing, alive_ns: u64) -> Passage {
        Passage {
            pod: pod.into(),
            incarnation: 1,
            first: "0".repeat(16),
            last: "f".repeat(16),
            token,
            time_ns,
            what,
            alive_ns,
        }
    }

    fn done(f: &str, argument: Value, result: Value, token: u64, at: u64) -> [Op; 2] {
        let op = |kind, value, time| Op {
            index: 0,
            time,
            process: at,
            kind,
            f: f.into(),
            key: Some(format!("{IN_MEMORY}r0")),
            value,
            node: None,
            epoch: Some(token).filter(|_| kind == Kind::Ok),
            error: None,
        };
        [op(Kind::Invoke, argument, at), op(Kind::Ok, result, at + 1)]
    }

    fn history(ops: &[[Op; 2]]) -> History {
        let mut history = History(ops.concat());
        for (number, op) in (0u64..).zip(&mut history.0) {
            op.index = number;
        }
        history
    }

    fn judged(passages: &[Passage], ops: &[[Op; 2]], name: &str) -> Verdict {
        let workload = InMemory::register(&Settings::new(1, &BTreeMap::new()));
        let outcomes = workload.check(&Evidence {
            history: &history(ops),
            faults: &[],
            holds: &[],
            passages,
        });
        let found = outcomes.iter().find(|outcome| outcome.checker == name);
        found.expect("it judged").verdict
    }

    #[test]
    fn what_is_lost_is_excused_only_where_an_owner_began_without_state() {
        let ops = [
            done("write", json!(1), json!(1), 5, 10),
            done("read", Value::Null, Value::Null, 7, 20),
        ];
        let began = |what| {
            [
                passage("a", 5, 1, Passing::ColdGranted, 15),
                passage("b", 7, 18, what, 99),
            ]
        };
        let of = |what| judged(&began(what), &ops, "linearizable");
        assert_eq!(of(Passing::ColdHandedOver), Verdict::Valid);
        assert_eq!(of(Passing::Warm), Verdict::Invalid);
    }

    #[test]
    fn who_lived_when_it_surrendered_must_have_handed_its_state_over() {
        let moved = |how, alive_ns| {
            let mut passages = vec![
                passage("a", 5, 1, Passing::ColdGranted, 15),
                passage("a", 5, 16, how, alive_ns),
                passage("b", 7, 18, Passing::ColdHandedOver, 99),
            ];
            let warm = |n| passage("c", 100 + n, 100 + n, Passing::Warm, 0);
            passages.extend((0..WARM).map(warm));
            judged(&passages, &[], "planned moves keep memory")
        };
        assert_eq!(moved(Passing::Surrendered, 20), Verdict::Invalid);
        assert_eq!(moved(Passing::Surrendered, 17), Verdict::Valid);
        assert_eq!(moved(Passing::Hurried, 20), Verdict::Valid);
        assert_eq!(moved(Passing::Lost, 20), Verdict::Valid);
    }

    #[test]
    fn an_addition_may_have_been_done_in_a_life_before_the_one_that_answered_it() {
        let began = [
            passage("a", 5, 1, Passing::ColdGranted, 35),
            passage("b", 7, 38, Passing::ColdGranted, 99),
        ];
        let counter = |value: i64, ids: &[&str]| json!({ "value": value, "applied": ids });
        let read = |value, token, at| done("read", Value::Null, value, token, at);
        let [asked, mut answered] = done("add", json!([2, "y"]), json!(2), 7, 20);
        answered.time = 40;
        let of = |first, second| {
            let ops = [
                done("add", json!([1, "x"]), json!(1), 5, 10),
                [asked.clone(), answered.clone()],
                read(first, 5, 30),
                read(second, 7, 50),
            ];
            let mut lines = ops.concat();
            lines.sort_by_key(|op| op.time);
            let pairs: Vec<[Op; 2]> = lines
                .chunks(2)
                .map(|two| [two[0].clone(), two[1].clone()])
                .collect();
            let workload = InMemory::counter(&Settings::new(1, &BTreeMap::new()));
            let outcomes = workload.check(&Evidence {
                history: &history(&pairs),
                faults: &[],
                holds: &[],
                passages: &began,
            });
            let found = outcomes
                .iter()
                .find(|outcome| outcome.checker == "linearizable");
            found.expect("it judged").verdict
        };
        let (with, without) = (counter(3, &["x", "y"]), counter(1, &["x"]));
        let anew = counter(2, &["y"]);
        assert_eq!(of(with.clone(), anew.clone()), Verdict::Valid);
        assert_eq!(of(without.clone(), anew), Verdict::Valid);
        assert_eq!(of(counter(5, &["x", "y"]), with.clone()), Verdict::Invalid);
        assert_eq!(
            of(with, counter(0, &[])),
            Verdict::Invalid,
            "it was answered here"
        );
    }

    #[test]
    fn a_run_without_moves_that_carried_state_shows_nothing() {
        assert_eq!(
            judged(&[], &[], "planned moves keep memory"),
            Verdict::Unknown
        );
    }
}
