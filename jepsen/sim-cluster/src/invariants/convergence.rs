//! Once all faults are gone every member agrees: on who belongs to the cluster, and on the state.
//!
//! The liveness phase of openraft's own simulation and of TigerBeetle's VOPR. That it comes to it
//! in bounded time the world itself demands; here is what must be the same then.

use super::Invariant;
use crate::event::{Event, NodeId, What};

/// What the first node has settled at.
#[derive(Default)]
pub(super) struct Convergence {
    first: Option<(NodeId, Vec<NodeId>, u64, u64)>,
}

impl Invariant for Convergence {
    fn name(&self) -> &'static str {
        "convergence"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        let What::Settled {
            members,
            applied,
            state,
            is_member: true,
        } = &event.what
        else {
            return Ok(());
        };
        let now = (event.node, members.clone(), *applied, *state);
        let first = self.first.get_or_insert(now.clone());
        if (&first.1, first.2, first.3) == (&now.1, now.2, now.3) {
            return Ok(());
        }
        Err(format!(
            "node {} has settled with members {:?} at index {} ({:016x}), node {} with {:?} at {} \
             ({:016x})",
            first.0, first.1, first.2, first.3, now.0, now.1, now.2, now.3
        ))
    }
}
