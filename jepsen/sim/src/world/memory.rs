//! What applications keep in memory alone: by key a list of additions, whose length is a counter
//! and whose last is a register. It goes with its slice when that moves (`transfer`).
//!
//! Clients repeat what was not acknowledged, at whoever serves by then, under the same number.

use std::collections::BTreeMap;
use std::fmt;

use leasehold_proto::holder::{Holder, Part, Verdict};
use leasehold_proto::id::HandoffId;
use leasehold_proto::{Epoch, SessionId, Slice};

use super::transfer::{Export, Import};
use super::{KEYS, World, key};
use crate::check::Judged;
use crate::coverage::Seen;
use crate::planted;

/// Operations of one process at a time.
const AT_ONCE: usize = 3;

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Value {
    /// Of the epoch at which it began empty; zero where nobody has it.
    born: u64,
    /// The numbers of what was added, in order.
    added: Vec<u64>,
}

impl Value {
    pub fn born(epoch: Epoch) -> Self {
        Self {
            born: epoch.token().as_u64(),
            added: Vec::new(),
        }
    }

    /// Appends the record of key number `k`: all that there is to say of it.
    pub fn write(&self, k: usize, records: &mut Vec<u8>) {
        let words = [k as u64, self.born, self.added.len() as u64];
        for word in words.iter().chain(&self.added) {
            records.extend(word.to_be_bytes());
        }
    }

    /// The records that `bytes` consist of.
    pub fn read_all(bytes: &[u8]) -> Vec<(usize, Value)> {
        let (whole, _) = bytes.as_chunks();
        let mut words = whole.iter().map(|word| u64::from_be_bytes(*word));
        let mut read = Vec::new();
        while let (Some(k), Some(born), Some(count)) = (words.next(), words.next(), words.next()) {
            let added = words.by_ref().take(count as usize).collect();
            read.push((k as usize % KEYS, Value { born, added }));
        }
        read
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.born {
            0 => write!(f, "nothing"),
            born => write!(f, "{:?} since token {born}", self.added),
        }
    }
}

/// A key in one process.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// By whom and at which epoch it is owned here, if it is.
    held: Option<(SessionId, Epoch)>,
    pub value: Value,
}

/// One process' memory, and what it sends and receives of it.
#[derive(Default)]
pub struct Memory {
    pub cells: [Cell; KEYS],
    operations: Vec<Operation>,
    pub exports: BTreeMap<HandoffId, Export>,
    pub imports: BTreeMap<HandoffId, Import>,
}

/// One request of a client, and its guard.
#[derive(Clone, Debug)]
struct Operation {
    number: u64,
    k: usize,
    session: SessionId,
    epoch: Epoch,
    adds: bool,
    valid: bool,
    /// The strong period in which it was given, if in one.
    strong: Option<u64>,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Entered,
    /// A read has its value, and this is what is to be thought of it.
    Took(Judged),
    Added,
}

impl Memory {
    /// Whether a guard for a key of `slice` is in flight.
    pub fn guards(&self, slice: Slice) -> bool {
        let inside = |op: &Operation| op.valid && slice.contains(key(op.k));
        self.operations.iter().any(inside)
    }

    /// How many operations are in flight.
    pub fn busy(&self) -> usize {
        self.operations.len()
    }

    pub fn abandon(&mut self) {
        self.operations.clear();
    }

    /// What clients do not know to have been done: key and number.
    pub fn unacknowledged(&self) -> impl Iterator<Item = (usize, u64)> {
        let adding = self.operations.iter().filter(|op| op.adds);
        adding.map(|op| (op.k, op.number))
    }

    /// Guards for which `ends` holds fail to verify from now on.
    pub fn cut_off(&mut self, ends: impl Fn(usize, SessionId) -> bool) {
        for op in &mut self.operations {
            op.valid &= !ends(op.k, op.session);
        }
    }

    /// What a key is owned at, if it is.
    fn owned(holder: &Holder, k: usize) -> Option<(SessionId, Epoch, Slice)> {
        let locals = holder.local();
        let local = locals.iter().find(|local| local.slice.contains(key(k)))?;
        let owned = matches!(local.part, Part::Owner | Part::Frozen(_));
        Some((holder.session()?, local.epoch, local.slice)).filter(|_| owned)
    }
}

impl World {
    /// The Holder says something else than before: what is no longer owned is forgotten; what has
    /// come begins with the state that was received if it is proven, else without.
    pub(super) fn take_in(&mut self, at: usize) {
        for k in 0..KEYS {
            let host = &self.hosts[at];
            let owned = Memory::owned(&host.holder, k);
            let known = host.application.kept.cells[k].held;
            match (known, owned) {
                (None, None) => {}
                (Some((session, epoch)), Some((now, later, _))) if session == now => {
                    if later != epoch {
                        self.keep(at, k, session, later);
                    }
                }
                (Some(_), None) => self.release(at, k),
                (_, Some((session, epoch, slice))) => {
                    if known.is_some() {
                        self.release(at, k);
                    }
                    self.acquire(at, k, session, epoch, slice);
                }
            }
        }
    }

    fn release(&mut self, at: usize, k: usize) {
        let cell = &mut self.hosts[at].application.kept.cells[k];
        cell.held = None;
        if !planted("state_kept_after_loss") {
            cell.value = Value::default();
        }
    }

    /// Slices were merged: the same owner, another epoch.
    fn keep(&mut self, at: usize, k: usize, session: SessionId, epoch: Epoch) {
        self.coverage.see(Seen::StateKeptInMerge);
        let cell = &mut self.hosts[at].application.kept.cells[k];
        cell.held = Some((session, epoch));
        let period = self.check.strong_period();
        let memories = &mut self.check.memories;
        let judged =
            memories.invariant_state_that_arrives_is_the_newest(k, epoch, &cell.value, period);
        self.check.judge_timed(judged);
    }

    fn acquire(&mut self, at: usize, k: usize, session: SessionId, epoch: Epoch, slice: Slice) {
        let proof = self.hosts[at].holder.proof_of_state(slice, epoch);
        let memory = &mut self.hosts[at].application.kept;
        let mut imports = memory.imports.values();
        let import = imports.find(|import| import.is_of(k, epoch));
        let warm = import.is_some_and(|import| import.may_be_served(proof));
        let had_all = import.is_some_and(|import| import.receiver.complete().is_some());
        let arrived = import.filter(|_| warm).map(|import| import.value(k));
        let cell = &mut memory.cells[k];
        cell.held = Some((session, epoch));
        let period = self.check.strong_period();
        let memories = &mut self.check.memories;
        let judged = match arrived {
            Some(value) => {
                cell.value = value;
                memories.invariant_state_that_arrives_is_the_newest(k, epoch, &cell.value, period)
            }
            None => {
                if cell.value == Value::default() {
                    cell.value = Value::born(epoch);
                }
                memories.invariant_a_planned_move_loses_no_state(k, epoch, period)
            }
        };
        let value = cell.value.clone();
        self.note(|| format!("host {at}: key {k} begins at {epoch}, warm: {warm}: {value}"));
        self.check.judge_timed(judged);
        self.notice_arrival(at, epoch, warm, had_all);
    }

    fn notice_arrival(&mut self, at: usize, epoch: Epoch, warm: bool, all: bool) {
        let holder = &self.hosts[at].holder;
        let shown = holder.view().is_some_and(|view| {
            let mut assigned = view.slices.iter().map(|(_, assigned)| assigned);
            assigned.any(|a| a.owner.is_some_and(|o| o.epoch == epoch))
        });
        self.coverage.see(match (warm, all) {
            (true, _) if shown => Seen::WarmByView,
            (true, _) => Seen::WarmByWord,
            (false, true) => Seen::ColdThoughReceived,
            (false, false) => Seen::ColdArrival,
        });
    }

    /// Some operation begins, or gets on.
    pub(super) fn memory_step(&mut self, at: usize) {
        let busy = self.hosts[at].application.kept.operations.len();
        if busy < AT_ONCE && (busy == 0 || self.rng.chance(40)) {
            let k = self.rng.index(KEYS);
            let owned = |k: &usize| self.hosts[at].holding.owns >> k & 1 == 1;
            let Some(k) = (0..KEYS).map(|i| (k + i) % KEYS).find(owned) else {
                return;
            };
            let adds = self.rng.chance(65);
            self.begin_in_memory(at, k, adds);
        } else {
            let index = self.rng.index(busy);
            self.continue_in_memory(at, index);
        }
    }

    fn begin_in_memory(&mut self, at: usize, k: usize, adds: bool) -> bool {
        let host = &self.hosts[at];
        // What cannot be fenced is not touched under a lapsed lease.
        let verdict = host.holder.check(key(k), host.clock.now());
        let (Some(session), Verdict::Owned(epoch)) = (host.holder.session(), verdict) else {
            return false;
        };
        if host.application.kept.cells[k].held != Some((session, epoch)) {
            return false;
        }
        let again = self.unacknowledged.iter().position(|(of, _)| *of == k);
        let number = match again.filter(|_| adds && self.rng.chance(50)) {
            Some(index) => self.unacknowledged.swap_remove(index).1,
            None => {
                self.next_operation += 1;
                self.next_operation
            }
        };
        let op = Operation {
            number,
            k,
            session,
            epoch,
            adds,
            valid: true,
            strong: self.check.strong_period(),
            stage: Stage::Entered,
        };
        self.note(|| format!("host {at}: begins {op:?}"));
        self.hosts[at].application.kept.operations.push(op);
        true
    }

    pub(super) fn continue_in_memory(&mut self, at: usize, index: usize) {
        let operations = &self.hosts[at].application.kept.operations;
        let Some(op) = operations.get(index).cloned() else {
            return;
        };
        let next = match &op.stage {
            Stage::Entered if op.adds => self.add(at, &op).then_some(Stage::Added),
            Stage::Entered => Some(Stage::Took(self.judge_memory(at, &op))),
            Stage::Took(judged) => {
                if self.verify_guard(at, op.valid, false) {
                    self.served += 1;
                    self.check.judge_timed(judged.clone());
                }
                None
            }
            Stage::Added => {
                self.acknowledge(at, &op);
                None
            }
        };
        let operations = &mut self.hosts[at].application.kept.operations;
        match next {
            Some(stage) => operations[index].stage = stage,
            None => drop(operations.remove(index)),
        }
    }

    fn judge_memory(&self, at: usize, op: &Operation) -> Judged {
        let Some(period) = op
            .strong
            .filter(|_| op.strong == self.check.strong_period())
        else {
            return Ok(());
        };
        let value = &self.hosts[at].application.kept.cells[op.k].value;
        let memories = &self.check.memories;
        memories.invariant_memory_is_what_was_made_of_it(op.k, op.epoch, value, period)
    }

    /// ◆ Verified in the very step that writes: a slice that was surrendered may be back by then.
    fn add(&mut self, at: usize, op: &Operation) -> bool {
        if !self.verify_guard(at, op.valid, false) {
            self.unacknowledged.push((op.k, op.number));
            return false;
        }
        let judged = self.judge_memory(at, op);
        self.check.judge_timed(judged);
        let memory = &mut self.hosts[at].application.kept;
        let value = &mut memory.cells[op.k].value;
        if value.added.contains(&op.number) {
            self.coverage.see(Seen::AdditionRepeated);
            return true;
        }
        value.added.push(op.number);
        let strong = self.check.strong_period();
        let period = op.strong.filter(|_| op.strong == strong);
        self.check.memories.changed(op.k, op.epoch, value, period);
        for export in memory.exports.values_mut() {
            if export.changed(op.k) {
                self.coverage.see(Seen::ChangedWhileSent);
            }
        }
        self.note(|| format!("host {at}: adds {} to key {}", op.number, op.k));
        true
    }

    fn acknowledge(&mut self, at: usize, op: &Operation) {
        let heard = self.benign || !self.rng.chance(10);
        if self.verify_guard(at, op.valid, false) && heard {
            self.served += 1;
        } else {
            // Its client does not know: it asks again.
            self.unacknowledged.push((op.k, op.number));
        }
    }

    /// Whether `at` adds to and reads key number `k`.
    pub(super) fn serve_from_memory(&mut self, at: usize, k: usize) -> bool {
        let served = self.served;
        for adds in [true, false] {
            if !self.begin_in_memory(at, k, adds) {
                return false;
            }
            while self.hosts[at].application.kept.busy() > 0 {
                self.continue_in_memory(at, 0);
            }
        }
        self.served > served
    }

    /// Everything in flight gets on.
    pub(super) fn finish_in_memory(&mut self, at: usize) {
        for index in (0..self.hosts[at].application.kept.operations.len()).rev() {
            self.continue_in_memory(at, index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back() {
        let mut records = Vec::new();
        let value = Value {
            born: 7,
            added: vec![1, 2, 3],
        };
        value.write(5, &mut records);
        Value::default().write(6, &mut records);
        let read = Value::read_all(&records);
        assert_eq!(read, [(5, value), (6, Value::default())]);
    }
}
