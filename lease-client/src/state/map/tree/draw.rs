//! Leaves by chance, in bounded time: samples are drawn while nobody serves the slice.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use leasehold_proto::{Slice, SliceKey};

use super::super::value::StateValue;
use super::{Entry, Leaf, Position, Tree};

impl<V: StateValue> Tree<V> {
    /// The slice keys of about the first and the last key in the slice, without a look at what is
    /// between them.
    pub(in super::super) fn span(&self, slice: Slice) -> Option<(SliceKey, SliceKey)> {
        // A leaf at an end of the slice may have keys of its neighbour alone.
        const LOOKS: usize = 2;
        let (from, last) = (Position::before(slice.first()), slice.last());
        let (first_leaves, last_leaves): (Vec<_>, Vec<_>) = {
            let directory = self.directory();
            let to = last.next().map(Position::before);
            let to = to.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let downwards = directory.leaves.range((Bound::Unbounded, to)).rev();
            let downwards = downwards
                .map(|(_, leaf)| leaf)
                .filter(|leaf| !leaf.is_empty());
            (
                filled(&directory.leaves, &from, last)
                    .take(LOOKS)
                    .map(Arc::clone)
                    .collect(),
                downwards.take(LOOKS).map(Arc::clone).collect(),
            )
        };
        let at = |entry: &Entry<V>| entry.at;
        let first = first_leaves
            .iter()
            .find_map(|leaf| leaf.lock().of(slice).first().map(at))?;
        let last = last_leaves
            .iter()
            .find_map(|leaf| leaf.lock().of(slice).last().map(at));
        Some((first, last.unwrap_or(first).max(first)))
    }

    /// A leaf that has keys, by `draw` one of the next few from `at` on, but not behind `last`: so
    /// that many keys at one slice key are not stood for by the first of them.
    pub(in super::super) fn near(
        &self,
        at: SliceKey,
        last: SliceKey,
        draw: usize,
    ) -> Option<Arc<Leaf<V>>> {
        const FEW: usize = 16;
        let from = Position::before(at);
        let directory = self.directory();
        let leaves: Vec<_> = filled(&directory.leaves, &from, last).take(FEW).collect();
        leaves
            .get(draw % leaves.len().max(1))
            .copied()
            .map(Arc::clone)
    }
}

/// The leaf that covers `from`, and those behind it up to `last`, as far as they have keys. Those
/// that have none are few: but for the first leaves they have joined their neighbours.
fn filled<'d, V: StateValue>(
    leaves: &'d BTreeMap<Position<'static>, Arc<Leaf<V>>>,
    from: &Position<'static>,
    last: SliceKey,
) -> impl Iterator<Item = &'d Arc<Leaf<V>>> {
    let covering = leaves.range(..=from).next_back();
    let behind = leaves.range((Bound::Excluded(from), Bound::Unbounded));
    let leaves = covering.into_iter().chain(behind).map(|(_, leaf)| leaf);
    let leaves = leaves.take_while(move |leaf| leaf.first.at <= last);
    leaves.filter(|leaf| !leaf.is_empty())
}
