//! Since when this node sees each open handoff: for operators who look for what is slow. A node
//! that starts, or gets a snapshot, counts from then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use leasehold_proto::table::TargetState;
use leasehold_proto::{HandoffId, TargetName};
use parking_lot::Mutex;

/// The open handoffs of every target, and when each was first seen.
#[derive(Default)]
pub(crate) struct Ages {
    seen: Mutex<BTreeMap<TargetName, BTreeMap<HandoffId, Instant>>>,
}

impl Ages {
    /// The target has changed, or is gone.
    pub(crate) fn look(&self, name: &TargetName, target: Option<&TargetState>, now: Instant) {
        let mut seen = self.seen.lock();
        let before = seen.remove(name).unwrap_or_default();
        let open = target.into_iter().flat_map(TargetState::handoffs);
        let first = |id: HandoffId| (id, before.get(&id).copied().unwrap_or(now));
        let open: BTreeMap<_, _> = open.map(|(_, _, handoff)| first(handoff.id)).collect();
        if !open.is_empty() {
            seen.insert(name.clone(), open);
        }
    }

    /// How long a handoff is open; none if it was not seen yet.
    pub(crate) fn of(
        &self,
        name: &TargetName,
        handoff: HandoffId,
        now: Instant,
    ) -> Option<Duration> {
        let seen = self.seen.lock();
        let since = seen.get(name)?.get(&handoff)?;
        Some(now.saturating_duration_since(*since))
    }
}
