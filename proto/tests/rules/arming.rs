//! Rules about switching from eventual to strong.

use crate::script::{KEY, Script, at, next_renewal};
use leasehold_proto::Mode;
use leasehold_proto::command::{Command, PlanStep, Reply};
use leasehold_proto::error::Rejection;
use leasehold_proto::holder::{Holder, Verdict};
use leasehold_proto::id::Incarnation;
use leasehold_proto::target::Consistency::{Eventual, Strong};
use std::time::Duration;

fn armed(script: &Script) -> bool {
    script.state().mode() == Mode::Strong
}

fn passes(holder: &Holder) -> bool {
    matches!(holder.check(KEY, at(100)), Verdict::Owned(_))
}

/// Counter-example: in eventual mode A is cut off and its session expires; A serves on without a
/// lease. Arming that sees only the sessions left declares strong, and A and B serve.
#[test]
pub fn arming_waits_for_ghosts() {
    let mut script = Script::eventual();
    let (a, b) = (script.register(1), script.register(2));
    script.grant(a.session);
    let cut_off = script.serve(&a, at(0));
    script.expire(a.session, vec![(KEY, b.session)]);
    let arming = script.want(Strong);
    script.ack(b.session, arming);
    assert!(!armed(&script) && passes(&cut_off));
    assert!(
        matches!(script.expire(a.session, vec![]), Reply::Rejected(_)),
        "time removes no ghost"
    );
    script.close(a.session);
    assert!(armed(&script));
}

/// The same for a session that closes while arming, before it has acknowledged.
#[test]
pub fn a_session_that_closes_unacknowledged_is_a_ghost() {
    let mut script = Script::eventual();
    let a = script.register(1);
    script.want(Strong);
    script.expire(a.session, vec![]);
    assert!(!armed(&script));
    script.apply(Command::ForgetGhost {
        target: crate::script::cart(),
        session: Some(a.session),
        reason: "dead".into(),
    });
    assert!(armed(&script));
}

/// Counter-example: eventual → strong → eventual → strong; the acknowledgement of the first arming
/// is counted for the second.
#[test]
pub fn only_an_acknowledgement_of_this_arming_counts() {
    let mut script = Script::eventual();
    let (a, b) = (script.register(1), script.register(2));
    let first = script.want(Strong);
    script.ack(a.session, first);
    script.want(Eventual);
    let second = script.want(Strong);
    assert_eq!(
        script.ack(a.session, first),
        Reply::Rejected(Rejection::WrongMode(Mode::Arming(second)))
    );
    script.ack(b.session, second);
    assert!(!armed(&script));
    script.ack(a.session, second);
    assert!(armed(&script));
}

/// Counter-example: A acknowledged with the view in which it owns; the slice is given to B
/// eventual-style; arming ends and both serve.
#[test]
pub fn while_arming_ownership_moves_only_by_the_strong_rules() {
    let mut script = Script::eventual();
    let (a, b) = (script.register(1), script.register(2));
    script.grant(a.session);
    script.want(Strong);
    let mode = script.state().mode();
    let (slice, from) = (script.slice(KEY), script.owner(KEY));
    assert_eq!(
        script.plan(PlanStep::Reassign {
            slice,
            from,
            to: b.session
        }),
        Err(Rejection::WrongMode(mode))
    );
    let owner = from.expect("A owns");
    let copies = PlanStep::SetReplicas {
        slice,
        owner,
        replicas: vec![b.session],
    };
    assert_eq!(script.plan(copies), Err(Rejection::WrongMode(mode)));
}

/// Counter-example: an acknowledgement sent before the view is applied and leases are checked:
/// arming ends, A expires, and A serves on.
#[test]
pub fn an_acknowledgement_follows_applying_the_view_and_checking_leases() {
    let mut script = Script::eventual();
    let a = script.register(1);
    script.grant(a.session);
    let mut holder = script.serve(&a, at(0));
    let lapsed = at(0) + Duration::from_secs(60);
    assert!(
        matches!(holder.check(KEY, lapsed), Verdict::Owned(_)),
        "no lease is checked in eventual mode"
    );
    let arming = script.want(Strong);
    assert_eq!(next_renewal(&mut holder, at(1)).1.armed, None);
    script.push(&mut holder, at(2_000));
    assert_eq!(next_renewal(&mut holder, at(2_001)).1.armed, Some(arming));
    assert_eq!(holder.check(KEY, lapsed), Verdict::Lapsed);
}

/// A session that registers while arming has never served without checking leases.
#[test]
pub fn a_session_registered_while_arming_is_born_acknowledged() {
    let mut script = Script::eventual();
    let a = script.register(1);
    let arming = script.want(Strong);
    script.register(2);
    script.ack(a.session, arming);
    assert!(armed(&script));
}

/// Counter-example: copies that served in eventual mode go on serving in strong mode.
#[test]
pub fn copies_end_when_arming_begins() {
    let mut script = Script::eventual();
    let (a, b) = (script.register(1), script.register(2));
    script.grant(a.session);
    let (slice, owner) = (script.slice(KEY), script.owner(KEY).expect("A owns"));
    script
        .plan(PlanStep::SetReplicas {
            slice,
            owner,
            replicas: vec![b.session],
        })
        .expect("eventual");
    let mut copy = script.serve(&b, at(0));
    assert!(passes(&copy));
    let arming = script.want(Strong);
    script.push(&mut copy, at(1));
    script.ack(a.session, arming);
    script.ack(b.session, arming);
    assert!(armed(&script) && !passes(&copy));
}

/// Counter-example: the backup is older than a session that serves without a lease; the restored
/// table knows no ghost and arming ends at once.
#[test]
pub fn after_a_restore_arming_waits_for_the_word_of_an_operator() {
    let mut script = Script::eventual();
    let incarnation = Incarnation::new(2).expect("in range");
    script.apply(Command::Restore {
        incarnation,
        max_ttl: crate::script::TTL,
    });
    script.want(Strong);
    assert!(!armed(&script));
    let reason = "every process of the old cluster was stopped".into();
    script.apply(Command::ForgetGhost {
        target: crate::script::cart(),
        session: None,
        reason,
    });
    assert!(armed(&script));
}
