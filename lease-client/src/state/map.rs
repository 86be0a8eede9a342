//! Ready-made state: a map whose keys move with their slices.
//!
//! [`tree`] keeps the keys, [`export`] follows what changes, [`record`] is how a key is written
//! down.

mod export;
mod record;
#[cfg(test)]
mod tests;
mod tree;
mod value;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use leasehold_proto::{Slice, SliceKey, limits};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

pub use export::MapExport;
pub use value::StateValue;

use super::{BadRecords, Import, SliceState};
use crate::error::{Lost, WriteError};
use crate::slicelet::Guard;
use export::Follower;
use record::Record;
use tree::{Change, Entry, Held, Position, Slot, Tree, is_before};

/// More than this is freed beside the runtime, which would stall meanwhile.
const FREED_AT_ONCE_BYTES: u64 = 1 << 20;

/// What becomes of a value here when that of the former owner comes.
type Merge<V> = Box<dyn Fn(&V, V) -> V + Send + Sync>;

/// A map in memory whose keys move with their slices: for caches, counters and indexes. A clone is
/// the same map.
///
/// Give it to the Slicelet with [`SliceletBuilder::state`](crate::SliceletBuilder::state); read and
/// write it under guards:
///
/// ```no_run
/// # use leasehold_client::Slicelet;
/// # use leasehold_client::state::StateMap;
/// # async fn increment(slicelet: &Slicelet, counts: &StateMap<u64>) -> Result<u64, tonic::Status> {
/// let guard = slicelet.guard_or_wait(b"alice").await?;
/// let count = counts.update(&guard, b"alice", |count| {
///     let count = count.get_or_insert(0);
///     *count += 1;
///     *count
/// })?;
/// guard.verify()?; // this process owned the key all the time: the reply may go
/// # Ok(count)
/// # }
/// ```
///
/// Keys stand at the guard's slice key: give the same key that the guard was asked for. A key given
/// with a guard of another one is kept apart from it, moves with the guard's slice, and is found
/// only with such a guard.
///
/// A write is refused once the guard does not verify, and always under a guard that
/// [is fenced](Guard::is_fenced), since memory cannot be fenced. A read is not: what it returns is
/// worth something only if [`Guard::verify`] passes behind it, and nothing under a fenced guard.
///
/// Closures run under a lock that other keys share: they should be short, and must not use the map.
///
/// A key has at most [`limits::KEY_BYTES`], and with its value and 16 bytes more at most
/// [`limits::STATE_FRAME_BYTES`]: what is larger could not move, and is refused when it is written
/// ([`WriteError::TooLarge`]). How many keys there are is not bounded: bound what clients may write.
///
/// # Two owners
///
/// In eventual mode the slice is served here while records of its former owner arrive
/// ([`Import::Merge`]). A key that was written here since is merged by the rule of
/// [`StateMap::merging`], or stays as it is here without one; any other key becomes what the
/// record says. That a key was removed here is not remembered: a record that comes later brings it
/// back.
pub struct StateMap<V: StateValue> {
    inner: Arc<Inner<V>>,
}

struct Inner<V> {
    tree: Tree<V>,
    followers: ArcSwap<Vec<Arc<Follower>>>,
    merge: Option<Merge<V>>,
}

impl<V: StateValue> StateMap<V> {
    /// An empty map. In a merge, what was written here wins.
    pub fn new() -> Self {
        Self::made(None)
    }

    /// An empty map that merges what was written here with what comes from the former owner.
    /// Merging the same or newer news of a key twice must do no harm: a maximum, a union, the later
    /// of two times; not a sum. What was written here stays as it is where both together are too
    /// large.
    pub fn merging(rule: impl Fn(&mut V, V) + Send + Sync + 'static) -> Self
    where
        V: Clone,
    {
        Self::made(Some(Box::new(move |mine, theirs| {
            let mut both = mine.clone();
            rule(&mut both, theirs);
            both
        })))
    }

    fn made(merge: Option<Merge<V>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                tree: Tree::new(),
                followers: ArcSwap::default(),
                merge,
            }),
        }
    }

    /// The key's value, copied. [`Guard::verify`] must pass behind it.
    pub fn get(&self, guard: &Guard, key: &[u8]) -> Option<V>
    where
        V: Clone,
    {
        self.with(guard, key, |value| value.cloned())
    }

    /// Reads the key's value in place. [`Guard::verify`] must pass behind it.
    pub fn with<R>(&self, guard: &Guard, key: &[u8], read: impl FnOnce(Option<&V>) -> R) -> R {
        let position = position(guard.slice_key(), key);
        self.inner
            .tree
            .at(&position, |leaf| read(leaf.get(&position)))
    }

    /// Changes a copy of the key's value, which then takes its place; `None` is no value, before
    /// and after. When `change` panics, nothing has changed.
    ///
    /// # Errors
    /// Nothing was written. [`WriteError::Lost`], or a key that is too long: `change` was not
    /// called.
    pub fn update<R>(
        &self,
        guard: &Guard,
        key: &[u8],
        change: impl FnOnce(&mut Option<V>) -> R,
    ) -> Result<R, WriteError>
    where
        V: Clone,
    {
        fits::<V>(key, None)?;
        let changed = self.write(guard, key, |slot| {
            let mut copy = slot.value.clone();
            let result = change(&mut copy);
            let fits = fits(key, copy.as_ref());
            if fits.is_ok() {
                (*slot.value, *slot.merged) = (copy, false);
            }
            (fits.map(|()| result), fits.is_ok())
        });
        changed?
    }

    /// Sets the key's value; the answer is the one before.
    ///
    /// # Errors
    /// Nothing was written.
    pub fn insert(&self, guard: &Guard, key: &[u8], value: V) -> Result<Option<V>, WriteError> {
        fits(key, Some(&value))?;
        let set = |slot: Slot<'_, V>| {
            *slot.merged = false;
            (slot.value.replace(value), true)
        };
        Ok(self.write(guard, key, set)?)
    }

    /// Removes the key; the answer is the value that it had.
    ///
    /// # Errors
    /// [`Lost`]: nothing was removed.
    pub fn remove(&self, guard: &Guard, key: &[u8]) -> Result<Option<V>, Lost> {
        self.write(guard, key, |slot| (slot.value.take(), true))
    }

    fn write<R>(
        &self,
        guard: &Guard,
        key: &[u8],
        write: impl FnOnce(Slot<'_, V>) -> (R, bool),
    ) -> Result<R, Lost> {
        if guard.is_fenced() {
            return Err(Lost::Lapsed);
        }
        let position = position(guard.slice_key(), key);
        self.inner.tree.at(&position, |leaf| {
            // In here: when the guard is revoked first, nothing is written; else what discards the
            // slice, which comes after that, takes this lock after us.
            guard.verify()?;
            Ok(self.inner.write(leaf, &position, write))
        })
    }
}

impl<V: StateValue> Inner<V> {
    /// Writes, and tells the exports.
    fn write<R>(
        &self,
        leaf: &mut Held<'_, V>,
        position: &Position<'_>,
        write: impl FnOnce(Slot<'_, V>) -> (R, bool),
    ) -> R {
        let (result, changed) = leaf.write(position, write);
        if let Some(change) = changed {
            self.tell(leaf, position, change);
        }
        result
    }

    fn tell(&self, leaf: &Held<'_, V>, position: &Position<'_>, change: Change) {
        for follower in self.followers.load().iter() {
            follower.changed(leaf, position, change);
        }
    }

    /// Forgets a part of the slice: the other end has none of its keys.
    fn clear(&self, slice: Slice, first: Position<'_>, end: Option<&Position<'_>>, how: Import) {
        let mut next = Some(first.to_owned());
        while let Some(position) = next {
            next = self.tree.at(&position, |leaf| {
                for entry in leaf.clear(slice, &position, end, how == Import::Merge) {
                    self.tell(leaf, &entry.position(), Change::gone(&entry));
                }
                let behind = leaf.end().filter(|behind| behind.at <= slice.last());
                behind.filter(|behind| is_before(behind, end)).cloned()
            });
        }
    }

    fn take_in(&self, position: &Position<'_>, theirs: Option<V>, how: Import) {
        let write = |slot: Slot<'_, V>| match (how, theirs, &self.merge) {
            (Import::Replace, theirs, _) => {
                (*slot.value, *slot.merged) = (theirs, false);
                ((), true)
            }
            (Import::Merge, theirs, _) if slot.value.is_none() || *slot.merged => {
                (*slot.value, *slot.merged) = (theirs, true);
                ((), true)
            }
            (Import::Merge, Some(theirs), Some(rule)) => {
                let both = slot.value.as_ref().map(|mine| rule(mine, theirs));
                let fits = fits(&position.key, both.as_ref()).is_ok();
                if fits {
                    *slot.value = both;
                }
                ((), fits)
            }
            (Import::Merge, _, _) => ((), false),
        };
        self.tree
            .at(position, |leaf| self.write(leaf, position, write));
    }
}

impl<V: StateValue> SliceState for StateMap<V> {
    type Export = MapExport<V>;

    fn export(&self, slice: Slice) -> MapExport<V> {
        MapExport::new(&self.inner, slice)
    }

    fn import(&self, slice: Slice, records: &[u8], how: Import) -> Result<(), BadRecords> {
        let mut records = records;
        while !records.is_empty() {
            match record::read(slice, &mut records)? {
                Record::Key { position, value } => {
                    // As this release writes it, it may have grown; here it could never leave again.
                    if how == Import::Replace && fits(&position.key, value.as_ref()).is_err() {
                        return Err(BadRecords(
                            "a value that is too large to move on".to_owned(),
                        ));
                    }
                    self.inner.take_in(&position, value, how);
                }
                Record::Cleared { first, end } => {
                    self.inner.clear(slice, first, end.as_ref(), how);
                }
            }
        }
        Ok(())
    }

    fn discard(&self, slice: Slice) {
        let (mut freed, mut freed_bytes) = (Vec::new(), 0);
        let mut next = Some(Position::before(slice.first()));
        while let Some(position) = next {
            next = self.inner.tree.at(&position, |leaf| {
                let (entries, bytes) = leaf.take(slice);
                freed.push(entries);
                freed_bytes += bytes;
                leaf.end().filter(|end| end.at <= slice.last()).cloned()
            });
        }
        if freed_bytes > FREED_AT_ONCE_BYTES
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(freed));
        }
    }

    fn bytes(&self, slice: Slice) -> u64 {
        self.inner.tree.bytes(slice)
    }

    fn sample(&self, slice: Slice, most: usize, seed: u64) -> Vec<Vec<u8>> {
        /// Draws for each record that is wanted: some meet one twice, one that is too long, or a
        /// leaf without a key of the slice.
        const DRAWS: usize = 4;
        let tree = &self.inner.tree;
        let Some((first, last)) = tree.span(slice) else {
            return Vec::new();
        };
        let mut random = SmallRng::seed_from_u64(seed);
        let mut drawn = BTreeSet::new();
        for _ in 0..most.saturating_mul(DRAWS) {
            if drawn.len() == most {
                break;
            }
            let at = SliceKey::from_u64(random.random_range(first.as_u64()..=last.as_u64()));
            let Some(leaf) = tree.near(at, last, random.random::<u32>() as usize) else {
                continue;
            };
            let leaf = leaf.lock();
            let entries = leaf.of(slice);
            let draw = random.random_range(0..entries.len().max(1));
            drawn.extend(entries.get(draw).and_then(sample));
        }
        drawn.into_iter().collect()
    }

    /// What the other end wrote is written anew, as this version does: what an older or a newer one
    /// writes in another way, or in addition, makes no difference.
    fn agrees(&self, slice: Slice, sample: &[u8]) -> bool {
        let mut rest = sample;
        let Ok(Record::Key { position, value }) = record::read::<V>(slice, &mut rest) else {
            return false;
        };
        let same = |mine: Option<&V>| mine.map(encoded) == value.as_ref().map(encoded);
        let here = || {
            self.inner
                .tree
                .at(&position, |leaf| same(leaf.get(&position)))
        };
        rest.is_empty() && here()
    }
}

fn position(at: SliceKey, key: &[u8]) -> Position<'_> {
    let key = Cow::Borrowed(key);
    Position { at, key }
}

/// Whether the record of this key could move.
fn fits<V: StateValue>(key: &[u8], value: Option<&V>) -> Result<(), WriteError> {
    let refused = |bytes, most| Err(WriteError::TooLarge { bytes, most });
    let (key_bytes, bytes) = (key.len() as u64, record::size_bytes(key, value));
    if key_bytes > limits::KEY_BYTES as u64 {
        return refused(key_bytes, limits::KEY_BYTES);
    }
    if bytes > limits::STATE_FRAME_BYTES as u64 {
        return refused(bytes, limits::STATE_FRAME_BYTES);
    }
    Ok(())
}

/// The entry's record, unless it is too long to be compared.
fn sample<V: StateValue>(entry: &Entry<V>) -> Option<Vec<u8>> {
    let fits = |bytes: u64| bytes <= limits::STATE_SAMPLE_BYTES as u64;
    if !fits(entry.size_bytes()) {
        return None;
    }
    let mut sample = Vec::new();
    record::write(entry.at, &entry.key, entry.value.as_ref(), &mut sample);
    fits(sample.len() as u64).then_some(sample)
}

fn encoded<V: StateValue>(value: &V) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(value.size_bytes());
    value.encode(&mut bytes);
    bytes
}

impl<V: StateValue> Clone for StateMap<V> {
    fn clone(&self) -> Self {
        let inner = Arc::clone(&self.inner);
        Self { inner }
    }
}

impl<V: StateValue> Default for StateMap<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: StateValue> std::fmt::Debug for StateMap<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StateMap({} bytes)", self.inner.tree.bytes(Slice::ALL))
    }
}
