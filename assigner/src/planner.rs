//! Placement: what should move, as a pure function of what is.
//!
//! The same input gives the same plan on every machine. A plan is proposed, never computed inside
//! the table, and each of its steps is compare-and-set on the slice that it touches, so that a plan
//! made from an old snapshot does no harm. In order of urgency: vacant slices are granted, draining
//! sessions are emptied, successors of suspected sessions are warmed up, counts are evened out.

mod counts;
mod failures;
mod restart;
mod taking_in;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use leasehold_proto::command::PlanStep;
use leasehold_proto::target::Mode;
use leasehold_proto::view::{Assigned, Lease};
use leasehold_proto::{SessionId, Slice, SliceKey, limits};

use counts::Counts;
pub use failures::{Failed, Failures};
pub use restart::{Member, Restart};
pub use taking_in::TakingIn;

/// A target as the planner sees it.
#[derive(Clone, Debug)]
pub struct Snapshot<'a> {
    /// Every slice, in order.
    pub slices: Vec<(Slice, &'a Assigned)>,
    /// Every live session.
    pub sessions: BTreeMap<SessionId, Health>,
    /// Slices whose owner still takes in the state that they came with: they are not moved.
    pub taking_in: BTreeSet<SliceKey>,
    /// Slices whose last handoff ended without effect.
    pub failed: BTreeMap<SliceKey, Failed>,
    /// What the target promises.
    pub mode: Mode,
    /// Most handoffs to keep open at once.
    pub max_open_handoffs: usize,
    /// Most of them from or to one session, so that the speed of a transfer is not split too thin.
    pub max_open_per_pod: usize,
    /// Which slices of a draining session go first.
    pub drain_order: DrainOrder,
    /// A rolling restart goes on: counts are not evened out.
    pub restarting: bool,
    /// An operator holds the target: vacant slices are granted and draining sessions emptied, since
    /// what they hold in memory would go with them; nothing else moves.
    pub held: bool,
    /// Many sessions have lapsed together: vacant slices are not granted yet.
    pub settling: bool,
    /// Begin handoffs away from suspected sessions.
    pub warm_successors: bool,
}

/// What is known of a live session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Health {
    /// It was answered in this term and is not suspected.
    pub may_receive: bool,
    /// It is about to leave.
    pub draining: bool,
    /// Its renewals are missing.
    pub suspected: bool,
    /// Its pod has restarted, in a rolling restart that goes on: what it gets stays.
    pub restarted: bool,
}

impl Health {
    fn eligible(self) -> bool {
        self.may_receive && !self.draining && !self.suspected
    }
}

/// Which slices of a draining session go first. A pod may be stopped before all have gone: those
/// that go first lose nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DrainOrder {
    /// Those with the most load.
    #[default]
    Hottest,
    /// Those with the most state.
    Largest,
    /// By their keys.
    Key,
}

/// What owners last reported of their slices, by the slice's first key. What is not reported
/// counts as nothing; only slices of draining sessions are looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Use and state of each slice.
    pub per_slice: BTreeMap<SliceKey, SliceUse>,
}

/// What its owner last reported of a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SliceUse {
    /// In the application's unit, per second.
    pub load_per_s: f64,
    /// State held; 0 when not known.
    pub state_bytes: u64,
}

impl Load {
    /// What goes first has the smallest.
    fn rank(&self, order: DrainOrder, slice: Slice) -> Reverse<u64> {
        let used = self.per_slice.get(&slice.first());
        let used = used.copied().unwrap_or_default();
        Reverse(match order {
            // Positive numbers are in the order of their bits.
            DrainOrder::Hottest if used.load_per_s > 0.0 => used.load_per_s.to_bits(),
            DrainOrder::Hottest => 0,
            DrainOrder::Largest => used.state_bytes,
            DrainOrder::Key => 0,
        })
    }
}

/// What should change now; empty when nothing should. At most [`limits::PLAN_STEPS`] steps.
pub fn plan(snapshot: &Snapshot<'_>, load: &Load, seed: u64) -> Vec<PlanStep> {
    let mut planner = Planner::new(snapshot, seed);
    if planner.counts.is_empty() {
        return Vec::new();
    }
    if !snapshot.settling {
        planner.grant_vacant();
    }
    planner.empty_draining(load);
    if !snapshot.held {
        planner.warm_successors();
        if !snapshot.restarting {
            planner.even_out();
        }
    }
    planner.steps
}

/// Who should get what `leaving` owns when it expires: spread over the eligible sessions, those
/// with the fewest slices first; in a rolling restart, those of restarted pods. Slices whose handoff
/// will give them to somebody are left out.
pub fn successors(
    snapshot: &Snapshot<'_>,
    leaving: SessionId,
    seed: u64,
) -> Vec<(SliceKey, SessionId)> {
    let mut counts = Counts::new(snapshot, seed, Some(leaving));
    if snapshot.settling || counts.is_empty() {
        return Vec::new();
    }
    let owned = |assigned: &Assigned| assigned.owner.is_some_and(|owner| owner.session == leaving);
    let inherited =
        |assigned: &Assigned| assigned.handoff.is_some_and(|handoff| !handoff.to_closed);
    let orphans = snapshot
        .slices
        .iter()
        .filter(|(_, assigned)| owned(assigned) && !inherited(assigned));
    orphans
        .filter_map(|(slice, _)| Some((slice.first(), counts.give()?)))
        .take(limits::SUCCESSORS / 2)
        .collect()
}

struct Planner<'a> {
    snapshot: &'a Snapshot<'a>,
    seed: u64,
    counts: Counts,
    /// Handoffs that may still be begun.
    budget: usize,
    /// Slices that this plan has moved already.
    moved: BTreeSet<SliceKey>,
    steps: Vec<PlanStep>,
}

impl<'a> Planner<'a> {
    fn new(snapshot: &'a Snapshot<'a>, seed: u64) -> Self {
        let open = snapshot
            .slices
            .iter()
            .filter(|(_, assigned)| assigned.handoff.is_some())
            .count();
        Self {
            snapshot,
            seed,
            counts: Counts::new(snapshot, seed, None),
            budget: snapshot.max_open_handoffs.saturating_sub(open),
            moved: BTreeSet::new(),
            steps: Vec::new(),
        }
    }

    fn full(&self) -> bool {
        self.steps.len() >= limits::PLAN_STEPS
    }

    fn grant_vacant(&mut self) {
        let vacant = |assigned: &Assigned| assigned.owner.is_none() && assigned.handoff.is_none();
        for (slice, _) in self
            .snapshot
            .slices
            .iter()
            .filter(|(_, assigned)| vacant(assigned))
        {
            if self.full() {
                return;
            }
            if let Some(to) = self.counts.give() {
                self.steps.push(PlanStep::Grant { slice: *slice, to });
            }
        }
    }

    /// Slices of a session that can be moved, with its lease.
    fn movable(&self, of: impl Fn(SessionId) -> bool) -> Vec<(Slice, Lease)> {
        let movable = |(slice, assigned): &(Slice, &Assigned)| {
            let owner = assigned
                .owner
                .filter(|owner| assigned.handoff.is_none() && of(owner.session))?;
            let first = slice.first();
            let is_live = |session: &SessionId| self.snapshot.sessions.contains_key(session);
            let rests = |failed: &Failed| failed.rests && failed.to.iter().any(is_live);
            let stays = self.moved.contains(&first)
                || self.snapshot.taking_in.contains(&first)
                || !self.health(owner.session).draining
                    && self.snapshot.failed.get(&first).is_some_and(rests);
            (!stays).then_some((*slice, owner))
        };
        self.snapshot.slices.iter().filter_map(movable).collect()
    }

    fn relocate(&mut self, slice: Slice, from: Lease, to: SessionId) {
        self.moved.insert(slice.first());
        self.budget -= 1;
        self.steps.push(match self.snapshot.mode {
            Mode::Eventual => PlanStep::Reassign {
                slice,
                from: Some(from),
                to,
            },
            Mode::Strong | Mode::Arming(_) => PlanStep::BeginHandoff { slice, from, to },
        });
    }

    /// Who gets the slice of `from`: where its handoffs failed another, if there is one.
    fn hand_over(&mut self, slice: Slice, from: SessionId) -> Option<SessionId> {
        let nobody = BTreeSet::new();
        let Some(failed) = self.snapshot.failed.get(&slice.first()) else {
            return self.counts.hand_over(from, &nobody);
        };
        let to = self.counts.hand_over(from, &failed.to);
        if to.is_some() || failed.rests_in_drain {
            return to;
        }
        self.counts.hand_over(from, &nobody)
    }

    fn health(&self, session: SessionId) -> Health {
        self.snapshot
            .sessions
            .get(&session)
            .copied()
            .unwrap_or_default()
    }

    fn empty_draining(&mut self, load: &Load) {
        let mut leaving = self.movable(|session| self.health(session).draining);
        leaving.sort_by_key(|(slice, _)| load.rank(self.snapshot.drain_order, *slice));
        for (slice, from) in leaving {
            if self.budget == 0 || self.full() {
                return;
            }
            if let Some(to) = self.hand_over(slice, from.session) {
                self.relocate(slice, from, to);
            }
        }
    }

    /// At most half of what may be open, so that a false alarm leaves room for what was planned;
    /// and not when so many are suspected that the fault is likelier on this side.
    fn warm_successors(&mut self) {
        let suspected = self
            .snapshot
            .sessions
            .values()
            .filter(|health| health.suspected)
            .count();
        let many = suspected * 2 >= self.snapshot.sessions.len();
        if !self.snapshot.warm_successors || many || self.snapshot.mode == Mode::Eventual {
            return;
        }
        let reserve = self.snapshot.max_open_handoffs / 2;
        for (slice, from) in self.movable(|session| self.health(session).suspected) {
            if self.budget <= reserve || self.full() {
                return;
            }
            if let Some(to) = self.hand_over(slice, from.session) {
                self.relocate(slice, from, to);
            }
        }
    }

    /// Moves exactly the excess over an even share, from those who have most to those who have
    /// least; nothing when no two counts differ by more than one. Nothing goes where a handoff has
    /// just failed: a pod that cannot take state in would otherwise be tried with slice after slice.
    fn even_out(&mut self) {
        let excess = self.counts.excess();
        if excess.is_empty() {
            return;
        }
        let mut of_donors: BTreeMap<SessionId, Vec<(Slice, Lease)>> = BTreeMap::new();
        for (slice, from) in self.movable(|session| excess.contains_key(&session)) {
            of_donors
                .entry(from.session)
                .or_default()
                .push((slice, from));
        }
        let resting = self.snapshot.failed.values().filter(|failed| failed.rests);
        let avoided = resting.flat_map(|failed| &failed.to).copied().collect();
        for (donor, count) in excess {
            let mut slices = of_donors.remove(&donor).unwrap_or_default();
            slices.sort_by_key(|(slice, _)| counts::mix(self.seed, slice.first().as_u64()));
            for (slice, from) in slices.into_iter().take(count) {
                if self.budget == 0 || self.full() {
                    return;
                }
                let Some(to) = self.counts.even_out(donor, &avoided) else {
                    break;
                };
                self.relocate(slice, from, to);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
