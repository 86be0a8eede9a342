//! Behaviour of both ends together, over a connection that does anything but invent bytes.

use proptest::prelude::*;

use super::*;
use crate::id::{Generation, Incarnation};
use crate::key::SliceKey;

type Bytes = Vec<u8>;

fn epoch(number: u64) -> Epoch {
    let incarnation = Incarnation::new(1).unwrap();
    Epoch::mint(Generation::mint(incarnation, number).unwrap())
}

fn tag(from: u64) -> TransferTag {
    TransferTag {
        target: TargetName::new("cart").unwrap(),
        slice: Slice::new(SliceKey::from_u64(16), SliceKey::from_u64(31)).unwrap(),
        from_epoch: epoch(from),
        to_epoch: epoch(from + 1),
        handoff: HandoffId::mint(Incarnation::new(1).unwrap(), from),
    }
}

fn sender() -> Sender<Bytes> {
    Sender::new(tag(7), 1 << 20)
}

#[test]
fn the_last_frame_has_the_digest_of_all() {
    let (mut from, mut to) = (sender(), Receiver::new(tag(7)));
    for (mark, records) in [(Mark::More, "a"), (Mark::CaughtUp, ""), (Mark::Last, "b")] {
        let frame = from.push(mark, records.into()).unwrap();
        assert!(to.complete().is_none());
        to.receive(&frame).unwrap();
    }
    assert!(to.caught_up() && from.ended());
    assert_eq!(from.push(Mark::More, Bytes::new()), None);
    assert_eq!(from.acknowledge(to.ack()).unwrap(), to.complete());
    assert_ne!(to.complete().unwrap(), Digest::EMPTY);
}

#[test]
fn no_state_at_all_has_another_digest_than_empty_state() {
    let mut from = sender();
    let frame = from.push(Mark::Last, Bytes::new()).unwrap();
    assert_ne!(frame.digest, Some(Digest::EMPTY));
}

#[test]
fn what_is_not_the_next_frame_of_this_transfer_is_refused() {
    let (mut from, mut to) = (sender(), Receiver::new(tag(7)));
    let first = from.push(Mark::More, b"one".to_vec()).unwrap();
    let second = from.push(Mark::More, b"two".to_vec()).unwrap();
    let gap = Refusal::Gap {
        found: 2,
        wanted: 1,
    };
    assert_eq!(to.receive(&second), Err(gap));
    assert_eq!(to.receive(&first), Ok(()));
    assert_eq!(to.receive(&first), Err(Refusal::Duplicate(1)));

    let mut older = Sender::new(tag(6), 1 << 20);
    let old = older.push(Mark::More, b"old".to_vec()).unwrap();
    assert_eq!(to.receive(&old), Err(Refusal::OldEpoch));
    let mut newer = Sender::new(tag(8), 1 << 20);
    let new = newer.push(Mark::More, b"new".to_vec()).unwrap();
    assert_eq!(to.receive(&new), Err(Refusal::WrongTag));

    let mut damaged = second.clone();
    damaged.records[0] ^= 1;
    assert_eq!(to.receive(&damaged), Err(Refusal::Checksum(2)));
    let mut relabelled = second.clone();
    relabelled.mark = Mark::CaughtUp;
    assert_eq!(to.receive(&relabelled), Err(Refusal::Checksum(2)));
    let large = vec![0; limits::STATE_FRAME_BYTES + 1];
    assert_eq!(from.push(Mark::More, large), None);
    assert_eq!(to.receive(&second), Ok(()));
}

#[test]
fn a_last_frame_whose_digest_is_not_that_of_all_before_is_refused() {
    let (mut from, mut to) = (sender(), Receiver::new(tag(7)));
    let mut last = from.push(Mark::Last, Bytes::new()).unwrap();
    last.digest = Some(Digest([1; 16]));
    assert_eq!(to.receive(&last), Err(Refusal::Digest(1)));
    last.digest = None;
    assert_eq!(to.receive(&last), Err(Refusal::Digest(1)));
}

#[test]
fn an_acknowledgement_of_other_bytes_is_refused_and_changes_nothing() {
    let mut from = sender();
    let sent = [Mark::More, Mark::Last].map(|mark| from.push(mark, b"sent".to_vec()).unwrap());
    let digest = Digest([9; 16]);
    let other = |seq| Ack { seq, digest };
    assert_eq!(from.acknowledge(other(2)), Err(Refusal::Digest(2)));
    assert_eq!(from.acknowledge(other(3)), Err(Refusal::BeyondEnd(3)));
    assert_eq!(from.resume(0), Some(sent.to_vec()));
}

#[test]
fn a_source_keeps_no_more_than_its_window() {
    let mut from: Sender<Bytes> = Sender::new(tag(7), 100);
    let mut to = Receiver::new(tag(7));
    let mut kept = Vec::new();
    while from.has_room() {
        kept.push(from.push(Mark::More, vec![0; 40]).unwrap());
    }
    assert_eq!(kept.len(), 3);
    to.receive(&kept[0]).unwrap();
    from.acknowledge(to.ack()).unwrap();
    assert!(from.has_room());
}

#[test]
fn a_source_goes_on_only_from_what_it_still_has() {
    let (mut from, mut to) = (sender(), Receiver::new(tag(7)));
    for _ in 0..3 {
        let frame = from.push(Mark::More, vec![1]).unwrap();
        to.receive(&frame).unwrap();
    }
    from.acknowledge(to.ack()).unwrap();
    assert_eq!(from.resume(2), None, "frame 3 was acknowledged and is gone");
    assert_eq!(from.resume(4), None, "frame 4 was never sent");
    assert_eq!(from.resume(3), Some(Vec::new()));
    let fourth = from.push(Mark::More, vec![2]).unwrap();
    assert_eq!(from.resume(3), Some(vec![fourth]));
}

proptest! {
    /// Whatever is lost, doubled, swapped or cut off, the destination takes in exactly what was
    /// sent, in order, or nothing more.
    #[test]
    fn every_record_is_taken_in_once_and_in_order(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 1..30),
        mischief in prop::collection::vec((any::<u8>(), any::<u16>()), 0..300),
    ) {
        let (mut from, mut to) = (sender(), Receiver::new(tag(7)));
        let mut taken: Vec<Bytes> = Vec::new();
        let mut wire: Vec<Frame<Bytes>> = Vec::new();
        let mut pushed = 0;
        let mut step = |kind: u8, at: u16, wire: &mut Vec<Frame<Bytes>>| {
            match kind % 5 {
                0 if pushed < records.len() => {
                    let mark = if pushed + 1 == records.len() { Mark::Last } else { Mark::More };
                    wire.extend(from.push(mark, records[pushed].clone()));
                    pushed += 1;
                }
                1 if !wire.is_empty() => {
                    let frame = wire[at as usize % wire.len()].clone();
                    if to.receive(&frame).is_ok() {
                        taken.push(frame.records);
                    }
                }
                2 if !wire.is_empty() => {
                    let lost = at as usize % wire.len();
                    wire.remove(lost);
                }
                3 => {
                    from.acknowledge(to.ack()).unwrap();
                }
                4 => *wire = from.resume(to.ack().seq).unwrap(),
                _ => {}
            }
            to.complete()
        };
        for (kind, at) in mischief {
            step(kind, at, &mut wire);
        }
        // Then nothing bad happens any more.
        for _ in 0..=records.len() {
            step(0, 0, &mut wire);
        }
        step(4, 0, &mut wire);
        let mut complete = None;
        for at in 0..wire.len() {
            complete = step(1, at as u16, &mut wire);
        }
        let complete = if wire.is_empty() { to.complete() } else { complete };
        prop_assert_eq!(&taken, &records);
        prop_assert_eq!(from.acknowledge(to.ack()).unwrap(), complete);
        prop_assert!(complete.is_some());
    }
}
