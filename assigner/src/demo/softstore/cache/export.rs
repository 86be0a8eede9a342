//! Exports of the cache: a walk through the slice, then what has changed behind it; and how an
//! entry is written down.
//!
//! A record is the slice key, the key, the version and the value's length, eight, eight, eight and
//! four bytes, big-endian, then the value. The length [`GONE`] says that the key is not cached any
//! more.

use std::collections::BTreeSet;

use leasehold_client::state::{BadRecords, Exported, StateExport};
use leasehold_proto::{Slice, SliceKey};

use super::super::value::MOST_BYTES;
use super::{Entry, Place, SliceCache, range};

const GONE: u32 = u32::MAX;

/// What an export has behind it. Kept beside the entries, under their lock, so that no write comes
/// between a read and the step over it.
pub(super) struct Follower {
    slice: Slice,
    /// The next place to read; `None` when the walk is through.
    cursor: Option<Place>,
    /// Places behind the cursor that have changed since they were read.
    changed: BTreeSet<Place>,
}

impl Follower {
    /// An entry was written or forgotten.
    pub(super) fn note(&mut self, place: Place) {
        let read = self.cursor.is_none_or(|cursor| place < cursor);
        if read && self.slice.contains(place.at) {
            self.changed.insert(place);
        }
    }
}

/// An export of one slice.
pub struct CacheExport {
    cache: SliceCache,
    number: u64,
}

impl CacheExport {
    pub(super) fn new(cache: &SliceCache, slice: Slice) -> Self {
        let mut inner = cache.0.lock();
        let number = inner.next_export;
        inner.next_export += 1;
        let follower = Follower {
            slice,
            cursor: Some(Place::first(slice)),
            changed: BTreeSet::new(),
        };
        inner.exports.insert(number, follower);
        let cache = cache.clone();
        Self { cache, number }
    }
}

impl StateExport for CacheExport {
    fn read(&mut self, most_bytes: usize, out: &mut Vec<u8>) -> Exported {
        let start = out.len();
        let mut inner = self.cache.0.lock();
        let inner = &mut *inner;
        let Some(follower) = inner.exports.get_mut(&self.number) else {
            return Exported::CaughtUp;
        };
        if let Some(cursor) = follower.cursor {
            for place in range(&inner.places, cursor, follower.slice.last()) {
                if out.len() - start >= most_bytes {
                    follower.cursor = Some(place);
                    return Exported::More;
                }
                write(place, inner.entries.peek(&place), out);
            }
            follower.cursor = None;
        }
        while let Some(place) = follower.changed.pop_first() {
            write(place, inner.entries.peek(&place), out);
            if out.len() - start >= most_bytes {
                return Exported::More;
            }
        }
        Exported::CaughtUp
    }
}

impl Drop for CacheExport {
    fn drop(&mut self) {
        self.cache.0.lock().exports.remove(&self.number);
    }
}

fn write(place: Place, entry: Option<&Entry>, out: &mut Vec<u8>) {
    let version = entry.map_or(0, |entry| entry.version);
    out.extend_from_slice(&place.at.as_u64().to_be_bytes());
    out.extend_from_slice(&place.key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    let length = entry.map_or(GONE, |entry| entry.value.len() as u32);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(entry.map_or(&[], |entry| &entry.value));
}

/// An entry on its way.
pub(super) struct Record<'a> {
    pub(super) place: Place,
    /// Version and value; `None` where the key is not cached any more.
    pub(super) entry: Option<(u64, &'a [u8])>,
}

impl<'a> Record<'a> {
    /// Reads one record off the front of `rest`.
    pub(super) fn read(slice: Slice, rest: &mut &'a [u8]) -> Result<Self, BadRecords> {
        let bad = |what: &str| BadRecords(what.to_owned());
        let mut number = || {
            let (bytes, behind) = rest.split_first_chunk()?;
            *rest = behind;
            Some(u64::from_be_bytes(*bytes))
        };
        let cut = "a record is cut short";
        let (at, key, version) = (number(), number(), number());
        let (at, key, version) = at
            .zip(key)
            .zip(version)
            .map(|((at, key), version)| (SliceKey::from_u64(at), key, version))
            .ok_or_else(|| bad(cut))?;
        if !slice.contains(at) {
            return Err(bad("a record is about another slice"));
        }
        let (length, behind) = rest.split_first_chunk().ok_or_else(|| bad(cut))?;
        *rest = behind;
        let place = Place { at, key };
        let length = u32::from_be_bytes(*length);
        if length == GONE {
            return Ok(Self { place, entry: None });
        }
        let length = length as usize;
        if length > MOST_BYTES {
            return Err(bad("a value is too long"));
        }
        let (value, behind) = rest.split_at_checked(length).ok_or_else(|| bad(cut))?;
        *rest = behind;
        let entry = Some((version, value));
        Ok(Self { place, entry })
    }
}
