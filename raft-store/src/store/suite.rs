//! The Raft library's own storage suite, on both stores.

use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::RaftStateMachine;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{EntryPayload, StorageError};

use super::kv::Kv;
use super::log::LogStore;
use super::machine::Machine;
use super::snapshot::Snapshots;
use super::sync::Syncer;
use crate::raft_types::{Entry, TypeConfig, log_id};
use crate::{Batch, LogPosition, MemoryStore, RestoreError, StateMachine};

struct Nothing;

impl StateMachine for Nothing {
    fn restore(
        &mut self,
        _: Option<LogPosition>,
        _: &mut dyn Iterator<Item = (Vec<u8>, Vec<u8>)>,
    ) -> Result<(), RestoreError> {
        Ok(())
    }

    fn apply(&mut self, _: LogPosition, command: &[u8], batch: &mut dyn Batch) -> Bytes {
        batch.put(command, command);
        Bytes::new()
    }

    fn applied(&mut self, _: LogPosition) {}
}

fn parts(
    kv: Arc<dyn Kv>,
    syncer: Arc<Syncer>,
    snapshots: Snapshots,
) -> Result<(LogStore, Machine), StorageError<TypeConfig>> {
    let failed = |e: String| {
        StorageError::from_io_error(
            openraft::ErrorSubject::Store,
            openraft::ErrorVerb::Read,
            std::io::Error::other(e),
        )
    };
    let log =
        LogStore::open(Arc::clone(&kv), Arc::clone(&syncer)).map_err(|e| failed(e.to_string()))?;
    let machine = Machine::open(Box::new(Nothing), kv, syncer, snapshots, "suite".into())
        .map_err(|e| failed(e.to_string()))?;
    Ok((log, machine.allowing_gaps()))
}

struct InMemory;

impl StoreBuilder<TypeConfig, LogStore, Machine> for InMemory {
    async fn build(&self) -> Result<((), LogStore, Machine), StorageError<TypeConfig>> {
        let store = MemoryStore::new();
        let snapshots = Snapshots::Memory(Arc::clone(&store.snapshots));
        let kv: Arc<dyn Kv> = Arc::new(store.attach().expect("free"));
        let syncer = Arc::new(Syncer::inline(Arc::clone(&kv)));
        let (log, machine) = parts(kv, syncer, snapshots)?;
        Ok(((), log, machine))
    }
}

#[tokio::test]
async fn the_store_in_memory_passes_the_librarys_suite() {
    Suite::test_all(InMemory).await.expect("the suite");
}

#[tokio::test]
async fn an_entry_behind_a_gap_is_not_applied() {
    let store = MemoryStore::new();
    let snapshots = Snapshots::Memory(Arc::clone(&store.snapshots));
    let kv: Arc<dyn Kv> = Arc::new(store.attach().expect("free"));
    let syncer = Arc::new(Syncer::inline(Arc::clone(&kv)));
    let mut machine = Machine::open(Box::new(Nothing), kv, syncer, snapshots, "gaps".into())
        .expect("an empty store");
    let mut apply = async |index| {
        let log_id = log_id(1, index);
        let payload = EntryPayload::Blank;
        let entry = Entry { log_id, payload };
        machine
            .apply(futures::stream::iter([Ok((entry, None))]))
            .await
    };
    apply(0).await.expect("the first");
    let error = apply(2).await.expect_err("a gap");
    assert!(error.to_string().contains("1 is due"), "{error}");
    apply(1).await.expect("the one that is due");
}

#[cfg(feature = "rocksdb")]
mod on_disk {
    use super::*;
    use tempfile::TempDir;

    struct OnDisk;

    impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for OnDisk {
        async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
            let root = tempfile::tempdir().expect("a directory");
            let found = crate::store::directory::open(root.path(), "suite", 0).expect("opened");
            let kv: Arc<dyn Kv> = Arc::new(found.db);
            let syncer = Arc::new(Syncer::threaded(Arc::clone(&kv)).expect("a thread"));
            let (log, machine) = parts(kv, syncer, found.snapshots)?;
            Ok((root, log, machine))
        }
    }

    #[tokio::test]
    async fn the_store_on_disk_passes_the_librarys_suite() {
        Suite::test_all(OnDisk).await.expect("the suite");
    }
}
