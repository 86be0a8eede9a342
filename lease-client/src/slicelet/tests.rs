//! Statements about guards, on a clock that stands still until told to go on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_proto::command::{Digest, PlanStep, Reply};
use leasehold_proto::holder::{Input, Part};
use leasehold_proto::message::Ready;
use leasehold_proto::target::{Consistency, OnLapse, TargetChange, TargetConfig};
use leasehold_proto::{HandoffId, SessionId, Slice, SliceKey};

use super::OwnershipEvent;
use super::offline::Offline;
use crate::clock::{Clock, SimulatedClock};
use crate::error::{GuardError, Lost};

const TTL: Duration = Duration::from_secs(3);

struct World {
    clock: SimulatedClock,
    offline: Offline,
    log: Arc<Mutex<Vec<OwnershipEvent>>>,
}

fn world_with(config: TargetConfig, slices: u32) -> World {
    let clock = SimulatedClock::new();
    let log = Arc::new(Mutex::new(Vec::new()));
    let entries = Arc::clone(&log);
    let hook = Box::new(move |event| entries.lock().unwrap().push(event));
    let shared = Clock::Other(Arc::new(clock.clone()));
    let mut offline = Offline::new(shared, config, slices, Some(hook)).unwrap();
    offline.renew();
    World {
        clock,
        offline,
        log,
    }
}

fn world() -> World {
    world_with(
        TargetConfig {
            ttl: TTL,
            ..TargetConfig::default()
        },
        1,
    )
}

fn key(n: u64) -> SliceKey {
    SliceKey::from_u64(n)
}

impl World {
    fn guard(&self, n: u64) -> Result<super::Guard, GuardError> {
        self.offline.slicelet.guard_slice_key(key(n))
    }

    fn me(&self) -> SessionId {
        self.offline.holder().session().unwrap()
    }

    /// Time goes on by a renewal's period, and the renewal is answered.
    fn renew(&mut self) {
        self.clock.advance(TTL / 6);
        self.offline.renew();
    }

    fn plan(&mut self, step: PlanStep) {
        let reply = self.offline.plan(vec![step]);
        assert!(
            matches!(&reply, Reply::Plan(results) if results[0].is_ok()),
            "{reply:?}"
        );
        self.renew();
    }

    /// Begins to hand the slice of key `n` off, and lets the destination be ready.
    fn freeze(&mut self, n: u64) -> HandoffId {
        let to = self.offline.stranger().unwrap();
        let view = self.offline.holder().view().unwrap();
        let (slice, assigned) = view.get(key(n));
        let from = assigned.owner.unwrap();
        self.plan(PlanStep::BeginHandoff { slice, from, to });
        let handoff = self
            .offline
            .holder()
            .view()
            .unwrap()
            .get(key(n))
            .1
            .handoff
            .unwrap()
            .id;
        let from = self.me();
        self.offline
            .input(Input::Ready(Ready { handoff, from, to }));
        handoff
    }

    fn slice_of(&self, n: u64) -> Slice {
        self.offline.holder().view().unwrap().get(key(n)).0
    }
}

#[test]
fn a_guard_is_given_until_the_deadline_and_not_at_it() {
    let world = world();
    let guard = world.guard(7).unwrap();
    world.clock.advance(TTL - Duration::from_nanos(1));
    assert!(guard.verify().is_ok() && world.guard(7).is_ok());
    world.clock.advance(Duration::from_nanos(1));
    assert_eq!(guard.verify(), Err(Lost::Lapsed));
    assert_eq!(world.guard(7).unwrap_err(), GuardError::Lapsed);
}

#[test]
fn a_renewal_that_comes_late_validates_the_guards_again() {
    let mut world = world();
    let guard = world.guard(7).unwrap();
    world.clock.advance(TTL);
    assert_eq!(guard.verify(), Err(Lost::Lapsed));
    world.offline.renew();
    assert!(guard.verify().is_ok() && world.guard(7).is_ok());
    assert_eq!(world.offline.slicelet.stats().lapses, 1);
}

#[test]
fn what_may_be_served_fenced_after_the_lease_says_so() {
    let config = TargetConfig {
        ttl: TTL,
        on_lapse: OnLapse::ServeFenced,
        ..TargetConfig::default()
    };
    let world = world_with(config, 1);
    assert!(!world.guard(7).unwrap().is_fenced());
    world.clock.advance(TTL);
    let guard = world.guard(7).unwrap();
    assert!(guard.is_fenced() && guard.verify().is_ok());
}

#[test]
fn a_new_session_does_not_validate_the_guards_of_an_old_one() {
    let mut world = world();
    let guard = world.guard(7).unwrap();
    let session = world.me();
    world.offline.expire(session);
    world.offline.input(Input::Closed(session));
    assert_eq!(guard.verify(), Err(Lost::Revoked));
    let session = world.offline.register().unwrap();
    world.offline.grant_all(session);
    world.renew();
    assert!(world.guard(7).is_ok());
    assert_eq!(guard.verify(), Err(Lost::Revoked));
    assert!(world.guard(7).unwrap().fencing_token() > guard.fencing_token());
}

#[test]
fn a_frozen_slice_takes_no_guard_and_waits_for_those_in_flight() {
    let mut world = world();
    let guard = world.guard(7).unwrap();
    let handoff = world.freeze(7);
    assert_eq!(world.guard(7).unwrap_err(), GuardError::HandingOver);
    assert!(guard.verify().is_ok(), "what is in flight may finish");
    assert!(!world.offline.publisher().is_drained(world.slice_of(7)));
    drop(guard);
    assert!(world.offline.publisher().is_drained(world.slice_of(7)));
    world.offline.input(Input::Drained(handoff, Digest::EMPTY));
    assert!(
        matches!(world.guard(7).unwrap_err(), GuardError::Moved(moved) if moved.handoff == handoff)
    );
}

#[test]
fn guards_that_are_cut_off_do_not_verify() {
    let mut world = world();
    let guard = world.guard(7).unwrap();
    world.freeze(7);
    world.offline.publisher().cut_off(world.slice_of(7));
    assert_eq!(guard.verify(), Err(Lost::Revoked));
}

/// Whether the application would be told that slices have come or gone.
fn is_continuous(changes: &super::publish::Changes) -> bool {
    changes.arrived.is_empty() && changes.acquire.is_empty() && changes.release.is_empty()
}

#[test]
fn a_slice_that_stays_after_guards_were_cut_off_has_neither_gone_nor_come() {
    let mut world = world();
    let cut_off = world.guard(7).unwrap();
    let handoff = world.freeze(7);
    world.offline.publisher().cut_off(world.slice_of(7));
    // Whatever else is published meanwhile.
    world.clock.advance(TTL / 6);
    assert!(is_continuous(&world.offline.renew()));
    world.offline.ask_cancel(handoff);
    world.clock.advance(TTL / 6);
    assert!(is_continuous(&world.offline.renew()));
    assert!(world.guard(7).unwrap().verify().is_ok());
    assert_eq!(
        cut_off.verify(),
        Err(Lost::Revoked),
        "once cut off, for ever"
    );
    // What is in flight now is waited for, what was cut off is not.
    let me = world.me();
    world.offline.refused(handoff, me);
    let in_flight = world.guard(7).unwrap();
    world.freeze(9);
    assert!(!world.offline.publisher().is_drained(world.slice_of(7)));
    drop(in_flight);
    assert!(world.offline.publisher().is_drained(world.slice_of(7)));
}

#[test]
fn a_slice_that_stays_after_guards_were_cut_off_and_is_split_at_once_has_neither_gone_nor_come() {
    let mut world = world();
    let cut_off = world.guard(7).unwrap();
    let handoff = world.freeze(7);
    world.offline.publisher().cut_off(world.slice_of(7));
    world.offline.ask_cancel(handoff);
    let source = world.me();
    world.offline.refused(handoff, source);
    let owner = world.offline.owner_in_table();
    world.offline.plan(vec![PlanStep::Split {
        slice: Slice::ALL,
        owner,
        at: key(1 << 40),
    }]);
    world.clock.advance(TTL / 6);
    assert!(is_continuous(&world.offline.renew()));
    assert!(world.guard(7).unwrap().verify().is_ok());
    assert_eq!(cut_off.verify(), Err(Lost::Revoked));
}

#[test]
fn a_handoff_that_is_refused_gives_guards_again() {
    let mut world = world();
    let guard = world.guard(7).unwrap();
    let handoff = world.freeze(7);
    world.offline.ask_cancel(handoff);
    world.renew();
    assert!(guard.verify().is_ok() && world.guard(7).unwrap().verify().is_ok());
}

#[test]
fn a_split_keeps_guards_valid_and_either_half_waits_for_them() {
    let mut world = world();
    let guard = world.guard(7).unwrap();
    let owner = world.offline.holder().view().unwrap().get(key(7)).1.owner;
    world.plan(PlanStep::Split {
        slice: Slice::ALL,
        owner,
        at: key(1 << 63),
    });
    assert!(guard.verify().is_ok());
    assert_eq!(world.guard(7).unwrap().epoch(), guard.epoch());
    let other = world.guard(u64::MAX).unwrap();
    world.freeze(7);
    assert!(world.guard(7).is_err() && world.guard(u64::MAX).is_ok());
    assert!(
        !world.offline.publisher().is_drained(world.slice_of(7)),
        "the guard was given for all keys"
    );
    drop(guard);
    assert!(world.offline.publisher().is_drained(world.slice_of(7)));
    assert!(other.verify().is_ok());
}

#[test]
fn a_merge_keeps_guards_valid_and_raises_the_token() {
    let mut world = world_with(
        TargetConfig {
            ttl: TTL,
            ..TargetConfig::default()
        },
        2,
    );
    let guard = world.guard(7).unwrap();
    let (left, right) = (world.slice_of(7), world.slice_of(u64::MAX));
    let owner = world.me();
    world.plan(PlanStep::Merge {
        left,
        right,
        owner,
        taken_in: None,
    });
    assert!(guard.verify().is_ok(), "ownership was not interrupted");
    assert!(world.guard(7).unwrap().fencing_token() > guard.fencing_token());
    world.freeze(7);
    assert!(!world.offline.publisher().is_drained(Slice::ALL));
    drop(guard);
    assert!(world.offline.publisher().is_drained(Slice::ALL));
}

/// A view may show at once that a slice was split and that one half has gone.
#[test]
fn of_a_slice_that_is_lost_in_part_only_that_part_is_released() {
    let config = TargetConfig {
        ttl: TTL,
        consistency: Consistency::Eventual,
        ..TargetConfig::default()
    };
    let mut world = world_with(config, 1);
    let owner = world.offline.holder().view().unwrap().get(key(7)).1.owner;
    let to = world.offline.stranger().unwrap();
    let at = key(1 << 63);
    let (slice, (left, right)) = (Slice::ALL, Slice::ALL.split(at).unwrap());
    let steps = [
        PlanStep::Split { slice, owner, at },
        PlanStep::Reassign {
            slice: right,
            from: owner,
            to,
        },
    ];
    for step in steps {
        let reply = world.offline.plan(vec![step]);
        assert!(
            matches!(&reply, Reply::Plan(results) if results[0].is_ok()),
            "{reply:?}"
        );
    }
    world.clock.advance(TTL / 6);
    let changes = world.offline.renew();
    let released: Vec<Slice> = changes.release.iter().map(|info| info.slice).collect();
    assert_eq!(released, [right]);
    assert!(changes.acquire.is_empty());
    assert!(world.guard(7).is_ok() && world.guard(u64::MAX).is_err());
    assert_eq!(world.slice_of(7), left);
}

#[test]
fn a_dropped_slicelet_serves_nothing_at_once() {
    let world = world();
    let guard = world.guard(7).unwrap();
    drop(world.offline);
    assert!(guard.verify().is_err());
}

#[test]
fn an_eventual_target_is_served_without_a_lease_until_it_is_armed() {
    let config = TargetConfig {
        ttl: TTL,
        consistency: Consistency::Eventual,
        ..TargetConfig::default()
    };
    let mut world = world_with(config, 1);
    world.clock.advance(TTL * 100);
    let guard = world.guard(7).unwrap();
    assert!(guard.verify().is_ok());
    let change = TargetChange {
        consistency: Some(Consistency::Strong),
        ..TargetChange::default()
    };
    world.offline.update(change);
    world.offline.renew();
    assert!(
        guard.verify().is_ok(),
        "the lease was renewed with the view that began to check it"
    );
    world.clock.advance(TTL);
    assert_eq!(guard.verify(), Err(Lost::Lapsed));
}

#[test]
fn parts_that_are_published_are_those_of_the_holder() {
    let mut world = world_with(
        TargetConfig {
            ttl: TTL,
            ..TargetConfig::default()
        },
        4,
    );
    world.freeze(7);
    for local in world.offline.holder().local() {
        let given = world.offline.slicelet.guard_slice_key(local.slice.first());
        assert_eq!(given.is_ok(), local.part == Part::Owner, "{local:?}");
    }
}

#[test]
fn the_log_bounds_what_was_served_by_the_lease() {
    let mut world = world();
    let begin = 1_000_000_000;
    world.clock.advance(TTL * 2);
    world.offline.renew();
    let log = world.log.lock().unwrap();
    let until = begin + TTL.as_nanos() as u64;
    let now = begin + 2 * TTL.as_nanos() as u64;
    assert!(
        matches!(log[0], OwnershipEvent::Begin { at_ns, .. } if at_ns == begin),
        "{log:?}"
    );
    assert_eq!(log[1], OwnershipEvent::Extended { until_ns: until });
    assert!(
        matches!(log[2], OwnershipEvent::End { at_ns, .. } if at_ns == until),
        "{log:?}"
    );
    assert!(
        matches!(log[3], OwnershipEvent::Begin { at_ns, .. } if at_ns == now),
        "{log:?}"
    );
    assert_eq!(
        log[4],
        OwnershipEvent::Extended {
            until_ns: until + 2 * TTL.as_nanos() as u64
        }
    );
}

#[tokio::test]
async fn requests_that_wait_at_the_source_are_told_where_the_slice_went() {
    let mut world = world();
    let handoff = world.freeze(7);
    let slicelet = Arc::clone(&world.offline.slicelet);
    let waiting = slicelet.guard_slice_key_or_wait(key(7));
    tokio::pin!(waiting);
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    world.offline.input(Input::Drained(handoff, Digest::EMPTY));
    let refused = waiting.await.unwrap_err();
    assert!(
        matches!(&refused, GuardError::Moved(moved) if moved.handoff == handoff),
        "{refused:?}"
    );
}

#[tokio::test]
async fn no_more_requests_wait_than_there_are_places() {
    let mut world = world();
    world.freeze(7);
    let slicelet = Arc::clone(&world.offline.slicelet);
    let mut waiting: Vec<_> = (0..16)
        .map(|_| Box::pin(slicelet.guard_slice_key_or_wait(key(7))))
        .collect();
    for request in &mut waiting {
        assert!(futures::poll!(request).is_pending());
    }
    assert_eq!(
        slicelet.guard_slice_key_or_wait(key(7)).await.unwrap_err(),
        GuardError::TooManyWaiting
    );
    drop(waiting.pop());
    assert!(futures::poll!(Box::pin(slicelet.guard_slice_key_or_wait(key(7)))).is_pending());
}
