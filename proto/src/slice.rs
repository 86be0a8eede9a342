//! A slice: a non-empty contiguous range of keys.

use std::fmt;

use crate::key::SliceKey;

/// A non-empty range of keys, both ends included; printed half-open as `[low .. high)`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slice {
    first: SliceKey,
    last: SliceKey,
}

impl Slice {
    /// The whole key space.
    pub const ALL: Slice = Slice {
        first: SliceKey::MIN,
        last: SliceKey::MAX,
    };

    /// The range `first..=last`; `None` when `last < first`.
    pub fn new(first: SliceKey, last: SliceKey) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The lowest key.
    pub fn first(self) -> SliceKey {
        self.first
    }

    /// The highest key.
    pub fn last(self) -> SliceKey {
        self.last
    }

    /// Whether `key` lies in the slice.
    pub fn contains(self, key: SliceKey) -> bool {
        self.first <= key && key <= self.last
    }

    /// Whether the two share a key.
    pub fn overlaps(self, other: Slice) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether every key of `other` lies in this slice.
    pub fn covers(self, other: Slice) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Whether `other` begins just behind this slice.
    pub fn touches(self, other: Slice) -> bool {
        self.last.next() == Some(other.first)
    }

    /// The keys that both have.
    pub fn intersection(self, other: Slice) -> Option<Slice> {
        Slice::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// Cuts the slice in front of `at`; `None` unless both halves keep a key.
    pub fn split(self, at: SliceKey) -> Option<(Slice, Slice)> {
        let before = at.previous()?;
        Some((Slice::new(self.first, before)?, Slice::new(at, self.last)?))
    }

    /// What is left of it without the keys of `other`: at most two pieces, in order.
    pub fn without(self, other: Slice) -> impl Iterator<Item = Slice> {
        let below = other.first.previous();
        let below = below.and_then(|last| Slice::new(self.first, last.min(self.last)));
        let above = other.last.next();
        let above = above.and_then(|first| Slice::new(first.max(self.first), self.last));
        below.into_iter().chain(above)
    }

    /// The whole key space in `count` slices of nearly equal width.
    ///
    /// Requires `count > 0`.
    pub fn even(count: usize) -> Vec<Slice> {
        let count = count.max(1) as u128;
        let bound = |i: u128| (i * (1u128 << 64)) / count;
        (0..count)
            .filter_map(|i| {
                let (first, end) = (bound(i), bound(i + 1));
                (first < end).then(|| Slice {
                    first: SliceKey::from_u64(first as u64),
                    last: SliceKey::from_u64((end - 1) as u64),
                })
            })
            .collect()
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.last.next() {
            Some(end) => write!(f, "[{} .. {})", self.first, end),
            None => write!(f, "[{} .. end)", self.first),
        }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_slices_cover_the_key_space() {
        for count in [1, 2, 3, 7, 128, 1000] {
            let slices = Slice::even(count);
            assert_eq!(slices.len(), count);
            assert_eq!(slices[0].first(), SliceKey::MIN);
            assert_eq!(slices[count - 1].last(), SliceKey::MAX);
            assert!(slices.windows(2).all(|pair| pair[0].touches(pair[1])));
        }
    }

    #[test]
    fn what_is_left_without_another_slice_is_what_it_does_not_share() {
        let slice = |first, last| Slice::new(SliceKey::from_u64(first), SliceKey::from_u64(last));
        let of = slice(10, 20).unwrap();
        let left = |first, last| of.without(slice(first, last).unwrap()).collect::<Vec<_>>();
        let some = |first, last| slice(first, last).unwrap();
        assert_eq!(left(12, 15), [some(10, 11), some(16, 20)]);
        assert_eq!(left(0, 10), [some(11, 20)]);
        assert_eq!(left(20, u64::MAX), [some(10, 19)]);
        assert_eq!(left(0, u64::MAX), []);
        assert_eq!((left(0, 9), left(21, 30)), (vec![of], vec![of]));
    }

    #[test]
    fn a_split_keeps_a_key_on_both_sides() {
        let key = SliceKey::from_u64;
        let slice = Slice::new(key(10), key(20)).unwrap();
        let (left, right) = slice.split(key(15)).unwrap();
        assert_eq!((left.last(), right.first()), (key(14), key(15)));
        assert!(slice.split(key(10)).is_none() && slice.split(key(21)).is_none());
        assert_eq!(Slice::ALL.to_string(), "[0x0000000000000000 .. end)");
    }
}
