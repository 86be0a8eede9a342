//! The replicated machine: committed commands go into the lease table, changed records into the
//! batch, and news of it to those who wait.

use std::sync::Arc;

use bytes::Bytes;
use leasehold_proto::command::Reply;
use leasehold_proto::error::Rejection;
use leasehold_proto::table::{LeaseTable, Outcome, Record, RecordKey};
use leasehold_proto::{LogId, TargetName, limits, wire};
use leasehold_raft_store::{Batch, LogPosition, RestoreError, StateMachine};

use crate::replica::{News, Replica};

/// Applies commands to the table of one node.
pub(crate) struct Machine {
    replica: Arc<Replica>,
    /// Of entries that are applied but not yet written.
    news: News,
}

impl Machine {
    pub(crate) fn new(replica: Arc<Replica>) -> Self {
        Self {
            replica,
            news: News::default(),
        }
    }

    fn note(&mut self, outcome: Outcome, keys: &[RecordKey]) -> Bytes {
        self.news.events.extend(outcome.events);
        for target in keys.iter().filter_map(target_of) {
            if !self.news.touched.contains(target) {
                self.news.touched.insert(target.clone());
            }
        }
        wire::encode_reply(&outcome.reply)
    }
}

fn target_of(key: &RecordKey) -> Option<&TargetName> {
    match key {
        RecordKey::Meta => None,
        RecordKey::Target(target) | RecordKey::Slice(target, _) | RecordKey::Session(target, _) => {
            Some(target)
        }
    }
}

impl StateMachine for Machine {
    fn restore(
        &mut self,
        applied: Option<LogPosition>,
        records: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<(), RestoreError> {
        let decoded: Result<Vec<Record>, RestoreError> = records
            .map(|(key, value)| read_record(&key, &value))
            .collect();
        let table =
            LeaseTable::from_records(decoded?).map_err(|error| RestoreError(error.to_string()))?;
        tracing::info!(applied = ?applied.map(|at| at.index), targets = table.targets().count(), "records loaded");
        self.news = News::default();
        self.replica.write(|present| *present = table);
        self.replica.replaced();
        Ok(())
    }

    fn apply(&mut self, at: LogPosition, command: &[u8], batch: &mut dyn Batch) -> Bytes {
        let command = match wire::decode_command(command) {
            Ok(command) => command,
            // Every replica runs the same code on the same bytes and refuses alike.
            Err(error) => return wire::encode_reply(&unreadable(&error.to_string())),
        };
        let at = LogId {
            term: at.term,
            index: at.index,
        };
        let mut outcome = self.replica.write(|table| {
            let outcome = table.apply(at, command);
            for key in &outcome.touched {
                let stored = wire::encode_record_key(key);
                match table.record(key) {
                    Some(record) => batch.put(&stored, &wire::encode_record(&record)),
                    None => batch.delete(&stored),
                }
            }
            outcome
        });
        let keys = std::mem::take(&mut outcome.touched);
        self.note(outcome, &keys)
    }

    fn applied(&mut self, _last: LogPosition) {
        let news = std::mem::take(&mut self.news);
        if !news.events.is_empty() || !news.touched.is_empty() {
            self.replica.publish(news);
        }
    }
}

fn unreadable(why: &str) -> Reply {
    let mut end = why.len().min(limits::TEXT_BYTES);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    Reply::Rejected(Rejection::Unreadable(why[..end].to_owned()))
}

/// Reads one stored record and checks that it stands under its own key.
pub(crate) fn read_record(key: &[u8], value: &[u8]) -> Result<Record, RestoreError> {
    let shown = || String::from_utf8_lossy(&key[..key.len().min(80)]).into_owned();
    let bad = |why: &dyn std::fmt::Display| {
        RestoreError(format!(
            "the record under {:?} cannot be read: {why}",
            shown()
        ))
    };
    let named = wire::decode_record_key(key).map_err(|error| bad(&error))?;
    let record = wire::decode_record(value).map_err(|error| bad(&error))?;
    if record.key() != named {
        return Err(bad(&"it belongs under another key"));
    }
    Ok(record)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use leasehold_proto::clock::ClockClass;
    use leasehold_proto::command::Command;
    use leasehold_proto::target::{PodAddress, SessionSecret, Squid, TargetConfig, TargetName};

    use super::*;

    #[derive(Default)]
    struct Records(BTreeMap<Vec<u8>, Vec<u8>>);

    impl Batch for Records {
        fn put(&mut self, key: &[u8], value: &[u8]) {
            self.0.insert(key.to_vec(), value.to_vec());
        }

        fn delete(&mut self, key: &[u8]) {
            self.0.remove(key);
        }
    }

    fn cart() -> TargetName {
        TargetName::new("cart").unwrap()
    }

    fn create() -> Command {
        Command::CreateTarget {
            target: cart(),
            config: TargetConfig::default(),
            initial_slices: 4,
        }
    }

    fn register() -> Command {
        Command::RegisterSession {
            target: cart(),
            squid: Squid {
                address: PodAddress::new("127.0.0.1:9000").unwrap(),
                id: 7,
            },
            clock: ClockClass::Raw,
            secret: SessionSecret::from_bytes([9; 16]),
            app_version: String::new(),
        }
    }

    fn at(index: u64) -> LogPosition {
        LogPosition { term: 1, index }
    }

    #[test]
    fn the_written_records_rebuild_the_table() {
        let replica = Arc::new(Replica::default());
        let (mut machine, mut records) = (Machine::new(Arc::clone(&replica)), Records::default());
        for (index, command) in [create(), register()].iter().enumerate() {
            machine.apply(
                at(index as u64 + 1),
                &wire::encode_command(command),
                &mut records,
            );
        }
        let rebuilt = Arc::new(Replica::default());
        let mut stored = records.0.into_iter();
        Machine::new(Arc::clone(&rebuilt))
            .restore(Some(at(2)), &mut stored)
            .unwrap();
        assert_eq!(*rebuilt.table(), *replica.table());
    }

    #[test]
    fn an_unreadable_command_is_refused_and_changes_nothing() {
        let replica = Arc::new(Replica::default());
        let (mut machine, mut records) = (Machine::new(Arc::clone(&replica)), Records::default());
        let reply = machine.apply(at(1), b"\xff\xff nonsense", &mut records);
        let reply = wire::decode_reply(&reply).unwrap();
        assert!(
            matches!(reply, Reply::Rejected(Rejection::Unreadable(_))),
            "{reply:?}"
        );
        assert!(records.0.is_empty());
    }

    #[test]
    fn bad_records_are_refused_with_the_key_named() {
        let mut machine = Machine::new(Arc::new(Replica::default()));
        let mut foreign = [(b"Tcart".to_vec(), b"\x07nonsense".to_vec())].into_iter();
        let error = machine.restore(None, &mut foreign).unwrap_err();
        assert!(error.to_string().contains("Tcart"), "{error}");
    }

    #[test]
    fn a_leader_reads_events_only_after_they_are_applied() {
        let replica = Arc::new(Replica::default());
        let (mut machine, mut records) = (Machine::new(Arc::clone(&replica)), Records::default());
        let queue = replica.subscribe();
        machine.apply(at(1), &wire::encode_command(&create()), &mut records);
        assert!(queue.take().events.is_empty());
        machine.applied(at(1));
        let unread = queue.take();
        assert!(unread.touched.contains(&cart()) && !unread.events.is_empty());
    }
}
