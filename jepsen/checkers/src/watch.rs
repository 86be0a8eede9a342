//! The contract of watches: ordered, unique, reliable, atomic, resumable, bookmarked. The names and
//! meanings are those of etcd's robustness tests (`tests/robustness/validate/watch.go`).
//!
//! # Events
//!
//! Each `ok` operation of `f = "watch"` delivers one event to a watcher. Its `key` is what is watched
//! and its `value` one of
//!
//! ```json
//! {"watcher": "w1", "event": "open", "from": 7, "scope": "clerk"}
//! {"watcher": "w1", "event": "full", "generation": 7, "view": {"name": …}}
//! {"watcher": "w1", "event": "diff", "from": 7, "generation": 9, "set": {"name": …}, "removed": ["name"]}
//! {"watcher": "w1", "event": "bookmark", "generation": 12}
//! {"watcher": "w1", "event": "close"}
//! {"watcher": "w1", "event": "garbled", "why": "…"}
//! ```
//!
//! or an array of them, in order, if it took in several. `garbled` is a message that no client can
//! read, which a server must never send.
//!
//! `open` begins a stream, to any server; `from` is the generation that the watcher has, or `null`.
//! Watchers of the same `scope` (`""` if left out) see the same view. A `diff` may jump over several
//! generations; it holds all changes from `from` (not included) to `generation`. A watcher keeps its
//! name over reconnects and servers.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::history::{Call, History};
use crate::verdict::{Finding, Outcome};

const NAME: &str = "watch";

/// What is wanted of the end of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The generation that watchers must have reached in the end.
    pub final_generation: Option<u64>,
    /// The watchers that must have; if there are none, each that is still open. Those of which
    /// nobody took in what came at the end cannot be blamed for what they do not have.
    pub at_end: Vec<String>,
}

#[derive(Deserialize)]
struct Delivered {
    watcher: String,
    #[serde(flatten)]
    event: Event,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Open {
        from: Option<u64>,
        #[serde(default)]
        scope: String,
    },
    Full {
        generation: u64,
        view: Map<String, Value>,
    },
    Diff {
        from: u64,
        generation: u64,
        #[serde(default)]
        set: Map<String, Value>,
        #[serde(default)]
        removed: Vec<String>,
    },
    Bookmark {
        generation: u64,
    },
    Close,
    Garbled {
        why: String,
    },
}

/// Judges `watch`, by key; each watcher is judged for itself, and against the others' views:
///
/// * *ordered*: its generation never decreases, over reconnects and servers;
/// * *unique*: no change comes twice;
/// * *reliable*: a diff begins where the watcher is, so that none is left out;
/// * *atomic*: at one generation all watchers of a scope have the same view, whether it came whole
///   or as diffs;
/// * *resumable*: a stream goes on where the watcher was, or begins with a full view;
/// * *bookmark*: after a bookmark comes nothing of its generation or before;
/// * *readable*: each message can be understood;
/// * *reliable* in the end as well: a watcher that is still fed has the final generation. One that
///   silently stops is found by this.
///
/// Without any event the verdict is unknown, and so it is if a watcher of
/// [`at_end`](Expected::at_end) is not seen.
pub fn check(history: &History, expected: &Expected) -> Outcome {
    let mut outcome = Outcome::valid(NAME);
    let (mut events, mut watchers) = (0u64, 0u64);
    for (key, calls) in history.calls_by_key() {
        let mut judge = Key {
            key,
            watchers: BTreeMap::new(),
            views: HashMap::new(),
        };
        for call in calls.iter().filter(|call| call.f() == "watch") {
            let Some(ok) = call.ok() else { continue };
            let took_in = match &ok.value {
                Value::Array(several) => several.as_slice(),
                one => std::slice::from_ref(one),
            };
            events += took_in.len() as u64;
            for event in took_in {
                match Delivered::deserialize(event) {
                    Ok(delivered) => judge.deliver(call, delivered, &mut outcome),
                    Err(error) => outcome.unknown(
                        Finding::new(format!("cannot be read as an event: {error}"))
                            .ops([call.invoke.index])
                            .key(key),
                    ),
                }
            }
        }
        watchers += judge.watchers.len() as u64;
        judge.check_end(expected, &mut outcome);
    }
    if events == 0 {
        outcome.unknown(Finding::new("no watch delivered anything"));
    }
    outcome.count("events", events);
    outcome.count("watchers", watchers);
    outcome
}

struct Key<'a> {
    key: &'a str,
    watchers: BTreeMap<String, Watcher>,
    /// What was first seen at a generation of a scope: digest of the view, by which operation.
    views: HashMap<(String, u64), ((u64, u64), u64)>,
}

#[derive(Default)]
struct Watcher {
    scope: String,
    is_open: bool,
    /// Nothing came since it was opened.
    is_fresh: bool,
    /// Up to which generation it knows everything, once it has a view.
    generation: Option<u64>,
    /// The generation of the last change; between the two nothing changed.
    changed: u64,
    view: BTreeMap<String, Value>,
    last_index: u64,
}

impl Key<'_> {
    fn deliver(&mut self, call: &Call<'_>, delivered: Delivered, outcome: &mut Outcome) {
        let name = delivered.watcher;
        let watcher = self.watchers.entry(name.clone()).or_default();
        let before = watcher.last_index;
        let index = call.invoke.index;
        let complaint = watcher.apply(delivered.event);
        watcher.last_index = index;
        let at = match complaint {
            Ok(None) => return,
            Ok(Some(generation)) => generation,
            Err((rule, what)) => {
                let node = call.ok().and_then(|ok| ok.node.as_deref());
                let from = node.map_or(String::new(), |node| format!(" (from {node})"));
                outcome.invalid(
                    Finding::new(format!("not {rule}: {name}{from} {what}"))
                        .ops([before, index])
                        .time(call.call_ns(), call.return_ns())
                        .key(self.key),
                );
                return;
            }
        };
        let digest = digest(&watcher.view);
        let scope = watcher.scope.clone();
        let first = self.views.entry((scope, at)).or_insert((digest, index));
        if first.0 != digest {
            outcome.invalid(
                Finding::new(format!(
                    "not atomic: at generation {at} {name} has another view than was seen before"
                ))
                .ops([first.1, index])
                .time(call.call_ns(), call.return_ns())
                .key(self.key),
            );
        }
    }

    fn check_end(&self, expected: &Expected, outcome: &mut Outcome) {
        let Some(last) = expected.final_generation else {
            return;
        };
        for name in &expected.at_end {
            if !self.watchers.contains_key(name) {
                outcome.unknown(Finding::new(format!("{name} was not seen")).key(self.key));
            }
        }
        let due = self
            .watchers
            .iter()
            .filter(|(name, watcher)| match expected.at_end.is_empty() {
                true => watcher.is_open,
                false => expected.at_end.contains(name),
            });
        for (name, watcher) in due {
            if watcher
                .generation
                .is_none_or(|generation| generation < last)
            {
                let at = watcher
                    .generation
                    .map_or("no generation".to_owned(), |at| format!("generation {at}"));
                outcome.invalid(
                    Finding::new(format!("{name} ended at {at}, not at {last}"))
                        .ops([watcher.last_index])
                        .key(self.key),
                );
            }
        }
    }
}

type Complaint = (&'static str, String);

impl Watcher {
    /// Takes an event in; the generation whose view the watcher now has, or which rule is broken.
    fn apply(&mut self, event: Event) -> Result<Option<u64>, Complaint> {
        let is_first = std::mem::replace(&mut self.is_fresh, false);
        match event {
            Event::Open { from, scope } => {
                self.is_open = true;
                self.is_fresh = true;
                self.scope = scope;
                if from > self.generation {
                    let what = format!("resumed at {from:?}, but had {:?}", self.generation);
                    return Err(("resumable", what));
                }
                if from.is_none() {
                    // It asked for everything anew, but must not be led back.
                    self.view.clear();
                }
                Ok(None)
            }
            Event::Close => {
                self.is_open = false;
                Ok(None)
            }
            Event::Garbled { why } => {
                Err(("readable", format!("got a message that is none: {why}")))
            }
            Event::Full { generation, view } => self.full(is_first, generation, view),
            Event::Diff {
                from,
                generation,
                set,
                removed,
            } => {
                self.may_change(from, generation)?;
                for name in removed {
                    self.view.remove(&name);
                }
                self.view.extend(set);
                self.generation = Some(generation);
                self.changed = generation;
                Ok(Some(generation))
            }
            Event::Bookmark { generation } => match self.generation {
                None => Err(("bookmarked", "got a bookmark before any view".to_owned())),
                Some(at) if generation < at => Err((
                    "bookmarked",
                    format!("got a bookmark at {generation}, but had {at}"),
                )),
                Some(_) => {
                    self.generation = Some(generation);
                    Ok(Some(generation))
                }
            },
        }
    }

    fn full(
        &mut self,
        is_first: bool,
        generation: u64,
        view: Map<String, Value>,
    ) -> Result<Option<u64>, Complaint> {
        match self.generation {
            Some(at) if generation < at => {
                let what = format!("went back from generation {at} to {generation}");
                return Err(("ordered", what));
            }
            Some(at) if generation == at && !is_first => {
                return Err(("unique", format!("got generation {at} twice")));
            }
            _ => {}
        }
        self.generation = Some(generation);
        self.changed = generation;
        self.view = view.into_iter().collect();
        Ok(Some(generation))
    }

    fn may_change(&self, from: u64, generation: u64) -> Result<(), Complaint> {
        let Some(at) = self.generation else {
            let what = format!("got a change from {from} to {generation} before any view");
            return Err(("resumable", what));
        };
        let told = |rule, why: &str| {
            let what = format!("had generation {at} and got a change from {from} to {generation}");
            Err((rule, format!("{what}: {why}")))
        };
        match () {
            () if generation <= from => told("ordered", "it goes back"),
            () if generation < at => told("ordered", "it goes back"),
            () if generation == at => told("unique", "it has that"),
            () if from > at => told("reliable", "something is left out"),
            () if from < self.changed => told("unique", "it has a part of that"),
            () => Ok(()),
        }
    }
}

/// Two hashes of 64 bits: views are too large to keep all.
fn digest(view: &BTreeMap<String, Value>) -> (u64, u64) {
    let hash = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        for (name, value) in view {
            name.hash(&mut hasher);
            value.to_string().hash(&mut hasher);
        }
        hasher.finish()
    };
    (hash(1), hash(2))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{history, ok};
    use crate::verdict::Verdict;

    fn judge(events: &[Value]) -> Outcome {
        let at = |(at, event): (usize, &Value)| {
            let at = at as u64 * 10;
            ok("watch", Value::Null, at, at + 5, event.clone())
        };
        let did: Vec<_> = events.iter().enumerate().map(at).collect();
        let expected = Expected {
            final_generation: Some(9),
            ..Expected::default()
        };
        check(&history(&did), &expected)
    }

    fn open(watcher: &str, from: Option<u64>) -> Value {
        json!({"watcher": watcher, "event": "open", "from": from})
    }

    fn full(watcher: &str, generation: u64, view: Value) -> Value {
        json!({"watcher": watcher, "event": "full", "generation": generation, "view": view})
    }

    fn diff(watcher: &str, from: u64, generation: u64, set: Value) -> Value {
        json!({"watcher": watcher, "event": "diff", "from": from, "generation": generation, "set": set})
    }

    fn bookmark(watcher: &str, generation: u64) -> Value {
        json!({"watcher": watcher, "event": "bookmark", "generation": generation})
    }

    fn says(events: &[Value], part: &str) {
        let outcome = judge(events);
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert!(
            outcome.findings[0].what.contains(part),
            "{:?}",
            outcome.findings
        );
    }

    #[test]
    fn diffs_fulls_bookmarks_and_reconnects_that_agree_are_valid() {
        let outcome = judge(&[
            open("w1", None),
            full("w1", 3, json!({"a": 1, "b": 1})),
            open("w2", None),
            full("w2", 5, json!({"a": 2, "b": 1})),
            diff("w1", 3, 5, json!({"a": 2})),
            bookmark("w1", 7),
            diff("w1", 5, 8, json!({"c": 1})),
            json!({"watcher": "w1", "event": "close"}),
            open("w1", Some(8)),
            json!({"watcher": "w1", "event": "diff", "from": 8, "generation": 9, "removed": ["a"]}),
            open("w2", Some(5)),
            full("w2", 9, json!({"b": 1, "c": 1})),
            open("w3", None),
            full("w3", 1, json!({})),
            json!({"watcher": "w3", "event": "close"}),
        ]);
        assert_eq!(outcome.verdict, Verdict::Valid, "{:?}", outcome.findings);
        assert_eq!(outcome.stats["watchers"], 3);
    }

    #[test]
    fn a_generation_that_goes_back_at_another_server_is_found() {
        let events = [
            open("w1", None),
            full("w1", 9, json!({})),
            open("w1", Some(9)),
            full("w1", 8, json!({})),
        ];
        says(&events, "not ordered: w1 went back from generation 9 to 8");
    }

    #[test]
    fn a_change_left_out_and_one_that_comes_twice_are_found() {
        let begin = [open("w1", None), full("w1", 3, json!({}))];
        let with = |last: Value| [begin.to_vec(), vec![last]].concat();
        says(&with(diff("w1", 4, 5, json!({}))), "not reliable");
        says(&with(diff("w1", 2, 3, json!({}))), "not unique");
        says(&with(diff("w1", 2, 5, json!({}))), "not unique");
        says(&with(full("w1", 3, json!({}))), "not unique");
        says(&with(diff("w1", 3, 3, json!({}))), "not ordered");
    }

    #[test]
    fn half_of_a_change_is_found() {
        let events = [
            open("w1", None),
            full("w1", 3, json!({})),
            diff("w1", 3, 9, json!({"a": 1})),
            open("w2", None),
            full("w2", 9, json!({"a": 1, "b": 1})),
        ];
        says(&events, "not atomic: at generation 9 w2");
    }

    #[test]
    fn a_stream_that_begins_with_a_change_is_found() {
        says(
            &[open("w1", None), diff("w1", 3, 4, json!({}))],
            "not resumable",
        );
    }

    #[test]
    fn what_comes_after_its_bookmark_is_found() {
        let events = [
            open("w1", None),
            full("w1", 3, json!({})),
            bookmark("w1", 7),
            diff("w1", 3, 6, json!({})),
        ];
        says(&events, "not ordered");
        says(
            &[
                open("w1", None),
                full("w1", 3, json!({})),
                bookmark("w1", 2),
            ],
            "not bookmarked",
        );
    }

    #[test]
    fn a_watcher_that_stays_behind_is_found() {
        let events = [open("w1", None), full("w1", 8, json!({}))];
        says(&events, "w1 ended at generation 8, not at 9");
    }

    #[test]
    fn only_watchers_that_were_fed_to_the_end_must_have_the_end() {
        let judged = |last: &[Value]| {
            let early = [open("w1", None), full("w1", 3, json!({}))];
            let took_in = [&early[..], &[json!(last)]].concat();
            let at = |(at, event): (u64, &Value)| {
                ok("watch", Value::Null, at * 10, at * 10 + 5, event.clone())
            };
            let did: Vec<_> = (0..).zip(&took_in).map(at).collect();
            let expected = Expected {
                final_generation: Some(9),
                at_end: vec!["last".to_owned()],
            };
            check(&history(&did), &expected)
        };
        let caught_up = [open("last", None), full("last", 9, json!({}))];
        assert_eq!(judged(&caught_up).verdict, Verdict::Valid);
        let stopped = [open("last", None), full("last", 8, json!({}))];
        let outcome = judged(&stopped);
        assert_eq!(outcome.verdict, Verdict::Invalid);
        assert_eq!(
            outcome.findings[0].what,
            "last ended at generation 8, not at 9"
        );
        assert_eq!(judged(&[]).verdict, Verdict::Unknown);
    }

    #[test]
    fn a_message_that_nobody_can_read_is_found() {
        let garbled = json!({"watcher": "w1", "event": "garbled", "why": "no generation"});
        says(&[open("w1", None), garbled], "not readable: w1");
    }

    #[test]
    fn nothing_or_nonsense_is_unknown() {
        assert_eq!(judge(&[]).verdict, Verdict::Unknown);
        assert_eq!(judge(&[json!({"event": "open"})]).verdict, Verdict::Unknown);
    }
}
