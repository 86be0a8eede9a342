//! Exports of a [`StateMap`](super::StateMap): a walk through the slice, and what changed behind it.
//!
//! The walk passes a key under the lock of the key's leaf, and a write asks, under the same lock,
//! whether the walk is still to come there: what is ahead of it is written down when it comes; what
//! is behind it is remembered, to be read again. What is remembered is forgotten before it is read,
//! so that a write in between is remembered again.
//!
//! # Memory
//! Changed keys are remembered one by one, so that little is sent again of a slice that is written
//! little. Beyond [`MOST_BYTES`] the whole range of a further key's leaf is remembered, some 200
//! keys or a megabyte, and ranges that touch become one; beyond twice that everything is forgotten,
//! and the whole slice comes once more. An export thus remembers 8 MiB at most, however much is
//! written while it is throttled. A range begins with a record by which it is forgotten at the other
//! end, where keys may be that are gone.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use leasehold_proto::Slice;

use super::tree::{Change, Held, Position, is_before, not_behind};
use super::value::StateValue;
use super::{Inner, record};
use crate::state::{Exported, StateExport};

/// Written under one leaf's lock before it is given back, unless one record is longer.
const PIECE_BYTES: usize = 64 << 10;
/// Of what is remembered key by key; all that is remembered is at most twice as much.
const MOST_BYTES: usize = 4 << 20;
/// About what something that is remembered takes up beside the bytes of its keys.
pub(super) const ENTRY_BYTES: usize = 128;

/// What a write tells an export.
pub(super) struct Follower {
    pub(super) slice: Slice,
    most_bytes: usize,
    state: Mutex<Followed>,
}

struct Followed {
    /// What is still to be walked through.
    walk: Option<Walk>,
    /// The whole slice comes once more behind the walk. Until then nothing needs to be remembered.
    again: bool,
    /// What changed behind the walk, by its first position. No two of them overlap.
    changed: BTreeMap<Position<'static>, Changed>,
    /// About how long the records of what changed are.
    changed_bytes: u64,
    /// About what remembering it takes up.
    memory_bytes: usize,
    /// What was taken last of what had changed. The next behind it comes first, so that nothing
    /// waits for what changes more often.
    swept: Option<Position<'static>>,
}

#[derive(Clone)]
struct Walk {
    /// The other end must forget the range first.
    clear: bool,
    first: Position<'static>,
    /// First position behind the range, `None` behind the slice.
    end: Option<Position<'static>>,
}

struct Changed {
    what: What,
    /// About how long its records are.
    bytes: u64,
}

enum What {
    Key,
    /// A range up to the first position behind it, `None` behind the slice.
    UpTo(Option<Position<'static>>),
}

impl Walk {
    fn through(slice: Slice, clear: bool) -> Self {
        Self {
            clear,
            first: Position::before(slice.first()),
            end: None,
        }
    }
}

impl Changed {
    fn covers(&self, first: &Position<'_>, position: &Position<'_>) -> bool {
        match &self.what {
            What::Key => position == first,
            What::UpTo(end) => position >= first && is_before(position, end.as_ref()),
        }
    }

    fn memory_bytes(&self, first: &Position<'_>) -> usize {
        let end = match &self.what {
            What::UpTo(Some(end)) => end.key.len(),
            What::UpTo(None) | What::Key => 0,
        };
        ENTRY_BYTES + first.key.len() + end
    }
}

impl Followed {
    fn add(&mut self, first: Position<'static>, changed: Changed) {
        self.changed_bytes += changed.bytes;
        self.memory_bytes += changed.memory_bytes(&first);
        self.changed.insert(first, changed);
    }

    fn set_bytes(&mut self, first: &Position<'static>, bytes: u64) {
        if let Some(changed) = self.changed.get_mut(first) {
            self.changed_bytes = self.changed_bytes - changed.bytes + bytes;
            changed.bytes = bytes;
        }
    }

    fn remove(&mut self, first: &Position<'static>) -> Option<Changed> {
        let changed = self.changed.remove(first)?;
        self.changed_bytes -= changed.bytes;
        self.memory_bytes -= changed.memory_bytes(first);
        Some(changed)
    }

    /// Remembers a range instead of all that was remembered of it. Ranges that it meets become a
    /// part of it: leaves are cut and join, so that they may overlap what was remembered before.
    fn add_range(
        &mut self,
        mut first: Position<'static>,
        end: Option<Position<'static>>,
        bytes: u64,
    ) {
        if let Some((before, changed)) = not_behind(&self.changed, &first)
            && let What::UpTo(its) = &changed.what
            && its.as_ref().is_none_or(|its| *its >= first)
        {
            first = before.clone();
        }
        let meets = |(at, changed): &(&Position<'_>, &Changed)| match &changed.what {
            What::Key => is_before(at, end.as_ref()),
            What::UpTo(_) => end.as_ref().is_none_or(|end| *at <= end),
        };
        let from = self
            .changed
            .range((Bound::Included(&first), Bound::Unbounded));
        let up_to_end = from.take_while(|(at, _)| end.as_ref().is_none_or(|end| *at <= end));
        let met: Vec<_> = up_to_end.filter(meets).map(|(at, _)| at.clone()).collect();
        let mut range = Changed {
            what: What::UpTo(end),
            bytes,
        };
        for met in met.iter().filter_map(|at| self.remove(at)) {
            let (What::UpTo(end), What::UpTo(its)) = (&mut range.what, met.what) else {
                continue;
            };
            range.bytes += met.bytes;
            if end.as_ref().is_some_and(|end| is_before(end, its.as_ref())) {
                *end = its;
            }
        }
        self.add(first, range);
    }

    fn forget_all(&mut self) {
        self.changed = BTreeMap::new();
        (self.changed_bytes, self.memory_bytes) = (0, 0);
        self.again = true;
    }

    /// The next thing to do: `None` when all was read; without a position, go on with the walk.
    fn next(&mut self, slice: Slice) -> Option<Next> {
        if let Some(walk) = &self.walk {
            return Some(Next::Walk(walk.clone()));
        }
        if std::mem::take(&mut self.again) {
            let walk = Walk::through(slice, true);
            self.walk = Some(walk.clone());
            return Some(Next::Walk(walk));
        }
        let behind = self
            .swept
            .as_ref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let mut round = self.changed.range((behind, Bound::Unbounded));
        let next = round.next().or_else(|| self.changed.first_key_value());
        let first = next.map(|(first, _)| first.clone())?;
        let changed = self.remove(&first)?;
        self.swept = Some(first.clone());
        Some(match changed.what {
            What::Key => Next::Key(first),
            What::UpTo(end) => {
                let walk = Walk {
                    clear: true,
                    first,
                    end,
                };
                self.walk = Some(walk.clone());
                Next::Walk(walk)
            }
        })
    }
}

/// What an export does next.
enum Next {
    Walk(Walk),
    Key(Position<'static>),
}

impl Follower {
    fn new(slice: Slice, most_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            slice,
            most_bytes,
            state: Mutex::new(Followed {
                walk: Some(Walk::through(slice, false)),
                again: false,
                changed: BTreeMap::new(),
                changed_bytes: 0,
                memory_bytes: 0,
                swept: None,
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Followed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key of the leaf changed.
    pub(super) fn changed<V: StateValue>(
        &self,
        leaf: &Held<'_, V>,
        position: &Position<'_>,
        Change { bytes, grown }: Change,
    ) {
        if !self.slice.contains(position.at) {
            return;
        }
        let mut state = self.lock();
        let ahead = |walk: &Walk| *position >= walk.first && is_before(position, walk.end.as_ref());
        if state.again || state.walk.as_ref().is_some_and(ahead) {
            return;
        }
        let known = not_behind(&state.changed, position);
        let known = known.filter(|(first, known)| known.covers(first, position));
        if let Some((first, known)) = known {
            let new = match known.what {
                What::Key => bytes,
                What::UpTo(_) => known.bytes.saturating_add_signed(grown),
            };
            if new != known.bytes {
                let first = first.to_owned();
                return state.set_bytes(&first, new);
            }
            return;
        }
        let key = Changed {
            what: What::Key,
            bytes,
        };
        if state.memory_bytes + key.memory_bytes(position) <= self.most_bytes {
            return state.add(position.to_owned(), key);
        }
        let (first, end) = leaf.range_in(self.slice);
        state.add_range(first, end, leaf.bytes());
        if state.memory_bytes > 2 * self.most_bytes {
            state.forget_all();
        }
    }

    fn next(&self) -> Option<Next> {
        self.lock().next(self.slice)
    }
}

/// An export of one slice of a [`StateMap`](super::StateMap). Remembers what changes behind what it
/// has read, until it is dropped: 8 MiB at most.
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
        let key = &position.key;
        let about = usize::try_from(record::size_bytes(key, value)).unwrap_or(usize::MAX);
        self.try_out(about, |out| record::write(position.at, key, value, out))
    }

    fn try_out(&mut self, about: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let before = self.out.len();
        let written = before - self.start;
        let fits = |bytes: usize| written == 0 || bytes <= self.most_bytes;
        if !fits(written.saturating_add(about)) {
            return false;
        }
        write(self.out);
        let fitted = fits(self.out.len() - self.start);
        if !fitted {
            self.out.truncate(before);
        }
        fitted
    }
}

impl<V: StateValue> MapExport<V> {
    pub(super) fn new(map: &Arc<Inner<V>>, slice: Slice) -> Self {
        Self::remembering(map, slice, MOST_BYTES)
    }

    /// One that remembers so much key by key.
    pub(super) fn remembering(map: &Arc<Inner<V>>, slice: Slice, most_bytes: usize) -> Self {
        let follower = Follower::new(slice, most_bytes);
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

    /// Goes through the first leaf of the walk, or a piece of it.
    fn walk(&self, walk: &Walk, page: &mut Page<'_>) -> Piece {
        let (first, end) = (&walk.first, walk.end.as_ref());
        if walk.clear {
            if !page.try_out(0, |out| record::write_cleared(first, end, out)) {
                return Piece::Full;
            }
            if let Some(walk) = &mut self.follower.lock().walk {
                walk.clear = false;
            }
        }
        let last = self.follower.slice.last();
        let inside = |position: &Position<'_>| position.at <= last && is_before(position, end);
        let before = page.out.len();
        self.map.tree.at(first, |leaf| {
            let mut piece = Piece::Written;
            let mut next = leaf.end().cloned();
            for entry in leaf.from(first) {
                let position = entry.position();
                let past = !inside(&position);
                let paused = page.out.len() - before >= PIECE_BYTES;
                if past || paused || !page.write(&position, entry.value.as_ref()) {
                    if !past && !paused {
                        piece = Piece::Full;
                    }
                    next = Some(position.to_owned());
                    break;
                }
            }
            let end = walk.end.clone();
            let left = next.filter(inside).map(|first| Walk {
                clear: false,
                first,
                end,
            });
            // Under the leaf's lock: see the module's description.
            self.follower.lock().walk = left;
            piece
        })
    }

    /// Reads one key that changed behind the walk.
    fn reread(&self, position: &Position<'_>, page: &mut Page<'_>) -> Piece {
        self.map.tree.at(position, |leaf| {
            let value = leaf.get(position);
            if page.write(position, value) {
                return Piece::Written;
            }
            let bytes = record::size_bytes(&position.key, value);
            let change = Change { bytes, grown: 0 };
            self.follower.changed(leaf, position, change);
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
            let piece = match self.follower.next() {
                Some(Next::Walk(walk)) => self.walk(&walk, &mut page),
                Some(Next::Key(position)) => self.reread(&position, &mut page),
                None => return Exported::CaughtUp,
            };
            if piece == Piece::Full {
                return Exported::More;
            }
        }
    }

    /// Of what is to be walked through, and of what has changed behind it.
    fn left_bytes(&self) -> Option<u64> {
        let slice = self.follower.slice;
        let (ahead, changed) = {
            let state = self.follower.lock();
            let end = |walk: &Walk| walk.end.as_ref().map_or(slice.last(), |end| end.at);
            let ahead = state.walk.as_ref();
            let ahead = ahead.and_then(|walk| Slice::new(walk.first.at, end(walk)));
            let again = state.again.then_some(slice);
            (ahead.into_iter().chain(again), state.changed_bytes)
        };
        Some(changed + ahead.map(|ahead| self.map.tree.bytes(ahead)).sum::<u64>())
    }
}

#[cfg(test)]
impl Follower {
    pub(super) fn remembered(&self) -> usize {
        self.lock().changed.len()
    }

    /// What is remembered is counted right, within its bound, and overlaps nowhere.
    pub(super) fn check(&self) {
        let state = self.lock();
        let bytes = state.changed.values().map(|changed| changed.bytes);
        assert_eq!(state.changed_bytes, bytes.sum::<u64>());
        let memory = state
            .changed
            .iter()
            .map(|(first, changed)| changed.memory_bytes(first));
        assert_eq!(state.memory_bytes, memory.sum::<usize>());
        assert!(state.memory_bytes <= 2 * self.most_bytes);
        for ((_, one), (next, _)) in state.changed.iter().zip(state.changed.iter().skip(1)) {
            if let What::UpTo(end) = &one.what {
                assert!(end.as_ref().is_some_and(|end| end <= next));
            }
        }
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

#[cfg(test)]
mod tests {
    use leasehold_proto::SliceKey;
    use proptest::prelude::*;

    use super::*;

    const POSITIONS: u64 = 32;

    fn at(n: u64) -> Position<'static> {
        Position::before(SliceKey::from_u64(n))
    }

    proptest! {
        /// Leaves are cut and join, so that any range may follow any other.
        #[test]
        fn ranges_and_keys_together_are_all_that_changed(added in proptest::collection::vec((0..POSITIONS, 0..=POSITIONS), 0..40)) {
            let follower = Follower::new(Slice::ALL, MOST_BYTES);
            let mut model = vec![false; POSITIONS as usize];
            for (from, to) in added {
                let mut state = follower.lock();
                let bytes = 1;
                if from < to {
                    // Up to the end of the slice now and then.
                    let end = (to < POSITIONS).then(|| at(to));
                    state.add_range(at(from), end, bytes);
                    model[from as usize..to as usize].fill(true);
                } else if !std::mem::replace(&mut model[from as usize], true) {
                    state.add(at(from), Changed { what: What::Key, bytes });
                }
                drop(state);
                follower.check();
                let state = follower.lock();
                for n in 0..POSITIONS {
                    let known = not_behind(&state.changed, &at(n));
                    let known = known.is_some_and(|(first, known)| known.covers(first, &at(n)));
                    prop_assert_eq!(known, model[n as usize]);
                }
            }
        }
    }
}
