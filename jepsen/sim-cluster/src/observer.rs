//! The eye of the world: every event goes through here, to the invariants, to the coverage and
//! into the trace.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use parking_lot::Mutex;
use xxhash_rust::xxh3::Xxh3;

use crate::coverage::Coverage;
use crate::event::{Event, NodeId, Outcome, What};
use crate::invariants::{self, Invariant};

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// Why, in words.
    pub why: String,
    /// Since the world began.
    pub at_ms: u64,
}

/// Lines of the trace kept for the report of a violation.
const TAIL: usize = 40;

/// Shared by everything in one world.
#[derive(Clone)]
pub(crate) struct Observer(Arc<Mutex<Inner>>);

struct Inner {
    now_ms: u64,
    invariants: Vec<Box<dyn Invariant>>,
    coverage: Coverage,
    violation: Option<Violation>,
    hash: Xxh3,
    events: u64,
    line: String,
    print: bool,
    tail: std::collections::VecDeque<String>,
    lives: BTreeMap<NodeId, u64>,
    /// Proposals and confirmations under way, by number, with their node.
    open: BTreeMap<u64, NodeId>,
    next_number: u64,
}

impl Observer {
    pub(crate) fn new(print: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            now_ms: 0,
            invariants: invariants::all(),
            coverage: Coverage::default(),
            violation: None,
            hash: Xxh3::new(),
            events: 0,
            line: String::new(),
            print,
            tail: std::collections::VecDeque::new(),
            lives: BTreeMap::new(),
            open: BTreeMap::new(),
            next_number: 1,
        })))
    }

    /// Simulated time goes on.
    pub(crate) fn set_now(&self, now_ms: u64) {
        self.0.lock().now_ms = now_ms;
    }

    /// A node starts; gives the number of its life.
    pub(crate) fn begins(&self, node: NodeId) -> u64 {
        let mut inner = self.0.lock();
        let life = inner.lives.entry(node).or_default();
        *life += 1;
        *life
    }

    /// Something was seen at `node`.
    pub(crate) fn see(&self, node: NodeId, what: What) {
        self.0.lock().see(node, what);
    }

    /// Counts a rare thing.
    pub(crate) fn count(&self, name: &'static str) {
        self.0.lock().coverage.count(name);
    }

    /// A number for a proposal or a confirmation that begins at `node`.
    pub(crate) fn number(&self, node: NodeId) -> u64 {
        let mut inner = self.0.lock();
        let number = inner.next_number;
        inner.next_number += 1;
        inner.open.insert(number, node);
        number
    }

    /// Whoever asked waits no more: if there was no answer, the outcome is unknown.
    pub(crate) fn given_up(&self, node: NodeId, number: u64) {
        let mut inner = self.0.lock();
        if inner.open.contains_key(&number) {
            let outcome = Outcome::Indeterminate;
            inner.see(
                node,
                What::Answered {
                    serial: number,
                    outcome,
                },
            );
        }
    }

    /// Proposals under way, with their nodes.
    pub(crate) fn open(&self) -> usize {
        self.0.lock().open.len()
    }

    /// The first violation, if there was one.
    pub(crate) fn violation(&self) -> Option<Violation> {
        self.0.lock().violation.clone()
    }

    /// Fails the run.
    pub(crate) fn fail(&self, invariant: &'static str, why: String) {
        let mut inner = self.0.lock();
        let at_ms = inner.now_ms;
        inner.violation.get_or_insert(Violation {
            invariant,
            why,
            at_ms,
        });
    }

    /// Number of events and their hash: equal for equal runs.
    pub(crate) fn fingerprint(&self) -> (u64, u64) {
        let inner = self.0.lock();
        (inner.events, inner.hash.digest())
    }

    pub(crate) fn coverage(&self) -> Coverage {
        self.0.lock().coverage.clone()
    }

    pub(crate) fn tail(&self) -> Vec<String> {
        self.0.lock().tail.iter().cloned().collect()
    }
}

impl Inner {
    fn see(&mut self, node: NodeId, what: What) {
        let event = Event {
            at_ms: self.now_ms,
            node,
            life: self.lives.get(&node).copied().unwrap_or_default(),
            what,
        };
        self.record(&event);
        self.coverage.see(&event);
        for invariant in &mut self.invariants {
            if let Err(why) = invariant.see(&event)
                && self.violation.is_none()
            {
                self.violation = Some(Violation {
                    invariant: invariant.name(),
                    why,
                    at_ms: event.at_ms,
                });
            }
        }
        match &event.what {
            What::Answered { serial: number, .. }
            | What::Confirmed { call: number, .. }
            | What::NotConfirmed { call: number } => {
                self.open.remove(number);
            }
            What::Crashed { .. } => self.abandon(node),
            _ => {}
        }
    }

    /// Whoever asked on a machine that has ended gets no answer any more.
    fn abandon(&mut self, node: NodeId) {
        let gone: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, at)| **at == node)
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.open.remove(&number);
            self.see(
                node,
                What::Answered {
                    serial: number,
                    outcome: Outcome::Indeterminate,
                },
            );
        }
    }

    fn record(&mut self, event: &Event) {
        self.events += 1;
        self.line.clear();
        // Writing into a String cannot fail.
        let _ = write!(
            self.line,
            "{:>7} n{}.{} {:?}",
            event.at_ms, event.node, event.life, event.what
        );
        self.hash.update(self.line.as_bytes());
        if matches!(event.what, What::Disk(_)) {
            return;
        }
        if self.print {
            println!("{}", self.line);
        }
        let confirming = matches!(
            event.what,
            What::ConfirmBegan { .. } | What::Confirmed { .. } | What::Published { .. }
        );
        if confirming {
            return;
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(self.line.clone());
    }
}
