//! A bounded cache whose entries move with their slices: what an application writes that does not
//! keep its state in a `StateMap`.
//!
//! Which entry is evicted is the library's business ([`quick_cache`]); beside it stands an index in
//! the order of slice keys, so that a slice is a range. Both are behind one lock, which is held for
//! as long as it takes to look an entry up or to copy a frame of an export.

mod export;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use leasehold_client::Lost;
use leasehold_client::state::{BadRecords, Exported, Import, SliceState, StateExport};
use leasehold_proto::{Slice, SliceKey};
use parking_lot::Mutex;
use quick_cache::unsync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, Weighter};

pub use export::CacheExport;
use export::{Follower, Record};

/// What an entry takes up beside its value: its places in both indexes and the allocation's head.
const ENTRY_BYTES: u64 = 128;
/// Bytes are counted for each of so many parts of the key space.
const PARTS: usize = 1 << PART_BITS;
const PART_BITS: u32 = 10;
/// Entries that are discarded before the lock is given back to the requests of other slices.
const DISCARDED_AT_ONCE: usize = 1_024;

/// Where an entry stands: first its slice key, so that slices are ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub at: SliceKey,
    pub key: u64,
}

impl Place {
    fn first(slice: Slice) -> Self {
        Self {
            at: slice.first(),
            key: 0,
        }
    }
}

/// What is cached of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Rises with every write of the key.
    pub version: u64,
    pub value: Bytes,
}

/// The cache. A clone is the same cache.
#[derive(Clone)]
pub struct SliceCache(Arc<Mutex<Inner>>);

struct Inner {
    entries: Cache<Place, Entry, ByBytes, DefaultHashBuilder, TellEvicted>,
    /// The places of all entries with their bytes.
    places: BTreeMap<Place, u64>,
    part_bytes: Vec<u64>,
    exports: BTreeMap<u64, Follower>,
    next_export: u64,
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Place, Entry> for ByBytes {
    fn weight(&self, _: &Place, entry: &Entry) -> u64 {
        entry.value.len() as u64 + ENTRY_BYTES
    }
}

struct TellEvicted;

impl Lifecycle<Place, Entry> for TellEvicted {
    type RequestState = Vec<Place>;

    fn on_evict(&self, evicted: &mut Vec<Place>, place: Place, _: Entry) {
        evicted.push(place);
    }
}

impl SliceCache {
    /// An empty cache of at most so many bytes.
    pub fn new(most_bytes: u64) -> Self {
        let about = (most_bytes / (2 * ENTRY_BYTES)) as usize;
        let hasher = DefaultHashBuilder::default();
        Self(Arc::new(Mutex::new(Inner {
            entries: Cache::with(about, most_bytes, ByBytes, hasher, TellEvicted),
            places: BTreeMap::new(),
            part_bytes: vec![0; PARTS],
            exports: BTreeMap::new(),
            next_export: 0,
        })))
    }

    /// What is cached. Ownership must be verified behind it.
    pub fn get(&self, place: Place) -> Option<Entry> {
        self.0.lock().entries.get(&place).cloned()
    }

    /// Caches an entry. `verify` says, under the lock, whether its key is still owned: what
    /// discards a slice comes after ownership has ended and finds everything that was written.
    ///
    /// # Errors
    /// What `verify` says; nothing was cached.
    pub fn put(
        &self,
        place: Place,
        entry: Entry,
        verify: impl FnOnce() -> Result<(), Lost>,
    ) -> Result<(), Lost> {
        let mut inner = self.0.lock();
        verify()?;
        inner.put(place, entry);
        Ok(())
    }

    /// Forgets a key, here and where it has been exported to: its value is about to change in the
    /// store.
    ///
    /// # Errors
    /// As [`SliceCache::put`].
    pub fn forget(
        &self,
        place: Place,
        verify: impl FnOnce() -> Result<(), Lost>,
    ) -> Result<(), Lost> {
        let mut inner = self.0.lock();
        verify()?;
        inner.forget(place);
        Ok(())
    }
}

impl Inner {
    fn put(&mut self, place: Place, entry: Entry) {
        let bytes = ByBytes.weight(&place, &entry);
        let before = self.places.insert(place, bytes).unwrap_or(0);
        let counted = &mut self.part_bytes[part(place.at)];
        *counted = *counted + bytes - before;
        let mut evicted = Vec::new();
        self.entries
            .insert_with_lifecycle(place, entry, &mut evicted);
        // Nothing is exported of an eviction: what was sent of the key before is still right, or a
        // write has been noted since.
        for place in evicted {
            self.unlist(place);
        }
        self.note(place);
    }

    fn forget(&mut self, place: Place) {
        self.entries.remove(&place);
        self.unlist(place);
        self.note(place);
    }

    fn unlist(&mut self, place: Place) {
        if let Some(bytes) = self.places.remove(&place) {
            self.part_bytes[part(place.at)] -= bytes;
        }
    }

    /// Tells the exports that have passed the place.
    fn note(&mut self, place: Place) {
        for follower in self.exports.values_mut() {
            follower.note(place);
        }
    }

    fn take_in(&mut self, record: Record<'_>, how: Import) {
        let Record { place, entry } = record;
        let Some((version, value)) = entry else {
            // Nothing is wrong with a cache that knows less.
            return self.forget(place);
        };
        let known = self.entries.peek(&place);
        if how == Import::Merge && known.is_some_and(|known| known.version >= version) {
            return;
        }
        let value = Bytes::copy_from_slice(value);
        self.put(place, Entry { version, value });
        // It was worth its room at its former owner: it is not the first to be evicted here.
        let _ = self.entries.get(&place);
    }
}

/// Neither is sampled: a key may be evicted at one end and not at the other.
impl SliceState for SliceCache {
    type Export = CacheExport;

    fn export(&self, slice: Slice) -> CacheExport {
        CacheExport::new(self, slice)
    }

    fn import(&self, slice: Slice, records: &[u8], how: Import) -> Result<(), BadRecords> {
        let mut rest = records;
        while !rest.is_empty() {
            let record = Record::read(slice, &mut rest)?;
            self.0.lock().take_in(record, how);
        }
        Ok(())
    }

    fn discard(&self, slice: Slice) {
        let mut next = Some(Place::first(slice));
        while let Some(first) = next {
            let mut inner = self.0.lock();
            let places = range(&inner.places, first, slice.last()).take(DISCARDED_AT_ONCE);
            let places: Vec<Place> = places.collect();
            let more = places.len() == DISCARDED_AT_ONCE;
            next = places.last().copied().filter(|_| more);
            for place in places {
                inner.entries.remove(&place);
                inner.unlist(place);
            }
        }
    }

    /// Of the parts of the key space that the slice touches.
    fn bytes(&self, slice: Slice) -> u64 {
        let parts = part(slice.first())..=part(slice.last());
        self.0.lock().part_bytes[parts].iter().sum()
    }
}

fn part(at: SliceKey) -> usize {
    (at.as_u64() >> (u64::BITS - PART_BITS)) as usize
}

/// The places from `first` on whose slice key is at most `last`.
fn range(
    places: &BTreeMap<Place, u64>,
    first: Place,
    last: SliceKey,
) -> impl Iterator<Item = Place> + use<'_> {
    let behind = places.range(first..).map(|(place, _)| *place);
    behind.take_while(move |place| place.at <= last)
}

/// The same cache for a sharder that moves ownership and nothing else: slices begin empty.
#[derive(Clone)]
pub struct StaysBehind(pub SliceCache);

/// Nothing ever.
pub struct Nothing;

impl StateExport for Nothing {
    fn read(&mut self, _: usize, _: &mut Vec<u8>) -> Exported {
        Exported::CaughtUp
    }
}

impl SliceState for StaysBehind {
    type Export = Nothing;

    fn export(&self, _: Slice) -> Nothing {
        Nothing
    }

    fn import(&self, _: Slice, _: &[u8], _: Import) -> Result<(), BadRecords> {
        Ok(())
    }

    fn discard(&self, slice: Slice) {
        self.0.discard(slice);
    }
}

/// Room for so many entries, and a quarter more, since no two pods have equal shares.
pub fn bytes_for(entries: u64, value_bytes: u64) -> u64 {
    entries * (value_bytes + ENTRY_BYTES) * 5 / 4
}
