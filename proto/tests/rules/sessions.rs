//! Rules about sessions, views and what is stored.

use crate::script::{KEY, Script, TTL, at, begin, cart, next_renewal};
use leasehold_proto::command::{Command, EndWord, PlanStep, Reply};
use leasehold_proto::error::Rejection;
use leasehold_proto::holder::{Input, Verdict};
use leasehold_proto::id::Incarnation;
use leasehold_proto::message::{Moved, Renewed};
use leasehold_proto::router::Router;
use leasehold_proto::table::{LeaseTable, Record, RecordKey};
use leasehold_proto::target::{Consistency, TargetChange, TargetConfig};
use leasehold_proto::view::{Applied, UpdateError, View};
use leasehold_proto::{LogId, Mode, SliceKey};
use std::collections::BTreeMap;
use std::time::Duration;

/// Counter-example: an older answer is applied onto a newer view: B sees a handoff open that has
/// ended, and a stale surrender for it makes B own at a fallen epoch.
#[test]
pub fn a_view_never_goes_backwards() {
    let mut script = Script::strong();
    let older = script.view();
    let a = script.register(1);
    script.grant(a.session);
    let mut known = Some(script.state().view());
    assert_eq!(View::advance(&mut known, older), Ok(Applied::Stale));
    assert_eq!(known, Some(script.state().view()));
}

/// Counter-example: a difference that skips a generation leaves a slice as it was before.
#[test]
pub fn a_difference_fits_only_onto_what_it_begins_at() {
    let mut script = Script::with(Consistency::Strong, 2);
    let a = script.register(1);
    let mut known = Some(script.state().view());
    script.grant(a.session);
    let granted = script.state().generation();
    let upper = script.slice(SliceKey::MAX);
    script
        .plan(PlanStep::Grant {
            slice: upper,
            to: a.session,
        })
        .expect("vacant");
    let late = script.state().update_since(Some(granted)).expect("newer");
    assert!(matches!(
        View::advance(&mut known, late),
        Err(UpdateError::Gap { .. })
    ));
    let fitting = script
        .state()
        .update_since(known.as_ref().map(|view| view.generation))
        .expect("newer");
    assert_eq!(View::advance(&mut known, fitting), Ok(Applied::Newer));
    assert_eq!(known, Some(script.state().view()));
}

/// Counter-example: a session born acknowledged while arming is pushed an old view in eventual mode
/// and serves without a lease in what has become strong.
#[test]
pub fn a_session_applies_no_view_older_than_its_registration() {
    let mut script = Script::eventual();
    let a = script.register(1);
    script.grant(a.session);
    let eventual = script.view();
    script.want(Consistency::Strong);
    let born_acknowledged = script.register(2);
    let mut holder = leasehold_proto::holder::Holder::new(Default::default());
    begin(&mut holder, &born_acknowledged, at(0));
    holder.handle(at(1), Input::Pushed(born_acknowledged.session, eventual));
    assert!(holder.view().is_none());
    script.push(&mut holder, at(2));
    assert!(
        holder
            .view()
            .is_some_and(|view| matches!(view.mode, Mode::Arming(_)))
    );
}

/// Counter-example: a process holds 3 s by its old ttl while the leader counts D from the new 1 s.
#[test]
pub fn ttl_and_clock_class_are_fixed_at_registration() {
    let mut script = Script::strong();
    let a = script.register(1);
    let change = TargetChange {
        ttl: Some(Duration::from_secs(1)),
        ..TargetChange::default()
    };
    script.apply(Command::UpdateTarget {
        target: cart(),
        expected_version: None,
        change,
    });
    let b = script.register(2);
    let ttl = |id| script.state().session(id).expect("live").ttl;
    assert_eq!(
        (ttl(a.session), ttl(b.session)),
        (TTL, Duration::from_secs(1))
    );
    // Nor does an answer stretch it.
    let mut holder = script.serve(&b, at(0));
    let (t0, renew) = next_renewal(&mut holder, at(1));
    let stretched = Renewed {
        session: b.session,
        seq: renew.seq,
        ttl: TTL,
        update: None,
    };
    holder.handle(t0, Input::Renewed(stretched));
    assert_eq!(holder.lease_deadline(), Some(t0 + Duration::from_secs(1)));
}

/// Counter-example: a doubled answer to the first registration arrives after the second: the
/// process goes back to a closed session, and an old eventual view makes it serve beside others.
#[test]
pub fn a_session_is_never_revived() {
    let mut script = Script::strong();
    let first = script.register(1);
    let mut holder = script.serve(&first, at(0));
    holder.handle(at(1), Input::Closed(first.session));
    let second = script.register(1);
    begin(&mut holder, &second, at(2));
    begin(&mut holder, &first, at(3));
    assert_eq!(holder.session(), Some(second.session));
}

/// A Slicelet without a session serves nothing, in eventual mode too; else it could not be counted.
#[test]
pub fn without_a_session_nothing_is_served() {
    let mut script = Script::eventual();
    let a = script.register(1);
    script.grant(a.session);
    let mut holder = script.serve(&a, at(0));
    holder.handle(at(1), Input::Closed(a.session));
    assert_eq!(holder.check(KEY, at(2)), Verdict::NotOwner);
}

/// A deleted name is free only when every session has gone by its own word or D: its processes
/// serve until then.
#[test]
pub fn a_deleted_name_is_free_when_every_session_has_gone() {
    let mut script = Script::strong();
    let (a, b) = (script.register(1), script.register(2));
    script.grant(a.session);
    script.apply(Command::DeleteTarget {
        target: cart(),
        expected_version: None,
    });
    let create = Command::CreateTarget {
        target: cart(),
        config: TargetConfig::default(),
        initial_slices: 1,
    };
    assert_eq!(
        script.apply(create.clone()),
        Reply::Rejected(Rejection::TargetLeaving(cart(), 2))
    );
    script.close(b.session);
    script.expire(a.session, vec![]);
    assert_eq!(script.apply(create), Reply::Done);
}

/// After a restore nothing is granted until every lease of the lost history has run out, and no
/// token repeats: the incarnation is in it.
#[test]
pub fn after_a_restore_nothing_is_granted_until_the_wait_is_over() {
    let mut script = Script::strong();
    let a = script.register(1);
    script.grant(a.session);
    let before = script.owner(KEY).expect("granted").epoch;
    let incarnation = Incarnation::new(2).expect("in range");
    let restore = Command::Restore {
        incarnation,
        max_ttl: TTL,
    };
    script.index -= 1;
    assert_eq!(script.apply(restore.clone()), Reply::Done);
    assert_eq!(
        script.apply(restore),
        Reply::Rejected(Rejection::IncarnationNotLarger(2))
    );
    let b = script.register(2);
    let grant = PlanStep::Grant {
        slice: script.slice(KEY),
        to: b.session,
    };
    assert_eq!(script.plan(grant.clone()), Err(Rejection::RestoreWait));
    let other_term = Command::EndRestoreWait {
        term: script.term + 1,
    };
    assert!(matches!(
        script.apply(other_term),
        Reply::Rejected(Rejection::OtherTerm { .. })
    ));
    script.apply(Command::EndRestoreWait { term: script.term });
    script.plan(grant).expect("the wait is over");
    assert!(script.owner(KEY).expect("granted").epoch.token() > before.token());
}

/// What `touched` names is all that must be written, from the very first command on.
#[test]
pub fn the_records_written_one_by_one_describe_the_table() {
    let mut table = LeaseTable::new();
    let create = Command::CreateTarget {
        target: cart(),
        config: TargetConfig::default(),
        initial_slices: 3,
    };
    let outcome = table.apply(LogId { term: 1, index: 1 }, create);
    let stored: BTreeMap<RecordKey, Record> = outcome
        .touched
        .iter()
        .filter_map(|key| Some((key.clone(), table.record(key)?)))
        .collect();
    assert_eq!(LeaseTable::from_records(stored.into_values()), Ok(table));
}

/// A client that was told where a slice went does not go back to the former owner because its map
/// is older; and the hint ends when the map has caught up.
#[test]
pub fn a_hint_outranks_the_map_until_the_map_has_caught_up() {
    let mut script = Script::strong();
    let (a, b) = (script.register(1), script.register(2));
    script.grant(a.session);
    let mut router = Router::new();
    router.update(script.view()).expect("a whole view");
    let handoff = script.begin(b.session);
    let view = script.state().view();
    let moved = Moved {
        slice: script.slice(KEY),
        handoff: handoff.id,
        session: b.session,
        address: view.pods[&b.session].clone(),
        epoch: handoff.epoch,
        generation: view.generation,
    };
    let leads_to = |router: &Router| {
        let table = router.table();
        table
            .lookup(KEY)
            .and_then(|route| table.pod(route.pod).map(|(session, _)| *session))
    };
    assert!(router.learn(moved.clone()));
    assert_eq!(leads_to(&router), Some(b.session));
    router
        .update(script.view())
        .expect("the handoff is open there");
    assert_eq!(leads_to(&router), Some(b.session));
    script.complete(handoff.id, EndWord::Accepted(b.session));
    let back = script.begin(a.session);
    script.complete(back.id, EndWord::Accepted(a.session));
    router.update(script.view()).expect("newer");
    assert_eq!(
        (leads_to(&router), router.hints().count()),
        (Some(a.session), 0)
    );
    assert!(!router.learn(moved), "it says less than the map");
}
