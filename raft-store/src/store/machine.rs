//! Runs the caller's state machine: applies entries, takes and installs snapshots.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::kv::{Column, Kv, Ops, Pair, View};
use super::records::{self, Applied};
use super::snapshot::{self, SnapshotData, SnapshotReader, Snapshots};
use super::sync::Syncer;
use crate::raft_types::{LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, position};
use crate::{Batch, LogPosition, StartError, StateMachine};

/// Bytes of effects after which a batch is written although more entries wait.
const BATCH_BYTES: usize = 1 << 20;
/// Entries after which a batch is written although more wait.
const BATCH_ENTRIES: usize = 2048;
/// Bytes of records read or written at once.
const PAGE_BYTES: usize = 1 << 20;

/// The caller's state machine and where its records are.
pub(crate) struct Machine {
    /// Only ever used through `&mut self`; the lock makes the whole shareable.
    machine: Mutex<Box<dyn StateMachine>>,
    kv: Arc<dyn Kv>,
    syncer: Arc<Syncer>,
    snapshots: Snapshots,
    cluster: String,
    applied: Applied,
    published: watch::Sender<Option<LogPosition>>,
    gaps_allowed: bool,
}

impl Machine {
    /// Load the records into `machine`.
    pub(crate) fn open(
        machine: Box<dyn StateMachine>,
        kv: Arc<dyn Kv>,
        syncer: Arc<Syncer>,
        snapshots: Snapshots,
        cluster: String,
    ) -> Result<Self, StartError> {
        let applied = records::applied(&*kv)?;
        drop_other_generations(&*kv, applied.generation)?;
        snapshots.drop_damaged()?;
        let (published, _) = watch::channel(None);
        let machine = Mutex::new(machine);
        let mut this = Self {
            machine,
            kv,
            syncer,
            snapshots,
            cluster,
            applied,
            published,
            gaps_allowed: false,
        };
        this.restore()?;
        Ok(this)
    }

    /// The library's suite leaves gaps between entries; the library never does.
    #[cfg(test)]
    pub(crate) fn allowing_gaps(mut self) -> Self {
        self.gaps_allowed = true;
        self
    }

    /// The last applied position, as it moves.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<LogPosition>> {
        self.published.subscribe()
    }

    fn restore(&mut self) -> Result<(), StartError> {
        let view = self.kv.view();
        let mut records = Records::new(view, self.applied.generation);
        let last = self.applied.last.as_ref().map(position);
        self.machine.get_mut().restore(last, &mut records)?;
        if let Some(error) = records.error {
            return Err(error.into());
        }
        self.publish();
        Ok(())
    }

    fn publish(&mut self) {
        let last = self.applied.last.as_ref().map(position);
        if let Some(last) = last {
            self.machine.get_mut().applied(last);
        }
        self.published.send_replace(last);
    }

    /// Write what a batch of entries changed, publish it, then answer the proposers.
    fn flush(&mut self, ops: &mut Ops, replies: &mut Vec<Reply>) -> io::Result<()> {
        // One batch with the position: not synced, since the log entries stand before it in the
        // same write-ahead log and are applied again if it is lost.
        if mutant!("position_written_before_effects") {
            let mut position = Ops::default();
            records::put_applied(&mut position, &self.applied);
            self.kv.write(&position)?;
        }
        records::put_applied(ops, &self.applied);
        self.kv.write(ops)?;
        *ops = Ops::default();
        self.publish();
        for (responder, reply) in replies.drain(..) {
            responder.send(reply);
        }
        Ok(())
    }

    /// Replace all records by those of `data`. Crash-atomic: they are loaded beside the present
    /// ones, the file is put in its place, then one write switches. A crash before the switch
    /// leaves the old state; the file, if already in place, is installed at the next start.
    async fn replace(&mut self, meta: &SnapshotMeta, data: SnapshotData) -> io::Result<()> {
        let generation = self.applied.generation + 1;
        let (kv, cluster) = (Arc::clone(&self.kv), self.cluster.clone());
        let snapshots = self.snapshots.clone();
        let loading = data.clone();
        let found = run(snapshots.is_inline(), move || {
            load(&*kv, &loading, generation, &cluster)
        })
        .await?;
        if found.last_log_id != meta.last_log_id {
            return Err(io::Error::other(
                "the snapshot is not the one that was announced",
            ));
        }
        self.syncer.barrier().await?;
        snapshots.publish(meta.last_log_id.as_ref(), &data)?;

        let old = self.applied.generation;
        self.applied = Applied {
            last: meta.last_log_id,
            membership: match mutant!("snapshot_without_its_members") {
                true => self.applied.membership.clone(),
                false => meta.last_membership.clone(),
            },
            generation: match mutant!("snapshot_without_its_records") {
                true => old,
                false => generation,
            },
        };
        let mut ops = Ops::default();
        records::put_applied(&mut ops, &self.applied);
        let unused = match mutant!("snapshot_without_its_records") {
            true => generation,
            false => old,
        };
        let (from, to) = records::generation_range(unused);
        ops.delete_range(Column::State, &from[..]..&to[..]);
        self.kv.write(&ops)?;
        self.syncer.barrier().await?;
        self.kv.reclaim(Column::State, &from, &to);
        self.restore().map_err(io::Error::other)
    }
}

type Reply = (ApplyResponder<TypeConfig>, Bytes);

/// Run work that blocks. In the store in memory nothing does, and a simulation must not meet
/// threads.
async fn run<T: Send + 'static>(
    inline: bool,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    if inline {
        return work();
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// Load a snapshot under `generation`, whatever an earlier attempt left there.
fn load(
    kv: &dyn Kv,
    data: &SnapshotData,
    generation: u64,
    cluster: &str,
) -> io::Result<SnapshotMeta> {
    let mut reader = SnapshotReader::open(data)?;
    if reader.cluster() != cluster {
        return Err(io::Error::other("the snapshot is of another cluster"));
    }
    let (from, to) = records::generation_range(generation);
    let mut ops = Ops::default();
    ops.delete_range(Column::State, &from[..]..&to[..]);
    while let Some(found) = reader.next()? {
        for record in found {
            put_state(&mut ops, generation, &record.key, &record.value);
            if ops.size_bytes() >= PAGE_BYTES {
                kv.write(&ops)?;
                ops = Ops::default();
            }
        }
    }
    kv.write(&ops)?;
    Ok(reader.meta().clone())
}

pub(crate) fn put_state(ops: &mut Ops, generation: u64, key: &[u8], value: &[u8]) {
    ops.put_with(Column::State, &[&generation.to_be_bytes(), key], |buffer| {
        buffer.extend_from_slice(value);
    });
}

/// What an interrupted installation left.
fn drop_other_generations(kv: &dyn Kv, generation: u64) -> io::Result<()> {
    let (from, to) = records::generation_range(generation);
    let mut ops = Ops::default();
    ops.delete_range(Column::State, &[][..]..&from[..]);
    ops.delete_range(Column::State, &to[..]..&[0xff; 9][..]);
    kv.write(&ops)
}

/// The records of one generation, page by page.
pub(crate) struct Records {
    view: Box<dyn View>,
    from: Vec<u8>,
    to: Vec<u8>,
    page: std::vec::IntoIter<Pair>,
    /// Why the iteration ended early.
    pub(crate) error: Option<io::Error>,
}

impl Records {
    pub(crate) fn new(view: Box<dyn View>, generation: u64) -> Self {
        let (from, to) = records::generation_range(generation);
        Self {
            view,
            from,
            to,
            page: Vec::new().into_iter(),
            error: None,
        }
    }
}

impl Iterator for Records {
    type Item = Pair;

    fn next(&mut self) -> Option<Pair> {
        if self.page.len() == 0 {
            match self
                .view
                .page(Column::State, &self.from, &self.to, PAGE_BYTES)
            {
                Ok(pairs) => self.page = pairs.into_iter(),
                Err(error) => {
                    self.error = Some(error);
                    self.to.clone_from(&self.from);
                    return None;
                }
            }
        }
        let (key, value) = self.page.next()?;
        let user_key = key.get(8..).unwrap_or_default().to_vec();
        self.from = key;
        self.from.push(0);
        Some((user_key, value))
    }
}

/// The machine's batch: keys get the generation in front.
struct StateBatch<'a> {
    ops: &'a mut Ops,
    generation: [u8; 8],
}

impl Batch for StateBatch<'_> {
    fn put(&mut self, key: &[u8], value: &[u8]) {
        self.ops
            .put_with(Column::State, &[&self.generation, key], |buffer| {
                buffer.extend_from_slice(value);
            });
    }

    fn delete(&mut self, key: &[u8]) {
        self.ops.delete(Column::State, &[&self.generation, key]);
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        let mut ops = Ops::default();
        let mut replies: Vec<Reply> = Vec::new();
        let mut pending = 0;
        while let Some(item) = entries.next().await {
            let (entry, responder) = item?;
            let at = entry.log_id;
            let expected = self.applied.last.map_or(0, |l| l.index + 1);
            if at.index != expected && !self.gaps_allowed {
                return Err(io::Error::other(format!(
                    "entry {} is to be applied where {expected} is due",
                    at.index
                )));
            }
            let reply = match &entry.payload {
                EntryPayload::Normal(command) => {
                    let generation = self.applied.generation.to_be_bytes();
                    let mut batch = StateBatch {
                        ops: &mut ops,
                        generation,
                    };
                    self.machine
                        .get_mut()
                        .apply(position(&at), &command.0, &mut batch)
                }
                EntryPayload::Membership(m) => {
                    self.applied.membership = StoredMembership::new(Some(at), m.clone());
                    Bytes::new()
                }
                EntryPayload::Blank => Bytes::new(),
            };
            self.applied.last = Some(at);
            replies.extend(responder.map(|r| (r, reply)));
            pending += 1;
            if pending >= BATCH_ENTRIES || ops.size_bytes() >= BATCH_BYTES {
                self.flush(&mut ops, &mut replies)?;
                pending = 0;
            }
        }
        if pending > 0 {
            self.flush(&mut ops, &mut replies)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        // The view is taken here, before the next entry is applied.
        Builder {
            view: Some(self.kv.view()),
            snapshots: self.snapshots.clone(),
            cluster: self.cluster.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        data: SnapshotData,
    ) -> io::Result<()> {
        let result = self.replace(meta, data).await;
        if let Err(error) = &result {
            tracing::error!(%error, "a snapshot could not be installed; this node stops");
        }
        result
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot<SnapshotData>>> {
        let Some(data) = self.snapshots.current()? else {
            return Ok(None);
        };
        // Damage on disk must neither be sent to a peer nor stop this node, whose records are
        // whole: the next snapshot replaces the file.
        match SnapshotReader::open(&data) {
            Ok(reader) => Ok(Some(Snapshot {
                meta: reader.meta().clone(),
                snapshot: data,
            })),
            Err(error) => {
                tracing::error!(%error, "the snapshot file is damaged; it is ignored");
                Ok(None)
            }
        }
    }
}

/// Takes a snapshot of the moment at which it was made.
pub(crate) struct Builder {
    view: Option<Box<dyn View>>,
    snapshots: Snapshots,
    cluster: String,
}

// The view is only ever used through `&mut self`.
impl RaftSnapshotBuilder<TypeConfig> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot<SnapshotData>> {
        let view = self
            .view
            .take()
            .ok_or_else(|| io::Error::other("built twice"))?;
        let (snapshots, cluster) = (self.snapshots.clone(), self.cluster.clone());
        let (applied, data) = run(snapshots.is_inline(), move || {
            let (applied, data) = snapshot::write(&*view, &cluster, &snapshots)?;
            snapshots.publish(applied.last.as_ref(), &data)?;
            Ok((applied, data))
        })
        .await?;
        let meta = SnapshotMeta {
            last_log_id: applied.last,
            last_membership: applied.membership,
        };
        Ok(Snapshot {
            meta,
            snapshot: data,
        })
    }
}

/// A consistent copy of the state machine's records, for a backup.
pub struct Export {
    /// The last entry whose effects the records hold.
    pub position: Option<LogPosition>,
    records: Records,
}

impl Export {
    pub(crate) fn new(kv: &dyn Kv) -> io::Result<Self> {
        let view = kv.view();
        let applied = records::applied_in(&*view)?;
        let position = applied.last.as_ref().map(position);
        Ok(Self {
            position,
            records: Records::new(view, applied.generation),
        })
    }
}

impl Iterator for Export {
    type Item = io::Result<(Vec<u8>, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.records.next() {
            Some(pair) => Some(Ok(pair)),
            None => self.records.error.take().map(Err),
        }
    }
}
