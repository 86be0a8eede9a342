//! The store in memory, with a crash model: it survives the node, and a crash takes from it what
//! had not been synced.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::contents::Contents;
use super::kv::{Column, Kv, Op, Ops, Pair, View};
use super::snapshot::MemorySnapshots;

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a write replaced.
struct Undo {
    column: Column,
    key: Vec<u8>,
    before: Option<Vec<u8>>,
}

#[derive(Default)]
struct Inner {
    maps: [Arc<Map>; 4],
    /// Batches since the last sync, oldest first, each as what it replaced.
    unsynced: VecDeque<Vec<Undo>>,
    /// Batches ever written.
    written: u64,
    fail_syncs: bool,
    sync_takes: Option<Duration>,
    /// Which node may write: the last one that was started here, until a crash.
    epoch: u64,
    attached: bool,
}

/// The disk of a node that has none. Clones share it: keep one, and a node started again on it
/// finds what the one before had synced. Only one node may use it at a time.
#[derive(Clone)]
pub struct MemoryStore {
    inner: Arc<Mutex<Inner>>,
    pub(crate) snapshots: Arc<MemorySnapshots>,
    pub(crate) disk: [u8; 16],
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty disk with a fresh identity.
    #[must_use]
    pub fn new() -> Self {
        Self::with_identity(rand::random())
    }

    /// An empty disk with a given identity, for simulations that must not draw randomness here.
    #[must_use]
    pub fn with_identity(disk: [u8; 16]) -> Self {
        Self {
            inner: Arc::default(),
            snapshots: Arc::default(),
            disk,
        }
    }

    /// Lose everything that had not been synced, as a power failure would. The node that runs on
    /// it is cut off: whatever it still writes fails, and another one can be started.
    pub fn crash(&self) {
        self.crash_keeping(0);
    }

    /// Like [`crash`](Self::crash), but the oldest `batches` of the unsynced writes had reached
    /// the disk after all: a real disk may keep any prefix.
    pub fn crash_keeping(&self, batches: usize) {
        let mut inner = self.inner.lock();
        while inner.unsynced.len() > batches {
            inner.written -= 1;
            for undo in inner
                .unsynced
                .pop_back()
                .unwrap_or_default()
                .into_iter()
                .rev()
            {
                let map = Arc::make_mut(&mut inner.maps[undo.column as usize]);
                match undo.before {
                    Some(value) => map.insert(undo.key, value),
                    None => map.remove(&undo.key),
                };
            }
        }
        inner.unsynced.clear();
        inner.epoch += 1;
        inner.attached = false;
    }

    /// Give the disk to a node; none if another one has it.
    pub(crate) fn attach(&self) -> Option<Attached> {
        let mut inner = self.inner.lock();
        if inner.attached {
            return None;
        }
        inner.attached = true;
        inner.epoch += 1;
        Some(Attached {
            store: self.clone(),
            epoch: inner.epoch,
        })
    }

    /// What the disk shows now to those who read it, for the invariants of a simulation.
    ///
    /// # Errors
    ///
    /// A record cannot be read.
    pub fn contents(&self) -> io::Result<Contents> {
        // Reading needs no hold on the disk: an epoch that never writes.
        let reader = Attached {
            store: self.clone(),
            epoch: u64::MAX,
        };
        Contents::read(&reader)
    }

    /// Number of batches written and not yet synced.
    #[must_use]
    pub fn unsynced_batches(&self) -> usize {
        self.inner.lock().unsynced.len()
    }

    /// From now on every sync takes this long in the time of the runtime, as on a real disk: what
    /// is written meanwhile is not covered by it. Without this a sync takes no time at all. A node
    /// that is to have slow syncs must be started after the first call.
    pub fn sync_takes(&self, duration: Duration) {
        self.inner.lock().sync_takes = Some(duration);
    }

    /// From now on every sync fails, as a broken disk would make it.
    pub fn fail_syncs(&self, fail: bool) {
        self.inner.lock().fail_syncs = fail;
    }
}

fn set(map: &mut Map, undo: &mut Vec<Undo>, column: Column, key: &[u8], value: Option<&[u8]>) {
    let before = match value {
        Some(value) => map.insert(key.to_vec(), value.to_vec()),
        None => map.remove(key),
    };
    undo.push(Undo {
        column,
        key: key.to_vec(),
        before,
    });
}

fn page(map: &Map, from: &[u8], to: &[u8], limit_bytes: usize) -> Vec<Pair> {
    let mut out = Vec::new();
    if from >= to {
        return out;
    }
    let mut bytes = 0;
    for (key, value) in map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
        if bytes >= limit_bytes && !out.is_empty() {
            break;
        }
        bytes += key.len() + value.len();
        out.push((key.clone(), value.clone()));
    }
    out
}

impl Inner {
    fn sync_up_to(&mut self, mark: u64) -> io::Result<()> {
        if self.fail_syncs {
            return Err(io::Error::other("the disk was told to fail"));
        }
        let synced = self.written - self.unsynced.len() as u64;
        let count = mark.saturating_sub(synced) as usize;
        self.unsynced.drain(..count.min(self.unsynced.len()));
        Ok(())
    }
}

/// A node's hold on its disk; it ends when dropped, or with a crash.
pub(crate) struct Attached {
    store: MemoryStore,
    epoch: u64,
}

impl Drop for Attached {
    fn drop(&mut self) {
        let mut inner = self.store.inner.lock();
        if inner.epoch == self.epoch {
            inner.attached = false;
        }
    }
}

impl Attached {
    /// How long a sync takes; none if it takes no time.
    pub(crate) fn sync_takes(&self) -> Option<Duration> {
        self.store.inner.lock().sync_takes
    }

    /// Where a sync begins that starts now: it covers what is written so far.
    pub(crate) fn mark(&self) -> u64 {
        self.store.inner.lock().written
    }

    /// The end of a sync that began at `mark`.
    pub(crate) fn sync_up_to(&self, mark: u64) -> io::Result<()> {
        let mut inner = self.store.inner.lock();
        self.check(&inner)?;
        inner.sync_up_to(mark)
    }

    fn check(&self, inner: &Inner) -> io::Result<()> {
        if inner.epoch == self.epoch {
            return Ok(());
        }
        Err(io::Error::other("the machine with this disk has crashed"))
    }
}

impl Kv for Attached {
    fn write(&self, ops: &Ops) -> io::Result<()> {
        let mut guard = self.store.inner.lock();
        self.check(&guard)?;
        let inner = &mut *guard;
        let mut undo = Vec::new();
        for (column, op) in ops.iter() {
            let map = Arc::make_mut(&mut inner.maps[column as usize]);
            match op {
                Op::Put(key, value) => set(map, &mut undo, column, key, Some(value)),
                Op::Delete(key) => set(map, &mut undo, column, key, None),
                Op::DeleteRange(from, to) => {
                    for (key, _) in page(map, from, to, usize::MAX) {
                        set(map, &mut undo, column, &key, None);
                    }
                }
            }
        }
        inner.unsynced.push_back(undo);
        inner.written += 1;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.store.inner.lock();
        self.check(&inner)?;
        let now = inner.written;
        inner.sync_up_to(now)
    }

    fn get(&self, column: Column, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        Ok(self.store.inner.lock().maps[column as usize]
            .get(key)
            .cloned())
    }

    fn page(
        &self,
        column: Column,
        from: &[u8],
        to: &[u8],
        limit_bytes: usize,
    ) -> io::Result<Vec<Pair>> {
        Ok(page(
            &self.store.inner.lock().maps[column as usize],
            from,
            to,
            limit_bytes,
        ))
    }

    fn last(&self, column: Column) -> io::Result<Option<Pair>> {
        let inner = self.store.inner.lock();
        let last = inner.maps[column as usize].last_key_value();
        Ok(last.map(|(k, v)| (k.clone(), v.clone())))
    }

    fn view(&self) -> Box<dyn View> {
        Box::new(MemoryView(self.store.inner.lock().maps.clone()))
    }

    fn reclaim(&self, _: Column, _: &[u8], _: &[u8]) {}
}

struct MemoryView([Arc<Map>; 4]);

impl View for MemoryView {
    fn page(
        &self,
        column: Column,
        from: &[u8],
        to: &[u8],
        limit_bytes: usize,
    ) -> io::Result<Vec<Pair>> {
        Ok(page(&self.0[column as usize], from, to, limit_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &Attached, key: &[u8], value: &[u8]) {
        let mut ops = Ops::default();
        ops.put(Column::Log, key, value);
        store.write(&ops).expect("a write");
    }

    #[test]
    fn a_crash_takes_the_unsynced_suffix_and_nothing_else() {
        let disk = MemoryStore::new();
        let store = disk.attach().expect("free");
        assert!(disk.attach().is_none(), "one node at a time");
        put(&store, b"a", b"1");
        store.sync().expect("a sync");
        put(&store, b"a", b"2");
        put(&store, b"b", b"3");
        let mut ops = Ops::default();
        ops.delete_range(Column::Log, b"a".as_slice()..b"z".as_slice());
        store.write(&ops).expect("a write");
        assert_eq!(disk.unsynced_batches(), 3);
        assert!(store.last(Column::Log).expect("a read").is_none());

        let view = store.view();
        disk.crash_keeping(1);
        assert!(store.sync().is_err(), "the old node is cut off");
        let store = disk.attach().expect("free after a crash");
        assert_eq!(
            store.get(Column::Log, b"a").expect("a read"),
            Some(b"2".to_vec())
        );
        assert_eq!(store.get(Column::Log, b"b").expect("a read"), None);
        let seen = view.page(Column::Log, b"a", b"z", 100).expect("a read");
        assert!(seen.is_empty(), "a view does not move");

        put(&store, b"b", b"4");
        disk.crash();
        assert_eq!(store.get(Column::Log, b"b").expect("a read"), None);
    }

    #[test]
    fn a_sync_covers_what_was_written_before_it_began() {
        let disk = MemoryStore::new();
        let store = disk.attach().expect("free");
        put(&store, b"a", b"1");
        let began = store.mark();
        put(&store, b"b", b"2");
        store.sync_up_to(began).expect("a sync");
        assert_eq!(disk.unsynced_batches(), 1);
        store.sync_up_to(began).expect("an older sync ends later");
        disk.crash();
        let store = disk.attach().expect("free after a crash");
        let get = |key: &[u8]| store.get(Column::Log, key).expect("a read");
        assert_eq!((get(b"a"), get(b"b")), (Some(b"1".to_vec()), None));
        put(&store, b"c", b"3");
        store.sync_up_to(store.mark()).expect("a sync");
        disk.crash();
        let store = disk.attach().expect("free after a crash");
        let after = store.get(Column::Log, b"c").expect("a read");
        assert_eq!(after, Some(b"3".to_vec()));
    }

    #[test]
    fn a_page_ends_at_its_limit() {
        let store = MemoryStore::new().attach().expect("free");
        for key in [b"a", b"b", b"c"] {
            put(&store, key, &[0; 10]);
        }
        assert_eq!(
            store
                .page(Column::Log, b"a", b"z", 1)
                .expect("a read")
                .len(),
            1
        );
        assert_eq!(
            store
                .page(Column::Log, b"a", b"z", 12)
                .expect("a read")
                .len(),
            2
        );
        assert_eq!(
            store
                .page(Column::Log, b"b", b"c", 100)
                .expect("a read")
                .len(),
            1
        );
        assert!(
            store
                .page(Column::Log, b"c", b"b", 100)
                .expect("a read")
                .is_empty()
        );
    }
}
