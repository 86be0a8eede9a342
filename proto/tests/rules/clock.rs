//! Rules about time: deadlines, waits, terms.

use crate::script::{KEY, Script, TTL, at, begin, next_renewal, renewals};
use leasehold_proto::clock::ClockClass;
use leasehold_proto::command::Reply;
use leasehold_proto::error::Rejection;
use leasehold_proto::grantor::{
    Action, Grantor, GrantorConfig, Input, Output, Renewal, SessionInfo,
};
use leasehold_proto::holder::{Holder, HolderConfig, Verdict};
use leasehold_proto::{ClockTime, SessionId};
use std::time::Duration;

/// Counter-example: the answer is slow; counted from receipt the lease outlives the leader's D, and
/// the successor is granted the slice while the old owner still passes.
#[test]
pub fn the_deadline_counts_from_t0_not_from_receipt() {
    let mut script = Script::strong();
    let registered = script.register(1);
    script.grant(registered.session);
    let mut holder = Holder::new(HolderConfig::default());
    let renew = renewals(&begin(&mut holder, &registered, at(1_000))).remove(0);
    script.answer(&mut holder, at(2_500), &renew);
    assert_eq!(holder.lease_deadline(), Some(at(1_000) + TTL));
    assert_eq!(holder.check(KEY, at(4_001)), Verdict::Lapsed);
}

/// Counter-example: seq 7 is sent again with a newer `t0`; the answer to the first transmission is
/// matched with the newer `t0`, which no quorum round followed.
#[test]
pub fn every_transmission_has_its_own_seq_and_t0() {
    let script = Script::strong();
    let registered = { script }.register(1);
    let mut holder = Holder::new(HolderConfig::default());
    let first = renewals(&begin(&mut holder, &registered, at(0))).remove(0);
    let (later, second) = next_renewal(&mut holder, at(1));
    assert!(
        second.seq > first.seq && later > at(0),
        "a retry is a transmission of its own"
    );
    let mut script = Script::strong();
    script.register(1);
    script.answer(&mut holder, at(900), &first);
    assert_eq!(
        holder.lease_deadline(),
        Some(at(0) + TTL),
        "the first t0 counts, not the retry's"
    );
    script.answer(&mut holder, at(900), &first);
    script.answer(&mut holder, at(900), &second);
    assert_eq!(holder.lease_deadline(), Some(later + TTL));
}

/// A check passes only while `now` is before the deadline; never at it.
#[test]
pub fn no_check_passes_at_the_deadline_or_after() {
    let mut script = Script::strong();
    let registered = script.register(1);
    script.grant(registered.session);
    let holder = script.serve(&registered, at(0));
    let last = ClockTime::from_nanos((at(0) + TTL).as_nanos() - 1);
    assert!(matches!(holder.check(KEY, last), Verdict::Owned(_)));
    assert_eq!(holder.check(KEY, at(0) + TTL), Verdict::Lapsed);
}

fn session() -> SessionId {
    SessionId::from_u64(1)
}

fn info() -> SessionInfo {
    SessionInfo {
        session: session(),
        ttl: TTL,
        clock: ClockClass::Slewed,
        leaving: false,
    }
}

fn tight(won: ClockTime) -> Grantor {
    let config = GrantorConfig {
        clock: ClockClass::Slewed,
        granularity: Duration::ZERO,
        collect_window: Duration::ZERO,
    };
    Grantor::new(2, won, config)
}

fn renewal(seq: u64) -> Input {
    Input::Renewals(vec![Renewal {
        session: session(),
        seq,
    }])
}

fn expires(out: &Output) -> bool {
    out.actions.contains(&Action::Expire(session()))
}

fn answers(out: &Output) -> bool {
    out.actions
        .iter()
        .any(|action| matches!(action, Action::Answer(_)))
}

/// Counter-example: the old leader answered a moment before; a new leader that does not wait D
/// from its own election expires the session at once. D = ttl × (1 + rho) / (1 − rho) is exactly
/// tight: with both clocks at the bounds of an eighth, 9/7 of the ttl.
#[test]
pub fn a_new_leader_waits_d_with_the_drift_of_both_clocks() {
    let mut grantor = tight(at(10_000));
    grantor.handle(at(10_001), Input::Ready(vec![info()]));
    let d = Duration::from_nanos((TTL.as_nanos() as u64 * 9).div_ceil(7));
    let just_before = ClockTime::from_nanos((at(10_000) + d).as_nanos() - 1);
    assert!(!expires(&grantor.handle(just_before, Input::Wake)));
    assert!(expires(&grantor.handle(at(10_000) + d, Input::Wake)));
}

/// Counter-example: the expiry is proposed but not yet committed; the session renews, is answered,
/// and holds a fresh lease when the expiry commits.
#[test]
pub fn an_expiring_session_is_answered_no_more() {
    let mut grantor = tight(at(0));
    grantor.handle(at(1), Input::Ready(vec![info()]));
    assert!(expires(&grantor.handle(at(0) + TTL * 2, Input::Wake)));
    grantor.handle(at(1) + TTL * 2, renewal(1));
    assert!(!answers(
        &grantor.handle(at(2) + TTL * 2, Input::Confirmed(1))
    ));
}

/// Counter-example: before an entry of its own term is applied a leader does not know what was
/// committed; it extends a session that an older entry has expired.
#[test]
pub fn nothing_is_answered_before_an_entry_of_the_own_term_is_applied() {
    let mut grantor = tight(at(0));
    assert_eq!(grantor.handle(at(1), renewal(1)).actions, vec![]);
    assert!(!answers(&grantor.handle(at(2), Input::Confirmed(1))));
    grantor.handle(at(3), Input::Ready(vec![info()]));
    assert!(answers(&grantor.handle(at(4), Input::Confirmed(1))));
}

/// Counter-example: a deposed leader that does not know it answers without asking a quorum, while
/// the new one has expired the session and granted its slice.
#[test]
pub fn nothing_is_answered_without_a_quorum_round() {
    let mut grantor = tight(at(0));
    grantor.handle(at(1), Input::Ready(vec![info()]));
    let out = grantor.handle(at(2), renewal(1));
    assert_eq!(out.actions, vec![Action::Confirm(1)]);
    assert!(!answers(&grantor.handle(at(3), Input::NotConfirmed(1))));
}

/// Counter-example: a renewal that arrives after the quorum has answered has a `t0` later than the
/// proof: a new leader may have been elected in between.
#[test]
pub fn a_round_answers_only_what_arrived_before_it_began() {
    let mut grantor = tight(at(0));
    grantor.handle(at(1), Input::Ready(vec![info()]));
    grantor.handle(at(2), renewal(1));
    grantor.handle(at(3), renewal(2));
    let answered = |out: Output| {
        let of = |action| match action {
            Action::Answer(renewals) => renewals,
            _ => Vec::new(),
        };
        out.actions
            .into_iter()
            .flat_map(of)
            .map(|renewal| renewal.seq)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        answered(grantor.handle(at(4), Input::Confirmed(1))),
        vec![1]
    );
    assert_eq!(
        answered(grantor.handle(at(5), Input::Confirmed(2))),
        vec![2]
    );
}

/// Counter-example: the decision waits in the queue to Raft, the leader loses and regains its
/// place, answers the session in the new term, and the old decision is appended there.
#[test]
pub fn an_expiry_decided_in_another_term_is_rejected() {
    let mut script = Script::strong();
    let registered = script.register(1);
    script.grant(registered.session);
    let decided = script.term;
    script.term = 3;
    let command = leasehold_proto::command::Command::ExpireSession {
        target: crate::script::cart(),
        session: registered.session,
        term: decided,
        successors: Vec::new(),
    };
    assert!(matches!(
        script.apply(command),
        Reply::Rejected(Rejection::OtherTerm { decided: 1, .. })
    ));
    assert!(script.owner(KEY).is_some());
}
