//! How fast state moves, and for how long nobody serves. Measured, not asserted: run it optimised,
//! `cargo test --release -p leasehold-client --test transfer_speed -- --ignored --nocapture`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;
mod pod;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fake::Fake;
use leasehold_client::OwnershipEvent;
use leasehold_client::proto::target::TargetConfig;
use leasehold_client::state::StateMap;
use pod::{LONG, Pod};

type Map = StateMap<Vec<u8>>;

struct Cache {
    pod: Pod,
    map: Map,
    /// When the last freeze and the last beginning were, on one clock of the process.
    frozen_ns: Arc<Mutex<u64>>,
    begun_ns: Arc<Mutex<u64>>,
}

impl Cache {
    async fn start(fake: &Fake) -> Cache {
        let map = Map::new();
        let state = map.clone();
        let (frozen_ns, begun_ns) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(0)));
        let (frozen, begun) = (Arc::clone(&frozen_ns), Arc::clone(&begun_ns));
        let log = move |event| match event {
            OwnershipEvent::Frozen { at_ns, .. } => *frozen.lock().unwrap() = at_ns,
            OwnershipEvent::Begin { at_ns, .. } => *begun.lock().unwrap() = at_ns,
            _ => {}
        };
        let pod = Pod::start_with(fake, "cart", |builder| {
            builder.state(state).on_ownership(log)
        })
        .await;
        pod.slicelet.ready(LONG).await.unwrap();
        Cache {
            pod,
            map,
            frozen_ns,
            begun_ns,
        }
    }

    fn put(&self, key: &[u8], value: &[u8]) -> bool {
        let Ok(guard) = self.pod.slicelet.guard(key) else {
            return false;
        };
        self.map.insert(&guard, key, value.to_vec()).is_ok()
    }

    fn has(&self, key: &[u8]) -> bool {
        let Ok(guard) = self.pod.slicelet.guard(key) else {
            return false;
        };
        self.map.with(&guard, key, |value| value.is_some())
    }
}

/// What the process has computed so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks = |field: usize| fields[field].parse::<u64>().unwrap();
    // Of 10 ms each wherever this runs.
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

fn key(n: usize) -> [u8; 8] {
    (n as u64).to_be_bytes()
}

async fn measure(megabytes: usize, value_bytes: usize, moves: usize, writes: bool) {
    let fake = Fake::start().await;
    fake.create("cart", 1, TargetConfig::default());
    let a = Cache::start(&fake).await;
    pod::until("it is served", || a.pod.slicelet.guard(b"x").is_ok()).await;
    let keys = (megabytes << 20) / value_bytes;
    let value = vec![7; value_bytes];
    for n in 0..keys {
        assert!(a.put(&key(n), &value));
    }
    let b = Cache::start(&fake).await;
    let pods = Arc::new([a, b]);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (pods, stop, value) = (Arc::clone(&pods), Arc::clone(&stop), value.clone());
        tokio::spawn(async move {
            let mut n = 0usize;
            while writes && !stop.load(Ordering::Relaxed) {
                n = (n * 31 + 17) % keys;
                let _ = pods[0].put(&key(n), &value) || pods[1].put(&key(n), &value);
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        })
    };
    let (mut pauses, mut speeds) = (Vec::new(), Vec::new());
    let before = cpu();
    for n in 0..moves {
        let (from, to) = (&pods[n % 2], &pods[(n + 1) % 2]);
        let session = to.pod.slicelet.session().unwrap();
        let at = to.pod.slicelet.slice_key(b"x");
        let before = to.pod.slicelet.stats().transfers_in_completed;
        pod::until("the handoff begins", || {
            fake.hand_off("cart", at, session).is_ok()
        })
        .await;
        let begun = Instant::now();
        pod::until("it is taken in", || {
            to.pod.slicelet.stats().transfers_in_completed > before
        })
        .await;
        let took = begun.elapsed();
        pod::until("it is served", || to.pod.slicelet.guard(b"x").is_ok()).await;
        pod::until("the handoff is completed", || {
            !fake.has_open_handoff("cart")
        })
        .await;
        assert!(to.has(&key(0)) && to.has(&key(keys - 1)));
        let pause = *to.begun_ns.lock().unwrap() - *from.frozen_ns.lock().unwrap();
        pauses.push(pause as f64 / 1e6);
        speeds.push((keys * value_bytes) as f64 / 1e6 / took.as_secs_f64());
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    pauses.sort_by(f64::total_cmp);
    speeds.sort_by(f64::total_cmp);
    let at = |sorted: &[f64], share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize];
    let computed = (cpu() - before).as_secs_f64() * 1e9 / (moves * keys * value_bytes) as f64;
    println!(
        "{megabytes} MiB, values of {value_bytes} B, writes {writes}: {:.0} MB/s (best {:.0}; {computed:.2} s of processor per GB), nobody serves for {:.2} ms (p99 {:.2}, most {:.2})",
        at(&speeds, 0.5),
        at(&speeds, 1.0),
        at(&pauses, 0.5),
        at(&pauses, 0.99),
        at(&pauses, 1.0),
    );
}

#[ignore = "a measurement"]
#[tokio::test(flavor = "multi_thread")]
async fn speed_and_pause() {
    measure(1, 1_000, 200, true).await;
    measure(256, 4_000, 6, true).await;
    measure(1_024, 4_000, 4, true).await;
    measure(1_024, 64_000, 4, false).await;
}
