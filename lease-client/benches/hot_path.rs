//! The hot paths: `cargo bench -p leasehold-client`.
//!
//! | Figure | What |
//! | --- | --- |
//! | `guard_ns` | `guard` and drop of a held slice among 128, hash included, the table swapped beside it |
//! | `verify_ns` | `verify` of a guard |
//! | `lookup_64k_ns`, `lookup_1m_ns` | `Clerk::lookup` among 65,536 and 1,048,576 slices, hash included |

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use leasehold_client::bench::{clerk_of, slicelet_of};

/// Enough that the lines they touch are spread over the table.
const KEYS: usize = 1 << 16;

fn keys() -> Vec<[u8; 16]> {
    (0..KEYS as u128)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)).to_be_bytes())
        .collect()
}

fn guards(c: &mut Criterion) {
    let keys = keys();
    let slicelet = Arc::new(slicelet_of(128));
    let stop = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (slicelet, stop) = (Arc::clone(&slicelet), Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                slicelet.swap();
                // 1000 publications a second: far more than any planner makes.
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let mut at = 0;
    c.bench_function("guard_ns", |b| {
        b.iter(|| {
            at = (at + 1) % KEYS;
            drop(black_box(slicelet.guard(black_box(&keys[at]))).unwrap());
        });
    });
    let guard = slicelet.guard(&keys[0]).unwrap();
    c.bench_function("verify_ns", |b| {
        b.iter(|| black_box(black_box(&guard).verify()))
    });
    stop.store(true, Ordering::Relaxed);
    swapping.join().unwrap();
}

fn lookups(c: &mut Criterion) {
    let keys = keys();
    for (name, slices) in [("lookup_64k_ns", 1 << 16), ("lookup_1m_ns", 1 << 20)] {
        let clerk = clerk_of(slices);
        let mut at = 0;
        c.bench_function(name, |b| {
            b.iter(|| {
                at = (at + 1) % KEYS;
                black_box(clerk.lookup(black_box(&keys[at])))
            });
        });
    }
}

criterion_group! {
    name = hot_path;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = guards, lookups
}
criterion_main!(hot_path);
