//! The replicated machine of a simulated node: the real lease table with its stored records, as
//! the service keeps them, and an eye on everything that is applied.
//!
//! A command in the log is the number of its proposal, the term it was bound to, and the command
//! of the table in its stored form.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use leasehold_proto::LogId;
use leasehold_proto::command::Command;
use leasehold_proto::table::{Event, LeaseTable, Outcome};
use leasehold_proto::wire;
use leasehold_raft_store::{Batch, LogPosition, RestoreError, StateMachine};
use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use crate::event::{NodeId, What};
use crate::news::News;
use crate::observer::Observer;

/// Bytes before the table's command.
const HEAD_BYTES: usize = 16;

/// What a node's machine shows.
#[derive(Default)]
pub(crate) struct Shown {
    /// The table as applied so far.
    pub(crate) table: LeaseTable,
    /// The last entry whose effects are written.
    pub(crate) applied: Option<LogPosition>,
    /// Hash of each stored record, by key.
    records: BTreeMap<Vec<u8>, u64>,
    /// All of them together: the fingerprint of the state.
    pub(crate) state: u64,
}

impl Shown {
    fn set(&mut self, key: Vec<u8>, hash: Option<u64>) {
        // Sums of hashes: the same for the same set, in whatever order it came to be.
        let before = match hash {
            Some(hash) => self.records.insert(key, hash),
            None => self.records.remove(&key),
        };
        self.state = self
            .state
            .wrapping_sub(before.unwrap_or_default())
            .wrapping_add(hash.unwrap_or_default());
    }
}

fn hash_record(key: &[u8], value: &[u8]) -> u64 {
    xxh3_64(key).rotate_left(1) ^ xxh3_64(value)
}

/// Shared by a node's machine and its clients.
pub(crate) type Replica = Arc<Mutex<Shown>>;

/// Puts a proposal's number and term before the command.
pub(crate) fn encode(serial: u64, in_term: Option<u64>, command: &Command) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u64(serial);
    bytes.put_u64(in_term.unwrap_or_default());
    bytes.put_slice(&wire::encode_command(command));
    bytes.freeze()
}

fn head(command: &[u8]) -> Option<(u64, Option<u64>, &[u8])> {
    let (head, rest) = command.split_at_checked(HEAD_BYTES)?;
    let (serial, term) = head.split_at_checked(8)?;
    let serial = u64::from_be_bytes(serial.try_into().ok()?);
    let term = u64::from_be_bytes(term.try_into().ok()?);
    Some((serial, (term != 0).then_some(term), rest))
}

/// Applies commands to one node's table.
pub(crate) struct Machine {
    node: NodeId,
    replica: Replica,
    news: Arc<News>,
    /// Of entries that are applied but not yet written.
    unwritten: Vec<Event>,
    observer: Observer,
}

impl Machine {
    pub(crate) fn new(node: NodeId, replica: Replica, news: Arc<News>, observer: Observer) -> Self {
        Self {
            node,
            replica,
            news,
            unwritten: Vec::new(),
            observer,
        }
    }

    fn execute(&mut self, at: LogPosition, command: &[u8], batch: &mut dyn Batch) -> Bytes {
        let command = match wire::decode_command(command) {
            Ok(command) => command,
            Err(error) => return error.to_string().into(),
        };
        let at = LogId {
            term: at.term,
            index: at.index,
        };
        let mut shown = self.replica.lock();
        let Outcome {
            reply,
            touched,
            events,
        } = shown.table.apply(at, command);
        self.unwritten.extend(events);
        for key in &touched {
            let stored = wire::encode_record_key(key);
            match shown.table.record(key) {
                Some(record) => {
                    let value = wire::encode_record(&record);
                    batch.put(&stored, &value);
                    let hash = hash_record(&stored, &value);
                    shown.set(stored.to_vec(), Some(hash));
                }
                None => {
                    batch.delete(&stored);
                    shown.set(stored.to_vec(), None);
                }
            }
        }
        wire::encode_reply(&reply)
    }
}

impl StateMachine for Machine {
    fn restore(
        &mut self,
        applied: Option<LogPosition>,
        records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<(), RestoreError> {
        let mut fresh = Shown {
            applied,
            ..Shown::default()
        };
        let mut decoded = Vec::new();
        for (key, value) in records {
            let record = wire::decode_record(&value);
            decoded.push(record.map_err(|error| RestoreError(error.to_string()))?);
            let hash = hash_record(&key, &value);
            fresh.set(key, Some(hash));
        }
        fresh.table =
            LeaseTable::from_records(decoded).map_err(|error| RestoreError(error.to_string()))?;
        let state = fresh.state;
        *self.replica.lock() = fresh;
        self.unwritten.clear();
        self.news.lost();
        self.observer
            .see(self.node, What::Restored { at: applied, state });
        Ok(())
    }

    fn apply(&mut self, at: LogPosition, command: &[u8], batch: &mut dyn Batch) -> Bytes {
        let Some((serial, in_term, inner)) = head(command) else {
            self.observer
                .fail("harness", format!("a command without a head at {at}"));
            return Bytes::new();
        };
        let reply = self.execute(at, inner, batch);
        let state = self.replica.lock().state;
        self.observer.see(
            self.node,
            What::Applied {
                at,
                serial,
                in_term,
                command: xxh3_64(command),
                reply: xxh3_64(&reply),
                state,
            },
        );
        reply
    }

    fn applied(&mut self, last: LogPosition) {
        self.replica.lock().applied = Some(last);
        self.news.push(std::mem::take(&mut self.unwritten));
        self.observer.see(self.node, What::Published { last });
    }
}
