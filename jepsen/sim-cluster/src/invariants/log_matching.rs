//! Log matching: two logs with an entry of the same index and term hold the same entries up to
//! there.
//!
//! Ongaro and Ousterhout 2014, figure 3 and section 5.3. Checked on what the disks hold: an entry
//! is known by its position, so the same position must always have the same bytes, and the term of
//! the entry before it must always be the same.

use std::collections::BTreeMap;

use leasehold_raft_store::LogPosition;

use super::Invariant;
use crate::event::{Event, NodeId, What};

/// What was seen at a position, and where first.
struct Seen {
    checksum: u32,
    before: Option<u64>,
    node: NodeId,
}

/// Every entry that was ever on a disk.
#[derive(Default)]
pub(super) struct LogMatching {
    entries: BTreeMap<LogPosition, Seen>,
}

impl Invariant for LogMatching {
    fn name(&self) -> &'static str {
        "log matching"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        let What::Disk(contents) = &event.what else {
            return Ok(());
        };
        let mut previous = contents.purged;
        for entry in &contents.log {
            if let Some(previous) = previous
                && previous.index + 1 != entry.at.index
            {
                return Err(format!(
                    "the log of node {} has {} right after {previous}",
                    event.node, entry.at
                ));
            }
            let before = previous.map(|p| p.term);
            previous = Some(entry.at);
            let fresh = Seen {
                checksum: entry.checksum,
                before,
                node: event.node,
            };
            let seen = self.entries.entry(entry.at).or_insert(fresh);
            let differs = seen.checksum != entry.checksum
                || (before.is_some() && seen.before.is_some() && before != seen.before);
            if differs {
                return Err(format!(
                    "entry {} of node {} and of node {} differ, or what stands before them does",
                    entry.at, seen.node, event.node
                ));
            }
            seen.before = seen.before.or(before);
        }
        Ok(())
    }
}
