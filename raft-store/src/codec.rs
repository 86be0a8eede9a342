//! Between the library's types and our protobuf messages. Decoding trusts nothing.

use std::collections::{BTreeMap, BTreeSet};

use openraft::EntryPayload;
use openraft::vote::RaftVote;

use crate::raft_types::{
    Command, Entry, LeaderId, LogId, Membership, Peer, StoredMembership, Vote, log_id,
};
use crate::wire;

/// A message or a record that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("malformed: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

impl From<Malformed> for std::io::Error {
    fn from(e: Malformed) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, e)
    }
}

/// Members of a cluster and ids in a voter set: far more than Raft can carry.
const MAX_MEMBERS: usize = 256;

pub(crate) fn log_id_to(id: &LogId) -> wire::LogId {
    wire::LogId {
        term: id.leader_id.term,
        index: id.index,
    }
}

/// Terms and indices are counted up from what is received: those near the end of the numbers can
/// only be damage or malice.
const MAX_NUMBER: u64 = u64::MAX / 2;

pub(crate) fn log_id_from(id: wire::LogId) -> Result<LogId, Malformed> {
    if id.term > MAX_NUMBER || id.index > MAX_NUMBER {
        return Err(Malformed("a log position out of bounds"));
    }
    Ok(log_id(id.term, id.index))
}

pub(crate) fn log_id_option(id: Option<wire::LogId>) -> Result<Option<LogId>, Malformed> {
    id.map(log_id_from).transpose()
}

pub(crate) fn vote_to(vote: &Vote) -> wire::Vote {
    wire::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from(vote: Option<wire::Vote>) -> Result<Vote, Malformed> {
    let vote = vote.ok_or(Malformed("no vote"))?;
    if vote.term > MAX_NUMBER {
        return Err(Malformed("a term out of bounds"));
    }
    let leader = LeaderId {
        term: vote.term,
        voted_for: vote.node,
    };
    Ok(Vote::from_leader_id(leader, vote.committed))
}

pub(crate) fn entry_to(entry: &Entry) -> wire::LogEntry {
    use wire::log_entry::{Blank, Payload};
    let payload = match &entry.payload {
        EntryPayload::Blank => Payload::Blank(Blank {}),
        EntryPayload::Normal(command) => Payload::Command(command.0.clone()),
        EntryPayload::Membership(m) => Payload::Membership(membership_to(m)),
    };
    wire::LogEntry {
        term: entry.log_id.leader_id.term,
        index: entry.log_id.index,
        payload: Some(payload),
    }
}

pub(crate) fn entry_from(entry: wire::LogEntry) -> Result<Entry, Malformed> {
    use wire::log_entry::Payload;
    let payload = match entry
        .payload
        .ok_or(Malformed("an entry without a payload"))?
    {
        Payload::Blank(_) => EntryPayload::Blank,
        Payload::Command(bytes) => EntryPayload::Normal(Command(bytes)),
        Payload::Membership(m) => EntryPayload::Membership(membership_from(m)?),
    };
    Ok(Entry {
        log_id: log_id(entry.term, entry.index),
        payload,
    })
}

/// Entries as a peer sent them: each follows the one before, terms do not fall.
pub(crate) fn entries_from(
    previous: Option<LogId>,
    entries: Vec<wire::LogEntry>,
) -> Result<Vec<Entry>, Malformed> {
    let mut term = previous.map_or(0, |p| p.leader_id.term);
    let mut next = match previous {
        None => Some(0),
        Some(p) => p.index.checked_add(1),
    };
    let mut out = Vec::with_capacity(entries.len());
    for entry in entries {
        if Some(entry.index) != next || entry.term < term {
            return Err(Malformed("entries out of order"));
        }
        term = entry.term;
        next = entry.index.checked_add(1);
        out.push(entry_from(entry)?);
    }
    Ok(out)
}

pub(crate) fn membership_to(m: &Membership) -> wire::Membership {
    let voter_sets = m
        .get_joint_config()
        .iter()
        .map(|set| wire::VoterSet {
            ids: set.iter().copied().collect(),
        })
        .collect();
    let nodes = m
        .nodes()
        .map(|(id, peer)| wire::Node {
            id: *id,
            address: peer.address.clone(),
            disk: peer.disk.clone().into(),
        })
        .collect();
    wire::Membership { voter_sets, nodes }
}

pub(crate) fn membership_from(m: wire::Membership) -> Result<Membership, Malformed> {
    let too_many = m.nodes.len() > MAX_MEMBERS
        || m.voter_sets.len() > 2
        || m.voter_sets.iter().any(|s| s.ids.len() > MAX_MEMBERS);
    if too_many {
        return Err(Malformed("a membership beyond the bounds"));
    }
    let sets: Vec<BTreeSet<u64>> = m
        .voter_sets
        .into_iter()
        .map(|s| s.ids.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, Peer> = m
        .nodes
        .into_iter()
        .map(|n| {
            (
                n.id,
                Peer {
                    address: n.address,
                    disk: n.disk.to_vec(),
                },
            )
        })
        .collect();
    if sets.is_empty() && nodes.is_empty() {
        // Of a node that has not joined yet.
        return Ok(Membership::default());
    }
    Membership::new(sets, nodes).map_err(|_| Malformed("an impossible membership"))
}

pub(crate) fn stored_membership_to(m: &StoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        log_id: m.log_id().as_ref().map(log_id_to),
        membership: Some(membership_to(m.membership())),
    }
}

pub(crate) fn stored_membership_from(
    m: Option<wire::StoredMembership>,
) -> Result<StoredMembership, Malformed> {
    let Some(m) = m else {
        return Ok(StoredMembership::default());
    };
    let membership = membership_from(m.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(log_id_option(m.log_id)?, membership))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(term: u64, index: u64) -> wire::LogEntry {
        let payload = wire::log_entry::Payload::Command(Bytes::from_static(b"x"));
        wire::LogEntry {
            term,
            index,
            payload: Some(payload),
        }
    }

    #[test]
    fn entries_survive_the_round_trip() {
        let peer = Peer {
            address: "h:1".into(),
            disk: vec![1, 2],
        };
        let nodes = BTreeMap::from([(1, peer.clone()), (2, peer)]);
        let membership = Membership::new(vec![BTreeSet::from([1])], nodes).expect("a membership");
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(Command(Bytes::from_static(b"abc"))),
            EntryPayload::Membership(membership),
        ] {
            let entry = Entry {
                log_id: log_id(3, 9),
                payload,
            };
            let back = entry_from(entry_to(&entry)).expect("a round trip");
            assert_eq!(back.log_id, entry.log_id);
            assert!(back.payload == entry.payload);
        }
    }

    #[test]
    fn a_gap_a_falling_term_and_a_missing_payload_are_refused() {
        assert!(entries_from(None, vec![entry(1, 0), entry(1, 1)]).is_ok());
        assert!(entries_from(None, vec![entry(1, 1)]).is_err());
        assert!(entries_from(Some(log_id(2, 4)), vec![entry(2, 6)]).is_err());
        assert!(entries_from(Some(log_id(2, 4)), vec![entry(1, 5)]).is_err());
        assert!(entries_from(Some(log_id(2, u64::MAX)), vec![entry(2, 0)]).is_err());
        let bare = wire::LogEntry {
            term: 1,
            index: 0,
            payload: None,
        };
        assert!(entries_from(None, vec![bare]).is_err());
        assert!(vote_from(None).is_err());
    }

    #[test]
    fn a_voter_without_an_address_is_refused() {
        let m = wire::Membership {
            voter_sets: vec![wire::VoterSet { ids: vec![7] }],
            nodes: vec![],
        };
        assert!(membership_from(m).is_err());
    }
}
