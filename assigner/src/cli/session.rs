//! `leasehold session`.
//!
//! JSON of `list`: `{"target", "sessions": [SESSION...]}`, see [`SessionReport`].

use std::time::Duration;

use clap::Subcommand;
use leasehold_proto::table::SessionPhase;
use leasehold_proto::wire::admin;
use leasehold_proto::wire::listing::{SessionInfo, SessionPage};
use leasehold_proto::wire::pb;
use leasehold_proto::{ClockClass, SessionId, TargetName};
use serde::Serialize;

use super::Global;
use super::client::Client;
use super::error::Failure;
use super::output::{Done, Report, emit};
use super::table::{Table, ago, or_dash};
use super::target::ms;
use crate::config::show_duration;

const FORGET_HELP: &str = "\
A ghost is a session that ended while its target was eventual or arming: its process may still serve
without a lease, so time alone proves nothing, and the switch to strong waits for it. Forget it only
when you know that the process is dead. If it is not, two owners are possible.

Example:
  leasehold session forget cart s17 --reason 'node 12 was powered off, ticket 4711'";

const CLOSE_HELP: &str = "\
Ends a session at once, without waiting for its lease to run out. Say it only when you know that its
process has ended, as a supervisor does that has reaped it. If it has not, two owners are possible.

Example:
  leasehold session close cart s17 --reason 'process reaped by the supervisor'";

/// Verbs of `leasehold session`.
#[derive(Subcommand)]
pub enum Verb {
    /// Show the sessions and ghosts of a target
    List {
        /// Name of the target
        target: TargetName,
    },
    /// Your word that the process behind a ghost is dead; give --reason
    #[command(after_help = FORGET_HELP)]
    Forget {
        /// Name of the target
        target: TargetName,
        /// Which ghost
        #[arg(required_unless_present = "all")]
        session: Option<SessionId>,
        /// All ghosts of the target, also those of which only the number is kept
        #[arg(long, conflicts_with = "session")]
        all: bool,
    },
    /// Your word that the process of a live session has ended; give --reason
    #[command(after_help = CLOSE_HELP)]
    Close {
        /// Name of the target
        target: TargetName,
        /// Which session
        session: SessionId,
    },
}

impl Verb {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global);
        match self {
            Verb::List { target } => {
                let sessions = list(&mut client.about(&target), &target).await?;
                let sessions = sessions.into_iter().map(SessionReport::from).collect();
                emit(
                    global,
                    &Sessions {
                        target: target.to_string(),
                        sessions,
                    },
                )
            }
            Verb::Forget {
                target, session, ..
            } => {
                let reason = client
                    .required_reason("the audit keeps how you know that the process is dead")?;
                let mut client = client.about(&target);
                let request = admin::ForgetGhost {
                    target: target.clone(),
                    session,
                    reason,
                };
                client
                    .change(pb::ForgetGhostRequest::from(&request), async |grpc, r| {
                        grpc.forget_ghost(r).await
                    })
                    .await?;
                let who = session.map_or_else(
                    || "all ghosts".to_owned(),
                    |session| format!("ghost {session}"),
                );
                let session = session.map(|session| session.to_string());
                emit(
                    global,
                    &Done::new(format!("{who} of {target} forgotten"))
                        .with("target", target.as_str())
                        .with("session", session),
                )
            }
            Verb::Close { target, session } => {
                let reason = client
                    .required_reason("the audit keeps how you know that the process has ended")?;
                let mut client = client.about(&target);
                let request = admin::CloseSession {
                    target: target.clone(),
                    session,
                    reason,
                };
                client
                    .change(pb::CloseSessionRequest::from(&request), async |grpc, r| {
                        grpc.close_session(r).await
                    })
                    .await?;
                let done = format!("session {session} of {target} closed");
                emit(
                    global,
                    &Done::new(done)
                        .with("target", target.as_str())
                        .with("session", session.to_string()),
                )
            }
        }
    }
}

/// All sessions of a target.
pub async fn list(client: &mut Client, target: &TargetName) -> Result<Vec<SessionInfo>, Failure> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let request = admin::ListSessions {
            target: target.clone(),
            after,
            limit: 0,
        };
        let page: SessionPage = client
            .read(pb::ListSessionsRequest::from(&request), async |grpc, r| {
                grpc.list_sessions(r).await
            })
            .await?;
        found.extend(page.sessions);
        match page.next_after {
            // A page that does not lead on would never end.
            Some(next) if Some(next) > after => after = Some(next),
            _ => return Ok(found),
        }
    }
}

/// Sessions of a target.
#[derive(Serialize)]
pub struct Sessions {
    /// Of which target.
    pub target: String,
    /// In order of their ids.
    pub sessions: Vec<SessionReport>,
}

/// A session.
#[derive(Serialize)]
pub struct SessionReport {
    /// Its id.
    pub session: String,
    /// Where its pod is reached.
    pub address: String,
    /// The first 32 of the 128 random bits of the Slicelet object, in hexadecimal. The rest is shown
    /// nowhere: whoever registers with all of them is given the session's secret.
    pub slicelet: String,
    /// `live`, `ghost` or `leaving`.
    pub phase: &'static str,
    /// About to leave: it is given no slices.
    pub draining: bool,
    /// How many slices it owns.
    pub slices: u64,
    /// Fixed at registration.
    pub ttl_ms: u64,
    /// How its process measures time: `raw` or `slewed`.
    pub clock: &'static str,
    /// The application's version, or empty.
    pub app_version: String,
    /// The newest arming that it has acknowledged.
    pub acked_arming: Option<String>,
    /// Of its slices together, in the application's unit.
    pub load_per_s: Option<f64>,
    /// Time since the leader last answered it; null elsewhere than at the leader.
    pub answered_ago_ms: Option<u64>,
}

impl From<SessionInfo> for SessionReport {
    fn from(info: SessionInfo) -> Self {
        Self {
            session: info.session.to_string(),
            address: info.squid.address.to_string(),
            slicelet: format!("{:08x}", info.squid.id >> 96),
            phase: match info.phase {
                SessionPhase::Live => "live",
                SessionPhase::Ghost => "ghost",
                SessionPhase::Leaving => "leaving",
            },
            draining: info.draining,
            slices: info.slices,
            ttl_ms: ms(info.ttl),
            clock: match info.clock {
                ClockClass::Raw => "raw",
                ClockClass::Slewed => "slewed",
            },
            app_version: info.app_version,
            acked_arming: info.acked_arming.map(|generation| generation.to_string()),
            load_per_s: info.load_per_s,
            answered_ago_ms: info.answered_ago.map(ms),
        }
    }
}

impl Report for Sessions {
    fn human(&self) -> String {
        let heads = [
            "SESSION",
            "ADDRESS",
            "PHASE",
            "DRAINING",
            ">SLICES",
            ">LOAD/S",
            ">TTL",
            ">ANSWERED",
            "VERSION",
        ];
        let mut table = Table::new(&heads);
        for session in &self.sessions {
            table.row([
                session.session.clone(),
                session.address.clone(),
                session.phase.to_owned(),
                if session.draining { "yes" } else { "no" }.to_owned(),
                session.slices.to_string(),
                or_dash(session.load_per_s.map(|load| format!("{load:.1}"))),
                show_duration(Duration::from_millis(session.ttl_ms)),
                or_dash(session.answered_ago_ms.map(|ms| ago(ms) + " ago")),
                if session.app_version.is_empty() {
                    "-".to_owned()
                } else {
                    session.app_version.clone()
                },
            ]);
        }
        table.or("no sessions; a pod registers one when its Slicelet starts")
    }
}
