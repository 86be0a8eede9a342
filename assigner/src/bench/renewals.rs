//! Renewals: one message per session, confirmed by a quorum, none written to the log.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use futures::StreamExt;
use hdrhistogram::Histogram;
use leasehold_proto::SessionId;
use leasehold_proto::target::Consistency;
use tokio::time::Instant;

use super::sessions::{
    ANSWER, ById, Session, Stream, Told, connect, deal, read, register, renewal,
};
use crate::harness::assigners::Assigners;
use crate::harness::procs::Ports;
use leasehold_figures::{Goal, Report};

/// Long enough that a saturated or paused bench never expires a session by being slow itself.
const TTL: Duration = Duration::from_secs(30);
const CONNECTIONS: usize = 16;
/// How long the paced bench runs, and how often each session renews in it.
const PACED: Duration = Duration::from_secs(60);
const PERIOD: Duration = Duration::from_millis(500);

pub async fn run(seconds: u32, dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut assigners = Assigners::plan(dir, 3, TTL, &mut Ports::default())?;
    let control = assigners.start_all().await?;
    let leader = assigners.leader_endpoint(&control).await?;
    let mut lost = 0;
    for (count, name, goal) in [
        (1_000, "renewals_per_s_1k_sessions", Goal::None),
        (
            10_000,
            "renewals_per_s_10k_sessions",
            Goal::AtLeast(150_000.0),
        ),
    ] {
        let target = format!("bench-{count}");
        control
            .create_target(&target, Consistency::Strong, TTL, 1)
            .await?;
        let sessions = register(&connect(&leader).await?, &target, count).await?;
        let cpu_before = assigners.cpu_s()?;
        let saturated = saturate(&leader, sessions.clone(), seconds).await?;
        report.figure(name, saturated.per_s, "1/s", goal);
        lost += saturated.closed;
        if count == 10_000 {
            let cpu = (assigners.cpu_s()? - cpu_before) * 10_000.0 / saturated.total as f64;
            report.figure("renewal_cpu_s_per_10k", cpu, "s", Goal::AtMost(0.08));
            let cpu_before = assigners.cpu_s()?;
            let paced = pace(&leader, sessions).await?;
            report.figure(
                "renewal_paced_ms_p99",
                paced.p99_ms,
                "ms",
                Goal::AtMost(2.0),
            );
            let cores = (assigners.cpu_s()? - cpu_before) / PACED.as_secs_f64();
            report.figure("renewal_paced_cpu_cores", cores, "cores", Goal::None);
            lost += paced.closed;
        }
    }
    report.figure("renewal_sessions_lost", lost as f64, "1", Goal::AtMost(0.0));
    assigners.stop_all().await
}

struct Saturated {
    total: u64,
    per_s: f64,
    closed: u64,
}

/// Every session renews again as soon as it is answered.
async fn saturate(leader: &str, sessions: Vec<Session>, seconds: u32) -> anyhow::Result<Saturated> {
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let mut tasks = Vec::new();
    for part in deal(sessions, CONNECTIONS)? {
        let channel = connect(leader).await?;
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        tasks.push(tokio::spawn(async move {
            saturate_stream(Stream::attach(&channel, &part).await?, part, &stop, &done).await
        }));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (begun, before) = (Instant::now(), done.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
    let (elapsed, after) = (begun.elapsed(), done.load(Ordering::Relaxed));
    stop.store(true, Ordering::Relaxed);
    let mut closed = 0;
    for task in tasks {
        closed += task.await??;
    }
    Ok(Saturated {
        total: done.load(Ordering::Relaxed),
        per_s: (after - before) as f64 / elapsed.as_secs_f64(),
        closed,
    })
}

/// Returns how many sessions were closed.
async fn saturate_stream(
    stream: Stream,
    sessions: Vec<Session>,
    stop: &AtomicBool,
    done: &AtomicU64,
) -> anyhow::Result<u64> {
    let (out, mut answers) = stream.split();
    let mut by_id = ById(
        sessions
            .into_iter()
            .map(|session| (session.id, session))
            .collect(),
    );
    for session in by_id.0.values_mut() {
        out.send(renewal(session)).await?;
    }
    let mut closed = 0;
    while !stop.load(Ordering::Relaxed) {
        let message = tokio::time::timeout(ANSWER, answers.next())
            .await
            .context("a renewal was not answered")?;
        match read(message.context("the stream ended")??, &mut by_id)? {
            Told::Renewed(id) => {
                done.fetch_add(1, Ordering::Relaxed);
                out.send(renewal(&mut by_id[id])).await?;
            }
            Told::Closed => closed += 1,
            Told::View => {}
        }
    }
    Ok(closed)
}

struct Paced {
    p99_ms: f64,
    closed: u64,
}

/// Every session renews once a period, all of them spread evenly over it.
async fn pace(leader: &str, sessions: Vec<Session>) -> anyhow::Result<Paced> {
    let mut tasks = Vec::new();
    for part in deal(sessions, CONNECTIONS)? {
        let channel = connect(leader).await?;
        tasks.push(tokio::spawn(async move {
            pace_stream(Stream::attach(&channel, &part).await?, part).await
        }));
    }
    let mut all = Histogram::<u64>::new(3)?;
    let mut closed = 0;
    for task in tasks {
        let (histogram, lost) = task.await??;
        all.add(histogram)?;
        closed += lost;
    }
    Ok(Paced {
        p99_ms: all.value_at_quantile(0.99) as f64 / 1e6,
        closed,
    })
}

async fn pace_stream(
    stream: Stream,
    sessions: Vec<Session>,
) -> anyhow::Result<(Histogram<u64>, u64)> {
    let (out, mut answers) = stream.split();
    let order: Vec<SessionId> = sessions.iter().map(|session| session.id).collect();
    let mut by_id = ById(
        sessions
            .into_iter()
            .map(|session| (session.id, session))
            .collect(),
    );
    let mut sent_at: HashMap<SessionId, Instant> = HashMap::new();
    let mut latency_ns = Histogram::<u64>::new(3)?;
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    let (begun, mut sent, mut closed) = (Instant::now(), 0usize, 0);
    while begun.elapsed() < PACED {
        tokio::select! {
            _ = ticks.tick() => {
                let due = (begun.elapsed().as_secs_f64() / PERIOD.as_secs_f64() * order.len() as f64) as usize;
                for number in sent..due {
                    let id = order[number % order.len()];
                    if let Some(at) = sent_at.insert(id, Instant::now()) && at.elapsed() > ANSWER {
                        bail!("session {id} was not answered for {ANSWER:?}");
                    }
                    out.send(renewal(&mut by_id[id])).await?;
                }
                sent = due;
            }
            message = answers.next() => match read(message.context("the stream ended")??, &mut by_id)? {
                Told::Renewed(id) => {
                    if let Some(at) = sent_at.remove(&id) {
                        latency_ns.record(at.elapsed().as_nanos() as u64)?;
                    }
                }
                Told::Closed => closed += 1,
                Told::View => {}
            },
        }
    }
    Ok((latency_ns, closed))
}
