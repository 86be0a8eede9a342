//! The keys of a [`StateMap`](super::StateMap) in order, in leaves with a lock each.
//!
//! A directory says which leaf covers a position; its lock is held for the search alone. A leaf
//! knows where it ends, since what the directory said may be old when the leaf's lock is had: then
//! one looks again. A leaf that has grown is cut in two, wherever in the key space it lies, so that
//! keys that are crowded together (an `identity` hash) get as many locks as others. A leaf that has
//! become empty joins its left neighbour. [`runs`] adds up how large they are, [`draw`] finds some
//! of them by chance.
//!
//! Order of locks: a leaf, the leaf to its right, then the directory. What the directory covers
//! with a leaf changes only under the locks of the leaves concerned.

mod draw;
mod runs;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use leasehold_proto::{Slice, SliceKey};

use super::record;
use super::value::StateValue;
use runs::Run;

/// Leaves of an empty tree, a power of two: locks for writers before there is enough to cut. These
/// stay for ever.
const FIRST_LEAVES: usize = 64;
/// A leaf with more entries is cut: soon in tests, which then meet cuts and joins all the time.
const LEAF_ENTRIES: usize = if cfg!(test) { 8 } else { 256 };
/// A leaf with more bytes is cut.
const LEAF_BYTES: u64 = 1 << 20;

/// Where a key stands: by its slice key, then by its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position<'a> {
    pub(super) at: SliceKey,
    pub(super) key: Cow<'a, [u8]>,
}

impl Position<'_> {
    /// Before every key with this slice key.
    pub(super) fn before(at: SliceKey) -> Position<'static> {
        Position {
            at,
            key: Cow::Borrowed(&[]),
        }
    }

    pub(super) fn to_owned(&self) -> Position<'static> {
        Position {
            at: self.at,
            key: Cow::Owned(self.key.to_vec()),
        }
    }
}

/// Whether the position is before the end of a range; `None` is behind all that is asked about.
pub(super) fn is_before(position: &Position<'_>, end: Option<&Position<'_>>) -> bool {
    end.is_none_or(|end| position < end)
}

/// One key.
pub(super) struct Entry<V> {
    pub(super) at: SliceKey,
    pub(super) key: Box<[u8]>,
    /// `None` only while it is being written.
    pub(super) value: Option<V>,
    /// Came with a merge, and was not written here since.
    merged: bool,
}

impl<V: StateValue> Entry<V> {
    pub(super) fn position(&self) -> Position<'_> {
        Position {
            at: self.at,
            key: Cow::Borrowed(&self.key),
        }
    }

    pub(super) fn size_bytes(&self) -> u64 {
        record::size_bytes(&self.key, self.value.as_ref())
    }
}

/// The value of one key while it is being written.
pub(super) struct Slot<'a, V> {
    /// `None`: there is none, or there will be none.
    pub(super) value: &'a mut Option<V>,
    /// Whether it came with a merge and was not written here since.
    pub(super) merged: &'a mut bool,
}

/// What a write did to a record, about.
#[derive(Clone, Copy)]
pub(super) struct Change {
    /// So long is it now.
    pub(super) bytes: u64,
    /// By so much longer is the slice.
    pub(super) grown: i64,
}

impl Change {
    /// From a record of so many bytes to another one; zero is none.
    fn new<V: StateValue>(key: &[u8], before: u64, after: u64) -> Self {
        let bytes = match after {
            0 => record::size_bytes::<V>(key, None),
            after => after,
        };
        // No record comes near to where this would be wrong.
        let grown = after.wrapping_sub(before) as i64;
        Self { bytes, grown }
    }

    /// The entry was taken out.
    pub(super) fn gone<V: StateValue>(entry: &Entry<V>) -> Self {
        Self::new::<V>(&entry.key, entry.size_bytes(), 0)
    }
}

/// See the module's description.
pub(super) struct Tree<V> {
    directory: RwLock<Directory<V>>,
    /// The first leaf.
    lowest: Arc<Leaf<V>>,
    /// Had by whoever cuts a run.
    cuts_run: Mutex<()>,
}

struct Directory<V> {
    /// By the first position that a leaf covers.
    leaves: BTreeMap<Position<'static>, Arc<Leaf<V>>>,
    /// By the first position of their first leaf.
    runs: BTreeMap<Position<'static>, Arc<Run>>,
}

pub(super) struct Leaf<V> {
    first: Position<'static>,
    /// Of all its records. Changed under the lock, read without.
    bytes: AtomicU64,
    inside: Mutex<Inside<V>>,
}

struct Inside<V> {
    /// In order.
    entries: Vec<Entry<V>>,
    /// First position behind the leaf, `None` behind the highest key. The leaf's own first one when
    /// it has left the tree: it covers nothing.
    end: Option<Position<'static>>,
    /// What the leaf is counted in.
    run: Arc<Run>,
}

/// A leaf whose lock is had.
pub(super) struct Held<'a, V> {
    leaf: &'a Leaf<V>,
    inside: MutexGuard<'a, Inside<V>>,
    /// Whether the newest entry is the last one.
    appended: bool,
}

impl<V: StateValue> Leaf<V> {
    fn new(
        first: Position<'static>,
        entries: Vec<Entry<V>>,
        end: Option<Position<'static>>,
        run: Arc<Run>,
    ) -> Arc<Self> {
        let bytes = entries.iter().map(Entry::size_bytes).sum();
        Arc::new(Self {
            first,
            bytes: AtomicU64::new(bytes),
            inside: Mutex::new(Inside { entries, end, run }),
        })
    }

    pub(super) fn lock(&self) -> Held<'_, V> {
        Held {
            leaf: self,
            inside: self.inside.lock().unwrap_or_else(PoisonError::into_inner),
            appended: false,
        }
    }

    /// As it was a moment ago.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    fn is_first_leaf(&self) -> bool {
        const WIDTH: u64 = u64::MAX / FIRST_LEAVES as u64 + 1;
        self.first.key.is_empty() && self.first.at.as_u64().is_multiple_of(WIDTH)
    }
}

impl<V: StateValue> Held<'_, V> {
    /// Requires that the position is not before the leaf's first one.
    fn covers(&self, position: &Position<'_>) -> bool {
        is_before(position, self.inside.end.as_ref())
    }

    /// First position behind the leaf.
    pub(super) fn end(&self) -> Option<&Position<'static>> {
        self.inside.end.as_ref()
    }

    fn find(&self, position: &Position<'_>) -> Result<usize, usize> {
        self.inside
            .entries
            .binary_search_by(|entry| (entry.at, &*entry.key).cmp(&(position.at, &*position.key)))
    }

    pub(super) fn get(&self, position: &Position<'_>) -> Option<&V> {
        let at = self.find(position).ok()?;
        self.inside.entries.get(at)?.value.as_ref()
    }

    /// Entries at `position` and behind it.
    pub(super) fn from(&self, position: &Position<'_>) -> &[Entry<V>] {
        let at = self.find(position).unwrap_or_else(|at| at);
        self.inside.entries.get(at..).unwrap_or_default()
    }

    /// Entries of the slice.
    pub(super) fn of(&self, slice: Slice) -> &[Entry<V>] {
        let (from, to) = self.range_of(slice);
        self.inside.entries.get(from..to).unwrap_or_default()
    }

    fn range_of(&self, slice: Slice) -> (usize, usize) {
        let entries = &self.inside.entries;
        let from = entries.partition_point(|entry| entry.at < slice.first());
        (
            from,
            entries.partition_point(|entry| entry.at <= slice.last()),
        )
    }

    /// About how many bytes of the leaf are of the slice.
    pub(super) fn share(&self, slice: Slice) -> u64 {
        let (from, to) = self.range_of(slice);
        let all = self.inside.entries.len().max(1) as u128;
        (u128::from(self.leaf.bytes()) * (to - from) as u128 / all) as u64
    }

    /// Lets `write` have the value at `position`; it says whether it wrote, which decides whether
    /// the key has changed: the second part of the answer. Requires of a `write` that panics that it
    /// has not changed anything.
    pub(super) fn write<R>(
        &mut self,
        position: &Position<'_>,
        write: impl FnOnce(Slot<'_, V>) -> (R, bool),
    ) -> (R, Option<Change>) {
        let (mut value, mut merged) = (None, false);
        let found = self.find(position);
        let known = found.ok().and_then(|at| self.inside.entries.get_mut(at));
        let before = known.as_ref().map(|entry| entry.size_bytes());
        let slot = match known {
            Some(Entry { value, merged, .. }) => Slot { value, merged },
            None => Slot {
                value: &mut value,
                merged: &mut merged,
            },
        };
        let (result, wrote) = write(slot);
        let (at, key) = (position.at, &*position.key);
        let after = match found {
            Ok(index) => match self.inside.entries.get(index).map(|entry| &entry.value) {
                Some(Some(value)) => Some(record::size_bytes(key, Some(value))),
                _ => {
                    self.inside.entries.remove(index);
                    None
                }
            },
            Err(index) => value.map(|value| {
                let size = record::size_bytes(key, Some(&value));
                let (key, value) = (key.into(), Some(value));
                let entry = Entry {
                    at,
                    key,
                    value,
                    merged,
                };
                self.appended = index == self.inside.entries.len();
                self.inside.entries.insert(index, entry);
                size
            }),
        };
        self.count(before.unwrap_or(0), after.unwrap_or(0));
        let changed = wrote && (before.is_some() || after.is_some());
        let change = Change::new::<V>(key, before.unwrap_or(0), after.unwrap_or(0));
        (result, changed.then_some(change))
    }

    fn count(&self, less: u64, more: u64) {
        let bytes = self.leaf.bytes().saturating_sub(less).saturating_add(more);
        self.leaf.bytes.store(bytes, Ordering::Relaxed);
        self.inside.run.count(less, more);
    }

    /// What the leaf covers of the slice: from a position up to, not including, another one; `None`
    /// is the end of the slice.
    pub(super) fn range_in(&self, slice: Slice) -> (Position<'static>, Option<Position<'static>>) {
        let first = Position::before(slice.first()).max(self.leaf.first.clone());
        let end = self.end().filter(|end| end.at <= slice.last());
        (first, end.cloned())
    }

    /// About how many bytes the leaf is.
    pub(super) fn bytes(&self) -> u64 {
        self.leaf.bytes()
    }

    /// Takes out the entries of the slice from `first` up to, not including, `end`; of a merge only
    /// those that were not written here since.
    pub(super) fn clear(
        &mut self,
        slice: Slice,
        first: &Position<'_>,
        end: Option<&Position<'_>>,
        merge: bool,
    ) -> Vec<Entry<V>> {
        let inside =
            |position: &Position<'_>| position.at <= slice.last() && is_before(position, end);
        let entries = &mut self.inside.entries;
        let from = entries.partition_point(|entry| entry.position() < *first);
        let to = entries
            .partition_point(|entry| inside(&entry.position()))
            .max(from);
        let cleared = entries.extract_if(from..to, |entry| !merge || entry.merged);
        let cleared: Vec<_> = cleared.collect();
        let bytes = cleared.iter().map(Entry::size_bytes).sum();
        self.count(bytes, 0);
        cleared
    }

    /// Takes the entries of the slice out, with about how many bytes they are.
    pub(super) fn take(&mut self, slice: Slice) -> (Vec<Entry<V>>, u64) {
        let (from, to) = self.range_of(slice);
        let taken = if to - from == self.inside.entries.len() {
            std::mem::take(&mut self.inside.entries)
        } else {
            self.inside.entries.drain(from..to).collect::<Vec<_>>()
        };
        let bytes = taken.iter().map(Entry::size_bytes).sum();
        self.count(bytes, 0);
        (taken, bytes)
    }

    fn is_too_large(&self) -> bool {
        let entries = self.inside.entries.len();
        entries > LEAF_ENTRIES || (entries > 1 && self.leaf.bytes() > LEAF_BYTES)
    }

    /// Cuts the leaf; the right part is returned, and not known to the directory yet. The leaf
    /// stays full where its keys come in order.
    fn cut(&mut self) -> Option<Arc<Leaf<V>>> {
        let entries = &mut self.inside.entries;
        let at = if self.appended {
            entries.len().checked_sub(1)?
        } else {
            entries.len() / 2
        };
        let first = entries.get(at)?.position().to_owned();
        let right = entries.split_off(at);
        let bytes = entries.iter().map(Entry::size_bytes).sum();
        let end = self.inside.end.replace(first.clone());
        self.leaf.bytes.store(bytes, Ordering::Relaxed);
        let run = Arc::clone(&self.inside.run);
        run.add_leaf();
        Some(Leaf::new(first, right, end, run))
    }
}

impl<V: StateValue> Tree<V> {
    pub(super) fn new() -> Self {
        let run = Run::new(FIRST_LEAVES);
        let leaf = |slice: &Slice| {
            let first = Position::before(slice.first());
            let end = slice.last().next().map(Position::before);
            Leaf::new(first, Vec::new(), end, Arc::clone(&run))
        };
        let leaves: Vec<_> = Slice::even(FIRST_LEAVES).iter().map(leaf).collect();
        let lowest = leaves.first().map_or_else(|| leaf(&Slice::ALL), Arc::clone);
        let first = |leaf: Arc<Leaf<V>>| (leaf.first.clone(), leaf);
        let directory = Directory {
            leaves: leaves.into_iter().map(first).collect(),
            runs: BTreeMap::from([(Position::before(SliceKey::MIN), run)]),
        };
        Self {
            directory: RwLock::new(directory),
            lowest,
            cuts_run: Mutex::new(()),
        }
    }

    fn directory(&self) -> RwLockReadGuard<'_, Directory<V>> {
        let directory = self.directory.read();
        directory.unwrap_or_else(PoisonError::into_inner)
    }

    fn directory_mut(&self) -> RwLockWriteGuard<'_, Directory<V>> {
        let directory = self.directory.write();
        directory.unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, position: &Position<'_>) -> Arc<Leaf<V>> {
        let directory = self.directory();
        let found = not_behind(&directory.leaves, position);
        Arc::clone(found.map_or(&self.lowest, |(_, leaf)| leaf))
    }

    /// Calls `f` with the leaf that covers `position`, under its lock.
    pub(super) fn at<R>(
        &self,
        position: &Position<'_>,
        f: impl FnOnce(&mut Held<'_, V>) -> R,
    ) -> R {
        loop {
            let leaf = self.find(position);
            let_others_run();
            let mut held = leaf.lock();
            if !held.covers(position) {
                // It was cut, or has left, after it was found; the directory knew before the lock
                // was given back.
                continue;
            }
            let result = f(&mut held);
            let mut long = None;
            if held.is_too_large()
                && let Some(right) = held.cut()
            {
                long = Some(&held.inside.run)
                    .filter(|run| run.is_too_long())
                    .cloned();
                let mut directory = self.directory_mut();
                directory.leaves.insert(right.first.clone(), right);
            }
            let empty = held.inside.entries.is_empty();
            drop(held);
            let_others_run();
            if empty && !leaf.is_first_leaf() {
                self.join_left(&leaf);
            }
            if let Some(run) = long {
                self.cut_run(&run, &leaf.first);
            }
            return result;
        }
    }

    /// Gives what a leaf covers to its left neighbour, if it is still empty.
    fn join_left(&self, leaf: &Arc<Leaf<V>>) {
        let before = (Bound::Unbounded, Bound::Excluded(&leaf.first));
        let left = {
            let directory = self.directory();
            let left = directory.leaves.range(before).next_back();
            left.map(|(_, left)| Arc::clone(left))
        };
        let Some(left) = left else { return };
        let (mut left, mut held) = (left.lock(), leaf.lock());
        // Else one of them was cut or has left meanwhile.
        let neighbours = left.inside.end.as_ref() == Some(&leaf.first);
        if neighbours && held.covers(&leaf.first) && held.inside.entries.is_empty() {
            left.inside.end = held.inside.end.replace(leaf.first.clone());
            held.inside.run.remove_leaf();
            self.directory_mut().join(leaf, left.end());
        }
    }
}

/// What stands last of all that does not stand behind the position. Those of the map may live
/// longer than the one that is looked for; for the search all live as long as the latter.
pub(super) fn not_behind<'m, 'p, T>(
    map: &'m BTreeMap<Position<'p>, T>,
    position: &Position<'p>,
) -> Option<(&'m Position<'p>, &'m T)> {
    map.range(..=position).next_back()
}

/// Where others may come in between; in tests they do.
fn let_others_run() {
    #[cfg(test)]
    std::thread::yield_now();
}

#[cfg(test)]
impl<V: StateValue> Tree<V> {
    /// The leaves that cover the slice, in order, as they are about now.
    pub(super) fn leaves(&self, slice: Slice) -> Vec<Arc<Leaf<V>>> {
        let (from, to) = (Position::before(slice.first()), slice.last().next());
        let to = to.map(Position::before);
        let directory = self.directory();
        directory
            .between(&from, to.as_ref())
            .map(Arc::clone)
            .collect()
    }

    /// The leaves cover everything, in order, and count right. Requires that nobody writes.
    pub(super) fn check(&self) {
        let leaves = self.leaves(Slice::ALL);
        assert!(leaves[0].first == Position::before(SliceKey::MIN));
        assert!(Arc::ptr_eq(&leaves[0], &self.lowest));
        for (n, leaf) in leaves.iter().enumerate() {
            let held = leaf.lock();
            let next = leaves.get(n + 1).map(|next| &next.first);
            assert_eq!(held.end(), next);
            let entries = &held.inside.entries;
            assert!(entries.is_sorted_by(|a, b| a.position() < b.position()));
            assert!(entries.iter().all(|entry| held.covers(&entry.position())));
            assert!(
                entries
                    .first()
                    .is_none_or(|entry| entry.position() >= leaf.first)
            );
            assert_eq!(
                leaf.bytes(),
                entries.iter().map(Entry::size_bytes).sum::<u64>()
            );
            assert!(!held.is_too_large());
            assert!(!entries.is_empty() || leaf.is_first_leaf());
            drop(held);
        }
        self.check_runs(&leaves);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_that_is_not_empty_any_more_does_not_join() {
        let tree = Tree::<u64>::new();
        for n in 0..20 {
            let position = Position::before(SliceKey::from_u64(n));
            let set = |slot: Slot<'_, u64>| (*slot.value = Some(n), true);
            tree.at(&position, |leaf| leaf.write(&position, set).0);
        }
        let before = tree.leaves(Slice::ALL);
        assert!(!before[1].is_first_leaf());
        tree.join_left(&before[1]);
        assert_eq!(tree.leaves(Slice::ALL).len(), before.len());
        tree.check();
    }
}
