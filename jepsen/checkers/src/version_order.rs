//! Where the store numbers its writes, linearizability is a question of order alone.
//!
//! In general it takes a search to tell whether reads and writes are linearizable. Once it is known
//! which write each read saw, and in which order the writes took effect, it does not: Gibbons &
//! Korach, "Testing shared memories", SIAM J. Comput. 26(4), 1997, sections 4 and 5. Both are in
//! the versions `(epoch, seq)` that results carry. So of each key this checks, in O(n log n), that
//!
//! 1. no two writes made the same version;
//! 2. each read saw what the write of its version wrote; when no known write made that version, an
//!    unknown one that wrote this value must have;
//! 3. versions follow time: what began after an operation had ended has a version that is not
//!    smaller, and larger if it is a write;
//! 4. each compare-and-set found what the write before it left.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::history::{Call, End, History, Version, Versioned};
use crate::parallel;
use crate::verdict::{Finding, Outcome};

const NAME: &str = "version_order";

/// What nobody wrote yet.
const UNWRITTEN: Version = (0, 0);

/// Judges `read`, `write` and `cas` operations whose results carry versions, by key.
///
/// A known operation without a version makes the verdict unknown: nothing can be said of it. A read
/// of `null` without a version saw what nobody wrote yet.
pub fn check(history: &History) -> Outcome {
    let mut outcome = Outcome::valid(NAME);
    let keys: Vec<(&str, Vec<Call<'_>>)> = history.calls_by_key().into_iter().collect();
    let (mut ops, mut versions, mut unversioned) = (0u64, 0u64, 0u64);
    for (judged, key) in parallel::map(&keys, |(key, calls)| judge(key, calls)) {
        outcome.absorb(judged);
        ops += key.known.len() as u64;
        versions += key.writes.len() as u64;
        unversioned += key.unversioned.len() as u64;
    }
    outcome.count("keys", keys.len());
    outcome.count("ops", ops);
    outcome.count("versions", versions);
    outcome.count("unversioned", unversioned);
    outcome
}

fn judge<'a>(name: &'a str, calls: &[Call<'a>]) -> (Outcome, Key<'a>) {
    let mut outcome = Outcome::valid(NAME);
    let mut key = Key::new(name);
    for call in calls {
        key.add(call);
    }
    key.assign_unknown_writes(&mut outcome);
    key.check_values(&mut outcome);
    key.check_order(&mut outcome);
    key.check_predecessors(&mut outcome);
    if let Some(first) = key.unversioned.first() {
        let what = format!(
            "{} operations carry no version, so their order is not known",
            key.unversioned.len()
        );
        outcome.unknown(Finding::new(what).ops([*first]).key(name));
    }
    (outcome, key)
}

/// A known operation.
#[derive(Clone, Copy)]
struct Known<'a> {
    call: Call<'a>,
    version: Version,
    is_write: bool,
    /// What it saw (a read) or left.
    value: &'a Value,
}

/// The write that made a version.
#[derive(Clone, Copy)]
struct Write<'a> {
    call: Call<'a>,
    value: &'a Value,
    /// Its result did not tell the version.
    is_assigned: bool,
}

struct Key<'a> {
    key: &'a str,
    known: Vec<Known<'a>>,
    /// By version; of two with the same, the first.
    writes: BTreeMap<Version, Write<'a>>,
    duplicates: Vec<(Version, Call<'a>)>,
    /// Writes whose version is not known, by the text of their value, in the order of invocation.
    unknown: HashMap<String, Vec<Call<'a>>>,
    unversioned: Vec<u64>,
    initial: Value,
}

/// What a write or cas leaves, and what a cas finds.
fn left_and_found<'a>(call: &Call<'a>) -> Option<(&'a Value, Option<&'a Value>)> {
    match (call.f(), call.invoke.value.as_array().map(Vec::as_slice)) {
        ("write", _) => Some((&call.invoke.value, None)),
        ("cas", Some([from, to])) => Some((to, Some(from))),
        _ => None,
    }
}

impl<'a> Key<'a> {
    fn new(key: &'a str) -> Self {
        Self {
            key,
            known: Vec::new(),
            writes: BTreeMap::new(),
            duplicates: Vec::new(),
            unknown: HashMap::new(),
            unversioned: Vec::new(),
            initial: Value::Null,
        }
    }

    fn add(&mut self, call: &Call<'a>) {
        let written = left_and_found(call);
        if written.is_none() && call.f() != "read" {
            return;
        }
        let op = match (call.end, written) {
            (End::Ok(op), _) => op,
            (End::Unknown(_), Some((value, _))) => {
                let same = self.unknown.entry(value.to_string()).or_default();
                same.push(*call);
                return;
            }
            _ => return,
        };
        let result = Versioned::of(&op.value);
        let version = match (result.version, written) {
            (Some(version), _) => version,
            (None, None) if result.value.is_null() => UNWRITTEN,
            (None, _) => {
                self.unversioned.push(call.invoke.index);
                if let Some((value, _)) = written {
                    let same = self.unknown.entry(value.to_string()).or_default();
                    same.push(*call);
                }
                return;
            }
        };
        let value = written.map_or(result.value, |(left, _)| left);
        if written.is_some() {
            let write = Write {
                call: *call,
                value,
                is_assigned: false,
            };
            match self.writes.entry(version) {
                Entry::Vacant(new) => {
                    new.insert(write);
                }
                Entry::Occupied(_) => self.duplicates.push((version, *call)),
            }
        }
        self.known.push(Known {
            call: *call,
            version,
            is_write: written.is_some(),
            value,
        });
    }

    /// Versions that were read and that no known write made were made by unknown writes of the same
    /// value. A write must not have begun after an operation of a larger or the same version had
    /// ended: that asks the later ones for larger versions. So if any assignment is possible, the
    /// one in order is: exchanging two that are not in order only helps.
    fn assign_unknown_writes(&mut self, outcome: &mut Outcome) {
        let mut wanted: BTreeMap<Version, (&'a Value, Call<'a>)> = BTreeMap::new();
        for known in &self.known {
            if known.version != UNWRITTEN && !self.writes.contains_key(&known.version) {
                wanted
                    .entry(known.version)
                    .or_insert((known.value, known.call));
            }
        }
        let mut used: HashMap<String, usize> = HashMap::new();
        for (version, (value, read)) in wanted {
            let text = value.to_string();
            let candidates = self.unknown.get(&text).map_or(&[][..], Vec::as_slice);
            let used = used.entry(text).or_default();
            match candidates.get(*used) {
                Some(call) => {
                    *used += 1;
                    let write = Write {
                        call: *call,
                        value,
                        is_assigned: true,
                    };
                    self.writes.insert(version, write);
                }
                None => outcome.invalid(
                    Finding::new(format!(
                        "{value} was read at version {}, but no write can have made it",
                        show(version)
                    ))
                    .ops([read.invoke.index])
                    .time(read.call_ns(), read.return_ns())
                    .key(self.key),
                ),
            }
        }
        for (text, used) in used {
            if let Some(candidates) = self.unknown.get_mut(&text) {
                candidates.drain(..used.min(candidates.len()));
            }
        }
    }

    fn check_values(&self, outcome: &mut Outcome) {
        for (version, call) in &self.duplicates {
            if let Some(first) = self.writes.get(version) {
                let what = format!("two writes made version {}", show(*version));
                outcome.invalid(self.finding(what, &[first.call, *call]));
            }
        }
        for known in self.known.iter().filter(|known| !known.is_write) {
            let write = self.writes.get(&known.version);
            let expected = write.map_or(&self.initial, |write| write.value);
            let is_explained = write.is_some() || known.version == UNWRITTEN;
            if is_explained && known.value != expected {
                let what = format!(
                    "{} was read at version {}, where {expected} was written",
                    known.value,
                    show(known.version)
                );
                let calls = write.map(|write| write.call).into_iter();
                let calls: Vec<Call<'_>> = calls.chain([known.call]).collect();
                outcome.invalid(self.finding(what, &calls));
            }
        }
    }

    /// Goes through time with the operation of the largest version of those that ended.
    fn check_order(&self, outcome: &mut Outcome) {
        let mut begins: Vec<Known<'_>> = self.known.clone();
        let assigned = self.writes.iter().filter(|(_, write)| write.is_assigned);
        begins.extend(assigned.map(|(version, write)| Known {
            call: write.call,
            version: *version,
            is_write: true,
            value: write.value,
        }));
        begins.sort_by_key(|known| known.call.call_ns());
        let mut ends: Vec<Known<'_>> = self.known.clone();
        ends.sort_by_key(|known| known.call.return_ns());
        let mut ends = ends.into_iter().peekable();
        let mut largest: Option<Known<'_>> = None;
        for known in begins {
            while let Some(ended) = ends.next_if(|ended| ended.call.precedes(&known.call)) {
                if largest.is_none_or(|largest| largest.version < ended.version) {
                    largest = Some(ended);
                }
            }
            let Some(earlier) = largest else { continue };
            let goes_back = known.version < earlier.version;
            if goes_back || (known.is_write && known.version == earlier.version) {
                let what = format!(
                    "a {} at version {} began after a {} at version {} had ended",
                    known.call.f(),
                    show(known.version),
                    earlier.call.f(),
                    show(earlier.version),
                );
                outcome.invalid(self.finding(what, &[earlier.call, known.call]));
            }
        }
    }

    /// A compare-and-set found what the largest version below its own left, or what an unknown
    /// write left that nobody read.
    fn check_predecessors(&self, outcome: &mut Outcome) {
        let mut before: Option<&Write<'_>> = None;
        for (version, write) in &self.writes {
            if let Some((_, Some(found))) = left_and_found(&write.call) {
                let expected = before.map_or(&self.initial, |before| before.value);
                let unread = self.unknown.get(&found.to_string());
                let may_be_unread = unread.is_some_and(|calls| {
                    calls
                        .iter()
                        .any(|call| call.call_ns() <= write.call.return_ns())
                });
                if found != expected && !may_be_unread {
                    let what = format!(
                        "a cas found {found} just before version {}, where {expected} was",
                        show(*version)
                    );
                    let calls = before.map(|before| before.call).into_iter();
                    let calls: Vec<Call<'_>> = calls.chain([write.call]).collect();
                    outcome.invalid(self.finding(what, &calls));
                }
            }
            before = Some(write);
        }
    }

    fn finding(&self, what: String, calls: &[Call<'_>]) -> Finding {
        let from_ns = calls.iter().map(Call::call_ns).min().unwrap_or(0);
        let to_ns = calls.iter().filter_map(Call::ok).map(|op| op.time).max();
        Finding::new(what)
            .ops(calls.iter().map(|call| call.invoke.index))
            .time(from_ns, to_ns.unwrap_or(from_ns))
            .key(self.key)
    }
}

fn show((epoch, seq): Version) -> String {
    format!("{epoch}.{seq}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Did, begun, failed, history, ok, unknown};
    use crate::verdict::Verdict;

    fn write(value: i64, from: u64, to: u64, version: Version) -> Did {
        let result = json!({"value": value, "version": [version.0, version.1]});
        ok("write", value, from, to, result)
    }

    fn read(value: i64, from: u64, to: u64, version: Version) -> Did {
        let result = json!({"value": value, "version": [version.0, version.1]});
        ok("read", Value::Null, from, to, result)
    }

    fn cas(old: i64, new: i64, from: u64, to: u64, version: Version) -> Did {
        let result = json!({"value": [old, new], "version": [version.0, version.1]});
        ok("cas", json!([old, new]), from, to, result)
    }

    fn invalid(did: &[Did], part: &str, processes: &[u64]) {
        let history = history(did);
        let outcome = check(&history);
        assert_eq!(outcome.verdict, Verdict::Invalid);
        let finding = &outcome.findings[0];
        assert!(finding.what.contains(part), "{}", finding.what);
        assert_eq!(finding.ops, begun(&history, processes), "{}", finding.what);
    }

    #[test]
    fn what_follows_versions_is_valid() {
        let did = [
            ok("read", Value::Null, 0, 1, Value::Null),
            write(1, 2, 20, (1, 1)),
            write(2, 2, 20, (1, 2)),
            read(1, 3, 10, (1, 1)),
            cas(2, 3, 21, 22, (2, 1)),
            unknown("write", 4, 23, 24),
            read(4, 25, 26, (2, 7)),
            unknown("write", 5, 26, 27),
            cas(5, 6, 28, 29, (3, 1)),
            failed("write", 8, 30, 31),
        ];
        let outcome = check(&history(&did));
        assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
        assert_eq!(outcome.stats["versions"], 5);
    }

    #[test]
    fn a_stale_read_is_found() {
        let did = [
            write(1, 0, 1, (1, 1)),
            write(2, 2, 3, (2, 1)),
            read(1, 4, 5, (1, 1)),
        ];
        invalid(
            &did,
            "version 1.1 began after a write at version 2.1",
            &[1, 2],
        );
    }

    #[test]
    fn a_new_value_and_then_the_old_one_during_a_write_is_found() {
        let did = [
            write(1, 0, 1, (1, 1)),
            write(2, 2, 100, (1, 2)),
            read(2, 10, 20, (1, 2)),
            read(1, 30, 40, (1, 1)),
        ];
        invalid(&did, "had ended", &[2, 3]);
    }

    #[test]
    fn a_lost_write_is_found_by_the_version_made_twice() {
        let did = [write(1, 0, 1, (1, 1)), write(2, 2, 3, (1, 1))];
        invalid(&did, "two writes made version 1.1", &[0, 1]);
    }

    #[test]
    fn a_read_of_what_nobody_wrote_is_found() {
        let did = [failed("write", 1, 0, 1), read(1, 2, 3, (1, 1))];
        invalid(&did, "no write can have made it", &[1]);
        let before = [read(1, 2, 3, (1, 1)), unknown("write", 1, 4, 5)];
        invalid(&before, "began after", &[0, 1]);
    }

    #[test]
    fn a_read_that_does_not_match_its_version_is_found() {
        let did = [write(1, 0, 1, (1, 1)), read(2, 2, 3, (1, 1))];
        invalid(&did, "where 1 was written", &[0, 1]);
    }

    #[test]
    fn an_unknown_write_explains_one_version_only() {
        let did = [
            unknown("write", 7, 0, 1),
            read(7, 2, 3, (1, 1)),
            read(7, 4, 5, (1, 4)),
        ];
        invalid(&did, "no write can have made it", &[2]);
    }

    #[test]
    fn a_compare_and_set_over_another_value_is_found() {
        let did = [
            write(1, 0, 1, (1, 1)),
            write(2, 2, 3, (1, 2)),
            cas(1, 3, 4, 5, (1, 3)),
        ];
        invalid(
            &did,
            "a cas found 1 just before version 1.3, where 2 was",
            &[1, 2],
        );
    }

    #[test]
    fn without_versions_nothing_is_known() {
        let did = [ok("write", 1, 0, 1, Value::Null)];
        assert_eq!(check(&history(&did)).verdict, Verdict::Unknown);
    }
}
