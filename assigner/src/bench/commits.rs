//! Committed writes: a real table command of about 100 bytes, one outstanding per client.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use leasehold_proto::target::Consistency;
use leasehold_proto::wire::pb;
use leasehold_proto::wire::pb::admin_client::AdminClient;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

use super::slow_fsync;
use crate::harness::assigners::Assigners;
use crate::harness::procs::Ports;
use leasehold_figures::{Goal, Report};

const TTL: Duration = Duration::from_secs(3);
/// Connections that the clients share, at most.
const CONNECTIONS: usize = 8;

pub async fn run(seconds: u32, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut ports = Ports::default();
    let fast = dir.join("fast");
    std::fs::create_dir(&fast)?;
    let mut assigners = Assigners::plan(&fast, 3, TTL, &mut ports)?;
    let leader = start(&mut assigners).await?;
    measure(&leader, 16, seconds.min(2)).await?;
    for (clients, name, goal) in [
        (1, "commits_per_s_1_client", 2_000.0),
        (64, "commits_per_s_64_clients", 20_000.0),
        (512, "commits_per_s_512_clients", 36_000.0),
    ] {
        let before = assigners.fsyncs().await?;
        let commits = measure(&leader, clients, seconds).await?;
        report.figure(name, commits.per_s, "1/s", Goal::AtLeast(goal));
        if clients == 64 {
            let fsyncs = assigners.fsyncs().await? - before;
            let per_node = fsyncs / assigners.len() as f64;
            report.figure(
                "fsyncs_per_commit",
                per_node / commits.total as f64,
                "1",
                Goal::None,
            );
        }
    }
    assigners.stop_all().await?;
    slow(seconds, dir, &mut ports, report).await
}

/// The same with 2 ms added to each fsync, as an old disk or a busy cloud volume would.
async fn slow(
    seconds: u32,
    dir: &Path,
    ports: &mut Ports,
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = "commits_per_s_64_clients_slow_fsync";
    let shim = match slow_fsync::build(dir) {
        Ok(shim) => shim,
        Err(error) => {
            report.absent(name, &format!("the fsync shim cannot be built: {error:#}"));
            return Ok(());
        }
    };
    let slow = dir.join("slow");
    std::fs::create_dir(&slow)?;
    let mut assigners =
        Assigners::plan(&slow, 3, TTL, ports)?.with_env("LD_PRELOAD", &shim.display().to_string());
    let leader = start(&mut assigners).await?;
    let commits = measure(&leader, 64, seconds).await?;
    report.figure(name, commits.per_s, "1/s", Goal::None);
    assigners.stop_all().await
}

/// Starts the cluster and creates the target. Returns the leader's endpoint.
async fn start(assigners: &mut Assigners) -> anyhow::Result<String> {
    let control = assigners.start_all().await?;
    control
        .create_target("bench", Consistency::Strong, TTL, 1)
        .await?;
    assigners.leader_endpoint(&control).await
}

struct Commits {
    total: u64,
    per_s: f64,
}

async fn measure(leader: &str, clients: usize, seconds: u32) -> anyhow::Result<Commits> {
    let mut channels = Vec::new();
    for _ in 0..clients.min(CONNECTIONS) {
        channels.push(
            Endpoint::from_shared(leader.to_owned())?
                .tcp_nodelay(true)
                .connect()
                .await?,
        );
    }
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut tasks = Vec::new();
    for client in 0..clients {
        let channel = channels[client % channels.len()].clone();
        tasks.push(tokio::spawn(write(
            channel,
            client,
            Arc::clone(&stop),
            Arc::clone(&done),
        )));
    }
    // The first second warms up connections and caches.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (begun, before) = (Instant::now(), done.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
    let (elapsed, after) = (begun.elapsed(), done.load(Ordering::Relaxed));
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    // Counted to the end, so that fsyncs are set against every commit that they served.
    Ok(Commits {
        total: done.load(Ordering::Relaxed),
        per_s: (after - before) as f64 / elapsed.as_secs_f64(),
    })
}

async fn write(
    channel: Channel,
    client: usize,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut admin = AdminClient::new(channel);
    let mut number = 0u64;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let description = format!(
            "client {client:4}, change {number:10}, padded to the size of a usual command {:24}",
            ""
        );
        let change = pb::TargetChange {
            description: Some(description),
            ..Default::default()
        };
        let request = pb::UpdateTargetRequest {
            target: "bench".into(),
            change: Some(change),
            ..Default::default()
        };
        admin
            .update_target(request)
            .await
            .context("a write failed")?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
