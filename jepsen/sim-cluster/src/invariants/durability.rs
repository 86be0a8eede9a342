//! Durability: what was acknowledged to its proposer is never lost, and what was certainly refused
//! never takes effect.
//!
//! Leader completeness of Ongaro and Ousterhout 2014 (figure 3, section 5.4), as the proposer sees
//! it; the three outcomes of an operation as in Jepsen (ok, fail, info).

use std::collections::BTreeMap;

use leasehold_raft_store::LogPosition;

use super::Invariant;
use crate::event::{Event, Outcome, What};

/// A proposal, as far as anything is known of it.
#[derive(Default)]
struct Proposal {
    applied: Option<(LogPosition, u64)>,
    outcome: Option<Outcome>,
}

impl Proposal {
    fn contradiction(&self, serial: u64) -> Option<String> {
        match (&self.outcome, &self.applied) {
            (Some(Outcome::Ok { at, reply }), Some((applied, answered)))
                if at != applied || reply != answered =>
            {
                Some(format!(
                    "proposal {serial} was acknowledged at {at} but applied at {applied}, or with \
                     another reply"
                ))
            }
            (Some(Outcome::Ok { at, .. }), None) => Some(format!(
                "proposal {serial} was acknowledged at {at} before any node had applied it"
            )),
            (Some(Outcome::Failed(why)), Some((at, _))) => Some(format!(
                "proposal {serial} has certainly failed ({why}), but was applied at {at}"
            )),
            _ => None,
        }
    }
}

/// Every proposal, and which one stands where.
#[derive(Default)]
pub(super) struct Durability {
    proposals: BTreeMap<u64, Proposal>,
    acknowledged: BTreeMap<u64, u64>,
    newest_acknowledged: u64,
}

impl Durability {
    fn applied(&mut self, serial: u64, at: LogPosition, reply: u64) -> Result<(), String> {
        if let Some(other) = self.acknowledged.get(&at.index)
            && *other != serial
        {
            return Err(format!(
                "at {at} proposal {serial} is applied, but proposal {other} was acknowledged there"
            ));
        }
        let proposal = self.proposals.entry(serial).or_default();
        if let Some((first, _)) = proposal.applied
            && first != at
        {
            return Err(format!(
                "proposal {serial} was applied at {first} and again at {at}"
            ));
        }
        proposal.applied = Some((at, reply));
        proposal.contradiction(serial).map_or(Ok(()), Err)
    }
}

impl Invariant for Durability {
    fn name(&self) -> &'static str {
        "durability"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match &event.what {
            What::Applied {
                at, serial, reply, ..
            } => self.applied(*serial, *at, *reply),
            What::Answered { serial, outcome } => {
                if let Outcome::Ok { at, .. } = outcome {
                    self.acknowledged.insert(at.index, *serial);
                    self.newest_acknowledged = self.newest_acknowledged.max(at.index);
                }
                let proposal = self.proposals.entry(*serial).or_default();
                proposal.outcome = Some(outcome.clone());
                proposal.contradiction(*serial).map_or(Ok(()), Err)
            }
            What::Settled { applied, .. } if *applied < self.newest_acknowledged => Err(format!(
                "node {} has settled at index {applied}, but index {} was acknowledged",
                event.node, self.newest_acknowledged
            )),
            _ => Ok(()),
        }
    }
}
