//! Starting a replica.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use openraft::error::Fatal;
use tokio::sync::Semaphore;

use super::{Inner, RaftNode, Storage, leadership};
use crate::network::client::{Network, Sender};
use crate::network::pool::Pool;
use crate::network::server::Receiver;
use crate::raft_types::Raft;
use crate::store::kv::Kv;
use crate::store::log::LogStore;
use crate::store::machine::Machine;
use crate::store::snapshot::Snapshots;
use crate::store::sync::Syncer;
use crate::{RaftConfig, StartError, StateMachine};

/// A store, opened.
struct Opened {
    kv: Arc<dyn Kv>,
    syncer: Arc<Syncer>,
    snapshots: Snapshots,
    disk: [u8; 16],
}

#[cfg_attr(not(feature = "rocksdb"), allow(unused_variables))]
fn open(config: &RaftConfig, storage: Storage) -> Result<Opened, StartError> {
    match storage {
        Storage::Memory(store) => {
            let snapshots = Snapshots::Memory(Arc::clone(&store.snapshots));
            let disk = store.disk;
            let attached = store.attach().ok_or(StartError::Locked {
                path: "memory".into(),
            })?;
            let attached = Arc::new(attached);
            let kv: Arc<dyn Kv> = Arc::clone(&attached) as Arc<dyn Kv>;
            let syncer = Arc::new(match attached.sync_takes() {
                Some(_) => Syncer::timed(attached),
                None => Syncer::inline(Arc::clone(&kv)),
            });
            Ok(Opened {
                kv,
                syncer,
                snapshots,
                disk,
            })
        }
        #[cfg(feature = "rocksdb")]
        Storage::Disk(path) => {
            let found = crate::store::directory::open(&path, &config.cluster, config.node_id)?;
            let kv: Arc<dyn Kv> = Arc::new(found.db);
            let syncer = Arc::new(Syncer::threaded(Arc::clone(&kv))?);
            Ok(Opened {
                kv,
                syncer,
                snapshots: found.snapshots,
                disk: found.disk,
            })
        }
    }
}

impl RaftNode {
    /// Open the store, load `machine` and join the peers it knows.
    ///
    /// If this node has ever voted, it first keeps silent for one election timeout: it may have
    /// granted a leader a lease that it has forgotten. Until this returns it answers nobody.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; nothing has been changed on disk, nothing runs.
    pub async fn start(
        config: RaftConfig,
        storage: Storage,
        machine: impl StateMachine,
    ) -> Result<Self, StartError> {
        config.validate().map_err(StartError::Config)?;
        let raft_config = config
            .raft_config()
            .validate()
            .map_err(|e| StartError::Config(e.to_string()))?;
        let opened = open(&config, storage)?;
        let Opened {
            kv,
            syncer,
            snapshots,
            disk,
        } = opened;

        let log = LogStore::open(Arc::clone(&kv), Arc::clone(&syncer))?;
        let machine = Machine::open(
            Box::new(machine),
            Arc::clone(&kv),
            Arc::clone(&syncer),
            snapshots.clone(),
            config.cluster.clone(),
        )?;
        let applied = machine.watch();
        let sender = sender(&config);
        let raft: Raft<Machine> = openraft::Raft::build(
            config.node_id,
            Arc::new(raft_config),
            Network(Arc::clone(&sender)),
            log.clone(),
            machine,
        )
        .await
        .map_err(|fatal| refusal(&fatal))?;

        if log.vote().is_some() {
            tokio::time::sleep(config.election_timeout_max()).await;
        }
        raft.run();
        // Until the core has begun, the status would show a node without members.
        raft.with_raft_state(|_| ())
            .await
            .map_err(|fatal| refusal(&fatal))?;

        let receiver = receiver(&config, disk, raft.clone(), snapshots);
        let (leadership, task) = leadership::watch(&raft);
        let inner = Inner {
            places: Arc::new(Semaphore::new(config.max_in_flight)),
            config,
            raft,
            receiver,
            sender,
            entries_appended: log.entries_appended(),
            syncer,
            kv: parking_lot::Mutex::new(Some(kv)),
            applied,
            leadership,
            tasks: parking_lot::Mutex::new(vec![task]),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }
}

fn sender(config: &RaftConfig) -> Arc<Sender> {
    Arc::new(Sender {
        cluster: config.cluster.clone(),
        me: config.node_id,
        pool: Pool::new(Arc::clone(&config.dialer), config.election_timeout_max()),
        open_timeout: config.election_timeout_max(),
        open_pause: config.retry_pause(),
        max_message_bytes: config.max_message_bytes(),
    })
}

fn receiver(
    config: &RaftConfig,
    disk: [u8; 16],
    raft: Raft<Machine>,
    snapshots: Snapshots,
) -> Arc<Receiver> {
    Arc::new(Receiver {
        cluster: config.cluster.clone(),
        me: config.node_id,
        disk: disk.to_vec(),
        raft,
        snapshots,
        max_snapshot_bytes: config.max_snapshot_bytes,
        serving: AtomicBool::new(true),
        incoming: Semaphore::new(1),
    })
}

fn refusal(fatal: &Fatal<crate::raft_types::TypeConfig>) -> StartError {
    StartError::Raft(fatal.to_string())
}
