//! One target's part of the table: its slices with their indexes, and its views.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::record::{Record, RecordKey, SessionPhase, SessionRecord, SliceRecord, TargetRecord};
use super::{Entry, Event};
use crate::canonical::{Canonical, Visitor};
use crate::error::Rejection;
use crate::id::{Generation, HandoffId, SessionId};
use crate::key::SliceKey;
use crate::slice::Slice;
use crate::slice_map::{CoverError, SliceMap};
use crate::target::{Consistency, Mode, PodAddress, Squid, TargetConfig, TargetName};
use crate::view::{Assigned, Handoff, Lease, View, ViewDiff, ViewUpdate};

/// A slice as the table keeps it, under its first key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SliceState {
    pub(super) last: SliceKey,
    pub(super) assigned: Assigned,
    pub(super) changed_at: Generation,
}

/// One target: configuration, mode, slices, sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetState {
    pub(super) name: TargetName,
    pub(super) config: TargetConfig,
    pub(super) config_version: u64,
    pub(super) mode: Mode,
    pub(super) generation: Generation,
    pub(super) deleted: bool,
    pub(super) ghosts_uncounted: u32,
    pub(super) sessions: BTreeMap<SessionId, SessionRecord>,
    slices: BTreeMap<SliceKey, SliceState>,
    // Derived from the two above; never stored.
    named_by: BTreeMap<SessionId, BTreeSet<SliceKey>>,
    /// The live session of each Squid.
    pub(super) by_squid: BTreeMap<Squid, SessionId>,
    handoffs: BTreeMap<HandoffId, SliceKey>,
    by_change: BTreeSet<(Generation, SliceKey)>,
}

impl TargetState {
    pub(super) fn create(
        entry: &mut Entry,
        name: TargetName,
        config: TargetConfig,
        slices: Vec<Slice>,
    ) -> Self {
        let mode = match config.consistency {
            Consistency::Strong => Mode::Strong,
            Consistency::Eventual => Mode::Eventual,
        };
        let record = TargetRecord {
            name,
            config,
            config_version: 1,
            mode,
            generation: entry.generation,
            deleted: false,
            ghosts_uncounted: 0,
        };
        let mut state = Self::from_record(record);
        for slice in slices {
            state.put(entry, slice, Assigned::default());
        }
        state.view_changed(entry);
        state
    }

    pub(super) fn from_record(record: TargetRecord) -> Self {
        Self {
            name: record.name,
            config: record.config,
            config_version: record.config_version,
            mode: record.mode,
            generation: record.generation,
            deleted: record.deleted,
            ghosts_uncounted: record.ghosts_uncounted,
            sessions: BTreeMap::new(),
            slices: BTreeMap::new(),
            named_by: BTreeMap::new(),
            by_squid: BTreeMap::new(),
            handoffs: BTreeMap::new(),
            by_change: BTreeSet::new(),
        }
    }

    pub(super) fn load_session(&mut self, record: SessionRecord) {
        if record.phase == SessionPhase::Live {
            self.by_squid.insert(record.squid.clone(), record.id);
        }
        self.sessions.insert(record.id, record);
    }

    pub(super) fn load_slice(&mut self, first: SliceKey, slice: SliceState) {
        self.index(first, &slice);
        self.slices.insert(first, slice);
    }

    pub(super) fn check_cover(&self) -> Result<(), CoverError> {
        let covers = |(first, state): (&SliceKey, &SliceState)| {
            Slice::new(*first, state.last).map(|slice| (slice, ()))
        };
        let entries: Option<Vec<_>> = self.slices.iter().map(covers).collect();
        SliceMap::new(entries.ok_or(CoverError::NoStart)?).map(|_| ())
    }

    pub(super) fn visit_slices<V: Visitor>(&self, visitor: &mut V) {
        for entry in &self.slices {
            entry.visit(visitor);
        }
    }

    fn index(&mut self, first: SliceKey, slice: &SliceState) {
        for session in slice.assigned.sessions() {
            self.named_by.entry(session).or_default().insert(first);
        }
        if let Some(handoff) = slice.assigned.handoff {
            self.handoffs.insert(handoff.id, first);
        }
        self.by_change.insert((slice.changed_at, first));
    }

    fn unindex(&mut self, first: SliceKey, slice: &SliceState) {
        for session in slice.assigned.sessions() {
            if let Some(named) = self.named_by.get_mut(&session) {
                named.remove(&first);
                if named.is_empty() {
                    self.named_by.remove(&session);
                }
            }
        }
        if let Some(handoff) = slice.assigned.handoff {
            self.handoffs.remove(&handoff.id);
        }
        self.by_change.remove(&(slice.changed_at, first));
    }

    /// Writes one slice; every change of an assignment goes through here.
    pub(super) fn put(&mut self, entry: &mut Entry, slice: Slice, assigned: Assigned) {
        self.remove(entry, slice.first());
        let state = SliceState {
            last: slice.last(),
            assigned,
            changed_at: entry.generation,
        };
        self.index(slice.first(), &state);
        self.slices.insert(slice.first(), state);
        self.view_changed(entry);
    }

    /// Takes one slice out; the caller covers its keys again in the same entry.
    pub(super) fn remove(&mut self, entry: &mut Entry, first: SliceKey) {
        if let Some(old) = self.slices.remove(&first) {
            self.unindex(first, &old);
        }
        entry
            .touched
            .insert(RecordKey::Slice(self.name.clone(), first));
    }

    pub(super) fn view_changed(&mut self, entry: &mut Entry) {
        self.generation = entry.generation;
        self.touch(entry);
        entry.event(Event::ViewChanged(self.name.clone()));
    }

    pub(super) fn touch(&self, entry: &mut Entry) {
        entry.touched.insert(RecordKey::Target(self.name.clone()));
    }

    pub(super) fn touch_session(&self, entry: &mut Entry, session: SessionId) {
        entry
            .touched
            .insert(RecordKey::Session(self.name.clone(), session));
    }

    pub(super) fn touch_all(&self, entry: &mut Entry) {
        self.touch(entry);
        for first in self.slices.keys() {
            entry
                .touched
                .insert(RecordKey::Slice(self.name.clone(), *first));
        }
        for session in self.sessions.keys() {
            self.touch_session(entry, *session);
        }
    }

    pub(super) fn set_mode(&mut self, entry: &mut Entry, mode: Mode) {
        if self.mode != mode {
            self.mode = mode;
            self.view_changed(entry);
        }
    }

    /// Marks the target deleted: everything vacant, every session on its way out.
    pub(super) fn delete(
        &mut self,
        entry: &mut Entry,
        expected: Option<u64>,
    ) -> Result<(), Rejection> {
        self.expect_version(expected)?;
        self.deleted = true;
        self.vacate_everything(entry);
        let live: Vec<SessionId> = self.live_sessions().map(|session| session.id).collect();
        for id in live {
            let ghost = self.would_be_ghost(id);
            self.retire(
                entry,
                id,
                if ghost {
                    Some(SessionPhase::Ghost)
                } else {
                    Some(SessionPhase::Leaving)
                },
            );
        }
        Ok(())
    }

    fn vacate_everything(&mut self, entry: &mut Entry) {
        let firsts: Vec<SliceKey> = self.slices.keys().copied().collect();
        for first in firsts {
            if let Some(old) = self.slices.get(&first) {
                let slice = Slice::new(first, old.last);
                if let Some(slice) = slice.filter(|_| old.assigned != Assigned::default()) {
                    self.put(entry, slice, Assigned::default());
                }
            }
        }
        self.view_changed(entry);
    }

    /// Strong mode knows no copies: whoever acknowledges the arming has stopped serving its own.
    pub(super) fn drop_replicas(&mut self, entry: &mut Entry) {
        let copied = |(slice, assigned): (Slice, &Assigned)| {
            (!assigned.replicas.is_empty()).then(|| (slice, assigned.clone()))
        };
        let copied: Vec<(Slice, Assigned)> = self.slices().filter_map(copied).collect();
        for (slice, assigned) in copied {
            self.put(
                entry,
                slice,
                Assigned {
                    replicas: Box::default(),
                    ..assigned
                },
            );
        }
    }

    /// Closes every session of the lost history. Strong ones are waited for by time; what served
    /// without a lease, perhaps registered after the backup, can only be forgotten by an operator.
    pub(super) fn restore(&mut self, entry: &mut Entry) {
        if self.mode != Mode::Strong {
            self.ghosts_uncounted = self.ghosts_uncounted.saturating_add(1);
        }
        self.vacate_everything(entry);
        let ids: Vec<SessionId> = self.sessions.keys().copied().collect();
        for id in ids {
            let phase = self.sessions.get(&id).map(|session| session.phase);
            if phase == Some(SessionPhase::Ghost)
                || (phase == Some(SessionPhase::Live) && self.would_be_ghost(id))
            {
                self.ghosts_uncounted = self.ghosts_uncounted.saturating_add(1);
            }
            self.retire(entry, id, None);
        }
        if let Mode::Arming(_) = self.mode {
            self.mode = Mode::Arming(entry.generation);
        }
        self.settle_arming(entry);
    }

    pub(super) fn may_be_buried(&self) -> bool {
        self.deleted && self.sessions.is_empty() && self.ghosts_uncounted == 0
    }

    pub(super) fn longest_ttl(&self) -> Option<Duration> {
        self.sessions
            .values()
            .map(|session| session.ttl)
            .chain([self.config.ttl])
            .max()
    }

    /// The slice that begins at `slice`'s first key, if it is exactly `slice`.
    pub(super) fn exactly(&self, slice: Slice) -> Result<&Assigned, Rejection> {
        match self.slices.get(&slice.first()) {
            Some(state) if state.last == slice.last() => Ok(&state.assigned),
            _ => Err(Rejection::SliceChanged(slice)),
        }
    }

    /// The slice on which this handoff is open.
    pub(super) fn of_handoff(
        &self,
        id: HandoffId,
    ) -> Result<(Slice, Assigned, Lease, Handoff), Rejection> {
        let unknown = Rejection::UnknownHandoff(id);
        let (first, state) = self
            .handoffs
            .get(&id)
            .and_then(|first| self.slices.get_key_value(first))
            .ok_or(unknown.clone())?;
        let slice = Slice::new(*first, state.last);
        match (slice, state.assigned.owner, state.assigned.handoff) {
            (Some(slice), Some(owner), Some(handoff)) if handoff.id == id => {
                Ok((slice, state.assigned.clone(), owner, handoff))
            }
            _ => Err(unknown),
        }
    }

    /// The slices that name `session` as owner, destination or replica.
    pub(super) fn naming(&self, session: SessionId) -> Vec<(Slice, Assigned)> {
        let firsts = self.named_by.get(&session).into_iter().flatten();
        firsts
            .filter_map(|first| {
                let state = self.slices.get(first)?;
                Some((Slice::new(*first, state.last)?, state.assigned.clone()))
            })
            .collect()
    }

    pub(super) fn is_live(&self, session: SessionId) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|session| session.phase == SessionPhase::Live)
    }

    pub(super) fn open_handoffs(&self) -> usize {
        self.handoffs.len()
    }

    pub(super) fn target_record(&self) -> Option<TargetRecord> {
        Some(TargetRecord {
            name: self.name.clone(),
            config: self.config.clone(),
            config_version: self.config_version,
            mode: self.mode,
            generation: self.generation,
            deleted: self.deleted,
            ghosts_uncounted: self.ghosts_uncounted,
        })
    }

    pub(super) fn slice_record(&self, first: SliceKey) -> Option<SliceRecord> {
        let state = self.slices.get(&first)?;
        Some(SliceRecord {
            target: self.name.clone(),
            slice: Slice::new(first, state.last)?,
            assigned: state.assigned.clone(),
            changed_at: state.changed_at,
        })
    }

    pub(super) fn session_record(&self, id: SessionId) -> Option<SessionRecord> {
        self.sessions.get(&id).cloned()
    }

    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        let slices = self
            .slices
            .keys()
            .filter_map(|first| self.slice_record(*first))
            .map(Record::Slice);
        let sessions = self.sessions.values().cloned().map(Record::Session);
        self.target_record()
            .map(Record::Target)
            .into_iter()
            .chain(slices)
            .chain(sessions)
    }
}

/// What the shells read.
impl TargetState {
    /// Its name.
    pub fn name(&self) -> &TargetName {
        &self.name
    }

    /// Its configuration.
    pub fn config(&self) -> &TargetConfig {
        &self.config
    }

    /// Raised by every change of the configuration.
    pub fn config_version(&self) -> u64 {
        self.config_version
    }

    /// What it promises now.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Of its assignment.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether only a tombstone is left.
    pub fn is_deleted(&self) -> bool {
        self.deleted
    }

    /// Ghosts that only an operator's word removes.
    pub fn ghosts_uncounted(&self) -> u32 {
        self.ghosts_uncounted
    }

    /// Every session, ghosts and leaving ones too, by number.
    pub fn sessions(&self) -> impl Iterator<Item = &SessionRecord> {
        self.sessions.values()
    }

    /// The sessions that may own slices, by number.
    pub fn live_sessions(&self) -> impl Iterator<Item = &SessionRecord> {
        self.sessions
            .values()
            .filter(|session| session.phase == SessionPhase::Live)
    }

    /// One session.
    pub fn session(&self, id: SessionId) -> Option<&SessionRecord> {
        self.sessions.get(&id)
    }

    /// Every slice, in order.
    pub fn slices(&self) -> impl Iterator<Item = (Slice, &Assigned)> {
        self.slices
            .iter()
            .filter_map(|(first, state)| Some((Slice::new(*first, state.last)?, &state.assigned)))
    }

    /// How many slices there are.
    pub fn slice_count(&self) -> usize {
        self.slices.len()
    }

    /// The slice that holds `key`.
    pub fn slice_of(&self, key: SliceKey) -> Option<(Slice, &Assigned)> {
        let (first, state) = self.slices.range(..=key).next_back()?;
        Some((Slice::new(*first, state.last)?, &state.assigned))
    }

    /// Whether the owner of the slice that begins at `first` has nothing of its state to wait for:
    /// the slice came without any, or the owner has taken in what came with all views up to
    /// `taken_in`.
    pub fn has_taken_in(&self, first: SliceKey, taken_in: Option<Generation>) -> bool {
        self.slices.get(&first).is_none_or(|state| {
            state.assigned.provider.is_none()
                || taken_in.is_some_and(|known| state.changed_at <= known)
        })
    }

    /// How many slices a session owns.
    pub fn owned_by(&self, session: SessionId) -> usize {
        let owns = |first: &&SliceKey| {
            self.slices
                .get(first)
                .and_then(|state| state.assigned.owner)
                .is_some_and(|lease| lease.session == session)
        };
        self.named_by
            .get(&session)
            .into_iter()
            .flatten()
            .filter(owns)
            .count()
    }

    /// The slice and the present owner of a handoff, if it is open.
    pub fn handoff(&self, id: HandoffId) -> Option<(Slice, Lease, Handoff)> {
        self.of_handoff(id)
            .ok()
            .map(|(slice, _, from, handoff)| (slice, from, handoff))
    }

    /// The slices that a session owns, in order.
    pub fn owned_slices(&self, session: SessionId) -> impl Iterator<Item = (Slice, Assigned)> {
        let owns = move |(_, assigned): &(Slice, Assigned)| {
            assigned.owner.is_some_and(|lease| lease.session == session)
        };
        self.naming(session).into_iter().filter(owns)
    }

    /// The open handoffs with the slice each is of, by id.
    pub fn handoffs(&self) -> impl Iterator<Item = (Slice, Lease, Handoff)> {
        self.handoffs
            .keys()
            .filter_map(|id| self.of_handoff(*id).ok())
            .map(|(slice, _, from, handoff)| (slice, from, handoff))
    }

    /// The whole view.
    pub fn view(&self) -> View {
        let entries: Vec<(Slice, Assigned)> = self
            .slices()
            .map(|(slice, assigned)| (slice, assigned.clone()))
            .collect();
        // The slices of a target cover the key space in every state that `apply` can reach.
        let slices =
            SliceMap::new(entries).unwrap_or_else(|_| SliceMap::whole(Assigned::default()));
        let pods = self
            .addresses(slices.iter().flat_map(|(_, assigned)| assigned.addressed()))
            .collect();
        View {
            generation: self.generation,
            mode: self.mode,
            slices,
            pods,
        }
    }

    /// What a watcher that knows `known` lacks: nothing, a difference, or the whole view.
    pub fn update_since(&self, known: Option<Generation>) -> Option<ViewUpdate> {
        let Some(known) =
            known.filter(|known| known.incarnation() == self.generation.incarnation())
        else {
            return Some(ViewUpdate::Full(self.view()));
        };
        if known >= self.generation {
            return None;
        }
        let after = (
            std::ops::Bound::Excluded((known, SliceKey::MAX)),
            std::ops::Bound::Unbounded,
        );
        let mut firsts: Vec<SliceKey> = self
            .by_change
            .range(after)
            .map(|(_, first)| *first)
            .collect();
        if firsts.len() * 2 > self.slices.len() && self.slices.len() > 16 {
            return Some(ViewUpdate::Full(self.view()));
        }
        firsts.sort_unstable();
        let entry = |first: SliceKey| {
            let state = self.slices.get(&first)?;
            Some((Slice::new(first, state.last)?, state.assigned.clone()))
        };
        let changed: Vec<(Slice, Assigned)> = firsts.into_iter().filter_map(entry).collect();
        let pods: BTreeMap<_, _> = self
            .addresses(
                changed
                    .iter()
                    .flat_map(|(_, assigned)| assigned.addressed()),
            )
            .collect();
        Some(ViewUpdate::Diff(ViewDiff {
            base: known,
            generation: self.generation,
            mode: self.mode,
            changed,
            pods: pods.into_iter().collect(),
        }))
    }

    fn addresses(
        &self,
        ids: impl Iterator<Item = SessionId>,
    ) -> impl Iterator<Item = (SessionId, PodAddress)> {
        ids.filter_map(|id| Some((id, self.sessions.get(&id)?.squid.address.clone())))
    }
}
