//! The replicated rules: `apply(log_id, command) -> outcome`, without clock, randomness or I/O.
//!
//! Only here is an epoch minted, and only for an applied entry. Facts (words, expiry, closing) are
//! unconditional; plans are compare-and-set on the slices that they touch. What `apply` itself
//! rejects, whoever proposes it: replacing, splitting or merging a slice with an open handoff,
//! ending a handoff that is not open, and an expiry that was counted in another term.

mod by_target;
mod canonical;
mod handoff;
mod plan;
mod record;
mod session;
mod target;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use record::{
    MetaRecord, Record, RecordKey, SessionPhase, SessionRecord, SliceRecord, TargetRecord,
};
pub use target::TargetState;

use crate::clock::ClockClass;
use crate::command::{Command, Reply};
use crate::error::Rejection;
use crate::id::{Generation, HandoffId, Incarnation, LogId, SessionId};
use crate::limits;
use crate::slice::Slice;
use crate::target::{Mode, TargetChange, TargetConfig, TargetName};

/// The replicated table of all targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseTable {
    meta: MetaRecord,
    targets: BTreeMap<TargetName, TargetState>,
}

/// What an applied command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// For the proposer.
    pub reply: Reply,
    /// Records to write, or to delete where [`LeaseTable::record`] has none any more; each once.
    pub touched: Vec<RecordKey>,
    /// What the shells want to know, in order.
    pub events: Vec<Event>,
}

/// A change that concerns a leader's memory or a watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session was registered: its D counts from now at the earliest.
    SessionRegistered {
        /// Of which target.
        target: TargetName,
        /// Which session.
        session: SessionId,
        /// Its time to live.
        ttl: Duration,
        /// Its clock class.
        clock: ClockClass,
    },
    /// The session's target was deleted: it must not be answered, but D runs on.
    SessionLeaving(SessionId),
    /// The session is closed (a ghost, or gone): it is told so when it next speaks.
    SessionClosed(SessionId),
    /// The target has a newer view.
    ViewChanged(TargetName),
    /// The target is gone.
    TargetGone(TargetName),
    /// A handoff ended, and how.
    HandoffEnded {
        /// Of which target.
        target: TargetName,
        /// Which handoff.
        handoff: HandoffId,
        /// Of which slice.
        slice: Slice,
        /// To which session.
        to: SessionId,
        /// Whether ownership moved.
        completed: bool,
    },
}

/// What one entry carries through its application.
struct Entry {
    at: LogId,
    generation: Generation,
    touched: BTreeSet<RecordKey>,
    events: Vec<Event>,
}

impl Entry {
    fn event(&mut self, event: Event) {
        if !self.events.contains(&event) {
            self.events.push(event);
        }
    }
}

type Applied = Result<Reply, Rejection>;

impl Default for LeaseTable {
    fn default() -> Self {
        Self::new()
    }
}

impl LeaseTable {
    /// An empty table of a cluster that was never restored.
    pub fn new() -> Self {
        let meta = MetaRecord {
            incarnation: Incarnation::FIRST,
            next_session: 1,
            next_handoff: 1,
            restore_wait: None,
        };
        Self {
            meta,
            targets: BTreeMap::new(),
        }
    }

    /// Applies the command of the entry at `at`. Entries must be given in the order of the log,
    /// each once; the result depends on nothing else.
    pub fn apply(&mut self, at: LogId, command: Command) -> Outcome {
        let incarnation = match &command {
            Command::Restore { incarnation, .. } => *incarnation,
            _ => self.meta.incarnation,
        };
        let Some(generation) = Generation::mint(incarnation, at.index) else {
            let reply = Reply::Rejected(Rejection::TokensExhausted);
            return Outcome {
                reply,
                touched: Vec::new(),
                events: Vec::new(),
            };
        };
        let mut entry = Entry {
            at,
            generation,
            touched: BTreeSet::new(),
            events: Vec::new(),
        };
        let reply = self
            .dispatch(&mut entry, command)
            .unwrap_or_else(Reply::Rejected);
        Outcome {
            reply,
            touched: entry.touched.into_iter().collect(),
            events: entry.events,
        }
    }

    fn dispatch(&mut self, entry: &mut Entry, command: Command) -> Applied {
        match command {
            Command::CreateTarget {
                target,
                config,
                initial_slices,
            } => self.create_target(entry, target, config, initial_slices),
            Command::UpdateTarget {
                target,
                expected_version,
                change,
            } => self.update_target(entry, &target, expected_version, &change),
            Command::DeleteTarget {
                target,
                expected_version,
            } => self.delete_target(entry, &target, expected_version),
            Command::RegisterSession {
                target,
                squid,
                clock,
                secret,
                app_version,
            } => self.register_session(entry, target, squid, clock, secret, app_version),
            Command::CloseSession {
                target,
                session,
                proof: _,
            } => self.close_session(entry, &target, session),
            Command::ExpireSession {
                target,
                session,
                term,
                successors,
            } => self.expire_session(entry, &target, session, term, &successors),
            Command::DrainSession { target, session } => self.drain(entry, &target, session),
            Command::ApplyPlan {
                target,
                config_version,
                steps,
            } => self.apply_plan(entry, target, config_version, steps),
            Command::CompleteHandoff {
                target,
                handoff,
                word,
                digest,
            } => self.complete_handoff(entry, &target, handoff, word, digest),
            Command::CancelHandoff {
                target,
                handoff,
                refused_by,
            } => self.cancel_handoff(entry, &target, handoff, refused_by),
            Command::AskCancel { target, handoff } => self.ask_cancel(entry, &target, handoff),
            Command::AckArming {
                target,
                session,
                arming,
            } => self.ack_arming(entry, &target, session, arming),
            Command::ForgetGhost {
                target,
                session,
                reason: _,
            } => self.forget_ghost(entry, &target, session),
            Command::Restore {
                incarnation,
                max_ttl,
            } => self.restore(entry, incarnation, max_ttl),
            Command::EndRestoreWait { term } => self.end_restore_wait(entry, term),
        }
    }

    fn create_target(
        &mut self,
        entry: &mut Entry,
        name: TargetName,
        config: TargetConfig,
        slices: u32,
    ) -> Applied {
        if let Some(state) = self.targets.get(&name) {
            return Err(state
                .if_leaving()
                .err()
                .unwrap_or(Rejection::TargetExists(name)));
        }
        config.check()?;
        if self.targets.len() >= limits::TARGETS {
            return Err(Rejection::Limit {
                what: "targets".into(),
                most: limits::TARGETS,
            });
        }
        if slices == 0 || slices as usize > limits::INITIAL_SLICES {
            return Err(Rejection::Limit {
                what: "initial slices (and at least one)".into(),
                most: limits::INITIAL_SLICES,
            });
        }
        // The first target's records need the record about the whole table beside them.
        entry.touched.insert(RecordKey::Meta);
        let state = TargetState::create(entry, name.clone(), config, Slice::even(slices as usize));
        self.targets.insert(name, state);
        Ok(Reply::Done)
    }

    fn delete_target(
        &mut self,
        entry: &mut Entry,
        name: &TargetName,
        expected: Option<u64>,
    ) -> Applied {
        self.live_target(name)?.delete(entry, expected)?;
        self.bury(entry, name);
        Ok(Reply::Done)
    }

    /// Frees the name of a deleted target once every session has gone.
    fn bury(&mut self, entry: &mut Entry, name: &TargetName) {
        if self
            .targets
            .get(name)
            .is_some_and(|state| state.may_be_buried() && self.meta.restore_wait.is_none())
        {
            if let Some(state) = self.targets.remove(name) {
                state.touch_all(entry);
            }
            entry.event(Event::TargetGone(name.clone()));
        }
    }

    fn restore(
        &mut self,
        entry: &mut Entry,
        incarnation: Incarnation,
        max_ttl: Duration,
    ) -> Applied {
        if incarnation <= self.meta.incarnation {
            return Err(Rejection::IncarnationNotLarger(self.meta.incarnation.get()));
        }
        if max_ttl > limits::TTL_MAX {
            return Err(Rejection::BadStep(
                "the largest ttl is beyond the limit of a session's ttl".into(),
            ));
        }
        let known = self
            .targets
            .values()
            .flat_map(|state| state.longest_ttl())
            .max()
            .unwrap_or_default();
        self.meta.incarnation = incarnation;
        self.meta.restore_wait = Some(max_ttl.max(known));
        entry.touched.insert(RecordKey::Meta);
        for state in self.targets.values_mut() {
            state.restore(entry);
        }
        Ok(Reply::Done)
    }

    fn end_restore_wait(&mut self, entry: &mut Entry, term: u64) -> Applied {
        same_term(term, entry.at)?;
        if self.meta.restore_wait.take().is_some() {
            entry.touched.insert(RecordKey::Meta);
        }
        let names: Vec<TargetName> = self.targets.keys().cloned().collect();
        for name in names {
            self.bury(entry, &name);
        }
        Ok(Reply::Done)
    }

    fn target_mut(&mut self, name: &TargetName) -> Result<&mut TargetState, Rejection> {
        self.targets
            .get_mut(name)
            .ok_or_else(|| Rejection::UnknownTarget(name.clone()))
    }

    fn live_target(&mut self, name: &TargetName) -> Result<&mut TargetState, Rejection> {
        let state = self.target_mut(name)?;
        state.if_leaving()?;
        Ok(state)
    }

    /// Which life of the replicated state this is.
    pub fn incarnation(&self) -> Incarnation {
        self.meta.incarnation
    }

    /// After a restore: the ttl whose D must pass before anything is granted.
    pub fn restore_wait(&self) -> Option<Duration> {
        self.meta.restore_wait
    }

    /// The target of this name, also while only its tombstone is left.
    pub fn target(&self, name: &TargetName) -> Option<&TargetState> {
        self.targets.get(name)
    }

    /// Every target, by name.
    pub fn targets(&self) -> impl Iterator<Item = &TargetState> {
        self.targets.values()
    }

    /// The record of this key as it is now; `None` means that it must be deleted.
    pub fn record(&self, key: &RecordKey) -> Option<Record> {
        match key {
            RecordKey::Meta => Some(Record::Meta(self.meta.clone())),
            RecordKey::Target(name) => self.targets.get(name)?.target_record().map(Record::Target),
            RecordKey::Slice(name, first) => self
                .targets
                .get(name)?
                .slice_record(*first)
                .map(Record::Slice),
            RecordKey::Session(name, id) => self
                .targets
                .get(name)?
                .session_record(*id)
                .map(Record::Session),
        }
    }

    /// Every record, for a copy of the table.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        let of_targets = self.targets.values().flat_map(TargetState::records);
        std::iter::once(Record::Meta(self.meta.clone())).chain(of_targets)
    }

    /// The table that these records describe, in any order.
    ///
    /// Errors name the first record that fits no table: the data is corrupt or foreign, and must
    /// not be used or overwritten.
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Result<Self, BadRecords> {
        record::load(records)
    }
}

/// Records that describe no table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored records describe no table: {0}")]
pub struct BadRecords(pub String);

/// ◆ A decision of one term is never carried out in another: the deposed leader's memory counted it.
fn same_term(decided: u64, at: LogId) -> Result<(), Rejection> {
    if decided == at.term || mutant!("expiry_across_terms") {
        Ok(())
    } else {
        Err(Rejection::OtherTerm { decided, entry: at })
    }
}

impl TargetState {
    fn update(
        &mut self,
        entry: &mut Entry,
        expected: Option<u64>,
        change: &TargetChange,
    ) -> Applied {
        self.expect_version(expected)?;
        let config = change.onto(&self.config);
        config.check()?;
        self.config = config;
        self.config_version += 1;
        self.touch(entry);
        self.follow_consistency(entry);
        Ok(Reply::Done)
    }

    fn expect_version(&self, expected: Option<u64>) -> Result<(), Rejection> {
        match expected {
            Some(expected) if expected != self.config_version => Err(Rejection::ConfigVersion {
                expected,
                current: self.config_version,
            }),
            _ => Ok(()),
        }
    }

    fn if_leaving(&self) -> Result<(), Rejection> {
        if !self.deleted {
            return Ok(());
        }
        let left = u32::try_from(self.sessions.len())
            .unwrap_or(u32::MAX)
            .saturating_add(self.ghosts_uncounted);
        Err(Rejection::TargetLeaving(self.name.clone(), left))
    }

    /// Takes the mode where the configuration wants it. Strong is not declared but reached.
    fn follow_consistency(&mut self, entry: &mut Entry) {
        use crate::target::Consistency::{Eventual, Strong};
        let mode = match (self.config.consistency, self.mode) {
            (Eventual, Mode::Strong | Mode::Arming(_)) => Mode::Eventual,
            (Strong, Mode::Eventual) => {
                self.drop_replicas(entry);
                Mode::Arming(entry.generation)
            }
            _ => return,
        };
        self.set_mode(entry, mode);
        self.settle_arming(entry);
    }
}
