//! Counters: nothing acknowledged is lost, nothing is applied twice.
//!
//! Of each key: every read lies between the sum of what was certainly added before it began and
//! of what may have been added before it ended. Reads that began after all additions had ended are
//! final: of them `acknowledged ≤ read ≤ acknowledged + unknown`, which is the same bound. This
//! is linear in the number of operations and weaker than
//! [`linearizable`](crate::linearizable), whose search unknown additions may exhaust.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::history::{Call, End, History};
use crate::linearizable::{amount, total};
use crate::verdict::{Finding, Outcome};

const NAME: &str = "counter";

/// Judges `add` and `read`, by key. A key without a final read is unknown: what was lost at the end
/// nobody would know.
pub fn check(history: &History) -> Outcome {
    let mut outcome = Outcome::valid(NAME);
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for (key, calls) in history.calls_by_key() {
        let Some(judge) = Key::new(key, &calls, &mut outcome) else {
            continue;
        };
        *counts.entry("keys").or_default() += 1;
        *counts.entry("adds").or_default() += judge.adds.len() as u64;
        *counts.entry("reads").or_default() += judge.reads.len() as u64;
        judge.check_bounds(&mut outcome);
        judge.check_tokens(&mut outcome);
        let last_add_ns = judge.adds.iter().map(|add| add.last_ns).max().unwrap_or(0);
        let is_final = |read: &&Read<'_>| read.call.call_ns() > last_add_ns;
        let finals = judge.reads.iter().filter(is_final).count() as u64;
        *counts.entry("final_reads").or_default() += finals;
        if finals == 0 {
            let what = "was never read after the last addition had ended";
            outcome.unknown(Finding::new(what).key(key));
        }
    }
    for (name, count) in counts {
        outcome.count(name, count);
    }
    outcome
}

struct Add<'a> {
    call: Call<'a>,
    amount: i128,
    /// When the client gave up on it or it ended.
    last_ns: u64,
    has_failed: bool,
}

struct Read<'a> {
    call: Call<'a>,
    total: i128,
    applied: Option<&'a Vec<Value>>,
}

struct Key<'a> {
    key: &'a str,
    adds: Vec<Add<'a>>,
    reads: Vec<Read<'a>>,
}

impl<'a> Key<'a> {
    /// `None` if no operation is on a counter.
    fn new(key: &'a str, calls: &[Call<'a>], outcome: &mut Outcome) -> Option<Self> {
        let (mut adds, mut reads) = (Vec::new(), Vec::new());
        for call in calls {
            let read = match (call.f(), call.ok()) {
                ("add", _) => None,
                ("read", Some(ok)) => Some(ok),
                _ => continue,
            };
            let number = match read {
                Some(ok) => total(&ok.value),
                None => amount(&call.invoke.value),
            };
            let Some(number) = number.map(i128::from) else {
                let finding = Finding::new("cannot be read as an operation on a counter");
                outcome.unknown(finding.ops([call.invoke.index]).key(key));
                continue;
            };
            match read {
                Some(ok) => reads.push(Read {
                    call: *call,
                    total: number,
                    applied: ok.value.get("applied").and_then(Value::as_array),
                }),
                None => adds.push(Add {
                    call: *call,
                    amount: number,
                    last_ns: match call.end {
                        End::Ok(op) | End::Fail(op) | End::Unknown(Some(op)) => op.time,
                        End::Unknown(None) => call.call_ns(),
                    },
                    has_failed: matches!(call.end, End::Fail(_)),
                }),
            }
        }
        (!adds.is_empty() || !reads.is_empty()).then_some(Self { key, adds, reads })
    }

    /// Sums of what was certainly added by a time, and of what may have been begun by it.
    fn check_bounds(&self, outcome: &mut Outcome) {
        let took_part = || self.adds.iter().filter(|add| !add.has_failed);
        // A positive amount raises the lower bound when it ended, the upper when it began; a
        // negative one the other way round.
        let mut ended: Vec<(u64, i128)> = took_part()
            .filter(|add| add.call.ok().is_some())
            .map(|add| (add.call.return_ns(), add.amount))
            .collect();
        let mut begun: Vec<(u64, i128)> = took_part()
            .map(|add| (add.call.call_ns(), add.amount))
            .collect();
        ended.sort_unstable();
        begun.sort_unstable();
        let (up_ended, down_ended) = (Sums::of(&ended, true), Sums::of(&ended, false));
        let (up_begun, down_begun) = (Sums::of(&begun, true), Sums::of(&begun, false));
        for read in &self.reads {
            let (from_ns, to_ns) = (read.call.call_ns(), read.call.return_ns());
            let low = up_ended.before(from_ns) + down_begun.until(to_ns);
            let high = up_begun.until(to_ns) + down_ended.before(from_ns);
            if (low..=high).contains(&read.total) {
                continue;
            }
            let what = match read.total < low {
                true => format!(
                    "{} was read, but at least {low} was there: {} of what was acknowledged is \
                     lost",
                    read.total,
                    low - read.total
                ),
                false => format!(
                    "{} was read, but at most {high} can have been there: {} too many were added",
                    read.total,
                    read.total - high
                ),
            };
            outcome.invalid(
                Finding::new(what)
                    .ops([read.call.invoke.index])
                    .time(from_ns, to_ns)
                    .key(self.key),
            );
        }
    }

    /// Where reads show the ids of what was applied: each at most once, none that was not asked for,
    /// and all that had been acknowledged.
    fn check_tokens(&self, outcome: &mut Outcome) {
        let id = |add: &Add<'_>| add.call.invoke.value.get(1).map(Value::to_string);
        let mut asked: HashMap<String, &Add<'_>> = HashMap::new();
        for add in &self.adds {
            if let Some(id) = id(add) {
                asked.insert(id, add);
            }
        }
        for read in &self.reads {
            let Some(applied) = read.applied else {
                continue;
            };
            let mut times: HashMap<String, u64> = HashMap::new();
            for id in applied {
                *times.entry(id.to_string()).or_default() += 1;
            }
            let mut wrong: Vec<(String, Option<u64>)> = Vec::new();
            for (id, count) in &times {
                let add = asked.get(id);
                let index = add.map(|add| add.call.invoke.index);
                match add {
                    _ if *count > 1 => {
                        wrong.push((format!("{id} was applied {count} times"), index))
                    }
                    None => wrong.push((format!("{id} was applied and never asked for"), index)),
                    Some(add) if add.has_failed => {
                        wrong.push((format!("{id} was applied though it failed"), index));
                    }
                    Some(_) => {}
                }
            }
            for (id, add) in &asked {
                if add.call.precedes(&read.call)
                    && add.call.ok().is_some()
                    && !times.contains_key(id)
                {
                    let what = format!("{id} was acknowledged and is lost");
                    wrong.push((what, Some(add.call.invoke.index)));
                }
            }
            wrong.sort();
            for (what, add) in wrong {
                outcome.invalid(
                    Finding::new(what)
                        .ops(add.into_iter().chain([read.call.invoke.index]))
                        .time(read.call.call_ns(), read.call.return_ns())
                        .key(self.key),
                );
            }
        }
    }
}

/// Running sums over time of the positive amounts, or of the negative ones.
struct Sums(Vec<(u64, i128)>);

impl Sums {
    fn of(sorted: &[(u64, i128)], positive: bool) -> Self {
        let mut sum = 0;
        let picked = sorted
            .iter()
            .filter(|(_, amount)| (*amount > 0) == positive);
        Self(
            picked
                .map(|(at_ns, amount)| {
                    sum += amount;
                    (*at_ns, sum)
                })
                .collect(),
        )
    }

    fn before(&self, at_ns: u64) -> i128 {
        self.sum(self.0.partition_point(|(time, _)| *time < at_ns))
    }

    fn until(&self, at_ns: u64) -> i128 {
        self.sum(self.0.partition_point(|(time, _)| *time <= at_ns))
    }

    fn sum(&self, count: usize) -> i128 {
        match count {
            0 => 0,
            count => self.0[count - 1].1,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Did, begun, failed, history, ok, unknown};
    use crate::verdict::Verdict;

    fn add(value: impl Into<Value>, from: u64, to: u64) -> Did {
        ok("add", value, from, to, Value::Null)
    }

    fn read(value: impl Into<Value>, from: u64, to: u64) -> Did {
        ok("read", Value::Null, from, to, value)
    }

    #[test]
    fn reads_within_bounds_are_valid() {
        let did = [
            add(5, 0, 10),
            read(0, 1, 2),
            read(5, 3, 4),
            unknown("add", 7, 11, 12),
            failed("add", 100, 11, 12),
            add(-2, 13, 20),
            read(12, 14, 15),
            read(3, 21, 22),
            read(10, 23, 24),
        ];
        let outcome = check(&history(&did));
        assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
        assert_eq!(outcome.stats["final_reads"], 2);
    }

    #[test]
    fn a_lost_and_a_doubled_addition_are_found() {
        let lost = [add(5, 0, 10), add(3, 11, 12), read(5, 13, 14)];
        let outcome = check(&history(&lost));
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert!(
            outcome.findings[0]
                .what
                .contains("3 of what was acknowledged is lost")
        );
        assert_eq!(outcome.findings[0].ops, begun(&history(&lost), &[2]));

        let doubled = [add(5, 0, 10), unknown("add", 3, 11, 12), read(11, 13, 14)];
        let outcome = check(&history(&doubled));
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert!(outcome.findings[0].what.contains("3 too many were added"));
    }

    #[test]
    fn an_intermediate_read_out_of_bounds_is_found() {
        let did = [
            add(5, 0, 10),
            read(4, 11, 12),
            add(1, 13, 14),
            read(6, 15, 16),
        ];
        assert_eq!(check(&history(&did)).verdict, Verdict::Invalid);
    }

    #[test]
    fn ids_are_applied_once_and_are_not_lost() {
        let shown = |value: i64, ids: &[&str]| json!({"value": value, "applied": ids});
        let did = |last: Value| {
            let did = [
                add(json!([1, "a"]), 0, 1),
                add(json!([1, "b"]), 0, 1),
                unknown("add", json!([1, "c"]), 0, 1),
                read(last, 2, 3),
            ];
            let outcome = check(&history(&did));
            let what = outcome.findings.first().map(|finding| finding.what.clone());
            (outcome.verdict, what.unwrap_or_default())
        };
        assert_eq!(did(shown(2, &["a", "b"])).0, Verdict::Valid);
        assert_eq!(did(shown(3, &["a", "b", "c"])).0, Verdict::Valid);
        let (verdict, what) = did(shown(3, &["a", "b", "b"]));
        assert_eq!(verdict, Verdict::Invalid);
        assert_eq!(what, "\"b\" was applied 2 times");
        let (verdict, what) = did(shown(2, &["a", "c"]));
        assert_eq!(verdict, Verdict::Invalid);
        assert_eq!(what, "\"b\" was acknowledged and is lost");
        assert_eq!(did(shown(3, &["a", "b", "z"])).0, Verdict::Invalid);
    }

    #[test]
    fn without_a_final_read_nothing_is_known_of_the_end() {
        let did = [add(5, 0, 10), read(5, 11, 12), add(5, 13, 20)];
        assert_eq!(check(&history(&did)).verdict, Verdict::Unknown);
    }
}
