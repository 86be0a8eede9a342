//! From what the Holder says to what guards see: cells are made, frozen, thawed and revoked here.
//!
//! Order matters. A new table is stored before cells are closed, so that who is refused by a cell
//! finds the reason in the table; what the Holder wants said or sent happens only after that.

use std::collections::BTreeMap;
use std::sync::Arc;

use leasehold_proto::holder::{Holder, Local, Part};
use leasehold_proto::target::OnLapse;
use leasehold_proto::{ClockTime, Epoch, KeyHash, SessionId, Slice, SliceKey};

use super::Shared;
use super::cell::{Cell, CellHandle, LeaseHandle, Waiter};
use super::handler::{Arrival, Cause, SliceInfo};
use super::ownership::{OwnershipEvent, OwnershipLog};
use super::table::{Entry, Phase, Row, Table};

/// A slice that is owned without interruption since its cell was made.
pub(super) struct Held {
    pub(super) slice: Slice,
    pub(super) epoch: Epoch,
    cell: Arc<CellHandle>,
    /// Cells of the slices that it was split or merged from, while guards are in flight there.
    before: Vec<Arc<CellHandle>>,
    frozen: bool,
    /// Calls to the application that must return before guards are given.
    acquiring: Vec<u64>,
}

impl Held {
    fn cells(&self) -> impl Iterator<Item = &Cell> {
        std::iter::once(self.cell.cell()).chain(self.before.iter().map(|cell| cell.cell()))
    }

    fn is_open(&self) -> bool {
        self.acquiring.is_empty() && !self.frozen
    }
}

/// What became of slices in one publication, for the application.
#[derive(Default)]
pub(crate) struct Changes {
    pub(super) acquire: Vec<(u64, SliceInfo)>,
    pub(super) release: Vec<SliceInfo>,
    /// Slices that were not there before.
    pub(super) arrived: Vec<SliceInfo>,
}

/// What an application is asked when slices come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wants {
    /// It wants to acquire slices before guards are given.
    pub(crate) acquire: bool,
    /// It has state, of which nothing may be left when a slice begins cold.
    pub(crate) state: bool,
}

/// Whether the state of a slice that is owned now, since an epoch, has come.
pub(super) type ArrivalOf<'a> = &'a dyn Fn(Slice, Epoch) -> Arrival;

/// Publishes one Slicelet's slices.
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    waiter: Waiter,
    log: Option<OwnershipLog>,
    wants: Wants,
    on_lapse: OnLapse,
    key_hash: KeyHash,
    session: Option<SessionId>,
    lease: Option<Arc<LeaseHandle>>,
    held: Vec<Held>,
    local: Vec<Local>,
    phase: Phase,
    next_call: u64,
}

impl Publisher {
    pub(super) fn new(
        shared: Arc<Shared>,
        waiter: Waiter,
        log: Option<OwnershipLog>,
        wants: Wants,
    ) -> Self {
        Self {
            shared,
            waiter,
            log,
            wants,
            on_lapse: OnLapse::Stop,
            key_hash: KeyHash::default(),
            session: None,
            lease: None,
            held: Vec::new(),
            local: Vec::new(),
            phase: Phase::Starting,
            next_call: 1,
        }
    }

    /// The settings of the session to come.
    pub(super) fn configure(&mut self, on_lapse: OnLapse, key_hash: KeyHash) {
        self.on_lapse = on_lapse;
        self.key_hash = key_hash;
    }

    /// Brings what guards see in line with the Holder.
    pub(super) fn publish(
        &mut self,
        holder: &Holder,
        shut: bool,
        arrival: ArrivalOf<'_>,
    ) -> Changes {
        let shared = Arc::clone(&self.shared);
        // While this is held, dropping the Slicelet cannot come between the steps.
        let stopped = shared
            .stopped
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let shut = shut || *stopped;
        let session = holder.session().filter(|_| !shut);
        let mut changes = Changes::default();
        if session != self.session || shut {
            self.end_session(shut, &mut changes);
            self.session = session;
            self.lease = session.map(|_| LeaseHandle::new(&shared.clock));
        }
        let phase = match (shut, holder.view()) {
            (true, _) => Phase::Stopped,
            (false, None) => Phase::Starting,
            (false, Some(_)) => Phase::Serving,
        };
        *shared
            .generation
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) =
            holder.view().map(|view| view.generation);
        let local = if shut { &[] } else { holder.local() };
        if local != self.local.as_slice() || phase != self.phase {
            let local = local.to_vec();
            self.phase = phase;
            self.replace(local, arrival, &mut changes);
        }
        // A deadline is set only after the slices that it is for: a view that takes one away and
        // the answer that extends the lease may come together.
        self.set_deadline(holder.deadline().filter(|_| !shut));
        changes
    }

    /// Guards are given after the application's call number `call` has returned.
    pub(super) fn acquired(&mut self, call: u64) {
        let shared = Arc::clone(&self.shared);
        let stopped = shared
            .stopped
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if *stopped {
            return;
        }
        let mut opened = Vec::new();
        for held in &mut self.held {
            let waited = !held.acquiring.is_empty();
            held.acquiring.retain(|other| *other != call);
            if waited && held.acquiring.is_empty() {
                opened.push((held.slice, held.epoch));
            }
        }
        self.log_begins(&opened);
        self.store_table();
    }

    /// Whether no guard is in flight in any cell of `slice`.
    pub(super) fn is_drained(&self, slice: Slice) -> bool {
        self.held
            .iter()
            .filter(|held| held.slice.overlaps(slice))
            .all(|held| held.cells().all(Cell::is_idle))
    }

    /// Cuts off the guards in flight in `slice`.
    pub(super) fn cut_off(&self, slice: Slice) {
        for held in self.held.iter().filter(|held| held.slice.overlaps(slice)) {
            held.cells().for_each(Cell::revoke);
        }
    }

    /// Slices with the number of guards asked for since the last call.
    pub(super) fn take_load(&self) -> Vec<(Slice, u64)> {
        self.held
            .iter()
            .map(|held| (held.slice, held.cells().map(Cell::take_asked).sum()))
            .collect()
    }

    /// How many slices are owned.
    pub(super) fn owned(&self) -> usize {
        self.held.len()
    }

    fn end_session(&mut self, shut: bool, changes: &mut Changes) {
        let mut lapsed = false;
        if let Some(lease) = self.lease.take() {
            lapsed = self.log_ends_of_lapsed(lease.lease().deadline());
            lease.lease().end();
        }
        let held = std::mem::take(&mut self.held);
        self.local.clear();
        self.phase = if shut {
            Phase::Stopped
        } else {
            Phase::Starting
        };
        self.store_table();
        let cause = if shut { Cause::Shutdown } else { Cause::Lost };
        for held in held {
            self.lose(held, cause, !lapsed, changes);
        }
    }

    /// Makes the cells of `local` and stores the table; then closes the cells that are left.
    fn replace(&mut self, local: Vec<Local>, arrival: ArrivalOf<'_>, changes: &mut Changes) {
        let mut old: BTreeMap<SliceKey, Held> = std::mem::take(&mut self.held)
            .into_iter()
            .map(|held| (held.slice.first(), held))
            .collect();
        let (mut held, mut begun, mut frozen) = (Vec::new(), Vec::new(), Vec::new());
        for part in local.iter().filter(|part| owns(&part.part)) {
            let same = |old: &Held| old.slice == part.slice && old.epoch == part.epoch;
            if old.get(&part.slice.first()).is_some_and(same)
                && let Some(known) = old.remove(&part.slice.first())
            {
                if !known.frozen && matches!(part.part, Part::Frozen(_)) {
                    frozen.push((part.slice, part.epoch));
                }
                held.push(keep(known, part, self.lease.as_ref()));
            } else {
                held.extend(self.take_in(part, &old, arrival, &mut begun, changes));
            }
        }
        self.log_begins(&begun);
        self.held = held;
        let before = std::mem::replace(&mut self.local, local);
        // Stamped before it takes effect: whoever measures the gap measures all of it.
        self.log_frozen(&frozen);
        self.store_table();
        for held in self.held.iter().filter(|held| held.frozen) {
            held.cells()
                .for_each(|cell| cell.freeze(Arc::clone(&self.waiter)));
        }
        for old in old.into_values() {
            // The same slice at another epoch came back from elsewhere: that is no split or merge.
            let again = self.held.iter().any(|now| now.slice == old.slice);
            if !again && self.still_owned(old.slice) {
                // Split or merged: guards in flight stay valid, new ones go to the new cells.
                old.cells()
                    .for_each(|cell| cell.freeze(Arc::clone(&self.waiter)));
                self.log_end(old.slice, old.epoch);
            } else {
                let cause = self.cause_of_loss(old.slice, &before);
                self.lose(old, cause, true, changes);
            }
        }
        // Only now: a check that holds the table from before may have entered an old cell until it
        // was frozen.
        for held in &mut self.held {
            held.before.retain(|cell| !cell.is_idle());
        }
    }

    /// A slice that was not there like this before: new here, or made of slices that were.
    fn take_in(
        &mut self,
        part: &Local,
        old: &BTreeMap<SliceKey, Held>,
        arrival: ArrivalOf<'_>,
        begun: &mut Vec<(Slice, Epoch)>,
        changes: &mut Changes,
    ) -> Option<Held> {
        // Without a session there are no local slices.
        let cell = CellHandle::new(self.lease.as_ref()?);
        let mut held = Held {
            slice: part.slice,
            epoch: part.epoch,
            cell,
            before: Vec::new(),
            frozen: matches!(part.part, Part::Frozen(_)),
            acquiring: Vec::new(),
        };
        let parents = || {
            let first = old
                .range(..part.slice.first())
                .next_back()
                .map_or(part.slice.first(), |(first, _)| *first);
            let touched = old.range(first..=part.slice.last()).map(|(_, held)| held);
            touched.filter(|old| {
                let split = old.slice.covers(part.slice) && old.epoch == part.epoch;
                let merged = part.slice.covers(old.slice) && part.slice != old.slice;
                split || merged
            })
        };
        let mut fresh = vec![part.slice];
        for parent in parents() {
            // Guards that were cut off are not waited for again.
            if parent.cell.is_valid() {
                held.before.push(Arc::clone(&parent.cell));
                held.before.extend(parent.before.iter().cloned());
            }
            held.acquiring.extend(&parent.acquiring);
            fresh = fresh
                .into_iter()
                .flat_map(|piece| piece.without(parent.slice))
                .collect();
        }
        // A view may show a slice that came and was merged with one that was here at once.
        for piece in fresh {
            let info = self.arriving(piece, part.epoch, arrival);
            changes.arrived.push(info);
            let cold = self.wants.state && info.arrival != Arrival::Warm;
            if self.wants.acquire || cold {
                held.acquiring.push(self.next_call);
                changes.acquire.push((self.next_call, info));
                self.next_call += 1;
            }
        }
        if held.acquiring.is_empty() {
            begun.push((part.slice, part.epoch));
        }
        Some(held)
    }

    /// What there is to say of a slice, or a part of one, that was not here before.
    fn arriving(&self, slice: Slice, epoch: Epoch, arrival: ArrivalOf<'_>) -> SliceInfo {
        let arriving = self
            .local
            .iter()
            .any(|old| old.slice.overlaps(slice) && matches!(old.part, Part::Arriving(_)));
        if arriving {
            self.shared.counters.handoffs_in.add(1);
        }
        let cause = match arriving {
            true => Cause::HandedOver,
            false => Cause::Granted,
        };
        let arrival = arrival(slice, epoch);
        SliceInfo {
            arrival,
            ..info(slice, epoch, cause)
        }
    }

    /// Whether every key of `slice` is owned still.
    fn still_owned(&self, slice: Slice) -> bool {
        let mut next = slice.first();
        let start = self.held.partition_point(|held| held.slice.last() < next);
        for held in &self.held[start..] {
            if !held.slice.contains(next) {
                return false;
            }
            match held.slice.last().next() {
                Some(key) if key <= slice.last() => next = key,
                _ => return true,
            }
        }
        false
    }

    fn cause_of_loss(&self, slice: Slice, before: &[Local]) -> Cause {
        let gone = self
            .local
            .iter()
            .any(|now| now.slice.overlaps(slice) && matches!(now.part, Part::Gone(_)));
        let frozen = before
            .iter()
            .any(|then| then.slice.overlaps(slice) && matches!(then.part, Part::Frozen(_)));
        if gone || frozen {
            Cause::Surrendered
        } else {
            Cause::Lost
        }
    }

    /// From here on no guard of the slice verifies.
    fn lose(&mut self, held: Held, cause: Cause, log: bool, changes: &mut Changes) {
        held.cells().for_each(Cell::revoke);
        if cause == Cause::Surrendered {
            self.shared.counters.handoffs_out.add(1);
        }
        if log && held.acquiring.is_empty() {
            self.log_end(held.slice, held.epoch);
        }
        // What was split from it may have stayed.
        let mut gone = vec![held.slice];
        let stayed = |now: &&Held| held.slice.covers(now.slice) && held.epoch == now.epoch;
        for now in self.held.iter().filter(stayed) {
            let pieces = gone.into_iter();
            gone = pieces.flat_map(|piece| piece.without(now.slice)).collect();
        }
        let release = gone.into_iter().map(|slice| info(slice, held.epoch, cause));
        changes.release.extend(release);
    }

    pub(super) fn store_table(&self) {
        let mut held = self.held.iter().peekable();
        let rows = self.local.iter().map(|part| {
            while held
                .next_if(|held| held.slice.last() < part.slice.first())
                .is_some()
            {}
            let entry = match &part.part {
                Part::Gone(moved) => Entry::Gone(Arc::new(moved.as_ref().clone())),
                Part::Frozen(_) | Part::Arriving(_) => Entry::Wait,
                Part::Owner | Part::Replica => match held.peek() {
                    Some(held) if held.slice == part.slice && held.is_open() => {
                        Entry::Open(held.cell.cell())
                    }
                    _ => Entry::Wait,
                },
            };
            Row {
                slice: part.slice,
                epoch: part.epoch,
                entry,
            }
        });
        let rows = rows.collect();
        let keep = self
            .held
            .iter()
            .map(|held| Arc::clone(&held.cell))
            .collect();
        let fenced = self.on_lapse == OnLapse::ServeFenced;
        let table = Table::new(
            self.phase,
            self.key_hash,
            fenced,
            self.lease.clone(),
            rows,
            keep,
        );
        self.shared.table.store(Arc::new(table));
        self.shared.published.notify_waiters();
    }

    fn set_deadline(&mut self, deadline: Option<ClockTime>) {
        let Some(lease) = self.lease.clone() else {
            return;
        };
        let lease = lease.lease();
        let (known, wanted) = (
            lease.deadline(),
            deadline.unwrap_or(ClockTime::from_nanos(0)),
        );
        if known == wanted {
            return;
        }
        if self.log_ends_of_lapsed(known) {
            self.shared.counters.lapses.add(1);
            let resumed: Vec<_> = self.open_slices().collect();
            self.log_begins(&resumed);
        }
        if let Some(log) = &mut self.log {
            log(OwnershipEvent::Extended {
                until_ns: wanted.as_nanos(),
            });
        }
        lease.set(wanted);
    }

    fn open_slices(&self) -> impl Iterator<Item = (Slice, Epoch)> {
        self.held
            .iter()
            .filter(|held| held.acquiring.is_empty())
            .map(|held| (held.slice, held.epoch))
    }

    /// If the lease had run out: says that what was served then ended.
    fn log_ends_of_lapsed(&mut self, deadline: ClockTime) -> bool {
        let now = self.shared.clock.lease().for_t0();
        if deadline.as_nanos() == 0 || now < deadline {
            return false;
        }
        let open: Vec<_> = self.open_slices().collect();
        if let Some(log) = &mut self.log {
            for (slice, epoch) in open {
                log(OwnershipEvent::End {
                    slice,
                    token: epoch.token(),
                    at_ns: deadline.as_nanos(),
                });
            }
        }
        true
    }

    fn log_begins(&mut self, begun: &[(Slice, Epoch)]) {
        if let Some(log) = self.log.as_mut().filter(|_| !begun.is_empty()) {
            let at_ns = self.shared.clock.stamp_ns();
            for (slice, epoch) in begun {
                log(OwnershipEvent::Begin {
                    slice: *slice,
                    token: epoch.token(),
                    at_ns,
                });
            }
        }
    }

    fn log_frozen(&mut self, frozen: &[(Slice, Epoch)]) {
        if let Some(log) = self.log.as_mut().filter(|_| !frozen.is_empty()) {
            let at_ns = self.shared.clock.stamp_ns();
            for (slice, epoch) in frozen {
                log(OwnershipEvent::Frozen {
                    slice: *slice,
                    token: epoch.token(),
                    at_ns,
                });
            }
        }
    }

    fn log_end(&mut self, slice: Slice, epoch: Epoch) {
        if let Some(log) = &mut self.log {
            log(OwnershipEvent::End {
                slice,
                token: epoch.token(),
                at_ns: self.shared.clock.stamp_ns(),
            });
        }
    }
}

/// The slice goes on being owned, perhaps as frozen, perhaps no longer. Guards that were cut off
/// stay so, but that was no loss of the slice: new ones go to a new cell.
fn keep(mut known: Held, part: &Local, lease: Option<&Arc<LeaseHandle>>) -> Held {
    let frozen = matches!(part.part, Part::Frozen(_));
    if std::mem::replace(&mut known.frozen, frozen) && !frozen {
        match lease {
            Some(lease) if !known.cell.is_valid() => {
                known.cell = CellHandle::new(lease);
                known.before.clear();
            }
            _ => known.cell.thaw(),
        }
    }
    known
}

fn owns(part: &Part) -> bool {
    matches!(part, Part::Owner | Part::Replica | Part::Frozen(_))
}

fn info(slice: Slice, epoch: Epoch, cause: Cause) -> SliceInfo {
    SliceInfo {
        slice,
        epoch,
        token: epoch.token(),
        cause,
        arrival: Arrival::Cold,
    }
}
