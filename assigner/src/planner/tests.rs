//! The planner against the table: what it plans is valid, converges, and moves no more than it must.

use leasehold_proto::LogId;
use leasehold_proto::clock::ClockClass;
use leasehold_proto::command::{Command, EndWord, Reply};
use leasehold_proto::table::{LeaseTable, TargetState};
use leasehold_proto::target::{
    Consistency, PodAddress, SessionSecret, Squid, TargetConfig, TargetName,
};
use leasehold_proto::view::Handoff;
use proptest::prelude::*;

use super::*;

mod rolling;

/// A table with one target, driven by commands.
#[derive(Clone, Debug)]
struct World {
    table: LeaseTable,
    index: u64,
    sessions: Vec<SessionId>,
    suspected: BTreeSet<SessionId>,
    settling: bool,
    held: bool,
    max_open_per_pod: usize,
    load: Load,
    drain_order: DrainOrder,
    restart: Option<Restart>,
    restarting: bool,
    taking_in: BTreeSet<SliceKey>,
    failed: BTreeMap<SliceKey, Failed>,
}

fn cart() -> TargetName {
    TargetName::new("cart").unwrap()
}

impl World {
    fn new(slices: u32, sessions: u16, consistency: Consistency) -> Self {
        let mut world = World {
            table: LeaseTable::new(),
            index: 0,
            sessions: Vec::new(),
            suspected: BTreeSet::new(),
            settling: false,
            held: false,
            max_open_per_pod: 8,
            load: Load::default(),
            drain_order: DrainOrder::default(),
            restart: None,
            restarting: false,
            taking_in: BTreeSet::new(),
            failed: BTreeMap::new(),
        };
        let config = TargetConfig {
            consistency,
            max_open_handoffs: 8,
            ..TargetConfig::default()
        };
        world.apply(Command::CreateTarget {
            target: cart(),
            config,
            initial_slices: slices,
        });
        for port in 1..=sessions {
            world.register(port, "1");
        }
        world
    }

    fn apply(&mut self, command: Command) -> Reply {
        self.index += 1;
        self.table
            .apply(
                LogId {
                    term: 1,
                    index: self.index,
                },
                command,
            )
            .reply
    }

    fn register(&mut self, port: u16, version: &str) -> SessionId {
        let squid = Squid {
            address: PodAddress::new(&format!("pod:{port}")).unwrap(),
            id: u128::from(port),
        };
        let secret = SessionSecret::from_bytes([1; 16]);
        let (clock, app_version) = (ClockClass::Raw, version.to_owned());
        match self.apply(Command::RegisterSession {
            target: cart(),
            squid,
            clock,
            secret,
            app_version,
        }) {
            Reply::Registered(registered) => {
                self.sessions.push(registered.session);
                registered.session
            }
            other => panic!("{other:?}"),
        }
    }

    fn state(&self) -> &TargetState {
        self.table.target(&cart()).unwrap()
    }

    fn snapshot(&self) -> Snapshot<'_> {
        let health = |member: Member<'_>| {
            let suspected = self.suspected.contains(&member.id);
            let restart = self.restart.as_ref();
            Health {
                may_receive: !suspected,
                draining: member.draining,
                suspected,
                restarted: restart.is_some_and(|restart| restart.has_restarted(&member)),
            }
        };
        Snapshot {
            slices: self.state().slices().collect(),
            sessions: self
                .members()
                .into_iter()
                .map(|member| (member.id, health(member)))
                .collect(),
            taking_in: self.taking_in.clone(),
            failed: self.failed.clone(),
            mode: self.state().mode(),
            max_open_handoffs: self.state().config().max_open_handoffs as usize,
            max_open_per_pod: self.max_open_per_pod,
            drain_order: self.drain_order,
            restarting: self.restarting,
            held: self.held,
            settling: self.settling,
            warm_successors: true,
        }
    }

    fn members(&self) -> Vec<Member<'_>> {
        let sessions = self.state().live_sessions();
        sessions
            .map(|session| Member::of(self.state(), session))
            .collect()
    }

    fn plan(&self, seed: u64) -> Vec<PlanStep> {
        plan(&self.snapshot(), &self.load, seed)
    }

    /// Applies steps of which every one must be accepted.
    fn carry_out(&mut self, steps: Vec<PlanStep>) {
        let config_version = self.state().config_version();
        match self.apply(Command::ApplyPlan {
            target: cart(),
            config_version,
            steps: steps.clone(),
        }) {
            Reply::Plan(results) => {
                for (result, step) in results.iter().zip(&steps) {
                    assert_eq!(*result, Ok(()), "{step:?}");
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn complete_handoffs(&mut self) {
        let open: Vec<_> = self
            .state()
            .handoffs()
            .map(|(_, _, handoff)| handoff)
            .collect();
        for handoff in open {
            self.complete(handoff);
        }
    }

    fn complete(&mut self, handoff: Handoff) {
        let word = EndWord::Accepted(handoff.to);
        self.apply(Command::CompleteHandoff {
            target: cart(),
            handoff: handoff.id,
            word,
            digest: None,
        });
    }

    /// Plans and carries out until nothing is planned any more; gives how often a slice moved.
    fn settle(&mut self, seed: u64) -> usize {
        let mut moves = 0;
        for _ in 0..10_000 {
            let steps = self.plan(seed);
            if steps.is_empty() {
                return moves;
            }
            moves += steps
                .iter()
                .filter(|step| !matches!(step, PlanStep::Grant { .. }))
                .count();
            self.carry_out(steps);
            let open = self.state().handoffs().count();
            assert!(open <= 8, "{open} handoffs are open");
            for session in &self.sessions {
                let of = |(_, from, to): &(Slice, Lease, Handoff)| {
                    from.session == *session || to.to == *session
                };
                let open = self.state().handoffs().filter(of).count();
                assert!(
                    open <= self.max_open_per_pod,
                    "{open} are open at {session}"
                );
            }
            self.complete_handoffs();
        }
        panic!("the plans do not end");
    }

    fn counts(&self) -> Vec<usize> {
        self.sessions
            .iter()
            .map(|session| self.state().owned_by(*session))
            .collect()
    }
}

/// A world in an arbitrary state: slices granted unevenly, some vacant, some handoffs open, some
/// sessions draining or suspected.
fn worlds() -> impl Strategy<Value = World> {
    let shape = (
        1u32..60,
        1u16..8,
        prop::collection::vec((any::<u8>(), any::<bool>()), 0..60),
    );
    let moods = (
        prop::collection::vec(0u8..6, 8),
        any::<bool>(),
        prop::collection::vec(any::<u8>(), 0..6),
    );
    (shape, moods).prop_map(
        |((slices, sessions, grants), (moods, eventual, handoffs))| {
            let consistency = if eventual {
                Consistency::Eventual
            } else {
                Consistency::Strong
            };
            let mut world = World::new(slices, sessions, consistency);
            let all: Vec<Slice> = world.state().slices().map(|(slice, _)| slice).collect();
            let pick = |n: u8, world: &World| world.sessions[n as usize % world.sessions.len()];
            for (slice, (to, give)) in all.iter().zip(grants) {
                if give {
                    world.carry_out(vec![PlanStep::Grant {
                        slice: *slice,
                        to: pick(to, &world),
                    }]);
                }
            }
            for to in handoffs {
                let slice = all[to as usize % all.len()];
                let (_, assigned) = world.state().slice_of(slice.first()).unwrap();
                let to = pick(to / 3, &world);
                if let (Some(from), None) = (
                    assigned.owner.filter(|owner| owner.session != to),
                    assigned.handoff,
                ) {
                    world.carry_out(vec![PlanStep::BeginHandoff { slice, from, to }]);
                }
            }
            for (session, mood) in world.sessions.clone().into_iter().zip(moods) {
                match mood {
                    0 => drop(world.apply(Command::DrainSession {
                        target: cart(),
                        session,
                    })),
                    1 => drop(world.suspected.insert(session)),
                    _ => {}
                }
            }
            world
        },
    )
}

proptest! {
    #[test]
    fn every_step_is_accepted_and_the_same_input_gives_the_same_plan(world in worlds(), seed: u64) {
        let steps = world.plan(seed);
        prop_assert_eq!(&steps, &world.plan(seed));
        if !steps.is_empty() {
            world.clone().carry_out(steps);
        }
    }

    #[test]
    fn plans_end_with_even_counts_and_empty_draining_sessions(world in worlds(), seed: u64, max_open_per_pod in 1usize..9) {
        let mut world = world;
        world.max_open_per_pod = max_open_per_pod;
        world.complete_handoffs();
        world.settle(seed);
        let snapshot = world.snapshot();
        let of = |wanted: fn(&Health) -> bool| -> Vec<usize> {
            let chosen = snapshot.sessions.iter().filter(|(_, health)| wanted(health));
            chosen.map(|(id, _)| world.state().owned_by(*id)).collect()
        };
        let eligible = of(|health| health.eligible());
        if let (Some(least), Some(most)) = (eligible.iter().min(), eligible.iter().max()) {
            prop_assert!(most - least <= 1, "{:?}", eligible);
            prop_assert!(of(|health| health.draining).iter().all(|count| *count == 0));
            prop_assert!(world.state().slices().all(|(_, assigned)| assigned.owner.is_some()));
        }
    }

    #[test]
    fn evening_out_moves_exactly_the_excess(slices in 1u32..60, sessions in 1u16..8, to in prop::collection::vec(any::<u8>(), 60), seed: u64, max_open_per_pod in 1usize..9) {
        let mut world = World::new(slices, sessions, Consistency::Strong);
        world.max_open_per_pod = max_open_per_pod;
        let all: Vec<Slice> = world.state().slices().map(|(slice, _)| slice).collect();
        for (slice, to) in all.into_iter().zip(to) {
            let to = world.sessions[to as usize % world.sessions.len()];
            world.carry_out(vec![PlanStep::Grant { slice, to }]);
        }
        let mut counts = world.counts();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let (share, odd) = (slices as usize / counts.len(), slices as usize % counts.len());
        let fair = |place: usize| if place < odd { share + 1 } else { share };
        let uneven = counts[0] - counts[counts.len() - 1] > 1;
        let excess: usize = counts.iter().enumerate().map(|(place, count)| count.saturating_sub(fair(place))).sum();
        prop_assert_eq!(world.settle(seed), if uneven { excess } else { 0 });
    }
}

#[test]
fn vacant_slices_are_spread_evenly() {
    let mut world = World::new(16, 5, Consistency::Strong);
    assert_eq!(world.settle(7), 0);
    assert_eq!(world.counts().iter().min(), Some(&3));
    assert_eq!(world.counts().iter().max(), Some(&4));
}

#[test]
fn nobody_eligible_means_nothing_is_planned() {
    let mut world = World::new(4, 2, Consistency::Strong);
    world.suspected = world.sessions.iter().copied().collect();
    assert_eq!(world.plan(0), vec![]);
    assert_eq!(World::new(4, 0, Consistency::Strong).plan(0), vec![]);
}

#[test]
fn a_held_target_grants_what_is_vacant_empties_who_leaves_and_moves_nothing_else() {
    let mut world = World::new(6, 1, Consistency::Strong);
    world.held = true;
    world.settle(0);
    assert_eq!(world.counts(), [6]);
    world.register(99, "1");
    assert_eq!(world.plan(0), vec![]);
    world.apply(Command::DrainSession {
        target: cart(),
        session: world.sessions[0],
    });
    assert_eq!(world.settle(0), 6);
    assert_eq!(world.counts(), [0, 6]);
    world.held = false;
    world.register(98, "1");
    assert_eq!(world.settle(0), 3);
}

/// A handoff to each of `to` has failed, and more than a second ago unless `just_now`.
fn failed(to: &[SessionId], rests: bool, just_now: bool) -> Failed {
    Failed {
        to: to.iter().copied().collect(),
        rests,
        rests_in_drain: just_now,
    }
}

/// Where the only step of the plan hands a slice over to; none when nothing is planned.
fn only_handoff(world: &World) -> Option<SessionId> {
    match world.plan(0)[..] {
        [] => None,
        [PlanStep::BeginHandoff { to, .. }] => Some(to),
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn a_slice_of_a_suspected_pod_whose_handoff_failed_rests_and_then_goes_to_another() {
    let mut world = World::new(1, 3, Consistency::Strong);
    world.settle(0);
    let first = SliceKey::MIN;
    let owner = world.state().slices().next().unwrap().1.owner.unwrap();
    world.suspected.insert(owner.session);
    let to = only_handoff(&world).unwrap();
    for just_now in [true, false] {
        world.failed.insert(first, failed(&[to], true, just_now));
        assert_eq!(only_handoff(&world), None);
    }
    world.failed.insert(first, failed(&[to], false, false));
    let next = only_handoff(&world).unwrap();
    assert_ne!(next, to);
    world
        .failed
        .insert(first, failed(&[to, next], false, false));
    assert_eq!(only_handoff(&world), Some(to), "all have failed");
}

#[test]
fn nothing_is_evened_out_to_where_a_handoff_has_just_failed() {
    let mut world = World::new(9, 2, Consistency::Strong);
    world.settle(0);
    let failing = world.register(98, "1");
    let first = SliceKey::MIN;
    world.failed.insert(first, failed(&[failing], true, false));
    assert_eq!(world.plan(0), [], "nobody else has less than his share");
    let other = world.register(99, "1");
    world.settle(0);
    assert_eq!(world.state().owned_by(failing), 0);
    assert_eq!(world.state().owned_by(other), 2, "an even share of nine");
    world.failed.insert(first, failed(&[failing], false, false));
    world.settle(0);
    assert_eq!(world.state().owned_by(failing), 2);
}

#[test]
fn a_slice_of_a_draining_pod_goes_at_once_to_where_its_handoff_has_not_failed() {
    let mut world = World::new(1, 3, Consistency::Strong);
    world.settle(0);
    let first = SliceKey::MIN;
    let owner = world.state().slices().next().unwrap().1.owner.unwrap();
    world.apply(Command::DrainSession {
        target: cart(),
        session: owner.session,
    });
    let to = only_handoff(&world).unwrap();
    world.failed.insert(first, failed(&[to], true, true));
    let next = only_handoff(&world).unwrap();
    assert_ne!(next, to);
    // Nobody is left where it has not failed: a second, however long it would rest otherwise.
    world.failed.insert(first, failed(&[to, next], true, true));
    assert_eq!(only_handoff(&world), None);
    world.failed.insert(first, failed(&[to, next], true, false));
    assert_eq!(only_handoff(&world), Some(to));
    // Nor does one count that may not receive.
    world.suspected.insert(next);
    world.failed.insert(first, failed(&[to], true, true));
    assert_eq!(only_handoff(&world), None);
    world.failed.insert(first, failed(&[to], true, false));
    assert_eq!(only_handoff(&world), Some(to));
    // One that is gone will not fail again.
    world.suspected.clear();
    world.apply(Command::ExpireSession {
        target: cart(),
        session: next,
        term: 1,
        successors: vec![],
    });
    world.failed.insert(first, failed(&[next], true, true));
    assert_eq!(only_handoff(&world), Some(to));
}

#[test]
fn while_settling_nothing_vacant_is_granted() {
    let mut world = World::new(6, 1, Consistency::Strong);
    world.settling = true;
    assert_eq!(world.plan(0), vec![]);
    assert_eq!(successors(&world.snapshot(), world.sessions[0], 0), vec![]);
}

#[test]
fn successors_of_a_suspect_are_warmed_up_within_half_of_what_may_be_open() {
    let mut world = World::new(30, 3, Consistency::Strong);
    world.settle(0);
    world.suspected.insert(world.sessions[0]);
    let steps = world.plan(0);
    assert_eq!(steps.len(), 4, "half of max_open_handoffs");
    let away = |step: &PlanStep| matches!(step, PlanStep::BeginHandoff { from, .. } if from.session == world.sessions[0]);
    assert!(steps.iter().all(away));
    // Two of three: likelier the network than they.
    world.suspected.insert(world.sessions[1]);
    assert_eq!(world.plan(0), vec![]);
}

#[test]
fn a_draining_session_gives_away_first_what_is_configured() {
    let mut world = World::new(12, 4, Consistency::Strong);
    world.settle(0);
    let leaving = world.sessions[0];
    world.apply(Command::DrainSession {
        target: cart(),
        session: leaving,
    });
    world.max_open_per_pod = 1;
    let slices: Vec<SliceKey> = world
        .state()
        .owned_slices(leaving)
        .map(|(slice, _)| slice.first())
        .collect();
    let used = |load_per_s, state_bytes| SliceUse {
        load_per_s,
        state_bytes,
    };
    // The first is not reported, the second has the most state, the third the most load.
    world.load.per_slice =
        BTreeMap::from([(slices[1], used(0.5, 900)), (slices[2], used(70.0, 1))]);
    for (order, expected) in [
        (DrainOrder::Key, slices[0]),
        (DrainOrder::Largest, slices[1]),
        (DrainOrder::Hottest, slices[2]),
    ] {
        world.drain_order = order;
        let [PlanStep::BeginHandoff { slice, .. }] = world.plan(0)[..] else {
            panic!("{order:?}: {:?}", world.plan(0));
        };
        assert_eq!(slice.first(), expected, "{order:?}");
    }
}

#[test]
fn no_load_that_is_reported_breaks_the_order() {
    let slice = Slice::ALL;
    let rank = |load_per_s| {
        let used = SliceUse {
            load_per_s,
            state_bytes: 0,
        };
        let load = Load {
            per_slice: BTreeMap::from([(slice.first(), used)]),
        };
        load.rank(DrainOrder::Hottest, slice)
    };
    for nothing in [0.0, -0.0, -5.0, f64::NAN, f64::NEG_INFINITY] {
        assert_eq!(rank(nothing), Reverse(0), "{nothing}");
    }
    assert!(rank(2.0) < rank(1.0) && rank(f64::INFINITY) < rank(f64::MAX));
}

#[test]
fn what_an_expiring_session_held_is_spread_over_the_others() {
    let mut world = World::new(9, 4, Consistency::Strong);
    world.settle(0);
    let leaving = world.sessions[0];
    let heirs = successors(&world.snapshot(), leaving, 0);
    assert_eq!(heirs.len(), world.state().owned_by(leaving));
    assert!(heirs.iter().all(|(_, heir)| *heir != leaving));
    let expire = Command::ExpireSession {
        target: cart(),
        session: leaving,
        term: 1,
        successors: heirs,
    };
    assert_eq!(world.apply(expire), Reply::Done);
    assert!(
        world
            .state()
            .slices()
            .all(|(_, assigned)| assigned.owner.is_some())
    );
    let (least, most) = (
        world.counts()[1..].iter().min().copied(),
        world.counts()[1..].iter().max().copied(),
    );
    assert_eq!((least, most), (Some(3), Some(3)));
}

/// Else what an owner has not taken in yet stays behind with the one before it.
#[test]
fn a_slice_is_not_moved_while_its_owner_takes_in_its_state() {
    let mut world = World::new(4, 1, Consistency::Eventual);
    world.settle(0);
    let first = world.sessions[0];
    let slices: Vec<Slice> = world.state().slices().map(|(slice, _)| slice).collect();
    world.taking_in = slices.iter().map(|slice| slice.first()).collect();
    world.register(2, "1");
    assert_eq!(world.plan(0), [], "counts are not evened out");
    world.apply(Command::DrainSession {
        target: cart(),
        session: first,
    });
    assert_eq!(world.plan(0), [], "nor is a pod emptied");
    world.taking_in.remove(&slices[2].first());
    let moved = |step: &PlanStep| match step {
        PlanStep::Reassign { slice, .. } => Some(*slice),
        _ => None,
    };
    let moved: Vec<Option<Slice>> = world.plan(0).iter().map(moved).collect();
    assert_eq!(moved, [Some(slices[2])]);
    let successors = successors(&world.snapshot(), first, 0);
    assert_eq!(successors.len(), slices.len(), "who has died is replaced");
}
