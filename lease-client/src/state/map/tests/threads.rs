//! Writers in threads beside exports, discards and each other.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Each key is written once while the slice is read for the first time: what is missed stays so.
#[test]
fn a_write_that_meets_the_cursor_arrives() {
    let offline = owner();
    for round in 1..40u64 {
        let map = StateMap::<u64>::new();
        let write = |n, value| {
            let (at, key) = Layout::Crowded.key(n);
            let guard = offline.slicelet.guard_slice_key(at).unwrap();
            map.insert(&guard, &key, value).unwrap();
        };
        (0..200).for_each(|n| write(n, 0));
        let most_bytes = [MUCH, LITTLE, NOTHING][round as usize % 3];
        let mut export = MapExport::remembering(&map.inner, Slice::ALL, most_bytes);
        let arrived = StateMap::<u64>::new();
        std::thread::scope(|scope| {
            let (map, slicelet) = (&map, &offline.slicelet);
            let writer = scope.spawn(move || {
                for n in 0..200 {
                    let (at, key) = Layout::Crowded.key(n);
                    let guard = slicelet.guard_slice_key(at).unwrap();
                    map.insert(&guard, &key, round).unwrap();
                }
            });
            let mut exported = Exported::More;
            while exported == Exported::More || !writer.is_finished() {
                let mut records = Vec::new();
                exported = export.read(100, &mut records);
                arrived
                    .import(Slice::ALL, &records, Import::Replace)
                    .unwrap();
            }
            let mut records = Vec::new();
            assert_eq!(export.read(1 << 20, &mut records), Exported::CaughtUp);
            export.follower.check();
            arrived
                .import(Slice::ALL, &records, Import::Replace)
                .unwrap();
        });
        let (there, here) = (content(&arrived, Slice::ALL), content(&map, Slice::ALL));
        assert_eq!(there, here, "round {round}");
    }
}

/// Neighbours come and go: leaves are cut and joined all the time, and nobody's key is lost.
#[test]
fn keys_of_leaves_that_join_are_kept() {
    const WRITERS: u16 = 3;
    let offline = owner();
    let map = StateMap::<u64>::new();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (map, slicelet) = (&map, &offline.slicelet);
            scope.spawn(move || {
                for round in 0..300u64 {
                    let keys = (0..60).filter(|n| n % WRITERS == writer);
                    let guarded = keys.map(|n| {
                        let (at, key) = Layout::Crowded.key(n);
                        (slicelet.guard_slice_key(at).unwrap(), key)
                    });
                    let guarded: Vec<_> = guarded.collect();
                    for (guard, key) in &guarded {
                        assert_eq!(map.insert(guard, key, round), Ok(None));
                    }
                    for (guard, key) in &guarded {
                        assert_eq!(map.remove(guard, key), Ok(Some(round)));
                    }
                }
            });
        }
    });
    map.inner.tree.check();
    assert!(content(&map, Slice::ALL).is_empty());
}

/// Writers in threads, while one half is exported over and over and the other one discarded.
#[test]
fn exports_and_discards_beside_writers_miss_nothing() {
    for most_bytes in [MUCH, LITTLE, NOTHING] {
        exports_and_discards_beside_writers(most_bytes);
    }
}

fn exports_and_discards_beside_writers(most_bytes: usize) {
    const WRITERS: u16 = 3;
    let offline = owner();
    let map = StateMap::<u64>::new();
    let (kept, moved) = (Layout::Crowded.half(false), Layout::Crowded.half(true));
    let done = AtomicBool::new(false);
    let mut follower = MapExport::remembering(&map.inner, kept, most_bytes);
    let arrived = StateMap::<u64>::new();
    let mut follow = |map: &StateMap<u64>| {
        let mut records = Vec::new();
        let exported = follower.read(2_000, &mut records);
        map.import(kept, &records, Import::Replace).unwrap();
        exported
    };
    std::thread::scope(|scope| {
        let (map, slicelet) = (&map, &offline.slicelet);
        let write = move |writer: u16| {
            for round in 0..60u64 {
                for n in (0..1_400).filter(|n| n % WRITERS == writer) {
                    let (at, key) = Layout::Crowded.key(n);
                    let guard = slicelet.guard_slice_key(at).unwrap();
                    let change = |value: &mut Option<u64>| match (u64::from(n) ^ round) % 7 {
                        0 => *value = None,
                        _ => *value.get_or_insert(0) += round,
                    };
                    map.update(&guard, &key, change).unwrap();
                }
            }
        };
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| scope.spawn(move || write(n)))
            .collect();
        let finished = &done;
        scope.spawn(move || {
            while !finished.load(Ordering::Relaxed) {
                map.discard(moved);
                map.inner.tree.leaves(Slice::ALL);
            }
        });
        while !writers.iter().all(|writer| writer.is_finished()) {
            follow(&arrived);
        }
        done.store(true, Ordering::Relaxed);
    });
    while follow(&arrived) == Exported::More {}
    map.discard(moved);
    map.inner.tree.check();
    assert!(!content(&map, kept).is_empty());
    assert_eq!(content(&arrived, Slice::ALL), content(&map, Slice::ALL));
}

#[test]
fn nothing_is_written_behind_a_discard() {
    for round in 0..200 {
        let offline = owner();
        let map = StateMap::<u64>::new();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let guard = offline.slicelet.guard(b"k").unwrap();
                let (map, writes) = (map.clone(), round);
                scope.spawn(move || {
                    let mut written = 0;
                    while map.insert(&guard, b"k", written).is_ok() {
                        written += 1;
                        if written > writes {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            drop(offline);
            map.discard(Slice::ALL);
            assert!(content(&map, Slice::ALL).is_empty(), "round {round}");
        });
        assert!(content(&map, Slice::ALL).is_empty(), "round {round}");
    }
}
