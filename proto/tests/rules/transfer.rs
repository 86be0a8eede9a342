//! Rules about state that moves with its slice: what is taken in, and what may be served of it.

use crate::script::{DIGEST, Script, at, cart};
use leasehold_proto::command::{Command, Digest, EndWord, PlanStep, Registered, Reply};
use leasehold_proto::error::Rejection;
use leasehold_proto::holder::{Holder, Input};
use leasehold_proto::message::{ReadyAnswer, Surrender};
use leasehold_proto::target::Consistency;
use leasehold_proto::transfer::{Frame, Mark, Receiver, Refusal, Sender, TransferTag};
use leasehold_proto::{Epoch, Slice, SliceKey};

type Bytes = Vec<u8>;

/// A script with a handoff away from the owner of the only slice, and another one after it.
fn tags() -> (TransferTag, TransferTag) {
    let mut script = Script::strong();
    let (a, b) = (script.register(1), script.register(2));
    script.grant(a.session);
    let mut tag = || {
        let from_epoch = script.owner(SliceKey::MIN).expect("owned").epoch;
        let handoff = script.begin(b.session);
        script.refused(handoff.id, a.session);
        TransferTag {
            target: cart(),
            slice: Slice::ALL,
            from_epoch,
            to_epoch: handoff.epoch,
            handoff: Some(handoff.id),
        }
    };
    (tag(), tag())
}

fn frames(tag: &TransferTag, records: &[&[u8]]) -> Vec<Frame<Bytes>> {
    let mut sender = Sender::new(tag.clone(), 1 << 20);
    let last = records.len() - 1;
    records
        .iter()
        .enumerate()
        .map(|(at, records)| {
            let mark = if at == last {
                Mark::Last
            } else {
                Mark::CaughtUp
            };
            sender.push(mark, records.to_vec()).expect("small")
        })
        .collect()
}

/// Counter-example: frames of a transfer that was cancelled come late, over another connection, and
/// begin the next transfer of the slice with values that have changed since.
#[test]
pub fn frames_of_an_older_transfer_are_refused() {
    let (older, newer) = tags();
    let mut receiver = Receiver::new(newer);
    let late = frames(&older, &[b"old", b""]);
    assert_eq!(receiver.receive(&late[0]), Err(Refusal::OldEpoch));
}

/// Counter-example: a frame is sent again after its acknowledgement was lost; a value that has
/// changed in between falls back.
#[test]
pub fn a_frame_is_taken_in_once() {
    let frames = frames(&tags().0, &[b"a=1", b"a=2", b""]);
    let mut receiver = Receiver::new(frames[0].tag.clone());
    for frame in &frames[..2] {
        receiver.receive(frame).expect("it is the next one");
    }
    assert_eq!(receiver.receive(&frames[0]), Err(Refusal::Duplicate(1)));
}

/// Counter-example: a frame is lost between two connections, and its values with it.
#[test]
pub fn no_frame_is_left_out() {
    let frames = frames(&tags().0, &[b"a=1", b"b=1", b""]);
    let mut receiver = Receiver::new(frames[0].tag.clone());
    receiver.receive(&frames[0]).expect("it is the first one");
    let gap = Refusal::Gap {
        found: 3,
        wanted: 2,
    };
    assert_eq!(receiver.receive(&frames[2]), Err(gap));
}

/// Counter-example: a source that begins a transfer anew, while frames of the first attempt are
/// under way, and a destination that has taken in some of both.
#[test]
pub fn state_is_complete_only_if_both_ends_have_the_same_bytes() {
    let tag = tags().0;
    let (first, second) = (frames(&tag, &[b"a=1", b""]), frames(&tag, &[b"a=2", b""]));
    let mut receiver = Receiver::new(tag);
    receiver.receive(&first[0]).expect("it is the first one");
    assert_eq!(receiver.receive(&second[1]), Err(Refusal::Digest(2)));
    assert_eq!(receiver.complete(), None);
}

/// Counter-example: a plan begins two handoffs, which share their epoch, and the state of one is
/// compared with what the other was surrendered with: it begins cold, in a planned move.
#[test]
pub fn the_proof_of_state_is_of_the_very_slice() {
    let mut script = Script::with(Consistency::Strong, 2);
    let (a, b) = (script.register(1), script.register(2));
    let slices: Vec<Slice> = script.state().slices().map(|(slice, _)| slice).collect();
    let plan = |script: &mut Script, steps| {
        let config_version = script.state().config_version();
        let target = cart();
        let reply = script.apply(Command::ApplyPlan {
            target,
            config_version,
            steps,
        });
        assert!(matches!(reply, Reply::Plan(_)), "{reply:?}");
    };
    let to = a.session;
    let grants = slices
        .iter()
        .map(|slice| PlanStep::Grant { slice: *slice, to });
    plan(&mut script, grants.collect());
    let from = script.owner(SliceKey::MIN).expect("owned");
    let to = b.session;
    let begins = slices.iter().map(|slice| PlanStep::BeginHandoff {
        slice: *slice,
        from,
        to,
    });
    plan(&mut script, begins.collect());
    let mut destination = script.serve(&b, at(0));
    let mut epochs: Vec<Epoch> = Vec::new();
    for (number, slice) in slices.iter().enumerate() {
        let open = script.handoff(slice.first()).expect("just begun");
        epochs.push(open.epoch);
        let surrender = Surrender {
            handoff: open.id,
            from: a.session,
            to: b.session,
            digest: Digest([number as u8 + 1; 16]),
        };
        let answer = ReadyAnswer::Surrendered(surrender);
        destination.handle(at(10), Input::ReadyAnswered(answer));
    }
    assert_eq!(epochs[0], epochs[1]);
    for (number, slice) in slices.iter().enumerate() {
        let digest = Digest([number as u8 + 1; 16]);
        let proof = destination.proof_of_state(*slice, epochs[number]);
        assert_eq!(proof, Some(digest));
    }
}

/// Counter-example: a source sends everything, withdraws, changes a value and expires; the handoff
/// that it refused is completed by its expiry.
#[test]
pub fn state_of_a_source_that_expired_is_not_proven() {
    let mut script = Script::strong();
    let (a, b) = (script.register(1), script.register(2));
    script.grant(a.session);
    let handoff = script.begin(b.session);
    let mut destination = script.serve(&b, at(0));
    script.expire(a.session, Vec::new());
    script.push(&mut destination, at(10));
    let owner = script.owner(SliceKey::MIN).expect("completed");
    assert_eq!((owner.session, owner.epoch), (b.session, handoff.epoch));
    let proof = destination.proof_of_state(Slice::ALL, handoff.epoch);
    assert_eq!(proof, None);
}

/// Who did not hear the source's word has its proof from the view.
#[test]
pub fn the_view_brings_the_proof_to_who_has_not_heard_the_source() {
    let mut script = Script::strong();
    let (a, b) = (script.register(1), script.register(2));
    script.grant(a.session);
    let handoff = script.begin(b.session);
    let mut destination = script.serve(&b, at(0));
    script.apply(Command::CompleteHandoff {
        target: cart(),
        handoff: handoff.id,
        word: EndWord::Surrendered(a.session),
        digest: Some(DIGEST),
    });
    let proof = |of: &Holder| of.proof_of_state(Slice::ALL, handoff.epoch);
    assert_eq!(proof(&destination), None);
    script.push(&mut destination, at(10));
    assert_eq!(proof(&destination), Some(DIGEST));
}

/// A table in which A has surrendered the lower of two slices to B, which owns the upper one and
/// has not heard of it.
struct Surrendered {
    script: Script,
    b: Registered,
    destination: Holder,
    epoch: Epoch,
}

fn surrendered() -> Surrendered {
    let mut script = Script::with(Consistency::Strong, 2);
    let (a, b) = (script.register(1), script.register(2));
    script.grant(a.session);
    let upper = script.slice(SliceKey::MAX);
    let grant = PlanStep::Grant {
        slice: upper,
        to: b.session,
    };
    script.plan(grant).expect("it is vacant");
    let handoff = script.begin(b.session);
    let destination = script.serve(&b, at(0));
    script.apply(Command::CompleteHandoff {
        target: cart(),
        handoff: handoff.id,
        word: EndWord::Surrendered(a.session),
        digest: Some(DIGEST),
    });
    Surrendered {
        script,
        b,
        destination,
        epoch: handoff.epoch,
    }
}

/// Counter-example: A surrenders to B, which does not hear it and learns only from the view that the
/// slice is its own; before it does the slice is merged with another one of B's. Nothing proves to B
/// what it has received, and it begins empty, in a planned move.
#[test]
pub fn slices_are_merged_only_when_the_state_they_came_with_was_taken_in() {
    let Surrendered {
        mut script,
        b,
        mut destination,
        epoch,
    } = surrendered();
    let (left, right) = (script.slice(SliceKey::MIN), script.slice(SliceKey::MAX));
    let known = |of: &Holder| of.view().map(|view| view.generation);
    let merge = |taken_in| PlanStep::Merge {
        left,
        right,
        owner: b.session,
        taken_in,
    };
    for taken_in in [None, known(&destination)] {
        let refused = script.plan(merge(taken_in));
        assert_eq!(refused, Err(Rejection::NotTakenIn(left)));
    }
    script.push(&mut destination, at(10));
    assert_eq!(destination.proof_of_state(left, epoch), Some(DIGEST));
    assert_eq!(script.plan(merge(known(&destination))), Ok(()));
}

/// Who learns of the surrender and of a split, or of the next handoff, at once has the proof.
#[test]
pub fn what_follows_a_surrender_keeps_its_proof() {
    let split = |script: &mut Script| {
        let (slice, owner) = (script.slice(SliceKey::MIN), script.owner(SliceKey::MIN));
        let at = SliceKey::from_u64(7);
        script.plan(PlanStep::Split { slice, owner, at })
    };
    for hands_on in [false, true] {
        let Surrendered {
            mut script,
            mut destination,
            epoch,
            ..
        } = surrendered();
        if hands_on {
            let to = script.register(3).session;
            script.begin(to);
        } else {
            split(&mut script).expect("nothing is open");
        }
        script.push(&mut destination, at(10));
        let mine: Vec<Slice> = script
            .state()
            .slices()
            .filter(|(_, assigned)| assigned.owner.is_some_and(|owner| owner.epoch == epoch))
            .map(|(slice, _)| slice)
            .collect();
        assert_eq!(mine.len(), if hands_on { 1 } else { 2 });
        for slice in mine {
            assert_eq!(destination.proof_of_state(slice, epoch), Some(DIGEST));
        }
    }
}
