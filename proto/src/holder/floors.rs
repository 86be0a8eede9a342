//! What was surrendered, per key range: an epoch at or below its floor is never held again.

use crate::canonical::{Canonical, Visitor};
use crate::id::Epoch;
use crate::slice::Slice;

/// Floors by key range; ranges do not overlap.
///
/// Per range, not per session: after a split the other half still has the same epoch and stays
/// owned.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Floors {
    ranges: Vec<(Slice, Epoch)>,
}

impl Floors {
    /// Raises the floor of every key of `slice` to at least `epoch`.
    pub fn raise(&mut self, slice: Slice, epoch: Epoch) {
        let mut ranges = Vec::with_capacity(self.ranges.len() + 2);
        let mut added = vec![(slice, epoch)];
        for (range, floor) in self.ranges.drain(..) {
            if !range.overlaps(slice) {
                ranges.push((range, floor));
                continue;
            }
            // What sticks out keeps its floor; what both cover keeps the higher.
            if let Some((below, _)) = range.split(slice.first()) {
                ranges.push((below, floor));
            }
            if let Some((_, above)) = slice.last().next().and_then(|next| range.split(next)) {
                ranges.push((above, floor));
            }
            if floor > epoch
                && let Some(both) = range.intersection(slice)
            {
                added = added
                    .into_iter()
                    .flat_map(|(piece, epoch)| piece.without(both).map(move |cut| (cut, epoch)))
                    .collect();
                ranges.push((both, floor));
            }
        }
        ranges.extend(added);
        ranges.sort_unstable_by_key(|(range, _)| range.first());
        self.ranges = ranges;
    }

    /// Whether some key of `slice` has a floor at or above `epoch`.
    pub fn forbid(&self, slice: Slice, epoch: Epoch) -> bool {
        let start = self
            .ranges
            .partition_point(|(range, _)| range.last() < slice.first());
        self.ranges[start..]
            .iter()
            .take_while(|(range, _)| range.first() <= slice.last())
            .any(|(_, floor)| epoch <= *floor)
    }

    /// Keeps only the ranges for which `needed` says so.
    pub fn retain(&mut self, needed: impl Fn(Slice, Epoch) -> bool) {
        self.ranges.retain(|(range, floor)| needed(*range, *floor));
    }

    pub(super) fn visit<V: Visitor>(&self, visitor: &mut V) {
        visitor.plain(self.ranges.len() as u64);
        for (range, floor) in &self.ranges {
            range.visit(visitor);
            floor.visit(visitor);
        }
    }

    /// How many ranges have a floor.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether nothing was surrendered that still matters.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Generation, Incarnation};
    use crate::key::SliceKey;

    fn slice(first: u64, last: u64) -> Slice {
        Slice::new(SliceKey::from_u64(first), SliceKey::from_u64(last)).unwrap()
    }

    fn epoch(n: u64) -> Epoch {
        Epoch::mint(Generation::mint(Incarnation::FIRST, n).unwrap())
    }

    #[test]
    fn floors_are_per_key_and_only_rise() {
        let mut floors = Floors::default();
        floors.raise(slice(10, 19), epoch(5));
        floors.raise(slice(15, 29), epoch(3));
        assert!(floors.forbid(slice(15, 15), epoch(5)) && !floors.forbid(slice(15, 15), epoch(6)));
        assert!(floors.forbid(slice(20, 29), epoch(3)) && !floors.forbid(slice(20, 29), epoch(4)));
        floors.raise(slice(0, 99), epoch(4));
        assert!(floors.forbid(slice(12, 12), epoch(5)) && floors.forbid(slice(90, 99), epoch(4)));
        assert!(
            !floors.forbid(slice(90, 99), epoch(5)) && !floors.forbid(slice(100, 100), epoch(1))
        );
        let disjoint = floors
            .ranges
            .windows(2)
            .all(|pair| pair[0].0.last() < pair[1].0.first());
        assert!(disjoint, "{floors:?}");
    }
}
