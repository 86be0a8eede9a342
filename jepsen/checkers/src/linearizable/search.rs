//! The search for an order: Wing & Gong, "Testing and verifying concurrent objects", J. Parallel
//! Distrib. Comput. 1993, with the list of calls and returns and the memory of visited
//! configurations of Lowe, "Testing for linearizability", Concurrency Comput. Pract. Exp. 2017,
//! section 4.
//!
//! A configuration is the set of operations that took effect and the state they led to. From it any
//! operation may come next that began before the first return of one that is still missing.
//!
//! Operations of unknown outcome have no return. They are kept apart, tried last, and these keep
//! them from doubling the number of configurations each:
//!
//! * of equal ones the one that began first comes first;
//! * the model tells when one could as well come later (`Model::is_idle`);
//! * a read that fits is taken at once: whatever order is possible, is possible with it moved to
//!   here. (Not so a write of the value that is there: later it may be needed.)

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::model::{Model, Timed};

/// What a search may cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub deadline: Instant,
    pub steps: u64,
    pub memory_bytes: usize,
}

/// What a search found.
#[derive(Debug)]
pub(super) enum Answer<S> {
    /// There is an order.
    Found,
    /// There is none.
    None(Stuck<S>),
    /// A limit was reached first; which.
    Exhausted(&'static str),
}

/// How far a search came that found nothing.
#[derive(Debug)]
pub(super) struct Stuck<S> {
    /// The operation whose return no order gets past.
    pub blocked: usize,
    /// What the object could hold before that return; at most [`MAX_STATES`].
    pub states: Vec<S>,
}

/// Of more states than these nobody learns more.
const MAX_STATES: usize = 8;

/// Searches for an order. Adds the steps taken to `steps`.
pub(super) fn search<M: Model>(
    model: &M,
    initial: &M::State,
    ops: &[Timed<M::Op>],
    limits: &Limits,
    steps: &mut u64,
) -> Answer<M::State> {
    let mut search = Search::new(model, initial.clone(), ops);
    let answer = search.run(limits);
    *steps += search.steps;
    answer
}

const CALLS: usize = 0;
const UNKNOWN: usize = 1;
const FIRST: usize = 2;

struct Search<'a, M: Model> {
    model: &'a M,
    ops: &'a [Timed<M::Op>],
    /// Calls and returns in the order of time, from place `FIRST` on: operation, whether it is the
    /// return.
    places: Vec<(usize, bool)>,
    /// Two circular lists through the places that are left: from `CALLS` calls and returns of known
    /// operations, from `UNKNOWN` calls of unknown ones.
    next: Vec<usize>,
    previous: Vec<usize>,
    return_of: Vec<usize>,
    /// An equal unknown operation that began before.
    twin: Vec<Option<usize>>,
    missing: usize,
    done: Done,
    state: M::State,
    last_unknown: Option<usize>,
    taken: Vec<Taken<M::State>>,
    states: HashMap<M::State, u32>,
    visited: HashSet<Box<[u64]>>,
    memory_bytes: usize,
    key: Vec<u64>,
    steps: u64,
    furthest: usize,
    furthest_states: Vec<M::State>,
}

/// A step that can be taken back.
struct Taken<S> {
    place: usize,
    before: S,
    last_unknown: Option<usize>,
    /// Nothing else need be tried instead.
    is_forced: bool,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, initial: M::State, ops: &'a [Timed<M::Op>]) -> Self {
        let mut times: Vec<(u64, bool, usize)> = Vec::with_capacity(2 * ops.len());
        for (at, timed) in ops.iter().enumerate() {
            times.push((timed.call_ns, false, at));
            times.extend(timed.return_ns.map(|return_ns| (return_ns, true, at)));
        }
        // Calls before returns of the same instant: intervals are closed.
        times.sort_unstable();
        let mut places = vec![(0, false), (0, false)];
        places.extend(times.iter().map(|(_, is_return, at)| (*at, *is_return)));

        let mut next = vec![0; places.len()];
        let mut previous = vec![0; places.len()];
        let mut ends = [CALLS, UNKNOWN];
        let mut return_of = vec![0; ops.len()];
        for (place, (at, is_return)) in places.iter().enumerate().skip(FIRST) {
            let end = &mut ends[usize::from(ops[*at].return_ns.is_none())];
            next[*end] = place;
            previous[place] = *end;
            *end = place;
            if *is_return {
                return_of[*at] = place;
            }
        }
        for (head, end) in ends.into_iter().enumerate() {
            next[end] = head;
            previous[head] = end;
        }
        Self {
            model,
            ops,
            next,
            previous,
            return_of,
            twin: twins(ops, &places),
            missing: ops.iter().filter(|op| op.return_ns.is_some()).count(),
            done: Done::new(ops, &places),
            places,
            state: initial,
            last_unknown: None,
            taken: Vec::new(),
            states: HashMap::new(),
            visited: HashSet::new(),
            memory_bytes: 0,
            key: Vec::new(),
            steps: 0,
            furthest: 0,
            furthest_states: Vec::new(),
        }
    }

    fn run(&mut self, limits: &Limits) -> Answer<M::State> {
        let mut candidate = self.first_candidate();
        let mut rounds = 0u64;
        while self.missing > 0 {
            rounds += 1;
            if let Some(reason) = self.exceeds(limits, rounds) {
                return Answer::Exhausted(reason);
            }
            candidate = match candidate {
                Some(place) if self.take(place) => self.first_candidate(),
                Some(place) => self.following(place),
                None => {
                    self.remember_how_far();
                    match self.take_back() {
                        Some(place) => self.following(place),
                        None => {
                            return Answer::None(Stuck {
                                blocked: self.places[self.furthest].0,
                                states: std::mem::take(&mut self.furthest_states),
                            });
                        }
                    }
                }
            };
        }
        Answer::Found
    }

    fn exceeds(&self, limits: &Limits, rounds: u64) -> Option<&'static str> {
        if self.steps >= limits.steps {
            return Some("steps");
        }
        if self.memory_bytes >= limits.memory_bytes {
            return Some("memory");
        }
        (rounds % 1024 == 1 && Instant::now() >= limits.deadline).then_some("time")
    }

    /// The place to try first. A read that fits needs no alternative, not even those in front of it.
    fn first_candidate(&mut self) -> Option<usize> {
        let mut place = self.next[CALLS];
        while place >= FIRST && !self.places[place].1 {
            let op = &self.ops[self.places[place].0].op;
            let idle = |unknown: usize| self.model.is_idle(&self.ops[unknown].op, op, false);
            if self.model.is_read(op) && !self.last_unknown.is_some_and(idle) {
                self.steps += 1;
                if self.model.step(&self.state, op).as_ref() == Some(&self.state) {
                    return Some(place);
                }
            }
            place = self.next[place];
        }
        self.following(CALLS)
    }

    /// The place to try after this one: first the known operations that began before the first
    /// return, then the unknown ones.
    fn following(&self, place: usize) -> Option<usize> {
        let next = self.next[place];
        let is_unknown = place == UNKNOWN || (place >= FIRST && self.is_unknown(place));
        if !is_unknown {
            return match next >= FIRST && !self.places[next].1 {
                true => Some(next),
                false => self.following(UNKNOWN),
            };
        }
        (next >= FIRST && next < self.first_return()).then_some(next)
    }

    fn is_unknown(&self, place: usize) -> bool {
        self.ops[self.places[place].0].return_ns.is_none()
    }

    fn first_return(&self) -> usize {
        let mut place = self.next[CALLS];
        while place >= FIRST && !self.places[place].1 {
            place = self.next[place];
        }
        place
    }

    /// Lets an operation take effect, if it fits and leads to a configuration not yet visited.
    fn take(&mut self, place: usize) -> bool {
        let at = self.places[place].0;
        let ops = self.ops;
        let op = &ops[at].op;
        let is_unknown = ops[at].return_ns.is_none();
        if self.twin[at].is_some_and(|twin| !self.done.has(twin)) {
            return false;
        }
        if let Some(unknown) = self.last_unknown
            && self.model.is_idle(&ops[unknown].op, op, is_unknown)
        {
            return false;
        }
        self.steps += 1;
        let Some(after) = self.model.step(&self.state, op) else {
            return false;
        };
        self.done.set(at);
        let last_unknown = is_unknown.then_some(at);
        if !self.is_new(&after, last_unknown) {
            self.done.unset(at);
            return false;
        }
        let is_forced = !is_unknown && self.model.is_read(op) && after == self.state;
        self.taken.push(Taken {
            place,
            before: std::mem::replace(&mut self.state, after),
            last_unknown: std::mem::replace(&mut self.last_unknown, last_unknown),
            is_forced,
        });
        self.unlink(place);
        if !is_unknown {
            self.unlink(self.return_of[at]);
            self.missing -= 1;
        }
        true
    }

    /// Takes back the last step that had an alternative; its place.
    fn take_back(&mut self) -> Option<usize> {
        while let Some(taken) = self.taken.pop() {
            let at = self.places[taken.place].0;
            self.state = taken.before;
            self.last_unknown = taken.last_unknown;
            self.done.unset(at);
            if self.ops[at].return_ns.is_some() {
                self.link(self.return_of[at]);
                self.missing += 1;
            }
            self.link(taken.place);
            if !taken.is_forced {
                return Some(taken.place);
            }
        }
        None
    }

    fn unlink(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn link(&mut self, place: usize) {
        let (previous, next) = (self.previous[place], self.next[place]);
        self.next[previous] = place;
        self.previous[next] = place;
    }

    /// Whether this configuration was not visited yet; now it was.
    fn is_new(&mut self, state: &M::State, last_unknown: Option<usize>) -> bool {
        let number = self.states.len() as u32;
        let state_bytes = self.model.state_bytes(state);
        let state = match self.states.entry(state.clone()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.memory_bytes += state_bytes + 16;
                *new.insert(number)
            }
        };
        self.key.clear();
        self.key.push(u64::from(state));
        self.key.push(last_unknown.map_or(0, |at| at as u64 + 1));
        self.done.write(&mut self.key);
        if self.visited.contains(self.key.as_slice()) {
            return false;
        }
        self.memory_bytes += self.key.len() * 8 + 32;
        self.visited.insert(self.key.as_slice().into())
    }

    fn remember_how_far(&mut self) {
        let first_return = self.first_return();
        if first_return > self.furthest {
            self.furthest = first_return;
            self.furthest_states.clear();
        }
        if first_return == self.furthest
            && self.furthest_states.len() < MAX_STATES
            && !self.furthest_states.contains(&self.state)
        {
            self.furthest_states.push(self.state.clone());
        }
    }
}

fn twins<O: Clone + Eq + std::hash::Hash>(
    ops: &[Timed<O>],
    places: &[(usize, bool)],
) -> Vec<Option<usize>> {
    let mut latest: HashMap<&O, usize> = HashMap::new();
    let mut twins = vec![None; ops.len()];
    for (at, _) in places.iter().skip(FIRST) {
        if ops[*at].return_ns.is_none() {
            twins[*at] = latest.insert(&ops[*at].op, *at);
        }
    }
    twins
}

/// Which operations took effect. Known ones are numbered as they began, so that all but a few in
/// front are done and all but a few behind are not: only the words between are part of the key.
struct Done {
    rank: Vec<usize>,
    is_unknown: Vec<bool>,
    known: Vec<u64>,
    unknown: Vec<u64>,
    /// All words below are full.
    low: usize,
    /// All words from here on are empty.
    high: usize,
}

impl Done {
    fn new<O>(ops: &[Timed<O>], places: &[(usize, bool)]) -> Self {
        let mut rank = vec![0; ops.len()];
        let mut counts = [0; 2];
        for (at, is_return) in places.iter().skip(FIRST) {
            if !is_return {
                let count = &mut counts[usize::from(ops[*at].return_ns.is_none())];
                rank[*at] = *count;
                *count += 1;
            }
        }
        Self {
            rank,
            is_unknown: ops.iter().map(|op| op.return_ns.is_none()).collect(),
            known: vec![0; counts[0] / 64 + 1],
            unknown: vec![0; counts[1] / 64 + 1],
            low: 0,
            high: 0,
        }
    }

    fn has(&self, at: usize) -> bool {
        let (word, bit) = (self.rank[at] / 64, self.rank[at] % 64);
        let words = match self.is_unknown[at] {
            true => &self.unknown,
            false => &self.known,
        };
        words[word] & (1 << bit) != 0
    }

    fn set(&mut self, at: usize) {
        let (word, bit) = (self.rank[at] / 64, self.rank[at] % 64);
        if self.is_unknown[at] {
            self.unknown[word] |= 1 << bit;
            return;
        }
        self.known[word] |= 1 << bit;
        self.high = self.high.max(word + 1);
        while self.known.get(self.low) == Some(&u64::MAX) {
            self.low += 1;
        }
    }

    fn unset(&mut self, at: usize) {
        let (word, bit) = (self.rank[at] / 64, self.rank[at] % 64);
        if self.is_unknown[at] {
            self.unknown[word] &= !(1 << bit);
            return;
        }
        self.known[word] &= !(1 << bit);
        self.low = self.low.min(word);
        while self.high > 0 && self.known[self.high - 1] == 0 {
            self.high -= 1;
        }
    }

    /// Equal sets write the same words, different sets different ones.
    fn write(&self, key: &mut Vec<u64>) {
        let window = &self.known[self.low..self.high.max(self.low)];
        key.push(self.low as u64);
        key.push(window.len() as u64);
        key.extend_from_slice(window);
        let used = self.unknown.iter().rposition(|word| *word != 0);
        key.extend_from_slice(&self.unknown[..used.map_or(0, |last| last + 1)]);
    }
}
