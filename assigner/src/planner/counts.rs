//! How many slices each eligible session has, or will have when what is under way has ended; and
//! who is to have the next.

use std::collections::{BTreeMap, BTreeSet};

use leasehold_proto::SessionId;
use leasehold_proto::target::Mode;

use super::Snapshot;

/// Spreads a number by a seed; deterministic, of no other quality.
pub(super) fn mix(seed: u64, value: u64) -> u64 {
    let mut mixed = (seed ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^= mixed >> 29;
    mixed = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 32)
}

/// Sessions by how few slices they have; among equals by chance.
type Order = BTreeSet<(usize, u64, SessionId)>;

/// The eligible sessions, by how few slices they have.
pub(super) struct Counts {
    of: BTreeMap<SessionId, usize>,
    order: Order,
    /// Those of pods that have restarted, in a rolling restart.
    restarted: Order,
    /// Up to how many slices those are preferred.
    share: usize,
    /// Open handoffs from or to each session, eligible or not.
    open: BTreeMap<SessionId, usize>,
    max_open: usize,
    seed: u64,
}

impl Counts {
    pub(super) fn new(snapshot: &Snapshot<'_>, seed: u64, without: Option<SessionId>) -> Self {
        let eligible = snapshot
            .sessions
            .iter()
            .filter(|(id, health)| health.eligible() && Some(**id) != without);
        let mut of: BTreeMap<SessionId, usize> = eligible.map(|(id, _)| (*id, 0)).collect();
        let mut open: BTreeMap<SessionId, usize> = BTreeMap::new();
        for (_, assigned) in &snapshot.slices {
            let future = match (assigned.handoff, assigned.owner) {
                (Some(handoff), _) if !handoff.to_closed => Some(handoff.to),
                (_, owner) => owner.map(|lease| lease.session),
            };
            if let Some(count) = future.and_then(|session| of.get_mut(&session)) {
                *count += 1;
            }
            if let (Some(handoff), Some(owner)) = (assigned.handoff, assigned.owner) {
                *open.entry(owner.session).or_default() += 1;
                *open.entry(handoff.to).or_default() += 1;
            }
        }
        let order: Order = of
            .iter()
            .map(|(id, count)| (*count, mix(seed, id.as_u64()), *id))
            .collect();
        let has_restarted = |id: &SessionId| snapshot.sessions.get(id).is_some_and(|h| h.restarted);
        let restarted = order
            .iter()
            .filter(|(_, _, id)| has_restarted(id))
            .copied()
            .collect();
        Self {
            share: snapshot.slices.len().div_ceil(of.len().max(1)),
            of,
            order,
            restarted,
            open,
            max_open: match snapshot.mode {
                Mode::Eventual => usize::MAX,
                Mode::Strong | Mode::Arming(_) => snapshot.max_open_per_pod,
            },
            seed,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    fn set(&mut self, session: SessionId, change: impl Fn(usize) -> usize) {
        if let Some(count) = self.of.get_mut(&session) {
            let tie = mix(self.seed, session.as_u64());
            let old = (*count, tie, session);
            *count = change(*count);
            let new = (*count, tie, session);
            self.order.remove(&old);
            self.order.insert(new);
            if self.restarted.remove(&old) {
                self.restarted.insert(new);
            }
        }
    }

    /// The first that suits, of the restarted ones below their share, then of all, each with those
    /// first that have the fewest slices.
    fn first(&self, suits: impl Fn(usize, SessionId) -> bool) -> Option<SessionId> {
        let restarted = self.restarted.iter().take_while(|(n, ..)| *n < self.share);
        restarted
            .chain(&self.order)
            .find(|(count, _, session)| suits(*count, *session))
            .map(|(_, _, session)| *session)
    }

    /// Who gets one slice more, without a handoff.
    pub(super) fn give(&mut self) -> Option<SessionId> {
        let session = self.first(|_, _| true)?;
        self.set(session, |count| count + 1);
        Some(session)
    }

    /// Who gets a slice of `from` by a handoff, none of `avoided`; none while `from`, or everybody
    /// else, has as many open as may be.
    pub(super) fn hand_over(
        &mut self,
        from: SessionId,
        avoided: &BTreeSet<SessionId>,
    ) -> Option<SessionId> {
        self.hand_over_to(from, |_, session| !avoided.contains(&session))
    }

    /// As [`Self::hand_over`], but to nobody who would then have more than an even share.
    pub(super) fn even_out(
        &mut self,
        from: SessionId,
        avoided: &BTreeSet<SessionId>,
    ) -> Option<SessionId> {
        let (least, ..) = *self.order.first()?;
        let share = self.of.values().sum::<usize>() / self.of.len();
        let to = self.hand_over_to(from, |count, session| {
            (count < share || count == least) && !avoided.contains(&session)
        })?;
        self.set(from, |count| count.saturating_sub(1));
        Some(to)
    }

    fn hand_over_to(
        &mut self,
        from: SessionId,
        suits: impl Fn(usize, SessionId) -> bool,
    ) -> Option<SessionId> {
        if !self.may_open(from) {
            return None;
        }
        let to = self.first(|count, session| suits(count, session) && self.may_open(session))?;
        self.set(to, |count| count + 1);
        for session in [from, to] {
            *self.open.entry(session).or_default() += 1;
        }
        Some(to)
    }

    fn may_open(&self, session: SessionId) -> bool {
        self.open.get(&session).is_none_or(|n| *n < self.max_open)
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
