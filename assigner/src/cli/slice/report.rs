//! Slices as they are printed.

use std::collections::BTreeMap;

use leasehold_proto::wire::listing::SliceInfo;
use leasehold_proto::{Assigned, PodAddress, SessionId, Slice};
use serde::Serialize;

use crate::cli::output::Report;
use crate::cli::table::{Table, or_dash, pairs};

/// Slices of a target.
#[derive(Serialize)]
pub struct Slices {
    /// Of which target.
    pub target: String,
    /// Of this version of the assignment.
    pub generation: String,
    /// In order.
    pub slices: Vec<SliceReport>,
}

/// A slice.
#[derive(Serialize)]
pub struct SliceReport {
    /// The lowest slice key.
    pub first: String,
    /// The highest slice key, included.
    pub last: String,
    /// Who serves it; null while nobody does.
    pub owner: Option<Owner>,
    /// The move of ownership under way.
    pub handoff: Option<OpenHandoff>,
    /// Who serves copies.
    pub replicas: Vec<Party>,
    /// The generation in which any of this changed last.
    pub changed_at: Option<String>,
    /// Last reported, in the application's unit.
    pub load_per_s: Option<f64>,
    /// Last reported.
    pub state_bytes: Option<u64>,
    #[serde(skip)]
    shown: String,
}

/// A session and where it is.
#[derive(Serialize, Clone)]
pub struct Party {
    /// Its id.
    pub session: String,
    /// Where its pod is reached; null when the Assigner did not say.
    pub address: Option<String>,
}

/// An owner.
#[derive(Serialize)]
pub struct Owner {
    /// Who.
    #[serde(flatten)]
    pub party: Party,
    /// Since when.
    pub epoch: String,
    /// The epoch as its fencing token, in decimal digits: not every reader of JSON keeps 63 bits.
    pub token: String,
}

/// An open handoff of a slice.
#[derive(Serialize)]
pub struct OpenHandoff {
    /// Its id.
    pub handoff: String,
    /// The owner to be.
    pub to: Party,
    /// The epoch at which it will own.
    pub epoch: String,
    /// The owner is asked to refuse.
    pub ask_cancel: bool,
    /// The owner to be has gone.
    pub to_closed: bool,
}

impl Party {
    fn new(session: SessionId, pods: &BTreeMap<SessionId, PodAddress>) -> Self {
        Self {
            session: session.to_string(),
            address: pods.get(&session).map(PodAddress::to_string),
        }
    }

    /// The address and the session, as far as known.
    pub fn name(&self) -> String {
        match &self.address {
            Some(address) => format!("{address} ({})", self.session),
            None => self.session.clone(),
        }
    }
}

impl SliceReport {
    /// A listed slice.
    pub fn new(info: SliceInfo, pods: &BTreeMap<SessionId, PodAddress>) -> Self {
        let changed_at = Some(info.changed_at.to_string());
        let (load_per_s, state_bytes) = (info.load_per_s, info.state_bytes);
        Self {
            changed_at,
            load_per_s,
            state_bytes,
            ..Self::assigned(info.slice, &info.assigned, pods)
        }
    }

    /// A slice of which only the assignment is known.
    pub fn assigned(
        slice: Slice,
        assigned: &Assigned,
        pods: &BTreeMap<SessionId, PodAddress>,
    ) -> Self {
        Self {
            first: slice.first().to_string(),
            last: slice.last().to_string(),
            owner: assigned.owner.map(|lease| Owner {
                party: Party::new(lease.session, pods),
                epoch: lease.epoch.to_string(),
                token: lease.epoch.token().to_string(),
            }),
            handoff: assigned.handoff.map(|handoff| OpenHandoff {
                handoff: handoff.id.to_string(),
                to: Party::new(handoff.to, pods),
                epoch: handoff.epoch.to_string(),
                ask_cancel: handoff.ask_cancel,
                to_closed: handoff.to_closed,
            }),
            replicas: assigned
                .replicas
                .iter()
                .map(|session| Party::new(*session, pods))
                .collect(),
            changed_at: None,
            load_per_s: None,
            state_bytes: None,
            shown: slice.to_string(),
        }
    }

    /// Names and values for people, beginning with the slice.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("slice", self.shown.clone())];
        match &self.owner {
            Some(owner) => {
                lines.push(("owner", owner.party.name()));
                lines.push((
                    "epoch",
                    format!("{} (fencing token {})", owner.epoch, owner.token),
                ));
            }
            None => lines.push(("owner", "nobody".into())),
        }
        if let Some(handoff) = &self.handoff {
            let asked = if handoff.ask_cancel {
                ", asked to refuse"
            } else {
                ""
            };
            let gone = if handoff.to_closed {
                ", which has gone"
            } else {
                ""
            };
            let to = handoff.to.name();
            lines.push((
                "handoff",
                format!(
                    "{} to {to}{gone} at epoch {}{asked}",
                    handoff.handoff, handoff.epoch
                ),
            ));
        }
        if !self.replicas.is_empty() {
            lines.push((
                "replicas",
                self.replicas
                    .iter()
                    .map(Party::name)
                    .collect::<Vec<_>>()
                    .join(", "),
            ));
        }
        lines
    }
}

impl Report for SliceReport {
    fn human(&self) -> String {
        let mut lines = self.lines();
        lines.push(("changed at", or_dash(self.changed_at.as_ref())));
        lines.push(("load per s", or_dash(self.load_per_s)));
        lines.push(("state bytes", or_dash(self.state_bytes)));
        pairs(&lines)
    }
}

impl Report for Slices {
    fn human(&self) -> String {
        let mut table = Table::new(&[
            "FIRST", "LAST", "OWNER", "SESSION", "EPOCH", ">LOAD/S", "HANDOFF",
        ]);
        for slice in &self.slices {
            let owner = slice.owner.as_ref();
            table.row([
                slice.first.clone(),
                slice.last.clone(),
                or_dash(owner.and_then(|owner| owner.party.address.as_ref())),
                or_dash(owner.map(|owner| &owner.party.session)),
                or_dash(owner.map(|owner| &owner.epoch)),
                or_dash(slice.load_per_s.map(|load| format!("{load:.1}"))),
                or_dash(slice.handoff.as_ref().map(|handoff| {
                    let to = handoff.to.address.as_ref().unwrap_or(&handoff.to.session);
                    format!("{} to {to}", handoff.handoff)
                })),
            ]);
        }
        table.or("no such slices")
    }
}
