//! When to plan: after whatever changed, one plan per target at a time, and not before the leader
//! knows enough.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use leasehold_proto::command::{Command, PlanStep, Reply};
use leasehold_proto::error::Rejection;
use leasehold_proto::table::{SessionRecord, TargetState};
use leasehold_proto::view::{Assigned, Lease};
use leasehold_proto::{ClockTime, Generation, Mode, SessionId, Slice, SliceKey, TargetName};
use leasehold_raft_store::ProposeError;

use super::streams::{IdMap, Streams};
use super::{Leader, Proposal};
use crate::loads::Loads;
use crate::planner::{self, Failures, Health, Load, Member, Restart, SliceUse, Snapshot, TakingIn};

/// Pause after a plan that could not be proposed.
const RETRY: Duration = Duration::from_millis(20);
/// Pause after a plan of which nothing was accepted although nothing had changed.
const REJECTED_PAUSE: Duration = Duration::from_millis(200);
/// Pause while nothing may be granted at all.
const RESTORE_PAUSE: Duration = Duration::from_millis(100);
/// A target is planned at most one part in so many of the time.
const SHARE_OF_TIME: u32 = 8;

/// What is known for planning in this term.
#[derive(Default)]
pub(super) struct Plans {
    /// The target of every session that is not closed.
    homes: IdMap<SessionId, TargetName>,
    /// Sessions that were not answered in this term yet.
    fresh: IdMap<SessionId, ()>,
    /// Those of them that the term began with and that are not suspected: wait for them a moment.
    unheard: BTreeSet<SessionId>,
    /// Until when to wait for them.
    hear_until: Option<Instant>,
    targets: BTreeMap<TargetName, TargetPlan>,
}

#[derive(Default)]
struct TargetPlan {
    dirty: bool,
    proposed: bool,
    /// Pacing, by the runtime's clock; leases are judged by another.
    not_before: Option<Instant>,
    /// Sessions whose lease ran out, and when.
    lapses: Vec<(ClockTime, SessionId)>,
    /// Vacant slices are not granted before.
    settle_until: Option<ClockTime>,
    /// A rolling restart of the pods.
    restart: Option<Restart>,
    /// Counts are not evened out before, for the restart.
    uneven_until: Option<ClockTime>,
    /// Handoffs that ended without effect.
    failures: Failures,
    /// Owners that still took in the state of their slices at the last plan.
    taking_in: TakingIn,
    /// When the first slice that rests after a handoff, or is being taken in, may be moved, as of
    /// the last plan.
    try_again_at: Option<ClockTime>,
}

impl Plans {
    pub(super) fn note_home(&mut self, session: SessionId, target: &TargetName) {
        if self.homes.insert(session, target.clone()).is_none() {
            self.fresh.insert(session, ());
        }
    }

    pub(super) fn home_of(&self, session: SessionId) -> Option<TargetName> {
        self.homes.get(&session).cloned()
    }

    pub(super) fn homes(&self) -> Vec<SessionId> {
        self.homes.keys().copied().collect()
    }

    /// The table is complete: plan from now on, but give the sessions that are there until
    /// `hear_until` to be heard.
    pub(super) fn begin(&mut self, hear_until: Instant) {
        self.unheard = self.fresh.keys().copied().collect();
        self.hear_until = Some(hear_until);
    }

    pub(super) fn touched(&mut self, targets: impl IntoIterator<Item = TargetName>) {
        for target in targets {
            self.targets.entry(target).or_default().dirty = true;
        }
    }

    /// On the path of every renewal.
    pub(super) fn answered(&mut self, session: SessionId) {
        if !self.fresh.is_empty() && self.fresh.remove(&session).is_some() {
            self.unheard.remove(&session);
            self.touched(self.home_of(session));
        }
    }

    pub(super) fn suspected(&mut self, session: SessionId) {
        self.unheard.remove(&session);
        self.touched(self.home_of(session));
    }

    pub(super) fn trusted(&mut self, session: SessionId) {
        self.touched(self.home_of(session));
    }

    /// The session has said more of what state it has taken in.
    pub(super) fn taken_in(&mut self, session: SessionId) {
        let home = self.homes.get(&session);
        if let Some(plan) = home.and_then(|home| self.targets.get_mut(home))
            && plan.taking_in.concerns(session)
        {
            plan.dirty = true;
        }
    }

    pub(super) fn session_closed(&mut self, session: SessionId) {
        self.fresh.remove(&session);
        self.unheard.remove(&session);
        let home = self.homes.remove(&session);
        self.touched(home);
    }

    pub(super) fn handoff_ended(
        &mut self,
        now: ClockTime,
        target: &TargetName,
        slice: Slice,
        to: SessionId,
        completed: bool,
    ) {
        let plan = self.targets.entry(target.clone()).or_default();
        plan.failures.ended(now, slice.first(), to, completed);
    }

    pub(super) fn target_gone(&mut self, target: &TargetName) {
        self.targets.remove(target);
    }

    fn waits_to_hear(&self, now: Instant) -> bool {
        !self.unheard.is_empty() && self.hear_until.is_some_and(|until| now < until)
    }

    fn postpone(&mut self, until: Instant) {
        for plan in self.targets.values_mut().filter(|plan| plan.dirty) {
            plan.not_before = Some(until);
        }
    }

    /// When a target is to be planned although nothing happens.
    pub(super) fn plan_at(&self) -> Option<Instant> {
        let waiting = self
            .targets
            .values()
            .filter(|plan| plan.dirty && !plan.proposed);
        waiting
            .filter_map(|plan| plan.not_before.max(self.hear_until))
            .min()
    }

    /// When the first target has settled, or its restart is taken to be over, or a slice whose
    /// handoff failed has rested, or one is not waited for any more.
    pub(super) fn settled_at(&self) -> Option<ClockTime> {
        self.targets
            .values()
            .flat_map(|plan| [plan.settle_until, plan.uneven_until, plan.try_again_at])
            .flatten()
            .min()
    }

    fn watch_restart(&mut self, target: &TargetState, now: ClockTime, pause: Duration) {
        let members: Vec<Member<'_>> = target
            .live_sessions()
            .map(|session| Member::of(target, session))
            .collect();
        let plan = self.targets.entry(target.name().clone()).or_default();
        plan.restart = Restart::look(plan.restart.take(), now, &members);
        plan.uneven_until = plan
            .restart
            .as_ref()
            .map(|restart| restart.leaves_uneven_until(pause))
            .filter(|until| *until > now);
    }

    fn watch_taking_in(&mut self, target: &TargetState, now: ClockTime, streams: &Streams) {
        let still = |(slice, assigned): (Slice, &Assigned)| {
            let owner = assigned.owner?;
            let session = target.session(owner.session);
            let draining = session.is_some_and(|session| session.draining);
            let taken_in = target.has_taken_in(slice.first(), streams.taken_in(owner));
            (!taken_in).then_some((owner, draining))
        };
        let plan = self.targets.entry(target.name().clone()).or_default();
        plan.taking_in = match target.mode() {
            Mode::Eventual => {
                TakingIn::look(&plan.taking_in, now, target.slices().filter_map(still))
            }
            Mode::Strong | Mode::Arming(_) => TakingIn::default(),
        };
    }
}

/// What was reported of the slices that are to go somewhere.
fn load_of_draining(target: &TargetState, loads: &Loads) -> Load {
    let draining = target.live_sessions().filter(|session| session.draining);
    let reported = draining.flat_map(|session| {
        let slices = target.owned_slices(session.id);
        slices.filter_map(|(slice, _)| {
            let found = loads.of_slice(session.id, slice)?;
            let used = SliceUse {
                load_per_s: found.load_per_s,
                state_bytes: found.state_bytes,
            };
            Some((slice.first(), used))
        })
    });
    Load {
        per_slice: reported.collect(),
    }
}

impl Leader {
    /// Plans every target of which something changed, unless its last plan is still on its way.
    pub(super) fn plan(&mut self) {
        self.end_settling();
        let now = Instant::now();
        if self.plans.waits_to_hear(now) {
            return;
        }
        if self.is_halted() || self.shared.replica.table().restore_wait().is_some() {
            return self.plans.postpone(now + RESTORE_PAUSE);
        }
        let due = |plan: &TargetPlan| {
            plan.dirty && !plan.proposed && plan.not_before.is_none_or(|at| at <= now)
        };
        let due: Vec<TargetName> = self
            .plans
            .targets
            .iter()
            .filter(|(_, plan)| due(plan))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.plan_target(name, now);
        }
        self.plans.hear_until = None;
    }

    fn plan_target(&mut self, name: TargetName, now: Instant) {
        // Read once, before: a wait that ends while it plans has ended for the next plan.
        let read = self.clock.now();
        let planned = {
            let table = self.shared.replica.table();
            let Some(target) = table.target(&name) else {
                // Gone, and marked by what ended with it.
                drop(table);
                return self.plans.target_gone(&name);
            };
            let config = &self.shared.config.planner;
            self.plans.watch_restart(target, read, config.restart_pause);
            self.plans.watch_taking_in(target, read, &self.streams);
            (!target.is_deleted()).then(|| {
                let load = load_of_draining(target, &self.shared.loads);
                let snapshot = self.snapshot(target);
                (
                    target.config_version(),
                    planner::plan(&snapshot, &load, config.seed),
                )
            })
        };
        let took = now.elapsed();
        let plan = self.plans.targets.entry(name.clone()).or_default();
        plan.dirty = false;
        let waits = [plan.failures.next_try(read), plan.taking_in.next_end(read)];
        plan.try_again_at = waits.into_iter().flatten().min();
        plan.not_before = Some(now + took * SHARE_OF_TIME);
        let Some((config_version, steps)) = planned else {
            return;
        };
        if steps.is_empty() {
            return;
        }
        plan.proposed = true;
        tracing::debug!(target_name = %name, steps = steps.len(), "planned");
        self.shared.metrics.plan_steps.inc_by(steps.len() as u64);
        let begun = steps
            .iter()
            .filter(|step| matches!(step, PlanStep::BeginHandoff { .. }))
            .count();
        self.shared.metrics.handoffs_planned.inc_by(begun as u64);
        self.propose(
            Proposal::Plan(name.clone()),
            Command::ApplyPlan {
                target: name,
                config_version,
                steps,
            },
        );
    }

    fn snapshot<'a>(&self, target: &'a TargetState) -> Snapshot<'a> {
        let config = &self.shared.config.planner;
        let plan = self.plans.targets.get(target.name());
        let restart = plan.and_then(|plan| plan.restart.as_ref());
        let health = |session: &SessionRecord| Health {
            may_receive: self.grantor.may_receive(session.id),
            draining: session.draining,
            suspected: self.grantor.is_suspected(session.id),
            restarted: restart
                .is_some_and(|restart| restart.has_restarted(&Member::of(target, session))),
        };
        Snapshot {
            slices: target.slices().collect(),
            sessions: target
                .live_sessions()
                .map(|session| (session.id, health(session)))
                .collect(),
            taking_in: self.taking_in(target),
            failed: plan.map_or_else(BTreeMap::new, |plan| plan.failures.known(self.clock.now())),
            mode: target.mode(),
            max_open_handoffs: target.config().max_open_handoffs as usize,
            max_open_per_pod: config.max_open_per_pod,
            drain_order: config.drain_order,
            restarting: plan.is_some_and(|plan| plan.uneven_until.is_some()),
            held: target.config().hold.is_some(),
            settling: plan.is_some_and(|plan| plan.settle_until.is_some()),
            warm_successors: config.warm_successors,
        }
    }

    /// Eventual mode: slices whose owner still takes in what the one before it had. A move would
    /// leave that behind.
    fn taking_in(&self, target: &TargetState) -> BTreeSet<SliceKey> {
        if target.mode() != Mode::Eventual {
            return BTreeSet::new();
        }
        let still = |(slice, assigned): (Slice, &Assigned)| {
            let (first, owner) = (slice.first(), assigned.owner?);
            (!target.has_taken_in(first, self.taken_in(owner))).then_some(first)
        };
        target.slices().filter_map(still).collect()
    }

    /// Up to which view the owner has taken in the state of what it has by this lease or an older
    /// one, or is not waited for any more; `None` while it is.
    pub(super) fn taken_in(&self, owner: Lease) -> Option<Generation> {
        let home = self.plans.homes.get(&owner.session)?;
        let plan = self.plans.targets.get(home);
        if plan.is_none_or(|plan| plan.taking_in.waits_for(self.clock.now(), owner)) {
            self.streams.taken_in(owner)
        } else {
            self.streams.known(owner.session)
        }
    }

    /// Steps that lost their compare-and-set need nothing: what beat them has marked the target.
    pub(super) fn plan_proposed(
        &mut self,
        name: &TargetName,
        result: &Result<Reply, ProposeError>,
    ) {
        let now = Instant::now();
        // Gone meanwhile: nothing is remembered of it.
        let Some(plan) = self.plans.targets.get_mut(name) else {
            return;
        };
        plan.proposed = false;
        match result {
            Ok(Reply::Plan(results)) => {
                let rejected = results.iter().filter(|result| result.is_err()).count();
                self.shared
                    .metrics
                    .plan_steps_rejected
                    .inc_by(rejected as u64);
                if rejected > 0 {
                    plan.dirty = true;
                }
                if rejected == results.len() {
                    plan.not_before = Some(now + REJECTED_PAUSE);
                }
            }
            Ok(Reply::Rejected(Rejection::UnknownTarget(_) | Rejection::TargetLeaving(..))) => {}
            Ok(_) | Err(_) => {
                plan.dirty = true;
                plan.not_before = Some(now + RETRY);
            }
        }
    }

    /// Who gets what an expiring session holds.
    pub(super) fn successors_of(
        &self,
        name: &TargetName,
        session: SessionId,
    ) -> Vec<(SliceKey, SessionId)> {
        let table = self.shared.replica.table();
        let Some(target) = table.target(name).filter(|target| !target.is_deleted()) else {
            return Vec::new();
        };
        planner::successors(
            &self.snapshot(target),
            session,
            self.shared.config.planner.seed,
        )
    }

    /// ◆ When at least half of a target's sessions, and at least two, lapse together, the fault is
    /// likelier the network's or this side's: what falls vacant waits instead of going to the
    /// first pod that returns.
    pub(super) fn note_lapse(&mut self, name: &TargetName, session: SessionId) {
        let now = self.clock.now();
        let table = self.shared.replica.table();
        let Some(target) = table.target(name) else {
            return;
        };
        let window = self
            .shared
            .config
            .planner
            .settle_window
            .unwrap_or(target.config().ttl);
        let live: BTreeSet<SessionId> = target.live_sessions().map(|session| session.id).collect();
        let plan = self.plans.targets.entry(name.clone()).or_default();
        plan.lapses.retain(|(at, _)| *at + window > now);
        plan.lapses.push((now, session));
        let gone = plan
            .lapses
            .iter()
            .filter(|(_, session)| !live.contains(session))
            .count();
        let silent = live
            .iter()
            .filter(|id| self.grantor.is_suspected(**id))
            .count();
        let lapsed = gone + silent;
        if lapsed >= 2 && lapsed * 2 >= gone + live.len() && !window.is_zero() {
            tracing::warn!(target_name = %name, lapsed, "many sessions have lapsed together; waiting before granting");
            plan.settle_until = Some(now + window);
        }
    }

    fn end_settling(&mut self) {
        let now = self.clock.now();
        for plan in self.plans.targets.values_mut() {
            if plan.settle_until.is_some_and(|until| until <= now) {
                plan.settle_until = None;
                plan.dirty = true;
            }
            if plan.uneven_until.is_some_and(|until| until <= now) {
                plan.uneven_until = None;
                plan.dirty = true;
            }
            if plan.try_again_at.is_some_and(|at| at <= now) {
                plan.try_again_at = None;
                plan.dirty = true;
            }
        }
    }
}
