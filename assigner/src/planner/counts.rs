//! How many slices each eligible session has, or will have when what is under way has ended.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_proto::SessionId;

use super::Snapshot;

/// Spreads a number by a seed; deterministic, of no other quality.
pub(super) fn mix(seed: u64, value: u64) -> u64 {
    let mut mixed = (seed ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 29;
    mixed = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 32)
}

/// The eligible sessions, by how few slices they have.
pub(super) struct Counts {
    of: BTreeMap<SessionId, usize>,
    order: BTreeSet<(usize, u64, SessionId)>,
    seed: u64,
}

impl Counts {
    pub(super) fn new(snapshot: &Snapshot<'_>, seed: u64, without: Option<SessionId>) -> Self {
        let eligible = snapshot
            .sessions
            .iter()
            .filter(|(id, health)| health.eligible() && Some(**id) != without);
        let mut of: BTreeMap<SessionId, usize> = eligible.map(|(id, _)| (*id, 0)).collect();
        for (_, assigned) in &snapshot.slices {
            let future = match (assigned.handoff, assigned.owner) {
                (Some(handoff), _) if !handoff.to_closed => Some(handoff.to),
                (_, owner) => owner.map(|lease| lease.session),
            };
            if let Some(count) = future.and_then(|session| of.get_mut(&session)) {
                *count += 1;
            }
        }
        let order = of
            .iter()
            .map(|(id, count)| (*count, mix(seed, id.as_u64()), *id))
            .collect();
        Self { of, order, seed }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    fn set(&mut self, session: SessionId, change: impl Fn(usize) -> usize) {
        if let Some(count) = self.of.get_mut(&session) {
            let tie = mix(self.seed, session.as_u64());
            self.order.remove(&(*count, tie, session));
            *count = change(*count);
            self.order.insert((*count, tie, session));
        }
    }

    /// The session with the fewest slices gets one more.
    pub(super) fn give(&mut self) -> Option<SessionId> {
        let (_, _, session) = *self.order.first()?;
        self.set(session, |count| count + 1);
        Some(session)
    }

    pub(super) fn take_from(&mut self, session: SessionId) {
        self.set(session, |count| count.saturating_sub(1));
    }

    /// What each session has beyond an even share; those with most may keep the odd ones.
    pub(super) fn excess(&self) -> BTreeMap<SessionId, usize> {
        let (Some((least, ..)), Some((most, ..))) = (self.order.first(), self.order.last()) else {
            return BTreeMap::new();
        };
        if most - least <= 1 {
            return BTreeMap::new();
        }
        let total: usize = self.of.values().sum();
        let (share, odd) = (total / self.of.len(), total % self.of.len());
        let from_most = self.order.iter().rev().enumerate();
        from_most
            .filter_map(|(place, (count, _, session))| {
                let fair = if place < odd { share + 1 } else { share };
                (*count > fair).then(|| (*session, count - fair))
            })
            .collect()
    }
}
