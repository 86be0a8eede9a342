//! One change told to many watchers: how long until the last of them has it.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use leasehold_proto::Generation;
use leasehold_proto::target::Consistency;
use leasehold_proto::wire::pb::watch_client::WatchClient;
use leasehold_proto::wire::{self, pb};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::transport::Channel;

use super::sessions::{ById, Session, Stream, connect, read, register, renewal};
use crate::harness::assigners::Assigners;
use crate::harness::control::Control;
use crate::harness::procs::Ports;
use leasehold_figures::{Goal, Report, quantile};

const TTL: Duration = Duration::from_secs(30);
/// Connections that the watchers share: four to each Assigner, as etcd's bench had.
const CONNECTIONS: usize = 12;
const CHANGES: usize = 300;
const TARGET: &str = "bench";

pub async fn run(dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut assigners = Assigners::plan(dir, 3, TTL, &mut Ports::default())?;
    let control = assigners.start_all().await?;
    let leader = assigners.leader_endpoint(&control).await?;
    // Eventual mode: a move is one commit, and the bench's sessions need not hand anything over.
    control
        .create_target(TARGET, Consistency::Eventual, TTL, 64)
        .await?;
    let channel = connect(&leader).await?;
    let sessions = register(&channel, TARGET, 2).await?;
    let owners = tokio::spawn(keep(
        Stream::attach(&channel, &sessions).await?,
        sessions.clone(),
    ));
    while control
        .slices(TARGET)
        .await?
        .iter()
        .any(|row| row.owner.is_none())
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    control.hold(TARGET, true).await?;
    for (watchers, p50_name, p99_name, goal) in [
        (1_000, "fanout_ms_p50_1k", "fanout_ms_p99_1k", 5.0),
        (5_000, "fanout_ms_p50_5k", "fanout_ms_p99_5k", 25.0),
    ] {
        let times_ms = told(&assigners, &control, watchers).await?;
        let reason = "no change was told";
        report.maybe(p50_name, quantile(&times_ms, 0.5), "ms", Goal::None, reason);
        report.maybe(
            p99_name,
            quantile(&times_ms, 0.99),
            "ms",
            Goal::AtMost(goal),
            reason,
        );
    }
    owners.abort();
    assigners.stop_all().await
}

/// Keeps two sessions alive.
async fn keep(stream: Stream, sessions: Vec<Session>) -> anyhow::Result<()> {
    let (out, mut answers) = stream.split();
    let mut by_id = ById(
        sessions
            .into_iter()
            .map(|session| (session.id, session))
            .collect(),
    );
    let mut ticks = tokio::time::interval(TTL / 6);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                for session in by_id.0.values_mut() {
                    out.send(renewal(session)).await?;
                }
            }
            message = answers.next() => {
                read(message.context("the stream ended")??, &mut by_id)?;
            }
        }
    }
}

/// For each change: milliseconds from the send of the request until the last watcher has the view
/// that it led to.
async fn told(
    assigners: &Assigners,
    control: &Control,
    watchers: usize,
) -> anyhow::Result<Vec<f64>> {
    let endpoints = assigners.endpoints();
    let mut channels = Vec::new();
    for number in 0..CONNECTIONS {
        channels.push(connect(&endpoints[number % endpoints.len()]).await?);
    }
    // Bounded by what the watchers can have in flight: each sends one note per change.
    let (notes, mut heard) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..watchers {
        tasks.spawn(watch(channels[number % CONNECTIONS].clone(), notes.clone()));
    }
    for _ in 0..watchers {
        heard.recv().await.context("a watcher ended")?;
    }
    let mut times_ms = Vec::new();
    for change in 0..CHANGES {
        let rows = control.slices(TARGET).await?;
        let row = &rows[change % rows.len()];
        let (owner, _) = row.owner.as_ref().context("a slice without an owner")?;
        let other = rows
            .iter()
            .filter_map(|row| row.owner.as_ref())
            .find(|(session, _)| session != owner);
        let (to, _) = other.context("only one session owns slices")?;
        let begun = Instant::now();
        control.move_slice(TARGET, row.slice, *to).await?;
        // The next view of each watcher is the one that this change made: nothing else changes.
        let mut generation: Option<Generation> = None;
        for _ in 0..watchers {
            let told: Generation = heard.recv().await.context("a watcher ended")?;
            anyhow::ensure!(
                *generation.get_or_insert(told) == told,
                "two changes at once"
            );
        }
        times_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    tasks.abort_all();
    Ok(times_ms)
}

async fn watch(channel: Channel, notes: mpsc::UnboundedSender<Generation>) -> anyhow::Result<()> {
    let request = pb::WatchRequest {
        target: TARGET.into(),
        known: None,
        client_name: "bench".into(),
    };
    let mut views = WatchClient::new(channel).watch(request).await?.into_inner();
    while let Some(reply) = views.next().await {
        let update = reply?.update;
        if !update.is_empty() {
            notes.send(wire::decode_view_update(&update)?.generation())?;
        }
    }
    Ok(())
}
