//! State that is none: bytes without content, counted, so that a slice can be as large as a test
//! wants and what is kept anywhere can be measured.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several test files"
)]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use leasehold_client::proto::Slice;
use leasehold_client::state::{BadRecords, Exported, Import, SliceState, StateExport};

/// Shared by a source and a destination: bytes written and not yet taken in.
#[derive(Default)]
pub struct Between {
    bytes: AtomicU64,
    most: AtomicU64,
}

impl Between {
    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

/// See the module's description.
#[derive(Clone, Default)]
pub struct Bulk(Arc<Inner>);

#[derive(Default)]
struct Inner {
    between: Arc<Between>,
    /// Bytes of any slice that is exported.
    size: AtomicU64,
    taken_in: Mutex<Vec<u8>>,
    keeps: AtomicBool,
    imported: AtomicU64,
    discards: AtomicU64,
    /// How many imports to refuse.
    bad: AtomicU64,
    exports: AtomicU64,
    open_exports: AtomicU64,
    sampled: AtomicU64,
    record_bytes: AtomicU64,
    broken: AtomicBool,
}

impl Bulk {
    pub fn new(between: &Arc<Between>, size: u64) -> Bulk {
        let inner = Inner {
            between: Arc::clone(between),
            size: size.into(),
            ..Inner::default()
        };
        Bulk(Arc::new(inner))
    }

    /// A state that remembers what is taken in.
    pub fn keeping() -> Bulk {
        let bulk = Bulk::default();
        bulk.0.keeps.store(true, Ordering::Relaxed);
        bulk
    }

    /// Everything taken in since it was last discarded.
    pub fn kept(&self) -> Vec<u8> {
        self.0.taken_in.lock().unwrap().clone()
    }

    /// Bytes taken in since it was last discarded.
    pub fn imported(&self) -> u64 {
        self.0.imported.load(Ordering::SeqCst)
    }

    pub fn exports(&self) -> u64 {
        self.0.exports.load(Ordering::SeqCst)
    }

    pub fn discards(&self) -> u64 {
        self.0.discards.load(Ordering::SeqCst)
    }

    pub fn open_exports(&self) -> u64 {
        self.0.open_exports.load(Ordering::SeqCst)
    }

    /// So many imports from now on find records that they cannot read.
    pub fn refuse(&self, imports: u64) {
        self.0.bad.store(imports, Ordering::SeqCst);
    }

    /// What every sample says.
    pub fn say_in_samples(&self, what: u64) {
        self.0.sampled.store(what, Ordering::SeqCst);
    }

    /// From now on an export panics.
    pub fn break_exports(&self) {
        self.0.broken.store(true, Ordering::SeqCst);
    }

    /// Exports records of this many bytes, however much is asked for.
    pub fn write_records_of(&self, bytes: u64) {
        self.0.record_bytes.store(bytes, Ordering::SeqCst);
    }
}

impl SliceState for Bulk {
    type Export = BulkExport;

    fn export(&self, _: Slice) -> BulkExport {
        self.0.exports.fetch_add(1, Ordering::SeqCst);
        self.0.open_exports.fetch_add(1, Ordering::SeqCst);
        BulkExport {
            left: self.0.size.load(Ordering::SeqCst),
            of: self.clone(),
        }
    }

    fn import(&self, _: Slice, records: &[u8], _: Import) -> Result<(), BadRecords> {
        let refused = |left: u64| left.checked_sub(1);
        let bad = self
            .0
            .bad
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, refused);
        if bad.is_ok() {
            return Err(BadRecords("a test says so".to_owned()));
        }
        if self.0.keeps.load(Ordering::Relaxed) {
            self.0.taken_in.lock().unwrap().extend_from_slice(records);
        }
        let bytes = records.len() as u64;
        self.0.imported.fetch_add(bytes, Ordering::SeqCst);
        let less = |now: u64| Some(now.saturating_sub(bytes));
        let _ = self
            .0
            .between
            .bytes
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        Ok(())
    }

    fn discard(&self, _: Slice) {
        self.0.discards.fetch_add(1, Ordering::SeqCst);
        self.0.imported.store(0, Ordering::SeqCst);
        self.0.taken_in.lock().unwrap().clear();
    }

    fn bytes(&self, _: Slice) -> u64 {
        self.0.size.load(Ordering::SeqCst)
    }

    fn sample(&self, _: Slice, most: usize, _: u64) -> Vec<Vec<u8>> {
        let sampled = self.0.sampled.load(Ordering::SeqCst);
        vec![sampled.to_le_bytes().to_vec(); most]
    }

    fn agrees(&self, _: Slice, sample: &[u8]) -> bool {
        sample == self.0.sampled.load(Ordering::SeqCst).to_le_bytes()
    }
}

pub struct BulkExport {
    left: u64,
    of: Bulk,
}

impl StateExport for BulkExport {
    fn read(&mut self, most_bytes: usize, out: &mut Vec<u8>) -> Exported {
        assert!(!self.of.0.broken.load(Ordering::SeqCst), "a test says so");
        let record = self.of.0.record_bytes.load(Ordering::SeqCst);
        let most = if record > 0 {
            record
        } else {
            most_bytes as u64
        };
        let bytes = most.min(self.left);
        self.left -= bytes;
        out.resize(out.len() + bytes as usize, 0);
        let between = &self.of.0.between;
        let now = between.bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        between.most.fetch_max(now, Ordering::SeqCst);
        match self.left {
            0 => Exported::CaughtUp,
            _ => Exported::More,
        }
    }
}

impl Drop for BulkExport {
    fn drop(&mut self) {
        self.of.0.open_exports.fetch_sub(1, Ordering::SeqCst);
    }
}
