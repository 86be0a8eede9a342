//! What a Slicelet publishes for its checks: an immutable table of its local slices.

use std::sync::Arc;

use leasehold_proto::message::Moved;
use leasehold_proto::{Epoch, KeyHash, Slice, SliceKey};

use super::cell::{Cell, CellHandle, LeaseHandle};
use super::guard::Guard;
use super::lease::Lease;
use crate::error::GuardError;

/// What is done with a request for a local slice.
#[derive(Clone)]
pub(crate) enum Entry {
    /// Guards are given.
    Open(&'static Cell),
    /// Requests wait.
    Wait,
    /// Clients are told where the slice went.
    Gone(Arc<Moved>),
}

/// One local slice.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) slice: Slice,
    pub(crate) epoch: Epoch,
    pub(crate) entry: Entry,
}

/// Why nothing is served, where that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Serving,
    Stopped,
}

/// See the module's description.
pub(crate) struct Table {
    pub(crate) phase: Phase,
    pub(crate) key_hash: KeyHash,
    serve_fenced: bool,
    lease: Option<&'static Lease>,
    /// First keys of `rows`, apart from them: the search touches nothing else.
    starts: Box<[u64]>,
    rows: Box<[Row]>,
    /// Keep the cells and the lease from being used for something else.
    _keep: (Vec<Arc<CellHandle>>, Option<Arc<LeaseHandle>>),
}

impl Table {
    /// A table without slices.
    pub(crate) fn empty(phase: Phase, key_hash: KeyHash) -> Self {
        Self::new(phase, key_hash, false, None, Vec::new(), Vec::new())
    }

    /// Requires rows in order, disjoint, and `keep` to hold the handle of every open row.
    pub(crate) fn new(
        phase: Phase,
        key_hash: KeyHash,
        serve_fenced: bool,
        lease: Option<Arc<LeaseHandle>>,
        rows: Vec<Row>,
        keep: Vec<Arc<CellHandle>>,
    ) -> Self {
        Self {
            phase,
            key_hash,
            serve_fenced,
            lease: lease.as_ref().map(|lease| lease.lease()),
            starts: rows.iter().map(|row| row.slice.first().as_u64()).collect(),
            rows: rows.into(),
            _keep: (keep, lease),
        }
    }

    #[inline]
    fn find(&self, key: SliceKey) -> Option<&Row> {
        let at = self.starts.partition_point(|start| *start <= key.as_u64());
        self.rows
            .get(at.checked_sub(1)?)
            .filter(|row| key <= row.slice.last())
    }

    /// The ownership check. `Err(None)` when the cell refused: a newer table may say more.
    #[inline]
    pub(crate) fn guard(&self, key: SliceKey) -> Result<Guard, Option<GuardError>> {
        if let Some(row) = self.find(key)
            && let Entry::Open(cell) = row.entry
            && let Some(lease) = self.lease
        {
            if cell.enter().is_err() {
                return Err(None);
            }
            let guard = Guard::entered(cell, lease, key, row.slice, row.epoch);
            if guard.lease_runs() {
                return Ok(guard);
            }
            // Dropped here, the guard counts itself out again.
            return if self.serve_fenced {
                Ok(guard.into_fenced())
            } else {
                Err(Some(GuardError::Lapsed))
            };
        }
        Err(Some(self.refusal(key)))
    }

    #[cold]
    fn refusal(&self, key: SliceKey) -> GuardError {
        match (self.phase, self.find(key).map(|row| &row.entry)) {
            (Phase::Stopped, _) => GuardError::Stopped,
            (Phase::Starting, _) => GuardError::Starting,
            (Phase::Serving, Some(Entry::Gone(moved))) => GuardError::Moved(Arc::clone(moved)),
            (Phase::Serving, Some(Entry::Wait | Entry::Open(_))) => GuardError::HandingOver,
            (Phase::Serving, None) => GuardError::NotOwner { generation: None },
        }
    }

    /// The slices that are open to guards.
    pub(crate) fn open(&self) -> impl Iterator<Item = (Slice, Epoch)> {
        self.rows
            .iter()
            .filter(|row| matches!(row.entry, Entry::Open(_)))
            .map(|row| (row.slice, row.epoch))
    }

    /// Lets the lease run out now: nothing is served by this table any more.
    pub(crate) fn end_lease(&self) {
        if let Some(lease) = self.lease {
            lease.end();
        }
    }
}
