//! A complete cover of the key space.

use crate::key::SliceKey;
use crate::slice::Slice;

/// A value for every key: slices in order, without gap or overlap, as its constructor proves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SliceMap<T> {
    entries: Vec<(Slice, T)>,
}

/// Why a list of slices is no cover.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoverError {
    /// Nothing begins at the lowest key, or nothing at all was given.
    #[error("the first slice does not begin at the lowest key")]
    NoStart,
    /// Two neighbours leave a gap or overlap.
    #[error("{0} and {1} leave a gap or overlap")]
    Broken(Slice, Slice),
    /// Nothing ends at the highest key.
    #[error("the last slice does not end at the highest key")]
    NoEnd,
}

impl<T> SliceMap<T> {
    /// One value for the whole key space.
    pub fn whole(value: T) -> Self {
        Self {
            entries: vec![(Slice::ALL, value)],
        }
    }

    /// Proves that `entries`, in order, cover every key exactly once.
    pub fn new(entries: Vec<(Slice, T)>) -> Result<Self, CoverError> {
        match entries.first() {
            Some((slice, _)) if slice.first() == SliceKey::MIN => {}
            _ => return Err(CoverError::NoStart),
        }
        if let Some(pair) = entries
            .windows(2)
            .find(|pair| !pair[0].0.touches(pair[1].0))
        {
            return Err(CoverError::Broken(pair[0].0, pair[1].0));
        }
        match entries.last() {
            Some((slice, _)) if slice.last() == SliceKey::MAX => Ok(Self { entries }),
            _ => Err(CoverError::NoEnd),
        }
    }

    fn position(&self, key: SliceKey) -> usize {
        self.entries
            .partition_point(|(slice, _)| slice.last() < key)
    }

    /// The slice that holds `key`, and its value.
    pub fn get(&self, key: SliceKey) -> (Slice, &T) {
        let (slice, value) = &self.entries[self.position(key)];
        (*slice, value)
    }

    /// Every slice with its value, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Slice, &T)> + DoubleEndedIterator {
        self.entries.iter().map(|(slice, value)| (*slice, value))
    }

    /// The slices that share a key with `range`, in order.
    pub fn overlapping(&self, range: Slice) -> impl Iterator<Item = (Slice, &T)> {
        let start = self.position(range.first());
        self.entries[start..]
            .iter()
            .take_while(move |(slice, _)| slice.first() <= range.last())
            .map(|(slice, value)| (*slice, value))
    }

    /// How many slices there are; at least one.
    #[allow(clippy::len_without_is_empty, reason = "a cover is never empty")]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Puts `changed` over what was there. The changed slices must be in order and must replace
    /// whole slices: a slice that they cut would be left without a part of its keys.
    ///
    /// Errors leave the map as it was; whoever sent the change sent a wrong one.
    pub fn overlay(&mut self, changed: Vec<(Slice, T)>) -> Result<(), CoverError>
    where
        T: Clone,
    {
        // The usual change replaces slices one for one: check first, then write in place.
        let same = |(slice, _): &(Slice, T)| self.entries[self.position(slice.first())].0 == *slice;
        if changed.iter().all(same) {
            for (slice, value) in changed {
                let at = self.position(slice.first());
                self.entries[at].1 = value;
            }
            return Ok(());
        }
        let mut entries = Vec::with_capacity(self.entries.len() + changed.len());
        let mut changed = changed.into_iter().peekable();
        let mut replaced_to: Option<SliceKey> = None;
        for (slice, value) in &self.entries {
            while let Some((new, value)) = changed.next_if(|(new, _)| new.first() <= slice.last()) {
                replaced_to = Some(new.last());
                entries.push((new, value));
            }
            // A replaced slice contributes nothing; one that is only cut breaks the cover below.
            let covered_from = entries
                .last()
                .is_some_and(|(new, _): &(Slice, T)| new.overlaps(*slice))
                || replaced_to.is_some_and(|to| to >= slice.first());
            if !covered_from {
                entries.push((*slice, value.clone()));
            }
        }
        entries.extend(changed);
        *self = Self::new(entries)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u64) -> SliceKey {
        SliceKey::from_u64(n)
    }

    fn slice(first: u64, last: u64) -> Slice {
        Slice::new(key(first), key(last)).unwrap()
    }

    #[test]
    fn only_a_cover_is_a_map() {
        assert!(SliceMap::new(vec![(slice(0, 9), 1), (slice(10, u64::MAX), 2)]).is_ok());
        assert_eq!(SliceMap::<u8>::new(vec![]), Err(CoverError::NoStart));
        assert!(SliceMap::new(vec![(slice(0, 9), 1), (slice(11, u64::MAX), 2)]).is_err());
        assert!(SliceMap::new(vec![(slice(0, 9), 1), (slice(9, u64::MAX), 2)]).is_err());
        assert_eq!(
            SliceMap::new(vec![(slice(0, 9), 1)]),
            Err(CoverError::NoEnd)
        );
    }

    #[test]
    fn an_overlay_replaces_splits_and_merges() {
        let mut map = SliceMap::new(vec![
            (slice(0, 9), 'a'),
            (slice(10, 19), 'b'),
            (slice(20, u64::MAX), 'c'),
        ])
        .unwrap();
        map.overlay(vec![(slice(10, 19), 'x')]).unwrap();
        assert_eq!(map.get(key(15)), (slice(10, 19), &'x'));
        map.overlay(vec![(slice(10, 14), 'l'), (slice(15, 19), 'r')])
            .unwrap();
        assert_eq!(
            (map.get(key(14)).1, map.get(key(15)).1, map.len()),
            (&'l', &'r', 4)
        );
        map.overlay(vec![(slice(0, 14), 'm')]).unwrap();
        assert_eq!((map.get(key(3)), map.len()), ((slice(0, 14), &'m'), 3));
        let before = map.clone();
        assert!(map.overlay(vec![(slice(16, 17), 'z')]).is_err());
        assert_eq!(map, before);
    }
}
