//! Samples agree exactly where both ends have the same, whatever version wrote it.

use super::*;

#[test]
fn samples_agree_at_both_ends_until_something_differs() {
    for layout in [Layout::Spread, Layout::Shared, Layout::Crowded] {
        let mut world = World::new(layout, 1_000);
        let slice = layout.half(false);
        world.apply(Op::Begin(0, Some(false)));
        let mut moving = world.exports[0].take().unwrap();
        while moving.read(100_000) == Exported::More {}
        let samples = world.map.sample(slice, 32, 1);
        assert_eq!(samples.len(), 32, "{layout:?}");
        assert_ne!(samples, world.map.sample(slice, 32, 2));
        let there = &moving.arrived;
        assert!(samples.iter().all(|sample| there.agrees(slice, sample)));
        assert!(!there.agrees(layout.half(true), &samples[0]), "outside");
        assert!(!there.agrees(slice, &samples[0][1..]));
        let longer = [samples[0].as_slice(), &[0]].concat();
        assert!(!there.agrees(slice, &longer));
        (0..1_000).for_each(|n| world.apply(Op::Write(n, n as u8 ^ 1)));
        let samples = world.map.sample(slice, 32, 3);
        assert!(samples.iter().all(|sample| !there.agrees(slice, sample)));
        there.discard(slice);
        assert!(samples.iter().all(|sample| !there.agrees(slice, sample)));
        assert!(there.sample(slice, 32, 1).is_empty());
    }
}

#[test]
fn a_value_that_is_too_long_is_not_sampled() {
    let offline = owner();
    let map = StateMap::<Vec<u8>>::new();
    let guard = offline.slicelet.guard_slice_key(SliceKey::MIN).unwrap();
    let most = limits::STATE_SAMPLE_BYTES - 16 - 1;
    map.insert(&guard, b"a", vec![1; most]).unwrap();
    map.insert(&guard, b"b", vec![2; most + 1]).unwrap();
    let samples = map.sample(Slice::ALL, 32, 1);
    assert_eq!(samples.len(), 1);
    assert_eq!(samples[0].len(), limits::STATE_SAMPLE_BYTES);
}

/// A counter of two versions of an application. Each reads what the other one writes.
#[derive(Clone)]
struct Counted<const VERSION: u8> {
    count: u64,
    /// Since version 2.
    since: u64,
}

impl<const VERSION: u8> StateValue for Counted<VERSION> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        self.count.encode(out);
        if VERSION == 2 {
            self.since.encode(out);
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, bytes) = bytes.split_first()?;
        let (count, since) = match version {
            1 => (bytes, None),
            2 => bytes
                .split_at_checked(8)
                .map(|(count, since)| (count, Some(since)))?,
            _ => return None,
        };
        let since = match since {
            Some(since) if VERSION == 2 => u64::decode(since)?,
            _ => 0,
        };
        let count = u64::decode(count)?;
        Some(Self { count, since })
    }

    fn size_bytes(&self) -> usize {
        17
    }
}

fn moves_between_versions<const FROM: u8, const TO: u8>() {
    let offline = owner();
    let (here, there) = (
        StateMap::<Counted<FROM>>::new(),
        StateMap::<Counted<TO>>::new(),
    );
    let guard = offline.slicelet.guard_slice_key(SliceKey::MIN).unwrap();
    for count in 0..20u64 {
        let value = Counted { count, since: 7 };
        here.insert(&guard, &count.to_be_bytes(), value).unwrap();
    }
    let mut records = Vec::new();
    let exported = here.export(Slice::ALL).read(1 << 20, &mut records);
    assert_eq!(exported, Exported::CaughtUp);
    there.import(Slice::ALL, &records, Import::Replace).unwrap();
    let samples = here.sample(Slice::ALL, 20, 1);
    assert!(samples.len() > 10);
    let differing = || {
        samples
            .iter()
            .filter(|sample| !there.agrees(Slice::ALL, sample))
            .count()
    };
    assert_eq!(differing(), 0, "{FROM} to {TO}");
    for count in 0..20u64 {
        let count_up = |value: &mut Option<Counted<TO>>| value.as_mut().unwrap().count += 1;
        there
            .update(&guard, &count.to_be_bytes(), count_up)
            .unwrap();
    }
    assert_eq!(differing(), samples.len(), "{FROM} to {TO}");
}

#[test]
fn samples_agree_between_versions_that_write_values_differently() {
    moves_between_versions::<1, 2>();
    moves_between_versions::<2, 1>();
    moves_between_versions::<2, 2>();
}
