//! State machine safety: no two nodes ever apply different commands at the same index, and after
//! the same index their records are the same, however they came by them: command by command, from
//! their own disk, or from a snapshot.
//!
//! Ongaro and Ousterhout 2014, figure 3 and section 5.4.3; for snapshots section 7.

use std::collections::BTreeMap;

use leasehold_raft_store::LogPosition;

use super::Invariant;
use crate::event::{Event, NodeId, What};

/// What was applied at an index, and where first.
struct Entry {
    at: LogPosition,
    node: NodeId,
    command: Option<(u64, u64, u64)>,
    state: Option<u64>,
}

/// What is committed, as the machines have shown it.
#[derive(Default)]
pub(super) struct StateMachineSafety {
    entries: BTreeMap<u64, Entry>,
    /// Members as of an index, by the disks.
    voters: BTreeMap<u64, (NodeId, Vec<Vec<NodeId>>)>,
}

impl StateMachineSafety {
    fn entry(&mut self, at: LogPosition, node: NodeId) -> Result<&mut Entry, String> {
        let entry = self.entries.entry(at.index).or_insert(Entry {
            at,
            node,
            command: None,
            state: None,
        });
        if entry.at == at {
            return Ok(entry);
        }
        Err(format!(
            "node {} has applied {}, node {node} {at}",
            entry.node, entry.at
        ))
    }

    fn state(&mut self, at: LogPosition, node: NodeId, state: u64) -> Result<(), String> {
        let entry = self.entry(at, node)?;
        let first = *entry.state.get_or_insert(state);
        if first == state {
            return Ok(());
        }
        Err(format!(
            "after {at} node {node} has other records ({state:016x}) than node {} ({first:016x})",
            entry.node
        ))
    }
}

impl Invariant for StateMachineSafety {
    fn name(&self) -> &'static str {
        "state machine safety"
    }

    fn see(&mut self, event: &Event) -> Result<(), String> {
        let node = event.node;
        match &event.what {
            What::Applied {
                at,
                serial,
                command,
                reply,
                state,
                ..
            } => {
                let entry = self.entry(*at, node)?;
                let now = (*serial, *command, *reply);
                let first = *entry.command.get_or_insert(now);
                if first != now {
                    return Err(format!(
                        "at {at} node {} has applied proposal {} and node {node} proposal {}, or \
                         their replies differ",
                        entry.node, first.0, now.0
                    ));
                }
                self.state(*at, node, *state)
            }
            What::Published { last } => self.entry(*last, node).map(|_| ()),
            What::Restored {
                at: Some(at),
                state,
            } => self.state(*at, node, *state),
            What::Restored { at: None, state: 0 } => Ok(()),
            What::Restored { at: None, .. } => Err(format!(
                "node {node} begins with records although nothing was applied"
            )),
            What::Settled { applied, state, .. } => match self.entries.get(applied) {
                Some(entry) => {
                    let at = entry.at;
                    self.state(at, node, *state)
                }
                None => Ok(()),
            },
            What::Disk(contents) => {
                let Some(applied) = contents.applied else {
                    return Ok(());
                };
                let first = self
                    .voters
                    .entry(applied.index)
                    .or_insert_with(|| (node, contents.voters.clone()));
                if first.1 == contents.voters {
                    return Ok(());
                }
                Err(format!(
                    "as of {applied} the voters are {:?} for node {} and {:?} for node {node}",
                    first.1, first.0, contents.voters
                ))
            }
            _ => Ok(()),
        }
    }
}
