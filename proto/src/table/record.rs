//! Stored records: what the table keeps on disk, one record per changed thing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::target::SliceState;
use super::{BadRecords, LeaseTable, TargetState};
use crate::clock::ClockClass;
use crate::id::{Generation, Incarnation, SessionId};
use crate::key::SliceKey;
use crate::slice::Slice;
use crate::target::{Mode, SessionSecret, Squid, TargetConfig, TargetName};
use crate::view::Assigned;

/// Names one record.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum RecordKey {
    /// The one record about the whole table.
    Meta,
    /// A target.
    Target(TargetName),
    /// A slice, by its first key.
    Slice(TargetName, SliceKey),
    /// A session.
    Session(TargetName, SessionId),
}

/// One stored record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// About the whole table.
    Meta(MetaRecord),
    /// A target.
    Target(TargetRecord),
    /// A slice of a target.
    Slice(SliceRecord),
    /// A session of a target.
    Session(SessionRecord),
}

impl Record {
    /// The key under which it is stored.
    pub fn key(&self) -> RecordKey {
        match self {
            Record::Meta(_) => RecordKey::Meta,
            Record::Target(r) => RecordKey::Target(r.name.clone()),
            Record::Slice(r) => RecordKey::Slice(r.target.clone(), r.slice.first()),
            Record::Session(r) => RecordKey::Session(r.target.clone(), r.id),
        }
    }
}

/// About the whole table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MetaRecord {
    /// Which life of the replicated state this is.
    pub incarnation: Incarnation,
    /// Serial of the next session.
    pub next_session: u64,
    /// Serial of the next handoff.
    pub next_handoff: u64,
    /// After a restore, until it has been waited for: the ttl whose D must pass.
    pub restore_wait: Option<Duration>,
}

/// A target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetRecord {
    /// Its name.
    pub name: TargetName,
    /// Its configuration.
    pub config: TargetConfig,
    /// Raised by every change of the configuration.
    pub config_version: u64,
    /// What it promises now.
    pub mode: Mode,
    /// Of its assignment.
    pub generation: Generation,
    /// Only a tombstone is left.
    pub deleted: bool,
    /// Ghosts beyond the bound, and sessions of a lost history: only an operator's word removes them.
    pub ghosts_uncounted: u32,
}

/// A slice of a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceRecord {
    /// Of which target.
    pub target: TargetName,
    /// Its range.
    pub slice: Slice,
    /// Who serves it.
    pub assigned: Assigned,
    /// When that changed last.
    pub changed_at: Generation,
}

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum SessionPhase {
    /// May own slices.
    Live,
    /// Closed without leases being checked: its process may serve on.
    Ghost,
    /// Its target was deleted; waits for its own word or D.
    Leaving,
}

/// A session of a target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionRecord {
    /// Of which target.
    pub target: TargetName,
    /// Its number.
    pub id: SessionId,
    /// Whose it is.
    pub squid: Squid,
    /// Fixed at registration.
    pub clock: ClockClass,
    /// Fixed at registration.
    pub ttl: Duration,
    /// What its messages must carry.
    pub secret: SessionSecret,
    /// The application's version, or empty.
    pub app_version: String,
    /// Where it stands.
    pub phase: SessionPhase,
    /// About to leave: gets nothing more.
    pub draining: bool,
    /// The last arming that it has acknowledged.
    pub acked_arming: Option<Generation>,
}

/// Builds the table that `records` describe, checking that they fit together.
pub(super) fn load(records: impl IntoIterator<Item = Record>) -> Result<LeaseTable, BadRecords> {
    let mut meta = None;
    let mut targets = BTreeMap::new();
    let (mut slices, mut sessions) = (Vec::new(), Vec::new());
    for record in records {
        match record {
            Record::Meta(record) => meta = Some(record),
            Record::Target(record) => {
                let state = TargetState::from_record(record);
                targets.insert(state.name.clone(), state);
            }
            Record::Slice(record) => slices.push(record),
            Record::Session(record) => sessions.push(record),
        }
    }
    let orphan = |what: &dyn std::fmt::Display, target: &TargetName| {
        BadRecords(format!("{what} belongs to {target}, which has no record"))
    };
    for record in sessions {
        let state: &mut TargetState = targets
            .get_mut(&record.target)
            .ok_or_else(|| orphan(&record.id, &record.target))?;
        state.load_session(record);
    }
    for record in slices {
        let state = targets
            .get_mut(&record.target)
            .ok_or_else(|| orphan(&record.slice, &record.target))?;
        let slice = SliceState {
            last: record.slice.last(),
            assigned: record.assigned,
            changed_at: record.changed_at,
        };
        state.load_slice(record.slice.first(), slice);
    }
    for state in targets.values() {
        state
            .check_cover()
            .map_err(|error| BadRecords(format!("slices of {}: {error}", state.name)))?;
    }
    match meta {
        Some(meta) => Ok(LeaseTable { meta, targets }),
        None if targets.is_empty() => Ok(LeaseTable::new()),
        None => Err(BadRecords(
            "the record about the whole table is missing".into(),
        )),
    }
}
