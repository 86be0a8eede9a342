//! The workloads: what clients do, and what must hold of what they saw.

mod append;
mod converge;
mod counter;
mod election;
mod fenced;
mod keys;
mod last;
mod lock;
mod lock_set;
mod membership;
mod memory;
mod moves;
mod owner;
mod register;
mod store;
mod watch;

use std::collections::BTreeMap;
use std::time::Duration;

use leasehold_checkers::coverage::{self, Required};
use leasehold_checkers::{Outcome, history::History};
use serde_json::Value;

use crate::workload::{Evidence, Workload};

/// How long an operation may take: a lease and an election longer than the cluster may be without
/// a leader.
const DEADLINE: Duration = Duration::from_secs(3);

/// What a workload must know of the system, and the seed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Everything random follows from it.
    pub seed: u64,
    /// Assigners that begin the cluster.
    pub assigners: usize,
    /// Pods.
    pub pods: usize,
    /// Slices of the target.
    pub slices: u64,
    /// Time to live of sessions.
    pub ttl: Duration,
}

impl Settings {
    /// From the options of a test, which stand in its `test.json`.
    pub fn new(seed: u64, options: &BTreeMap<String, Value>) -> Self {
        let number = |name: &str, default: u64| {
            let given = options.get(name).and_then(Value::as_u64);
            given.unwrap_or(default)
        };
        let count = |name: &str, default| usize::try_from(number(name, default)).unwrap_or(1);
        Self {
            seed,
            assigners: count("assigners", 3),
            pods: count("pods", 3),
            slices: number("slices", 16).max(1),
            ttl: Duration::from_millis(number("ttl_ms", 1_000)),
        }
    }
}

type Make = fn(&Settings) -> Box<dyn Workload>;

/// Name, what it is for people, and how it is made.
const ALL: &[(&str, &str, Make)] = &[
    (
        "owner",
        "each pod is asked all the time what it serves; epochs only rise",
        |settings| Box::new(owner::Owner::new(settings)),
    ),
    (
        "fenced",
        "writes to a fenced store, with a pause before each; none comes after a later owner's",
        |settings| Box::new(fenced::Fenced::new(settings)),
    ),
    (
        "register",
        "read, write and compare-and-set by key through Clerks; linearizable",
        |settings| Box::new(register::Register::new(settings)),
    ),
    (
        "counter",
        "additions with idempotency tokens; none lost, none twice",
        |settings| Box::new(counter::Counter::new(settings)),
    ),
    (
        "kv-memory",
        "as register, in the pods' memory alone, which goes with its slices",
        |settings| Box::new(memory::InMemory::register(settings)),
    ),
    (
        "counter-memory",
        "as counter, in the pods' memory alone, which goes with its slices",
        |settings| Box::new(memory::InMemory::counter(settings)),
    ),
    (
        "append",
        "lists that are only appended to; nothing acknowledged is lost",
        |settings| Box::new(append::Append::new(settings)),
    ),
    (
        "store",
        "compare-and-set of configuration through any Assigner; linearizable",
        |settings| Box::new(store::Store::new(settings)),
    ),
    (
        "watch",
        "watches through every Assigner; in order, complete, resumable",
        |settings| Box::new(watch::Watch::new(settings)),
    ),
    (
        "election",
        "one slice elects a leader (--slices 1) that acts under its token",
        |settings| Box::new(election::Election::new(settings)),
    ),
    (
        "membership",
        "register and store at once, for changes of members",
        |settings| Box::new(membership::Membership::new(settings)),
    ),
    (
        "converge",
        "after all faults everybody agrees, and every key is served",
        |settings| Box::new(converge::Converge::new(settings)),
    ),
    (
        "lock",
        "locks from an application; none acts under a token that was succeeded",
        |settings| Box::new(lock::Lock::new(settings)),
    ),
    (
        "lock-set",
        "a list outside guarded by a lock alone; must lose elements, as every lock does",
        |settings| Box::new(lock_set::LockSet::new(settings, false)),
    ),
    (
        "lock-external-set",
        "the same with the lock's token as a fence; loses nothing",
        |settings| Box::new(lock_set::LockSet::new(settings, true)),
    ),
];

/// The names of all workloads, each with what it is.
pub fn list() -> impl Iterator<Item = (&'static str, &'static str)> {
    ALL.iter().map(|(name, about, _)| (*name, *about))
}

/// Makes a workload; `options` as they stand in a `test.json`.
///
/// # Errors
/// None has this name; the message has them all.
pub fn by_name(
    name: &str,
    seed: u64,
    options: &BTreeMap<String, Value>,
) -> anyhow::Result<Box<dyn Workload>> {
    match ALL.iter().find(|(known, _, _)| *known == name) {
        Some((_, _, make)) => Ok(make(&Settings::new(seed, options))),
        None => {
            let names: Vec<&str> = list().map(|(name, _)| name).collect();
            anyhow::bail!(
                "there is no workload {name:?}; there are {}",
                names.join(", ")
            )
        }
    }
}

/// Fewer than so many successes of each operation prove nothing.
fn covered(history: &History, ok_ops: &[(&str, u64)]) -> Outcome {
    let required = Required {
        ok_ops: ok_ops
            .iter()
            .map(|(f, count)| ((*f).to_owned(), *count))
            .collect(),
        ..Required::default()
    };
    let mut outcome = coverage::check(history, &[], &BTreeMap::new(), &required);
    outcome.checker = "operations covered".into();
    outcome
}

/// Epochs and the times of moves, which every workload on the target shows.
fn of_ownership(evidence: &Evidence<'_>) -> Vec<Outcome> {
    if evidence.holds.is_empty() {
        return Vec::new();
    }
    vec![
        leasehold_checkers::epoch_order::check(evidence.history, evidence.holds),
        moves::check(evidence.holds),
    ]
}
