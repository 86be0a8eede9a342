//! `leasehold handoff`.
//!
//! JSON of `list`: `{"target", "handoffs": [HANDOFF...]}`, see [`HandoffReport`]; of `get`: a
//! HANDOFF with more, see [`OneHandoff`].

use clap::Subcommand;
use leasehold_proto::wire::admin;
use leasehold_proto::wire::listing::{HandoffInfo, HandoffPage};
use leasehold_proto::wire::pb;
use leasehold_proto::{HandoffId, TargetName};
use serde::Serialize;

use super::Global;
use super::client::Client;
use super::error::{Failure, Kind};
use super::output::{Done, Report, emit};
use super::slice;
use super::table::{Table, ago, or_dash, pairs, size};
use super::target::ms;

const CANCEL_HELP: &str = "\
Asks the owner to refuse. Only its word ends a handoff without effect: if it has surrendered already
the handoff completes all the same. `leasehold handoff list` shows what came of it.";

/// Verbs of `leasehold handoff`.
#[derive(Subcommand)]
pub enum Verb {
    /// Show the moves of ownership under way
    List {
        /// Name of the target
        target: TargetName,
    },
    /// Show one move of ownership under way
    Get {
        /// Name of the target
        target: TargetName,
        /// Which handoff: h9
        handoff: HandoffId,
    },
    /// Ask for a handoff to be refused
    #[command(after_help = CANCEL_HELP)]
    Cancel {
        /// Name of the target
        target: TargetName,
        /// Which handoff: h9
        handoff: HandoffId,
    },
}

impl Verb {
    pub async fn run(self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global);
        match self {
            Verb::List { target } => {
                let handoffs = list(&mut client.about(&target), &target).await?;
                emit(
                    global,
                    &Handoffs {
                        target: target.to_string(),
                        handoffs,
                    },
                )
            }
            Verb::Get { target, handoff } => emit(
                global,
                &get(&mut client.about(&target), &target, handoff).await?,
            ),
            Verb::Cancel { target, handoff } => {
                let mut client = client.about(&target);
                let request = admin::CancelHandoff {
                    target: target.clone(),
                    handoff,
                    reason: client.reason(),
                };
                let asked = client
                    .change(pb::CancelHandoffRequest::from(&request), async |grpc, r| {
                        grpc.cancel_handoff(r).await
                    })
                    .await;
                asked.map_err(|failure| match failure.kind() {
                    Kind::Conflict => failure.with(&look(&target)),
                    _ => failure,
                })?;
                let done = format!("the owner is asked to refuse {handoff}");
                emit(
                    global,
                    &Done::new(done)
                        .with("target", target.as_str())
                        .with("handoff", handoff.to_string()),
                )
            }
        }
    }
}

/// All open handoffs of a target.
pub async fn list(client: &mut Client, target: &TargetName) -> Result<Vec<HandoffReport>, Failure> {
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let request = admin::ListHandoffs {
            target: target.clone(),
            after,
            limit: 0,
        };
        let page: HandoffPage = client
            .read(pb::ListHandoffsRequest::from(&request), async |grpc, r| {
                grpc.list_handoffs(r).await
            })
            .await?;
        found.extend(page.handoffs.into_iter().map(HandoffReport::from));
        match page.next_after {
            // A page that does not lead on would never end.
            Some(next) if Some(next) > after => after = Some(next),
            _ => return Ok(found),
        }
    }
}

/// Where to look after a handoff that is not open any more.
fn look(target: &TargetName) -> String {
    format!(
        "; `leasehold handoff list {target}` shows the open ones, `leasehold slice list {target}` who owns what"
    )
}

async fn get(
    client: &mut Client,
    target: &TargetName,
    handoff: HandoffId,
) -> Result<OneHandoff, Failure> {
    let ended = || {
        let ended = format!("{handoff} is not open: it has ended or never was");
        Failure::negative(ended).with(&look(target))
    };
    let mut open = list(client, target).await?.into_iter();
    let found = open.find(|open| open.handoff == handoff.to_string());
    let report = found.ok_or_else(ended)?;
    let first = report.first.parse().map_err(|_| ended())?;
    let slice = slice::get(client, target, first).await?;
    let party = slice.handoff.filter(|open| open.handoff == report.handoff);
    Ok(OneHandoff {
        target: target.to_string(),
        from_address: slice.owner.and_then(|owner| owner.party.address),
        to_address: party.ok_or_else(ended)?.to.address,
        load_per_s: slice.load_per_s,
        state_bytes: slice.state_bytes,
        report,
    })
}

/// Open handoffs of a target.
#[derive(Serialize)]
pub struct Handoffs {
    /// Of which target.
    pub target: String,
    /// In order of their ids.
    pub handoffs: Vec<HandoffReport>,
}

/// An open handoff.
#[derive(Serialize)]
pub struct HandoffReport {
    /// Its id.
    pub handoff: String,
    /// The lowest slice key.
    pub first: String,
    /// The highest slice key, included.
    pub last: String,
    /// The session that owns.
    pub from: String,
    /// The epoch at which it owns.
    pub from_epoch: String,
    /// The session that is to own.
    pub to: String,
    /// The epoch at which it will own.
    pub to_epoch: String,
    /// The owner is asked to refuse.
    pub ask_cancel: bool,
    /// The session that is to own has ended.
    pub to_closed: bool,
    /// Time since the answering Assigner saw it begin.
    pub open_for_ms: Option<u64>,
}

/// An open handoff, with what else is known of its slice.
#[derive(Serialize)]
pub struct OneHandoff {
    /// Of which target.
    pub target: String,
    /// The handoff.
    #[serde(flatten)]
    pub report: HandoffReport,
    /// Where the pod is reached that owns; null when the Assigner did not say.
    pub from_address: Option<String>,
    /// Where the pod is reached that is to own; null when the Assigner did not say.
    pub to_address: Option<String>,
    /// Last reported by the owner, in the application's unit.
    pub load_per_s: Option<f64>,
    /// Last reported by the owner.
    pub state_bytes: Option<u64>,
}

impl Report for OneHandoff {
    fn human(&self) -> String {
        let report = &self.report;
        let party = |session: &str, address: &Option<String>, epoch: &str| match address {
            Some(address) => format!("{address} ({session}) at epoch {epoch}"),
            None => format!("{session} at epoch {epoch}"),
        };
        let mut to = party(&report.to, &self.to_address, &report.to_epoch);
        if report.to_closed {
            to += ", which has gone: the owner is asked to refuse";
        }
        let yes = if report.ask_cancel { "yes" } else { "no" };
        pairs(&[
            ("handoff", format!("{} of {}", report.handoff, self.target)),
            ("slice", format!("{} to {}", report.first, report.last)),
            (
                "from",
                party(&report.from, &self.from_address, &report.from_epoch),
            ),
            ("to", to),
            ("open for", or_dash(report.open_for_ms.map(ago))),
            ("asked to cancel", yes.to_owned()),
            ("load per s", or_dash(self.load_per_s)),
            ("state", or_dash(self.state_bytes.map(size))),
        ])
    }
}

impl From<HandoffInfo> for HandoffReport {
    fn from(info: HandoffInfo) -> Self {
        Self {
            handoff: info.handoff.id.to_string(),
            first: info.slice.first().to_string(),
            last: info.slice.last().to_string(),
            from: info.from.session.to_string(),
            from_epoch: info.from.epoch.to_string(),
            to: info.handoff.to.to_string(),
            to_epoch: info.handoff.epoch.to_string(),
            ask_cancel: info.handoff.ask_cancel,
            to_closed: info.handoff.to_closed,
            open_for_ms: info.open_for.map(ms),
        }
    }
}

impl Report for Handoffs {
    fn human(&self) -> String {
        let mut table = Table::new(&[
            "HANDOFF",
            "FIRST",
            "LAST",
            "FROM",
            "TO",
            "EPOCH",
            ">OPEN FOR",
            "NOTES",
        ]);
        for handoff in &self.handoffs {
            let notes = [
                (handoff.ask_cancel, "asked to refuse"),
                (handoff.to_closed, "destination gone"),
            ];
            let notes: Vec<&str> = notes
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, note)| *note)
                .collect();
            table.row([
                handoff.handoff.clone(),
                handoff.first.clone(),
                handoff.last.clone(),
                handoff.from.clone(),
                handoff.to.clone(),
                handoff.to_epoch.clone(),
                or_dash(handoff.open_for_ms.map(ago)),
                notes.join(", "),
            ]);
        }
        table.or("no open handoffs")
    }
}
