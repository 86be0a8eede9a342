//! Exports of a [`StateMap`](super::StateMap): a cursor through the slice, and what changed behind
//! it.
//!
//! The cursor passes a key under the lock of the key's leaf, and a write asks, under the same lock,
//! whether the cursor has passed: what it has not is written down when it comes there; what it has
//! is remembered, by key. A key that is remembered is forgotten before its value is read, so that a
//! write in between is remembered again.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_proto::Slice;

use super::tree::Position;
use super::value::StateValue;
use super::{Inner, record};
use crate::state::{Exported, StateExport};

/// Written under one leaf's lock before it is given back, unless one record is longer.
const PIECE_BYTES: usize = 64 << 10;

/// What a write tells an export.
pub(super) struct Follower {
    pub(super) slice: Slice,
    state: Mutex<Followed>,
}

struct Followed {
    /// Where the walk through the slice goes on; `None` when it is through.
    cursor: Option<Position<'static>>,
    /// Keys that changed behind the cursor, each with about how long its record is.
    changed: BTreeMap<Position<'static>, u64>,
    changed_bytes: u64,
    /// The changed key that was read last. The next one behind it comes first, so that no key waits
    /// for others that change more often.
    swept: Option<Position<'static>>,
}

impl Follower {
    pub(super) fn new(slice: Slice) -> Arc<Self> {
        Arc::new(Self {
            slice,
            state: Mutex::new(Followed {
                cursor: Some(Position::before(slice.first())),
                changed: BTreeMap::new(),
                changed_bytes: 0,
                swept: None,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key changed; its record is about so long now. Requires the lock of its leaf.
    pub(super) fn changed(&self, position: &Position<'_>, bytes: u64) {
        if !self.slice.contains(position.at) {
            return;
        }
        let mut state = self.lock();
        if state.cursor.as_ref().is_none_or(|cursor| position < cursor) {
            let known = state.changed.insert(position.to_owned(), bytes);
            state.changed_bytes = state.changed_bytes + bytes - known.unwrap_or(0);
        }
    }

    fn next_changed(&self) -> Option<Position<'static>> {
        let mut state = self.lock();
        let behind = state
            .swept
            .clone()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let mut round = state.changed.range((behind, Bound::Unbounded));
        let next = round.next().or_else(|| state.changed.first_key_value());
        let next = next.map(|(position, _)| position.clone())?;
        let bytes = state.changed.remove(&next).unwrap_or(0);
        state.changed_bytes -= bytes;
        state.swept = Some(next.clone());
        Some(next)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.lock().changed.len()
    }
}

/// An export of one slice of a [`StateMap`](super::StateMap). Remembers the keys that change behind
/// what it has read, each once, until it is dropped.
pub struct MapExport<V: StateValue> {
    map: Arc<Inner<V>>,
    pub(super) follower: Arc<Follower>,
}

/// What one piece of work came to.
#[derive(PartialEq, Eq)]
enum Piece {
    /// There may be room for more.
    Written,
    /// The next record does not fit.
    Full,
    /// There is nothing more now.
    Nothing,
}

/// Where records are written to, and how much room there is.
struct Page<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    most_bytes: usize,
}

impl Page<'_> {
    /// Whether there was room for the record: always for the first one.
    fn write<V: StateValue>(&mut self, position: &Position<'_>, value: Option<&V>) -> bool {
        let (before, key) = (self.out.len(), &position.key);
        let written = before - self.start;
        let fits = |bytes: usize| written == 0 || bytes <= self.most_bytes;
        let about = usize::try_from(record::size_bytes(key, value)).unwrap_or(usize::MAX);
        if !fits(written.saturating_add(about)) {
            return false;
        }
        record::write(position.at, key, value, self.out);
        let fitted = fits(self.out.len() - self.start);
        if !fitted {
            self.out.truncate(before);
        }
        fitted
    }
}

impl<V: StateValue> MapExport<V> {
    pub(super) fn new(map: &Arc<Inner<V>>, slice: Slice) -> Self {
        let follower = Follower::new(slice);
        map.followers.rcu(|followers| {
            let mut followers = Vec::clone(followers);
            followers.push(Arc::clone(&follower));
            followers
        });
        Self {
            map: Arc::clone(map),
            follower,
        }
    }

    /// Goes through the leaf at the cursor, or a piece of it.
    fn walk(&self, cursor: &Position<'_>, page: &mut Page<'_>) -> Piece {
        let last = self.follower.slice.last();
        let before = page.out.len();
        self.map.tree.at(cursor, |leaf| {
            let mut piece = Piece::Written;
            let mut next = leaf.end();
            let stopped;
            for entry in leaf.from(cursor) {
                let past = entry.at > last;
                let paused = page.out.len() - before >= PIECE_BYTES;
                if past || paused || !page.write(&entry.position(), entry.value.as_ref()) {
                    if !past && !paused {
                        piece = Piece::Full;
                    }
                    stopped = entry.position().to_owned();
                    next = Some(&stopped);
                    break;
                }
            }
            // Under the leaf's lock: see the module's description.
            self.follower.lock().cursor = next.filter(|next| next.at <= last).cloned();
            piece
        })
    }

    /// Reads one key that changed behind the cursor.
    fn reread(&self, page: &mut Page<'_>) -> Piece {
        let Some(position) = self.follower.next_changed() else {
            return Piece::Nothing;
        };
        self.map.tree.at(&position, |leaf| {
            let value = leaf.get(&position);
            if page.write(&position, value) {
                return Piece::Written;
            }
            let bytes = record::size_bytes(&position.key, value);
            self.follower.changed(&position, bytes);
            Piece::Full
        })
    }
}

impl<V: StateValue> StateExport for MapExport<V> {
    fn read(&mut self, most_bytes: usize, out: &mut Vec<u8>) -> Exported {
        let start = out.len();
        let mut page = Page {
            out,
            start,
            most_bytes,
        };
        loop {
            let cursor = self.follower.lock().cursor.clone();
            let piece = match &cursor {
                Some(cursor) => self.walk(cursor, &mut page),
                None => self.reread(&mut page),
            };
            match piece {
                Piece::Written => {}
                Piece::Full => return Exported::More,
                Piece::Nothing => return Exported::CaughtUp,
            }
        }
    }

    /// Of the slice from the cursor on, and of what has changed behind it.
    fn left_bytes(&self) -> Option<u64> {
        let (cursor, changed) = {
            let state = self.follower.lock();
            (
                state.cursor.as_ref().map(|cursor| cursor.at),
                state.changed_bytes,
            )
        };
        let ahead = cursor.and_then(|at| Slice::new(at, self.follower.slice.last()));
        Some(changed + ahead.map_or(0, |ahead| self.map.bytes(ahead)))
    }
}

impl<V: StateValue> Drop for MapExport<V> {
    fn drop(&mut self) {
        self.map.followers.rcu(|followers| {
            let others = followers
                .iter()
                .filter(|other| !Arc::ptr_eq(other, &self.follower));
            others.map(Arc::clone).collect::<Vec<_>>()
        });
    }
}

impl<V: StateValue> std::fmt::Debug for MapExport<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MapExport({})", self.follower.slice)
    }
}
