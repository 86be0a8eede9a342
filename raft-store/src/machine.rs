//! What is replicated: a deterministic machine that keeps its records in our batch.

use bytes::Bytes;

use crate::LogPosition;

/// Receives the records that one entry changes. They are written atomically together with the
/// position of the entry, so that a restart sees an entry's effects whole or not at all.
pub trait Batch {
    /// Set `key` to `value`.
    fn put(&mut self, key: &[u8], value: &[u8]);
    /// Remove `key`; no error if it is absent.
    fn delete(&mut self, key: &[u8]);
}

/// The replicated state machine. It is called from one task, never concurrently.
pub trait StateMachine: Send + 'static {
    /// Forget everything and load `records`, in the order of their keys. Called at start, and
    /// after a snapshot of the leader replaced the records. `applied` is the last entry whose
    /// effects the records hold.
    ///
    /// # Errors
    ///
    /// The records are corrupt, or of a version that this program does not know. The node then
    /// refuses to start (or stops) with that message and changes nothing.
    fn restore(
        &mut self,
        applied: Option<LogPosition>,
        records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<(), RestoreError>;

    /// Apply one committed entry and return the reply for its proposer.
    ///
    /// Requires determinism: no clock, no randomness, no I/O. Every changed record must go to
    /// `batch`; what does not is gone after a restart. A command that makes no sense is answered
    /// with a reply that says so, on every replica alike; it must not panic.
    fn apply(&mut self, at: LogPosition, command: &[u8], batch: &mut dyn Batch) -> Bytes;

    /// The effects of all entries up to `last` have been written: publish them, wake watchers.
    /// Called also when the last entries carried no command, and before proposers get their
    /// replies. Must not block.
    fn applied(&mut self, last: LogPosition);
}

/// Why a state machine could not load its records.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RestoreError(pub String);
