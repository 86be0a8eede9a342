//! A confirmation speaks of an instant after it was asked for: what it says a read must see holds
//! everything that was acknowledged, and everything of a newer leader that was applied anywhere,
//! before the question was put.
//!
//! Ongaro's dissertation ("Consensus: Bridging Theory and Practice", 2014), section 6.4 (ReadIndex);
//! linearizability after Herlihy and Wing 1990. Renewals of leases are answered on nothing else.

use std::collections::BTreeMap;

use super::Invariant;
use crate::event::{Event, Outcome, What};

/// What a confirmation that began at some instant must show.
#[derive(Clone, Copy, Default)]
struct Floor {
    index: u64,
    term: u64,
}

/// The floor now, and those of the confirmations under way.
#[derive(Default)]
pub(super) struct ConfirmLinearizable {
    now: Floor,
    open: BTreeMap<u64, Floor>,
}

impl Invariant for ConfirmLinearizable {
    fn name(&self) -> &'static str {
        "confirm linearizable"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        match &event.what {
            What::Answered {
                outcome: Outcome::Ok { at, .. },
                ..
            } => {
                self.now.index = self.now.index.max(at.index);
            }
            What::Published { last } => self.now.term = self.now.term.max(last.term),
            What::ConfirmBegan { call } => {
                self.open.insert(*call, self.now);
            }
            What::NotConfirmed { call } => {
                self.open.remove(call);
            }
            What::Confirmed { call, at, applied } => {
                let floor = self.open.remove(call).unwrap_or_default();
                let node = event.node;
                if at.index < floor.index {
                    return Err(format!(
                        "node {node} confirmed {at}, but index {} was acknowledged before it was \
                         asked",
                        floor.index
                    ));
                }
                if at.term < floor.term {
                    return Err(format!(
                        "node {node} confirmed {at}, but an entry of term {} was committed before \
                         it was asked",
                        floor.term
                    ));
                }
                if *applied < at.index {
                    return Err(format!(
                        "node {node} confirmed {at} but has applied only {applied}"
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
