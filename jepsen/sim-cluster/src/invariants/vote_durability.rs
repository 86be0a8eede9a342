//! A node's term never falls, not even over a crash: a vote is on the disk before anybody hears
//! of it.
//!
//! Ongaro and Ousterhout 2014, figure 2 (`currentTerm` and `votedFor` are persisted before
//! responding to an RPC).

use std::collections::BTreeMap;

use super::Invariant;
use crate::event::{Event, NodeId, What};

/// The newest term that each node has shown.
#[derive(Default)]
pub(super) struct VoteDurability {
    terms: BTreeMap<NodeId, u64>,
}

impl Invariant for VoteDurability {
    fn name(&self) -> &'static str {
        "vote durability"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        let (What::Started { term } | What::Role { term, .. }) = event.what else {
            return Ok(());
        };
        let shown = self.terms.entry(event.node).or_default();
        if term < *shown {
            return Err(format!(
                "node {} was in term {shown} and is now in term {term}",
                event.node
            ));
        }
        *shown = term;
        Ok(())
    }
}
