//! A fresh data directory whose state machine begins with given records.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::directory::Creating;
use super::kv::{Kv, Ops};
use super::machine::put_state;
use super::records::{self, Applied};
use crate::raft_types::{LeaderId, Membership, Peer, StoredMembership, Vote, log_id};
use crate::{LogPosition, NodeId, StartError};

use openraft::vote::RaftVote;

/// Bytes written at once.
const BATCH_BYTES: usize = 1 << 20;

/// Make `path`, which must be empty or missing, the data directory of the only member of a fresh
/// cluster, whose state machine begins with `records`. Start the node on it (without
/// bootstrapping), then add empty members: they get the records as a snapshot. Only one directory
/// is made so; the members agree because they all have it from there.
///
/// `at` is the position that the records are said to have; entries of the new cluster come after
/// it, so give the position of the backup to keep numbers rising. The old cluster must never run
/// again under the same name: nothing here can tell the two apart.
///
/// # Errors
///
/// The directory is not empty (nothing is changed), or the disk failed, or `records` did: then
/// the directory is incomplete, and is to be deleted.
pub fn restore_records(
    path: &Path,
    cluster: &str,
    node_id: NodeId,
    advertise_peer_addr: &str,
    at: LogPosition,
    records: impl Iterator<Item = std::io::Result<(Vec<u8>, Vec<u8>)>>,
) -> Result<(), StartError> {
    let creating = Creating::begin(path, cluster, node_id)?;
    let generation = 1;
    let mut ops = Ops::default();
    for record in records {
        let (key, value) = record?;
        put_state(&mut ops, generation, &key, &value);
        if ops.size_bytes() >= BATCH_BYTES {
            creating.db.write(&ops)?;
            ops = Ops::default();
        }
    }
    // The log begins after the records: whoever joins needs a snapshot, since there is no entry
    // to begin with. Term and index must not be 0, where a log without records begins.
    let last = log_id(at.term.max(1), at.index.max(1));
    let peer = Peer {
        address: advertise_peer_addr.to_owned(),
        disk: creating.disk().to_vec(),
    };
    let nodes = BTreeMap::from([(node_id, peer)]);
    let membership = Membership::new(vec![BTreeSet::from([node_id])], nodes)
        .map_err(|e| StartError::Config(e.to_string()))?;
    let membership = StoredMembership::new(Some(last), membership);
    records::put_applied(
        &mut ops,
        &Applied {
            last: Some(last),
            membership,
            generation,
        },
    );
    records::put_purged(&mut ops, &last);
    let leader = LeaderId {
        term: last.leader_id.term,
        voted_for: node_id,
    };
    records::put_vote(&mut ops, &Vote::from_leader_id(leader, false));
    creating.db.write(&ops)?;
    creating.db.sync()?;
    creating.complete()
}
