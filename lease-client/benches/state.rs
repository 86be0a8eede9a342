//! The state of slices: `cargo bench -p leasehold-client --bench state`.
//!
//! | Figure | What |
//! | --- | --- |
//! | `state_get_ns`, `state_update_ns` | under a guard that is had, among 65,536 keys of 64 bytes |
//! | `state_update_exported_ns` | the same while the slice is exported and has been read once |
//! | `state_export/…`, `state_import/…` | bytes per second of one core, by the size of values, 64 MiB at once |
//! | `user_latency_observe_ns` | one request counted |

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use leasehold_client::bench::slicelet_of;
use leasehold_client::pace::UserLatency;
use leasehold_client::proto::Slice;
use leasehold_client::state::{Exported, Import, SliceState, StateExport, StateMap};

const FRAME: usize = 256 << 10;
const STATE_BYTES: usize = 64 << 20;

fn key(n: usize) -> [u8; 16] {
    (n as u128)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        .to_be_bytes()
}

fn filled(keys: usize, value_bytes: usize) -> StateMap<Vec<u8>> {
    let (map, slicelet) = (StateMap::new(), slicelet_of(1));
    for n in 0..keys {
        let guard = slicelet.guard(&key(n)).unwrap();
        map.insert(&guard, &key(n), vec![n as u8; value_bytes])
            .unwrap();
    }
    map
}

/// All records, a frame each.
fn export(map: &StateMap<Vec<u8>>, mut frame: impl FnMut(&mut Vec<u8>)) {
    let mut export = map.export(Slice::ALL);
    let mut records = Vec::with_capacity(FRAME);
    loop {
        let exported = export.read(FRAME, &mut records);
        frame(&mut records);
        records.clear();
        if exported == Exported::CaughtUp {
            break;
        }
    }
}

fn keys(c: &mut Criterion) {
    const KEYS: usize = 1 << 16;
    let (map, slicelet) = (filled(KEYS, 64), slicelet_of(1));
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    let guards: Vec<_> = keys
        .iter()
        .map(|key| slicelet.guard(key).unwrap())
        .collect();
    let mut at = 0;
    let mut next = || {
        at = (at + 1) % KEYS;
        (&guards[at], &keys[at])
    };
    c.bench_function("state_get_ns", |b| {
        b.iter(|| {
            let (guard, key) = next();
            map.with(black_box(guard), black_box(key), |value| {
                value.map(Vec::len)
            })
        });
    });
    let mut update = || {
        let (guard, key) = next();
        map.update(black_box(guard), black_box(key), |value| {
            if let Some(byte) = value.as_mut().and_then(|value| value.first_mut()) {
                *byte = byte.wrapping_add(1);
            }
        })
        .unwrap();
    };
    c.bench_function("state_update_ns", |b| b.iter(&mut update));
    let mut export = map.export(Slice::ALL);
    while export.read(FRAME, &mut Vec::new()) == Exported::More {}
    c.bench_function("state_update_exported_ns", |b| b.iter(&mut update));
}

fn transfers(c: &mut Criterion) {
    let mut group = c.benchmark_group("state");
    group.sample_size(10);
    for value_bytes in [64, 1 << 10, 4 << 10, 64 << 10] {
        let map = filled(STATE_BYTES / (value_bytes + 32), value_bytes);
        let mut frames = Vec::new();
        export(&map, |frame| frames.push(frame.clone()));
        let bytes: usize = frames.iter().map(Vec::len).sum();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("export", value_bytes), |b| {
            b.iter(|| export(&map, |frame| *frame = std::mem::take(black_box(frame))));
        });
        group.bench_function(BenchmarkId::new("import", value_bytes), |b| {
            let import = |map: StateMap<Vec<u8>>| {
                for frame in &frames {
                    map.import(Slice::ALL, frame, Import::Replace).unwrap();
                }
                map
            };
            b.iter_batched(StateMap::new, import, BatchSize::PerIteration);
        });
    }
}

fn observe(c: &mut Criterion) {
    let latency = UserLatency::new(Instant::now());
    let mut us = 0;
    c.bench_function("user_latency_observe_ns", |b| {
        b.iter(|| {
            us = (us + 97) % 10_000;
            latency.observe(black_box(Duration::from_micros(us)));
        });
    });
}

criterion_group! {
    name = state;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = keys, transfers, observe
}
criterion_main!(state);
