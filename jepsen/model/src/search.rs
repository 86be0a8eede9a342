//! Breadth-first search through all states of a world, level by level, on a few threads.
//!
//! States are kept as fingerprints of 128 bits, with the step and the state that each was first
//! reached by; whole states only for the level that is being expanded. Memory: about 60 bytes per
//! state, 8 per step that is benign where liveness is checked, and a few kilobytes per state of
//! the widest level.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::bounds::Bounds;
use crate::part::Fingerprinter;
use crate::world::{SIGHTS, Seen, Step, World};

/// How to search.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// States at which the search ends, complete or not.
    pub max_states: usize,
    /// Threads.
    pub threads: usize,
    /// Mutant to plant in every thread.
    pub mutant: Option<&'static str>,
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism();
        Self {
            max_states: usize::MAX,
            threads: cores.map(usize::from).unwrap_or(1),
            mutant: None,
        }
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Different states reached.
    pub states: usize,
    /// Steps taken between them, those that change nothing not counted.
    pub transitions: u64,
    /// Levels: no state needs more steps.
    pub depth: usize,
    /// Whether every state that can be reached was.
    pub complete: bool,
    /// How long it took.
    pub took: Duration,
    /// How often each of [`SIGHTS`] was seen.
    pub sights: Vec<u64>,
    /// States from which no benign course of events leads on; `None` if it was not asked.
    pub stuck: Option<usize>,
    /// What was broken, and how.
    pub broken: Option<Broken>,
}

/// A broken promise with the steps that lead there.
#[derive(Clone, Debug)]
pub struct Broken {
    /// The invariant.
    pub what: String,
    /// How many steps lead there.
    pub steps: usize,
    /// Numbered steps for a person.
    pub trace: Vec<String>,
}

#[derive(Default)]
struct OwnHash(u64);

impl Hasher for OwnHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

type Shard = Mutex<HashMap<u128, u32, BuildHasherDefault<OwnHash>>>;

const SHARDS: usize = 64;

/// How a state was first reached.
#[derive(Clone, Copy)]
struct Way {
    from: u32,
    step: Step,
}

/// What one thread found while expanding a level.
#[derive(Default)]
struct Found {
    next: Vec<(u32, World)>,
    ways: Vec<(u32, Way)>,
    /// Benign steps, backwards.
    back: Vec<(u32, u32)>,
    /// States that liveness wants to be reached, or that are excused.
    good: Vec<u32>,
    transitions: u64,
    sights: Vec<u64>,
    violation: Option<(u32, Step, String)>,
}

struct Search {
    options: Options,
    live: bool,
    seen: Vec<Shard>,
    states: AtomicU32,
    ways: Vec<Way>,
    back: Vec<Vec<(u32, u32)>>,
    good: Vec<u32>,
}

fn plant(_mutant: Option<&'static str>) {
    #[cfg(leasehold_mutants)]
    leasehold_proto::mutants::plant(_mutant);
}

/// Explores a world until everything is seen, something is broken or the cap is reached.
pub fn explore(bounds: &Bounds, options: Options) -> Report {
    // A world begins in order, whatever is planted in it.
    plant(None);
    let begun = Instant::now();
    let first = World::new(Arc::new(bounds.clone()));
    plant(options.mutant);
    let mut search = Search {
        options,
        live: bounds.live,
        seen: (0..SHARDS).map(|_| Shard::default()).collect(),
        states: AtomicU32::new(0),
        ways: Vec::new(),
        back: Vec::new(),
        good: Vec::new(),
    };
    let mut report = search.run(first.clone());
    if report.complete && report.broken.is_none() && bounds.live {
        let stuck = search.stuck();
        report.stuck = Some(stuck.len());
        if let Some(state) = stuck.first() {
            let what = format!(
                "stuck: from this state ({} of {}) nothing benign leads to every slice being served and no handoff open",
                stuck.len(),
                report.states
            );
            report.broken = Some(search.explain(first, *state, None, what));
        }
    }
    report.took = begun.elapsed();
    plant(None);
    report
}

impl Search {
    fn run(&mut self, first: World) -> Report {
        let mut report = Report {
            states: 0,
            transitions: 0,
            depth: 0,
            complete: false,
            took: Duration::ZERO,
            sights: vec![0; SIGHTS.len()],
            stuck: None,
            broken: None,
        };
        let mut found = Found::default();
        self.meet(
            &mut Fingerprinter::default(),
            &mut found,
            first.clone(),
            None,
        );
        self.ways.push(Way {
            from: 0,
            step: Step::Tick(0),
        });
        self.good.append(&mut found.good);
        let mut level = found.next;
        loop {
            if level.is_empty() {
                report.complete = true;
                break;
            }
            if self.states.load(Ordering::Relaxed) as usize >= self.options.max_states {
                break;
            }
            level = self.expand(level, &mut report, &first);
            if report.broken.is_some() {
                break;
            }
            report.depth += usize::from(!level.is_empty());
        }
        report.states = self.states.load(Ordering::Relaxed) as usize;
        report
    }

    /// Expands one level and gives the next.
    fn expand(
        &mut self,
        level: Vec<(u32, World)>,
        report: &mut Report,
        first: &World,
    ) -> Vec<(u32, World)> {
        let cursor = AtomicUsize::new(0);
        let level: Vec<Mutex<Option<(u32, World)>>> = level
            .into_iter()
            .map(|state| Mutex::new(Some(state)))
            .collect();
        let this = &*self;
        let threads = if level.len() < 64 {
            1
        } else {
            this.options.threads.max(1)
        };
        let found: Vec<Found> = std::thread::scope(|scope| {
            let work = || {
                plant(this.options.mutant);
                this.work(&level, &cursor)
            };
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut found = vec![work()];
            found.extend(others.into_iter().filter_map(|other| other.join().ok()));
            found
        });
        let mut next = Vec::new();
        let states = self.states.load(Ordering::Relaxed) as usize;
        let nowhere = Way {
            from: 0,
            step: Step::Tick(0),
        };
        self.ways.resize(states, nowhere);
        for mut part in found {
            next.append(&mut part.next);
            for (state, way) in part.ways {
                self.ways[state as usize] = way;
            }
            self.good.append(&mut part.good);
            if !part.back.is_empty() {
                self.back.push(part.back);
            }
            report.transitions += part.transitions;
            for (sum, count) in report.sights.iter_mut().zip(&part.sights) {
                *sum += count;
            }
            if let Some((state, step, what)) = part.violation
                && report.broken.is_none()
            {
                report.broken = Some(self.explain(first.clone(), state, Some(step), what));
            }
        }
        next
    }

    fn work(&self, level: &[Mutex<Option<(u32, World)>>], cursor: &AtomicUsize) -> Found {
        let mut found = Found {
            sights: vec![0; SIGHTS.len()],
            ..Found::default()
        };
        let mut maker = Fingerprinter::default();
        let mut steps = Vec::new();
        loop {
            let at = cursor.fetch_add(1, Ordering::Relaxed);
            let Some(place) = level.get(at) else { break };
            let taken = place.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some((id, world)) = taken else { continue };
            world.steps(&mut steps);
            for step in &steps {
                let next = world.take(*step);
                if let Some(what) = &next.violation {
                    found.violation = Some((id, *step, what.clone()));
                    return found;
                }
                self.meet(
                    &mut maker,
                    &mut found,
                    next,
                    Some(Way {
                        from: id,
                        step: *step,
                    }),
                );
            }
            if self.states.load(Ordering::Relaxed) as usize >= self.options.max_states {
                break;
            }
        }
        found
    }

    /// Looks a state up; remembers it if it is new.
    fn meet(&self, maker: &mut Fingerprinter, found: &mut Found, world: World, way: Option<Way>) {
        let print = world.fingerprint(maker);
        let shard = &self.seen[(print >> 122) as usize % SHARDS];
        let (id, fresh) = {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            match shard.entry(print) {
                Entry::Occupied(known) => (*known.get(), false),
                Entry::Vacant(place) => {
                    let id = self.states.fetch_add(1, Ordering::Relaxed);
                    (*place.insert(id), true)
                }
            }
        };
        if let Some(way) = way {
            if id == way.from {
                return;
            }
            found.transitions += 1;
            for (count, (sight, _)) in found.sights.iter_mut().zip(SIGHTS) {
                *count += u64::from(world.seen.has(*sight));
            }
            if self.live {
                if world.benign {
                    found.back.push((id, way.from));
                }
                if world.seen.has(Seen::ONLY_TIME_HELPS) {
                    found.good.push(way.from);
                }
            }
        }
        if fresh {
            if self.live && world.settled() {
                found.good.push(id);
            }
            if let Some(way) = way {
                found.ways.push((id, way));
            }
            found.next.push((id, world));
        }
    }

    /// States from which no benign step leads towards a good one, the earliest first.
    fn stuck(&self) -> Vec<u32> {
        let count = self.states.load(Ordering::Relaxed) as usize;
        let mut starts = vec![0usize; count + 1];
        for (to, _) in self.back.iter().flatten() {
            starts[*to as usize + 1] += 1;
        }
        for i in 0..count {
            starts[i + 1] += starts[i];
        }
        let mut place = starts.clone();
        let mut from = vec![0u32; starts[count]];
        for (to, source) in self.back.iter().flatten() {
            from[place[*to as usize]] = *source;
            place[*to as usize] += 1;
        }
        let mut fine = vec![false; count];
        let mut todo: Vec<u32> = Vec::new();
        for state in &self.good {
            if !std::mem::replace(&mut fine[*state as usize], true) {
                todo.push(*state);
            }
        }
        while let Some(state) = todo.pop() {
            for source in &from[starts[state as usize]..starts[state as usize + 1]] {
                if !std::mem::replace(&mut fine[*source as usize], true) {
                    todo.push(*source);
                }
            }
        }
        (0..count as u32)
            .filter(|state| !fine[*state as usize])
            .collect()
    }

    /// Goes the way to a state again, this time taking notes.
    fn explain(&self, mut world: World, state: u32, last: Option<Step>, what: String) -> Broken {
        let mut steps: Vec<Step> = last.into_iter().collect();
        let mut at = state;
        while at != 0 {
            let way = self.ways[at as usize];
            steps.push(way.step);
            at = way.from;
        }
        steps.reverse();
        world.notes = Some(Vec::new());
        let mut trace = Vec::new();
        let count = steps.len();
        for (number, step) in steps.into_iter().enumerate() {
            world = world.take(step);
            trace.push(format!("{:>3}. {step}", number + 1));
            let notes = world.notes.iter().flatten();
            trace.extend(notes.map(|note| format!("       {note}")));
        }
        trace.push(format!("  => {what}"));
        Broken {
            what,
            steps: count,
            trace,
        }
    }
}
