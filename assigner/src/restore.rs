//! Restoring a saved snapshot: a new cluster begins with its records, in a new incarnation.
//!
//! ◆ The old cluster may have gone on after the snapshot was saved, so nothing of its leases is
//! believed: the restoring entry closes every session and vacates every slice, and the new leader
//! grants nothing until every lease of the lost history must have run out. Tokens of the new
//! incarnation are larger than every one of the old.

use std::path::Path;
use std::time::Duration;

use leasehold_proto::command::{Command, Reply};
use leasehold_proto::error::Rejection;
use leasehold_proto::id::Incarnation;
use leasehold_proto::table::{LeaseTable, Record};
use leasehold_proto::{LogId, wire};
use leasehold_raft_store::{LogPosition, RestoreError, StartError};

use crate::machine::read_record;
use crate::snapshot_file::SnapshotFile;

/// What a restored cluster begins as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePlan {
    /// Larger than any incarnation that any client has seen.
    pub incarnation: Incarnation,
    /// The largest ttl that a session of the lost history may have, if larger than what the
    /// snapshot shows.
    pub max_ttl: Duration,
    /// Name of the new cluster; not the old one's, whose nodes must never be heard here.
    pub cluster: String,
    /// The only member.
    pub node_id: u64,
    /// Where others reach it: `host:port`.
    pub advertise: String,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum CannotRestore {
    /// The snapshot's records describe no table: it is of another program or version.
    #[error("the snapshot cannot be used: {0}")]
    Records(#[from] RestoreError),
    /// The incarnation is not larger than the snapshot's, or another value is out of bounds.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The directory could not be made: it is not empty, or the disk failed.
    #[error(transparent)]
    Directory(#[from] StartError),
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Targets in the snapshot.
    pub targets: usize,
    /// The ttl whose D the new leader waits for before it grants anything.
    pub wait_for_ttl: Duration,
}

/// Makes `directory`, which must be empty or missing, the data directory of the only member of a
/// new cluster that begins with the snapshot. Start a node on it without bootstrapping, then add
/// members with empty directories.
///
/// Requires that the old cluster is stopped for good.
pub fn restore(
    file: &SnapshotFile,
    directory: &Path,
    plan: &RestorePlan,
) -> Result<Restored, CannotRestore> {
    let (table, at) = restored_table(file, plan)?;
    let position = LogPosition {
        term: at.term,
        index: at.index,
    };
    let records = table.records().map(|record| {
        Ok((
            wire::encode_record_key(&record.key()),
            wire::encode_record(&record),
        ))
    });
    leasehold_raft_store::restore_records(
        directory,
        &plan.cluster,
        plan.node_id,
        &plan.advertise,
        position,
        records,
    )?;
    Ok(Restored {
        targets: table.targets().count(),
        wait_for_ttl: table.restore_wait().unwrap_or_default(),
    })
}

/// The table that the new cluster begins with, and the position that its records have.
fn restored_table(
    file: &SnapshotFile,
    plan: &RestorePlan,
) -> Result<(LeaseTable, LogId), CannotRestore> {
    let records: Result<Vec<Record>, RestoreError> = file
        .records
        .iter()
        .map(|(key, value)| read_record(key, value))
        .collect();
    let mut table =
        LeaseTable::from_records(records?).map_err(|error| RestoreError(error.to_string()))?;
    let at = LogId {
        term: file.applied.term,
        index: file.applied.index.saturating_add(1),
    };
    let outcome = table.apply(
        at,
        Command::Restore {
            incarnation: plan.incarnation,
            max_ttl: plan.max_ttl,
        },
    );
    match outcome.reply {
        Reply::Rejected(rejection) => Err(rejection.into()),
        _ => Ok((table, at)),
    }
}
