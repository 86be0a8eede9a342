//! What a disk in memory holds, for the invariants of simulations.

use std::io;

use super::kv::{Column, Kv};
use super::memory::Attached;
use super::records;
use crate::raft_types::{StoredMembership, position};
use crate::{LogPosition, NodeId};

/// An entry of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Where it stands.
    pub at: LogPosition,
    /// Of its record.
    pub checksum: u32,
}

/// What a disk shows to those who read it now, synced or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// The newest term voted in, for whom, and whether that node is known to have won.
    pub vote: Option<(u64, NodeId, bool)>,
    /// Everything up to here was deleted from the log.
    pub purged: Option<LogPosition>,
    /// The log, in order.
    pub log: Vec<Logged>,
    /// The last entry whose effects the records hold.
    pub applied: Option<LogPosition>,
    /// Voters as of that entry: one set, or two while they change.
    pub voters: Vec<Vec<NodeId>>,
    /// Voters and learners as of that entry.
    pub members: Vec<NodeId>,
}

impl Contents {
    pub(crate) fn read(disk: &Attached) -> io::Result<Self> {
        let vote = records::vote(disk)?;
        let applied = records::applied(disk)?;
        let pairs = disk.page(Column::Log, &[], &[0xff; 9], usize::MAX)?;
        let logged = |(key, value): (Vec<u8>, Vec<u8>)| {
            let checksum = crc32c::crc32c(&value);
            let at = position(&records::entry(&key, value)?.log_id);
            Ok(Logged { at, checksum })
        };
        let membership = StoredMembership::membership(&applied.membership);
        let sets = membership.get_joint_config().iter();
        Ok(Self {
            vote: vote.map(|v| (v.leader_id.term, v.leader_id.voted_for, v.committed)),
            purged: records::purged(disk)?.as_ref().map(position),
            log: pairs.into_iter().map(logged).collect::<io::Result<_>>()?,
            applied: applied.last.as_ref().map(position),
            voters: sets.map(|set| set.iter().copied().collect()).collect(),
            members: membership.nodes().map(|(id, _)| *id).collect(),
        })
    }
}
