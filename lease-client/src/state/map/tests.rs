//! Statements about the map: what arrives is what there was, and nothing is written without proof.

mod samples;
mod threads;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use leasehold_proto::target::{OnLapse, TargetConfig};
use leasehold_proto::{Slice, SliceKey, limits};
use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, SimulatedClock, SystemClock};
use crate::error::ErrorKind;
use crate::slicelet::offline::Offline;
use crate::state::{Exported, StateExport};

/// How much is remembered key by key: all that a test writes, some keys, or none.
const MUCH: usize = 1 << 20;
const LITTLE: usize = 8 * export::ENTRY_BYTES + 8 * 2;
const NOTHING: usize = 0;

type Content = BTreeMap<(u64, Vec<u8>), Vec<u8>>;

/// A Slicelet that owns everything.
fn owner() -> Offline {
    let clock = Clock::System(SystemClock::new());
    let mut offline = Offline::new(clock, Offline::long(), 1, None).unwrap();
    offline.renew();
    offline
}

/// How keys lie in the key space: spread, many at few slice keys, or crowded at one end.
#[derive(Clone, Copy, Debug)]
enum Layout {
    Spread,
    Shared,
    Crowded,
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![
        Just(Layout::Spread),
        Just(Layout::Shared),
        Just(Layout::Crowded)
    ]
}

fn most_bytes() -> impl Strategy<Value = usize> {
    prop_oneof![Just(MUCH), Just(LITTLE), Just(NOTHING)]
}

impl Layout {
    fn key(self, n: u16) -> (SliceKey, Vec<u8>) {
        let spread = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = match self {
            Layout::Spread => spread,
            Layout::Shared => spread >> 62 << 62,
            Layout::Crowded => u64::from(n),
        };
        (SliceKey::from_u64(at), n.to_be_bytes().to_vec())
    }

    /// One that has about half of the keys.
    fn half(self, upper: bool) -> Slice {
        let middle = match self {
            Layout::Spread | Layout::Shared => SliceKey::from_u64(1 << 63),
            Layout::Crowded => SliceKey::from_u64(700),
        };
        let (lower, higher) = Slice::ALL.split(middle).unwrap();
        if upper { higher } else { lower }
    }
}

fn content<V: StateValue>(map: &StateMap<V>, slice: Slice) -> Content {
    let mut content = Content::new();
    for leaf in map.inner.tree.leaves(slice) {
        for entry in leaf.lock().of(slice) {
            let mut value = Vec::new();
            entry.value.as_ref().unwrap().encode(&mut value);
            let known = content.insert((entry.at.as_u64(), entry.key.to_vec()), value);
            assert!(known.is_none());
        }
    }
    content
}

fn record_bytes(content: &Content) -> u64 {
    let bytes = |((_, key), value): (&(u64, Vec<u8>), &Vec<u8>)| 16 + key.len() + value.len();
    content.iter().map(bytes).sum::<usize>() as u64
}

fn of(model: &Content, slice: Slice) -> Content {
    let inside = |(at, _): &&(u64, Vec<u8>)| slice.contains(SliceKey::from_u64(*at));
    let pairs = model.iter().filter(|(key, _)| inside(key));
    pairs
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// One writer's map, its model, and an export of some slices of it.
struct World {
    offline: Offline,
    layout: Layout,
    /// What exports remember key by key.
    most_bytes: usize,
    map: StateMap<Vec<u8>>,
    model: Content,
    exports: [Option<Moving>; 2],
}

struct Moving {
    slice: Slice,
    export: MapExport<Vec<u8>>,
    arrived: StateMap<Vec<u8>>,
    changed: BTreeSet<u16>,
}

#[derive(Clone, Debug)]
enum Op {
    Write(u16, u8),
    Remove(u16),
    Begin(usize, Option<bool>),
    Read(usize, usize),
    End(usize),
    Discard(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0u16..1_400;
    let slice = proptest::option::of(any::<bool>());
    prop_oneof![
        20 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Op::Write(key, value)),
        8 => key.prop_map(Op::Remove),
        2 => (0usize..2, slice).prop_map(|(export, half)| Op::Begin(export, half)),
        20 => (0usize..2, 0usize..4_000).prop_map(|(export, most)| Op::Read(export, most)),
        1 => (0usize..2).prop_map(Op::End),
        1 => any::<bool>().prop_map(Op::Discard),
    ]
}

impl Moving {
    fn read(&mut self, most: usize) -> Exported {
        let mut records = b"before".to_vec();
        let exported = self.export.read(most, &mut records);
        let records = records.strip_prefix(b"before").unwrap();
        // A record of this test is at most this long.
        assert!(records.len() <= most.max(16 + 2 + 255));
        self.arrived
            .import(self.slice, records, Import::Replace)
            .unwrap();
        exported
    }

    /// Reads all, and compares.
    fn finish(mut self, model: &Content) {
        while self.read(10_000) == Exported::More {}
        assert_eq!(self.export.left_bytes(), Some(0));
        assert_eq!(content(&self.arrived, Slice::ALL), of(model, self.slice));
    }
}

impl World {
    fn new(layout: Layout, filled: u16) -> Self {
        let mut world = Self {
            offline: owner(),
            layout,
            most_bytes: MUCH,
            map: StateMap::new(),
            model: Content::new(),
            exports: [None, None],
        };
        (0..filled).for_each(|n| world.apply(Op::Write(n, n as u8)));
        world
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Write(n, value) => self.write(n, Some(vec![value; value.into()])),
            Op::Remove(n) => self.write(n, None),
            Op::Begin(at, half) => {
                let slice = half.map_or(Slice::ALL, |upper| self.layout.half(upper));
                let moving = Moving {
                    slice,
                    export: MapExport::remembering(&self.map.inner, slice, self.most_bytes),
                    arrived: StateMap::new(),
                    changed: BTreeSet::new(),
                };
                if let Some(old) = self.exports[at].replace(moving) {
                    old.finish(&self.model);
                }
            }
            Op::Read(at, most) => {
                if let Some(moving) = &mut self.exports[at] {
                    moving.read(most);
                }
            }
            Op::End(at) => self.exports[at] = None,
            Op::Discard(upper) => {
                let slice = self.layout.half(upper);
                // An export of a slice ends before it is discarded.
                let other = |moving: &Moving| !moving.slice.overlaps(slice);
                for export in &mut self.exports {
                    *export = export.take().filter(other);
                }
                self.map.discard(slice);
                self.model
                    .retain(|(at, _), _| !slice.contains(SliceKey::from_u64(*at)));
                assert_eq!(self.map.bytes(slice), 0);
            }
        }
    }

    fn write(&mut self, n: u16, value: Option<Vec<u8>>) {
        let (at, key) = self.layout.key(n);
        let guard = self.offline.slicelet.guard_slice_key(at).unwrap();
        let model_key = (at.as_u64(), key.clone());
        let (before, model) = match value {
            Some(value) => (
                self.map.insert(&guard, &key, value.clone()),
                self.model.insert(model_key, value),
            ),
            None => (
                self.map.remove(&guard, &key).map_err(WriteError::from),
                self.model.remove(&model_key),
            ),
        };
        assert_eq!(before.unwrap(), model);
        for moving in self.exports.iter_mut().flatten() {
            moving.changed.insert(n);
            assert!(moving.export.follower.remembered() <= moving.changed.len());
            moving.export.follower.check();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_arrives_is_what_there_was(layout in layout(), most_bytes in most_bytes(), filled in 0u16..1_400, ops in proptest::collection::vec(op(), 0..400)) {
        let mut world = World::new(layout, filled);
        world.most_bytes = most_bytes;
        for op in ops {
            world.apply(op);
            world.map.inner.tree.check();
        }
        prop_assert_eq!(content(&world.map, Slice::ALL), world.model.clone());
        prop_assert_eq!(world.map.bytes(Slice::ALL), record_bytes(&world.model));
        let model = world.model;
        world.exports.into_iter().flatten().for_each(|moving| moving.finish(&model));
        prop_assert!(world.map.inner.followers.load().is_empty());
    }

    #[test]
    fn hostile_records_are_refused_and_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in any::<proptest::sample::Index>(), change in any::<u8>(), cut in any::<proptest::sample::Index>(), merge: bool) {
        let how = if merge { Import::Merge } else { Import::Replace };
        let map = StateMap::<String>::new();
        let _ = map.import(Slice::ALL, &bytes, how);
        let mut written = Vec::new();
        for n in 0..5u64 {
            record::write(SliceKey::from_u64(n), b"key", Some(&"value".to_owned()), &mut written);
            let end = Position::before(SliceKey::from_u64(n + 1));
            record::write_cleared(&end, (n > 1).then_some(&end), &mut written);
        }
        let at = at.index(written.len());
        written[at] ^= change;
        written.truncate(cut.index(written.len() + 1));
        let _ = map.import(Layout::Crowded.half(false), &written, how);
        map.inner.tree.check();
    }
}

#[test]
fn records_beyond_a_limit_or_outside_the_slice_are_refused() {
    let map = StateMap::<Vec<u8>>::new();
    let record = |key: usize, value: usize| {
        let mut record = Vec::new();
        record::write(
            SliceKey::from_u64(1 << 63),
            &vec![0; key],
            Some(&vec![0; value]),
            &mut record,
        );
        record
    };
    let import = |slice, key, value| map.import(slice, &record(key, value), Import::Replace);
    let most = limits::STATE_FRAME_BYTES - 16;
    assert!(import(Slice::ALL, limits::KEY_BYTES, 1).is_ok());
    assert!(import(Slice::ALL, limits::KEY_BYTES + 1, 1).is_err());
    assert!(import(Slice::ALL, 1, most - 1).is_ok());
    assert!(import(Slice::ALL, 1, most).is_err());
    assert!(import(Layout::Spread.half(true), 1, 1).is_ok());
    assert!(import(Layout::Spread.half(false), 1, 1).is_err());
}

#[test]
fn what_could_not_move_is_not_written() {
    let offline = owner();
    let map = StateMap::<Vec<u8>>::new();
    let most = limits::STATE_FRAME_BYTES - 16 - 1;
    let guard = offline.slicelet.guard(b"k").unwrap();
    let refused = |result: Result<(), WriteError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, WriteError::TooLarge { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    };
    map.insert(&guard, b"k", vec![1; most]).unwrap();
    refused(map.insert(&guard, b"k", vec![2; most + 1]).map(drop));
    let grow = |value: &mut Option<Vec<u8>>| value.get_or_insert_default().push(3);
    refused(map.update(&guard, b"k", grow));
    assert_eq!(map.get(&guard, b"k"), Some(vec![1; most]), "as it was");
    let long = vec![0; limits::KEY_BYTES + 1];
    refused(map.insert(&guard, &long, vec![]).map(drop));
    refused(map.update(&guard, &long, |_| ()));
    map.insert(&guard, &long[1..], vec![4]).unwrap();

    let (mut export, mut arrived) = (map.export(Slice::ALL), BTreeSet::new());
    loop {
        let mut records = Vec::new();
        let exported = export.read(limits::STATE_FRAME_BYTES, &mut records);
        assert!(records.len() <= limits::STATE_FRAME_BYTES);
        let there = StateMap::<Vec<u8>>::new();
        there.import(Slice::ALL, &records, Import::Replace).unwrap();
        arrived.extend(content(&there, Slice::ALL));
        if exported == Exported::CaughtUp {
            break;
        }
    }
    assert_eq!(arrived, content(&map, Slice::ALL).into_iter().collect());
}

#[test]
fn a_merge_that_grows_too_large_leaves_what_was_written_here() {
    let offline = owner();
    let map = StateMap::merging(|mine: &mut Vec<u8>, theirs| mine.extend(theirs));
    let guard = offline.slicelet.guard_slice_key(SliceKey::MIN).unwrap();
    let mine = vec![1; limits::STATE_FRAME_BYTES - 100];
    map.insert(&guard, b"k", mine.clone()).unwrap();
    let mut record = Vec::new();
    record::write(SliceKey::MIN, b"k", Some(&vec![2u8; 200]), &mut record);
    map.import(Slice::ALL, &record, Import::Merge).unwrap();
    assert_eq!(map.get(&guard, b"k"), Some(mine));
}

#[test]
fn a_guard_that_does_not_verify_writes_nothing() {
    let offline = owner();
    let map = StateMap::new();
    let guard = offline.slicelet.guard(b"k").unwrap();
    assert_eq!(map.insert(&guard, b"k", 1), Ok(None));
    drop(offline);
    let revoked = Err(WriteError::Lost(Lost::Revoked));
    assert_eq!(map.insert(&guard, b"k", 2), revoked);
    assert_eq!(map.get(&guard, b"k"), Some(1u64));
}

#[test]
fn a_fenced_guard_writes_nothing() {
    let clock = SimulatedClock::new();
    let config = TargetConfig {
        ttl: Duration::from_secs(3),
        on_lapse: OnLapse::ServeFenced,
        ..TargetConfig::default()
    };
    let shared = Clock::Other(Arc::new(clock.clone()));
    let mut offline = Offline::new(shared, config, 1, None).unwrap();
    offline.renew();
    clock.advance(Duration::from_secs(3));
    let guard = offline.slicelet.guard(b"k").unwrap();
    assert!(guard.is_fenced() && guard.verify().is_ok());
    let map = StateMap::new();
    let lapsed = Err(WriteError::Lost(Lost::Lapsed));
    assert_eq!(map.insert(&guard, b"k", 1u64), lapsed);
}

#[test]
fn a_panic_of_a_change_leaves_the_map_in_order() {
    let offline = owner();
    let map = StateMap::new();
    let guard = offline.slicelet.guard(b"k").unwrap();
    map.insert(&guard, b"k", 1u64).unwrap();
    for change in [
        |value: &mut Option<u64>| *value = None,
        |value: &mut Option<u64>| *value = Some(7),
    ] {
        let update = || {
            map.update(&guard, b"k", |value| {
                change(value);
                panic!("on purpose");
            })
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(update)).is_err());
        map.inner.tree.check();
    }
    assert_eq!(map.get(&guard, b"k"), Some(1), "as it was");
}

#[test]
fn in_a_merge_what_was_written_here_wins_or_is_merged() {
    let offline = owner();
    let record = |key: &str, value: Option<u64>| {
        let mut record = Vec::new();
        record::write(SliceKey::MIN, key.as_bytes(), value.as_ref(), &mut record);
        record
    };
    let guard = offline.slicelet.guard_slice_key(SliceKey::MIN).unwrap();
    let highest = StateMap::merging(|mine: &mut u64, theirs| *mine = theirs.max(*mine));
    for (map, merged) in [(StateMap::new(), 3), (highest, 5)] {
        let take = |key, value| {
            let merged = map.import(Slice::ALL, &record(key, value), Import::Merge);
            merged.unwrap();
            map.get(&guard, key.as_bytes())
        };
        map.insert(&guard, b"mine", 3).unwrap();
        assert_eq!(take("mine", Some(5)), Some(merged));
        assert_eq!(take("mine", None), Some(merged), "a removal loses");
        assert_eq!(take("theirs", Some(5)), Some(5));
        assert_eq!(take("theirs", Some(4)), Some(4), "later news of theirs");
        assert_eq!(take("theirs", None), None);
        assert_eq!(take("theirs", Some(1)), Some(1));
        map.update(&guard, b"theirs", |_| ()).unwrap();
        assert_eq!(take("theirs", None), Some(1), "it is ours since");
    }
}

#[test]
fn in_a_merge_what_was_written_here_stays_where_a_range_is_gone() {
    let offline = owner();
    let map = StateMap::<u64>::new();
    let guard = offline.slicelet.guard_slice_key(SliceKey::MIN).unwrap();
    let mut records = Vec::new();
    for key in [b"a", b"b", b"c"] {
        record::write(SliceKey::MIN, key, Some(&1u64), &mut records);
    }
    map.import(Slice::ALL, &records, Import::Merge).unwrap();
    map.insert(&guard, b"b", 2).unwrap();
    records.clear();
    let position = |key| position(SliceKey::MIN, key);
    record::write_cleared(&position(b"a"), Some(&position(b"c")), &mut records);
    map.import(Slice::ALL, &records, Import::Merge).unwrap();
    let values = [b"a", b"b", b"c"].map(|key| map.get(&guard, key));
    assert_eq!(values, [None, Some(2), Some(1)]);
    map.import(Slice::ALL, &records, Import::Replace).unwrap();
    assert_eq!(map.get(&guard, b"b"), None);
    assert_eq!(map.get(&guard, b"c"), Some(1));
}

#[test]
fn of_a_slice_that_is_written_little_little_is_sent_again() {
    for layout in [Layout::Spread, Layout::Shared, Layout::Crowded] {
        let mut world = World::new(layout, 1_400);
        world.most_bytes = LITTLE;
        world.apply(Op::Begin(0, None));
        let mut moving = world.exports[0].take().unwrap();
        while moving.read(10_000) == Exported::More {}
        for n in 0..8 {
            world.apply(Op::Write(n * 100, 10));
            world.apply(Op::Write(n * 100, 20));
        }
        let left = 8 * (16 + 2 + 20);
        assert_eq!(moving.export.left_bytes(), Some(left));
        let mut records = Vec::new();
        moving.export.read(1 << 20, &mut records);
        assert_eq!(records.len() as u64, left);
    }
}

/// Keys that come one behind the other are all in the range of the last leaf.
#[test]
fn what_is_left_of_a_range_grows_with_it() {
    let mut world = World::new(Layout::Crowded, 10);
    // A key or two, then a range.
    world.most_bytes = 2 * export::ENTRY_BYTES;
    world.apply(Op::Begin(0, None));
    let mut moving = world.exports[0].take().unwrap();
    while moving.read(10_000) == Exported::More {}
    world.exports[0] = Some(moving);
    (10..1_000).for_each(|n| world.apply(Op::Write(n, 100)));
    let moving = world.exports[0].take().unwrap();
    let left = moving.export.left_bytes().unwrap();
    let (written, all) = (990 * (16 + 2 + 100), record_bytes(&world.model));
    assert!((written..=2 * all).contains(&left), "{left} of {all}");
    moving.finish(&world.model);
}

/// Everything is written anew while nothing is read: what is remembered does not grow with it.
#[test]
fn what_an_export_remembers_is_bounded() {
    for (layout, most_bytes) in [
        (Layout::Spread, LITTLE),
        (Layout::Shared, LITTLE),
        (Layout::Crowded, NOTHING),
    ] {
        let mut world = World::new(layout, 1_400);
        world.most_bytes = most_bytes;
        world.apply(Op::Begin(0, None));
        let mut moving = world.exports[0].take().unwrap();
        while moving.read(10_000) == Exported::More {}
        world.exports[0] = Some(moving);
        for n in 0..1_400u16 {
            world.apply(Op::Write((u32::from(n) * 997 % 1_400) as u16, 7));
            if n % 3 == 0 {
                world.apply(Op::Remove(n));
            }
        }
        world.exports[0].take().unwrap().finish(&world.model);
    }
}

#[test]
fn the_size_of_a_slice_is_about_what_its_records_are() {
    for layout in [Layout::Spread, Layout::Crowded] {
        let world = World::new(layout, 1_400);
        for upper in [false, true] {
            let slice = layout.half(upper);
            let bytes = record_bytes(&of(&world.model, slice));
            let about = world.map.bytes(slice) as f64;
            assert!(
                (about / bytes as f64 - 1.0).abs() < 0.2,
                "{about} for {bytes}"
            );
        }
    }
}

#[test]
fn an_empty_map_is_as_small_as_a_new_one() {
    let mut world = World::new(Layout::Crowded, 1_400);
    let leaves = || world.map.inner.tree.leaves(Slice::ALL).len();
    let many = leaves();
    assert!(many > 64);
    (0..1_400).for_each(|n| world.apply(Op::Remove(n)));
    assert_eq!(world.map.inner.tree.leaves(Slice::ALL).len(), 64);
    assert_eq!(world.map.bytes(Slice::ALL), 0);
}

#[test]
fn a_key_that_changes_all_the_time_does_not_hold_up_others() {
    let mut world = World::new(Layout::Crowded, 10);
    world.apply(Op::Begin(0, None));
    let mut moving = world.exports[0].take().unwrap();
    while moving.read(10_000) == Exported::More {}
    (0..10).for_each(|n| world.apply(Op::Write(n, 200)));
    for value in 0..20 {
        world.apply(Op::Write(0, value));
        moving.read(0);
    }
    let behind = content(&moving.arrived, Slice::ALL)
        .into_iter()
        .filter(|(key, value)| world.model[key] != *value);
    assert!(behind.count() <= 1, "but for the one that goes on changing");
}
