//! Rules about handoffs: who may end one, and how.

use crate::script::{DIGEST, KEY, Script, at, next_renewal, renewals};
use leasehold_proto::command::{EndWord, PlanStep, Registered, Reply};
use leasehold_proto::error::Rejection;
use leasehold_proto::holder::{Action, Holder, Input, Output, Part, Verdict};
use leasehold_proto::message::{Ready, ReadyAnswer, Surrender, Word};
use leasehold_proto::view::{Handoff, View};
use leasehold_proto::{SliceKey, ViewUpdate};

/// A owns; a handoff to B is open; both Holders have seen it.
struct Pair {
    script: Script,
    a: Registered,
    b: Registered,
    handoff: Handoff,
    source: Holder,
    destination: Holder,
}

fn pair() -> Pair {
    let mut script = Script::strong();
    let (a, b) = (script.register(1), script.register(2));
    script.grant(a.session);
    let handoff = script.begin(b.session);
    let (source, destination) = (script.serve(&a, at(0)), script.serve(&b, at(0)));
    Pair {
        script,
        a,
        b,
        handoff,
        source,
        destination,
    }
}

impl Pair {
    fn ready(&self) -> Ready {
        Ready {
            handoff: self.handoff.id,
            from: self.a.session,
            to: self.b.session,
        }
    }

    fn surrender(&self) -> Surrender {
        Surrender {
            handoff: self.handoff.id,
            from: self.a.session,
            to: self.b.session,
            digest: DIGEST,
        }
    }

    fn surrendered(&mut self) {
        self.source.handle(at(10), Input::Ready(self.ready()));
        self.source
            .handle(at(11), Input::Drained(self.handoff.id, DIGEST));
    }

    fn words(&self) -> Vec<Word> {
        let mut source = self.source.clone();
        next_renewal(&mut source, at(2_000)).1.words
    }
}

fn answered(out: &Output) -> Vec<ReadyAnswer> {
    let answer = |action: &Action| match action {
        Action::AnswerReady(_, answer) => Some(*answer),
        _ => None,
    };
    out.actions.iter().filter_map(answer).collect()
}

fn owns(holder: &Holder) -> bool {
    matches!(holder.check(KEY, at(20)), Verdict::Owned(_))
}

/// Surrendering before guards in flight have ended gives two that work on the slice.
#[test]
pub fn a_source_surrenders_only_when_drained() {
    let mut pair = pair();
    let out = pair.source.handle(at(10), Input::Ready(pair.ready()));
    assert!(
        out.actions
            .iter()
            .any(|action| matches!(action, Action::Freeze { .. }))
    );
    assert_eq!((answered(&out), owns(&pair.source)), (vec![], false));
    let out = pair
        .source
        .handle(at(11), Input::Drained(pair.handoff.id, DIGEST));
    assert_eq!(
        answered(&out),
        vec![ReadyAnswer::Surrendered(pair.surrender())]
    );
}

/// Counter-example (A→B→A→B): a surrender of an earlier handoff, doubled by the network, is taken
/// for the one that is open: two owners, and a fallen epoch.
#[test]
pub fn a_destination_owns_by_the_surrender_of_exactly_the_handoff_in_its_present_view() {
    let mut pair = pair();
    let first = pair.surrender();
    pair.surrendered();
    pair.script
        .complete(pair.handoff.id, EndWord::Surrendered(pair.a.session));
    // Back to A, and again towards B.
    let back = pair.script.begin(pair.a.session);
    pair.script
        .complete(back.id, EndWord::Surrendered(pair.b.session));
    let again = pair.script.begin(pair.b.session);
    pair.script.push(&mut pair.destination, at(15));
    pair.destination.handle(
        at(16),
        Input::ReadyAnswered(ReadyAnswer::Surrendered(first)),
    );
    assert!(
        !owns(&pair.destination),
        "the first handoff's surrender is not this one's"
    );
    let surrender = Surrender {
        handoff: again.id,
        ..first
    };
    pair.destination.handle(
        at(17),
        Input::ReadyAnswered(ReadyAnswer::Surrendered(surrender)),
    );
    assert_eq!(
        pair.destination.check(KEY, at(20)),
        Verdict::Owned(again.epoch)
    );
}

/// A surrender that comes before the view is kept until the view shows the handoff.
#[test]
pub fn an_early_surrender_waits_for_the_view() {
    let mut script = Script::strong();
    let (a, b) = (script.register(1), script.register(2));
    script.grant(a.session);
    let mut destination = script.serve(&b, at(0));
    let handoff = script.begin(b.session);
    let surrender = Surrender {
        handoff: handoff.id,
        from: a.session,
        to: b.session,
        digest: DIGEST,
    };
    destination.handle(
        at(5),
        Input::ReadyAnswered(ReadyAnswer::Surrendered(surrender)),
    );
    assert!(!owns(&destination));
    let out = script.push(&mut destination, at(6));
    assert!(owns(&destination));
    assert_eq!(
        renewals(&out)[0].words,
        vec![Word::Accepted(handoff.id)],
        "the word goes out at once"
    );
}

/// Counter-example: A answers *refused*, then B's *ready* arrives and A surrenders after all: the
/// table cancels a handoff that took effect.
#[test]
pub fn a_refusal_is_remembered_and_final() {
    let mut pair = pair();
    pair.script.ask_cancel(pair.handoff.id);
    let out = pair.script.push(&mut pair.source, at(5));
    assert_eq!(
        renewals(&out)[0].words,
        vec![Word::Refused(pair.handoff.id)]
    );
    let out = pair.source.handle(at(6), Input::Ready(pair.ready()));
    assert_eq!(answered(&out), vec![ReadyAnswer::Refused(pair.handoff.id)]);
    pair.source
        .handle(at(7), Input::Drained(pair.handoff.id, DIGEST));
    assert!(owns(&pair.source) && pair.words() == vec![Word::Refused(pair.handoff.id)]);
}

/// The other way round: after the surrender the wish to cancel comes too late.
#[test]
pub fn a_surrender_is_final_whatever_is_asked() {
    let mut pair = pair();
    pair.surrendered();
    pair.script.ask_cancel(pair.handoff.id);
    pair.script.push(&mut pair.source, at(12));
    assert_eq!(
        pair.words(),
        vec![Word::Surrendered(pair.handoff.id, DIGEST)]
    );
    assert!(!owns(&pair.source));
}

/// Counter-example: a later view that still shows A at its old epoch revives it beside B.
#[test]
pub fn a_surrendered_epoch_is_never_held_again_whatever_a_view_shows() {
    let mut pair = pair();
    pair.surrendered();
    let mut slices = pair.script.state().view().slices;
    let mut assigned = slices.get(KEY).1.clone();
    assigned.handoff = None;
    slices
        .overlay(vec![(pair.script.slice(KEY), assigned)])
        .expect("the same slice");
    let later = pair
        .script
        .want(leasehold_proto::target::Consistency::Eventual);
    let wrong = View {
        generation: later,
        slices,
        ..pair.script.state().view()
    };
    pair.source.handle(
        at(12),
        Input::Pushed(pair.a.session, ViewUpdate::Full(wrong)),
    );
    assert!(!owns(&pair.source));
}

/// Floors are per key: after a split the other half, at the same epoch, stays owned.
#[test]
pub fn a_floor_covers_only_the_keys_that_were_surrendered() {
    let mut script = Script::strong();
    let (a, b) = (script.register(1), script.register(2));
    script.grant(a.session);
    let upper = SliceKey::from_u64(1 << 63);
    let (slice, owner) = (script.slice(KEY), script.owner(KEY));
    script
        .plan(PlanStep::Split {
            slice,
            owner,
            at: upper,
        })
        .expect("nothing is open");
    let handoff = script.begin(b.session);
    let mut source = script.serve(&a, at(0));
    let ready = Ready {
        handoff: handoff.id,
        from: a.session,
        to: b.session,
    };
    source.handle(at(10), Input::Ready(ready));
    source.handle(at(11), Input::Drained(handoff.id, DIGEST));
    assert!(matches!(source.local()[0].part, Part::Gone(_)));
    assert!(!owns(&source) && matches!(source.check(upper, at(20)), Verdict::Owned(_)));
}

/// Counter-example (nobody ever serves): A's word is lost, B expires, A renews for ever; the table
/// says that A owns, A knows that it surrendered.
#[test]
pub fn words_are_repeated_in_every_renewal_until_the_handoff_has_ended() {
    let mut pair = pair();
    pair.surrendered();
    let mut now = at(12);
    for _ in 0..5 {
        let (sent, renew) = next_renewal(&mut pair.source, now);
        assert_eq!(
            renew.words,
            vec![Word::Surrendered(pair.handoff.id, DIGEST)]
        );
        now = sent + std::time::Duration::from_millis(1);
    }
    pair.script
        .complete(pair.handoff.id, EndWord::Surrendered(pair.a.session));
    pair.script.push(&mut pair.source, now);
    assert_eq!(next_renewal(&mut pair.source, now).1.words, vec![]);
}

/// An answer whose view calls for a word: the word goes out at once, not a period later.
#[test]
pub fn a_word_that_an_answer_calls_for_is_said_at_once() {
    let mut pair = pair();
    let (sent, renew) = next_renewal(&mut pair.source, at(1));
    pair.script.ask_cancel(pair.handoff.id);
    let out = pair.script.answer(
        &mut pair.source,
        sent + std::time::Duration::from_millis(3),
        &renew,
    );
    assert_eq!(
        renewals(&out)[0].words,
        vec![Word::Refused(pair.handoff.id)]
    );
}

/// Counter-example: A surrenders, B owns by the direct word; before A's word arrives a second
/// handoff A→C replaces the first; A expires, C owns beside B.
#[test]
pub fn an_open_handoff_is_never_replaced_split_merged_or_granted_over() {
    let mut pair = pair();
    let c = pair.script.register(3);
    let (slice, owner) = (pair.script.slice(KEY), pair.script.owner(KEY));
    let from = owner.expect("A owns");
    let steps = [
        PlanStep::BeginHandoff {
            slice,
            from,
            to: c.session,
        },
        PlanStep::Grant {
            slice,
            to: c.session,
        },
        PlanStep::Split {
            slice,
            owner,
            at: SliceKey::from_u64(7),
        },
        PlanStep::Merge {
            left: slice,
            right: slice,
            owner: from.session,
            taken_in: None,
        },
    ];
    for step in steps {
        assert_eq!(
            pair.script.plan(step),
            Err(Rejection::HandoffOpen(slice, pair.handoff.id))
        );
    }
    assert_eq!(pair.script.handoff(KEY), Some(pair.handoff));
}

/// Counter-example: B owns by A's surrender; A stays silent and expires; if that vacates the slice
/// for C, B and C both pass.
#[test]
pub fn the_expiry_of_the_source_completes_to_a_live_destination() {
    let mut pair = pair();
    let c = pair.script.register(3);
    pair.script.expire(pair.a.session, vec![(KEY, c.session)]);
    let owner = pair.script.owner(KEY).expect("not vacant");
    assert_eq!(
        (owner.session, owner.epoch),
        (pair.b.session, pair.handoff.epoch)
    );
    assert_eq!(pair.script.handoff(KEY), None);
}

/// Only where the destination has closed too the slice falls to a successor.
#[test]
pub fn the_expiry_of_both_parties_vacates() {
    let mut pair = pair();
    let c = pair.script.register(3);
    pair.script.expire(pair.b.session, vec![]);
    pair.script.expire(pair.a.session, vec![(KEY, c.session)]);
    let owner = pair.script.owner(KEY).expect("a successor was named");
    assert!(owner.session == c.session && owner.epoch > pair.handoff.epoch);
}

/// Counter-example (nobody ever serves): A had surrendered, B's expiry ends the handoff, the table
/// shows A at an epoch that A will never hold again.
#[test]
pub fn the_closing_of_the_destination_does_not_end_a_handoff() {
    let mut pair = pair();
    pair.surrendered();
    pair.script.expire(pair.b.session, vec![]);
    let open = pair.script.handoff(KEY).expect("still open");
    assert!(open.to_closed && open.id == pair.handoff.id);
    pair.script.push(&mut pair.source, at(12));
    assert_eq!(
        pair.words(),
        vec![Word::Surrendered(pair.handoff.id, DIGEST)]
    );
}

/// Counter-example: completing to a closed B gives the slice to nobody for ever.
#[test]
pub fn completing_to_a_closed_destination_vacates() {
    let mut pair = pair();
    pair.script.expire(pair.b.session, vec![]);
    pair.script
        .complete(pair.handoff.id, EndWord::Surrendered(pair.a.session));
    assert_eq!(
        (pair.script.owner(KEY), pair.script.handoff(KEY)),
        (None, None)
    );
}

/// Counter-example: a cancel without A's word while A's surrender is under way: B owns at an epoch
/// that the table has cancelled, and A is granted beside it.
#[test]
pub fn only_the_word_of_the_source_ends_a_handoff_without_effect() {
    let mut pair = pair();
    pair.script.ask_cancel(pair.handoff.id);
    assert!(
        pair.script.handoff(KEY).is_some_and(|open| open.ask_cancel),
        "asked, not cancelled"
    );
    pair.script.refused(pair.handoff.id, pair.a.session);
    assert_eq!(pair.script.handoff(KEY), None);
    assert_eq!(
        pair.script.owner(KEY).map(|owner| owner.session),
        Some(pair.a.session)
    );
}

/// Counter-example: the new incarnation of a crashed source says honestly that it never
/// surrendered; but its predecessor did. Words count only from the session that has the part.
#[test]
pub fn a_word_counts_only_from_the_session_that_has_the_part() {
    let mut pair = pair();
    let reborn = pair.script.register(1).session;
    let id = pair.handoff.id;
    let not_a_party = Reply::Rejected(Rejection::NotAParty(reborn, id));
    assert_eq!(pair.script.refused(id, reborn), not_a_party);
    assert_eq!(
        pair.script.complete(id, EndWord::Surrendered(reborn)),
        not_a_party
    );
    assert_eq!(
        pair.script.complete(id, EndWord::Accepted(reborn)),
        not_a_party
    );
}

/// A process that is asked about a session that it does not hold answers *not mine*.
#[test]
pub fn a_process_speaks_only_for_the_session_that_it_holds_now() {
    let mut pair = pair();
    let reborn = pair.script.register(1);
    let mut process = pair.script.serve(&reborn, at(0));
    let out = process.handle(at(5), Input::Ready(pair.ready()));
    assert_eq!(answered(&out), vec![ReadyAnswer::NotMine(pair.a.session)]);
    // And a destination does not take what is addressed to its predecessor.
    let reborn = pair.script.register(2);
    let mut process = pair.script.serve(&reborn, at(0));
    process.handle(
        at(5),
        Input::ReadyAnswered(ReadyAnswer::Surrendered(pair.surrender())),
    );
    assert!(!owns(&process));
}

/// Ending what is not open is refused, whoever asks.
#[test]
pub fn a_handoff_ends_once() {
    let mut pair = pair();
    pair.script
        .complete(pair.handoff.id, EndWord::Accepted(pair.b.session));
    let unknown = Reply::Rejected(Rejection::UnknownHandoff(pair.handoff.id));
    assert_eq!(
        pair.script.refused(pair.handoff.id, pair.a.session),
        unknown
    );
    assert_eq!(
        pair.script
            .complete(pair.handoff.id, EndWord::Surrendered(pair.a.session)),
        unknown
    );
    assert_eq!(pair.script.ask_cancel(pair.handoff.id), unknown);
}

/// One entry mints one epoch. A plan that guesses the index of its own entry could name the lease
/// that its first step makes, and hand it on in the second: two sessions under one token.
#[test]
fn a_lease_is_not_handed_on_in_the_entry_that_made_it() {
    let mut script = Script::strong();
    let (a, b) = (script.register(1), script.register(2));
    let slice = script.slice(KEY);
    let grant = PlanStep::Grant {
        slice,
        to: a.session,
    };
    let mut guess = script.clone();
    guess.plan(grant.clone()).expect("the slice is vacant");
    let from = guess.owner(KEY).expect("it was granted");
    let steps = vec![
        grant,
        PlanStep::BeginHandoff {
            slice,
            from,
            to: b.session,
        },
    ];
    let reply = script.apply(leasehold_proto::command::Command::ApplyPlan {
        target: crate::script::cart(),
        config_version: script.state().config_version(),
        steps,
    });
    assert_eq!(
        reply,
        Reply::Plan(vec![Ok(()), Err(Rejection::SliceChanged(slice))])
    );
    assert_eq!(script.owner(KEY), Some(from), "the guess was right");
}

/// A process that ends waits for a slow destination while there is time, and then no longer; a
/// handoff that was refused would only be begun again.
#[test]
fn a_process_that_ends_waits_for_its_destinations_as_long_as_it_can() {
    let mut pair = pair();
    let until = at(60_000);
    let source = &mut pair.source;
    source.handle(at(10), Input::HurryHandoffs { until });
    let leaving = |source: &Holder| source.leaving().count();
    let freezes = |out: Output| {
        let freeze = |action: &Action| matches!(action, Action::Freeze { .. });
        out.actions.iter().any(freeze)
    };
    assert!(!freezes(source.handle(at(59_500), Input::Wake)));
    source.handle(at(59_500), Input::Progressing(pair.handoff.id));
    assert!(!freezes(source.handle(at(60_400), Input::Wake)));
    assert_eq!(leaving(source), 1);
    assert!(freezes(source.handle(at(60_500), Input::Wake)));
    assert_eq!(leaving(source), 1);
}

/// A slice that is written as fast as it is sent is not on its way for ever.
#[test]
fn a_transfer_that_moves_on_without_end_is_given_up() {
    let mut pair = pair();
    let id = pair.handoff.id;
    let source = &mut pair.source;
    let mut leaving_at = |now| {
        source.handle(now, Input::Progressing(id));
        source.leaving().count() == 1
    };
    assert!((0..300).all(|second| leaving_at(at(second * 1_000))));
    assert!((300..309).all(|second| leaving_at(at(second * 1_000))));
    assert!(!leaving_at(at(309_000)));
}
