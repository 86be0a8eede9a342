//! Those who ask a pod while its state moves. They have threads of their own, as they would live
//! elsewhere: only the machine's cores are shared with the pods, not their runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use leasehold_client::ChannelPool;
use leasehold_proto::Slice;
use tokio::task::JoinSet;

use crate::demo::kv::GetRequest;
use crate::demo::kv::kv_client::KvClient;

/// Requests per second, each sent when it is due whatever became of those before it.
const REQUESTS_PER_S: u32 = 1_000;
/// Different keys.
const KEYS: u32 = 1_000;

/// Requests under way until they are stopped.
pub struct Users {
    running: Arc<AtomicBool>,
    sender: JoinHandle<anyhow::Result<Vec<f64>>>,
}

impl Users {
    /// Begins to read keys of the slice from the pod.
    pub fn start(address: String, slice: Slice) -> anyhow::Result<Self> {
        let running = Arc::new(AtomicBool::new(true));
        let still = Arc::clone(&running);
        let send = move || send(&address, slice, &still);
        let sender = std::thread::Builder::new()
            .name("users".to_owned())
            .spawn(send)?;
        Ok(Self { running, sender })
    }

    /// Ends them: how long each took, in milliseconds, from the moment when it was due.
    pub async fn stop(self) -> anyhow::Result<Vec<f64>> {
        self.running.store(false, Ordering::Relaxed);
        let joined = tokio::task::spawn_blocking(|| self.sender.join()).await?;
        joined.map_err(|_| anyhow::anyhow!("who sends requests panicked"))?
    }
}

fn send(address: &str, slice: Slice, running: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let channel = runtime.block_on(ChannelPool::new().get(address))?;
    let keys: Vec<_> = (0..KEYS).map(|number| key_of(slice, number)).collect();
    let (mut tasks, begun) = (JoinSet::new(), Instant::now());
    for number in 0u32.. {
        // A timer of the runtime would be late by up to a millisecond, each time the same.
        let due = begun + Duration::from_secs(1) * number / REQUESTS_PER_S;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if !running.load(Ordering::Relaxed) {
            break;
        }
        let mut kv = KvClient::new(channel.clone());
        let key = keys[(number % KEYS) as usize].clone();
        let request = async move {
            let answered = kv.get(GetRequest { key }).await;
            answered.map(|_| due.elapsed().as_secs_f64() * 1e3)
        };
        tasks.spawn_on(request, runtime.handle());
    }
    let took = runtime.block_on(tasks.join_all());
    let took: Result<Vec<f64>, _> = took.into_iter().collect();
    took.context("a request failed")
}

/// An application's key whose hash is in the slice.
fn key_of(slice: Slice, number: u32) -> Vec<u8> {
    let hash = leasehold_proto::KeyHash::default();
    (0u32..)
        .map(|tried| format!("{number}-{tried}").into_bytes())
        .find(|key| slice.contains(hash.slice_key(key)))
        .unwrap_or_default()
}
