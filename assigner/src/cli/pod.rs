//! `leasehold pod`: processes by address, with their sessions over all targets.
//!
//! JSON: `list` prints `{"pods": [{"address", "draining", "slices", "sessions": [{"target",
//! "session", "phase", "draining", "slices"}...]}...]}`; `drain` `{"done", "address", "sessions",
//! "slices_left", "took_ms"}`, the last null without `--wait`.

mod progress;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Subcommand;
use leasehold_proto::table::SessionPhase;
use leasehold_proto::wire::{admin, pb};
use leasehold_proto::{PodAddress, SessionId, TargetName};
use progress::Progress;
use serde::Serialize;

use super::Global;
use super::client::Client;
use super::error::Failure;
use super::output::{Done, Report, emit};
use super::session::SessionReport;
use super::table::Table;
use super::target::ms;
use super::wait::{Look, until};
use super::{session, target};
use crate::config::parse_duration;

const DRAIN_HELP: &str = "\
Moves every slice of the pod to others, without a failed request, and gives it none. The pod serves
on until the last one has gone. With --wait the command returns then: it is safe to stop the pod.
Meanwhile it shows how far it is; when the time is over it names what is slow. The drain goes on
then, also when you interrupt the command; it ends when the pod does.

Example:
  leasehold pod drain 10.0.0.7:9000 --wait --reason 'kernel update'";

/// Verbs of `leasehold pod`.
#[derive(Subcommand)]
pub enum Verb {
    /// Show pods and their sessions
    List {
        /// Only sessions in this target
        #[arg(long, value_name = "NAME")]
        target: Option<TargetName>,
    },
    /// Move all slices away from a pod
    #[command(after_help = DRAIN_HELP)]
    Drain {
        /// The pod's address: host:port
        address: PodAddress,
        /// Only in this target
        #[arg(long, value_name = "NAME")]
        target: Option<TargetName>,
        /// Wait until it owns no slice, at most so long
        #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true)]
        #[arg(default_missing_value = "10m", value_parser = parse_duration)]
        wait: Option<Duration>,
    },
}

impl Verb {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let mut client = Client::new(global);
        if let Verb::List { target } | Verb::Drain { target, .. } = &self
            && let Some(only) = target
        {
            client = client.about(only);
        }
        match self {
            Verb::List { target } => emit(global, &list(&mut client, target.as_ref()).await?),
            Verb::Drain {
                address,
                target,
                wait,
            } => drain(client, global, &address, target.as_ref(), wait).await,
        }
    }
}

async fn targets(
    client: &mut Client,
    only: Option<&TargetName>,
) -> Result<Vec<TargetName>, Failure> {
    if let Some(target) = only {
        return Ok(vec![target.clone()]);
    }
    let all = target::list(client).await?;
    Ok(all
        .iter()
        .filter_map(|target| TargetName::new(&target.target).ok())
        .collect())
}

async fn list(client: &mut Client, only: Option<&TargetName>) -> Result<Pods, Failure> {
    let mut pods: BTreeMap<String, Pod> = BTreeMap::new();
    for target in targets(client, only).await? {
        for session in session::list(client, &target).await? {
            let session = SessionReport::from(session);
            let empty = || Pod {
                address: session.address.clone(),
                draining: true,
                slices: 0,
                sessions: Vec::new(),
            };
            let pod = pods.entry(session.address.clone()).or_insert_with(empty);
            pod.draining &= session.draining;
            pod.slices += session.slices;
            pod.sessions.push(PodSession {
                target: target.to_string(),
                session: session.session,
                phase: session.phase,
                draining: session.draining,
                slices: session.slices,
            });
        }
    }
    Ok(Pods {
        pods: pods.into_values().collect(),
    })
}

/// Live sessions of a pod, each with its target and how many slices it owns.
async fn of_pod(
    client: &mut Client,
    targets: &[TargetName],
    address: &PodAddress,
) -> Result<Vec<(TargetName, SessionId, u64)>, Failure> {
    let mut found = Vec::new();
    for target in targets {
        let sessions = session::list(client, target).await?.into_iter();
        let mine = sessions
            .filter(|info| info.phase == SessionPhase::Live && info.squid.address == *address);
        found.extend(mine.map(|info| (target.clone(), info.session, info.slices)));
    }
    Ok(found)
}

async fn drain(
    mut client: Client,
    global: &Global,
    address: &PodAddress,
    only: Option<&TargetName>,
    wait: Option<Duration>,
) -> Result<(), Failure> {
    let targets = targets(&mut client, only).await?;
    let sessions = of_pod(&mut client, &targets, address).await?;
    if sessions.is_empty() {
        return Err(Failure::negative(format!(
            "no live session at {address}; `leasehold pod list` shows all pods"
        )));
    }
    let involved: Vec<TargetName> = sessions.iter().map(|(target, ..)| target.clone()).collect();
    for (target, session, _) in &sessions {
        let request = admin::DrainSession {
            target: target.clone(),
            session: *session,
            reason: client.reason(),
        };
        client
            .change(pb::DrainSessionRequest::from(&request), async |grpc, r| {
                grpc.drain_session(r).await
            })
            .await?;
    }
    let mut left = slices(&of_pod(&mut client, &involved, address).await?, &sessions);
    let begun = Instant::now();
    if let Some(patience) = wait {
        let mut progress = Progress::new(left.max(slices(&sessions, &sessions)));
        left = until(patience, async || {
            let looked = async {
                let now = of_pod(&mut client, &involved, address).await?;
                progress.slices_left = slices(&now, &sessions);
                if progress.slices_left == 0 {
                    return Ok(Look::Done(0));
                }
                let elapsed = begun.elapsed();
                progress
                    .look_closer(&mut client, &sessions, elapsed)
                    .await?;
                let line = format!("draining {address}: {progress}");
                Ok(Look::Slow(line, progress.slow()))
            };
            let looked: Result<_, Failure> = looked.await;
            looked.map_err(|failure| failure.with("; the drain goes on"))
        })
        .await?;
    }
    let done = match left {
        0 => format!("{address} is drained: it owns no slice and is given none"),
        left => format!("{address} is draining: {left} slices left; --wait waits for the last"),
    };
    emit(
        global,
        &Done::new(done)
            .with("address", address.as_str())
            .with("sessions", sessions.len())
            .with("slices_left", left)
            .with("took_ms", wait.map(|_| ms(begun.elapsed()))),
    )
}

/// How many slices those sessions own that are being drained. A newer session at the same address
/// is another process.
fn slices(now: &[(TargetName, SessionId, u64)], drained: &[(TargetName, SessionId, u64)]) -> u64 {
    let is_drained = |session| drained.iter().any(|(_, other, _)| other == session);
    now.iter()
        .filter(|(_, session, _)| is_drained(session))
        .map(|(.., slices)| slices)
        .sum()
}

/// All pods.
#[derive(Serialize)]
pub struct Pods {
    /// In order of their addresses.
    pub pods: Vec<Pod>,
}

/// A pod.
#[derive(Serialize)]
pub struct Pod {
    /// Where it is reached.
    pub address: String,
    /// All of its sessions are draining.
    pub draining: bool,
    /// Slices of all its sessions.
    pub slices: u64,
    /// One per target; more where an earlier process at the address has not gone yet.
    pub sessions: Vec<PodSession>,
}

/// A session of a pod.
#[derive(Serialize)]
pub struct PodSession {
    /// Of which target.
    pub target: String,
    /// Its id.
    pub session: String,
    /// `live`, `ghost` or `leaving`.
    pub phase: &'static str,
    /// About to leave.
    pub draining: bool,
    /// How many slices it owns.
    pub slices: u64,
}

impl Report for Pods {
    fn human(&self) -> String {
        let mut table = Table::new(&[
            "ADDRESS", "TARGET", "SESSION", "PHASE", "DRAINING", ">SLICES",
        ]);
        for pod in &self.pods {
            for session in &pod.sessions {
                table.row([
                    pod.address.clone(),
                    session.target.clone(),
                    session.session.clone(),
                    session.phase.to_owned(),
                    if session.draining { "yes" } else { "no" }.to_owned(),
                    session.slices.to_string(),
                ]);
            }
        }
        table.or("no pods; one appears when a Slicelet registers")
    }
}
