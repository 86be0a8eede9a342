//! The store on disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, ColumnFamilyDescriptor, DBWithThreadMode, IteratorMode,
    MultiThreaded, Options, ReadOptions, SnapshotWithThreadMode, WriteBatch, WriteOptions,
};

use super::kv::{Column, Kv, Op, Ops, Pair, View};

type Db = DBWithThreadMode<MultiThreaded>;

/// One database, one write-ahead log, four column families.
pub(crate) struct Rocks {
    db: Arc<Db>,
}

/// The log is written once, read from memory, and deleted in ranges: large buffers, so that most
/// entries are purged before they ever reach a table.
fn log_options() -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(64 << 20);
    options.set_max_write_buffer_number(3);
    options.set_min_write_buffer_number_to_merge(1);
    options.set_level_zero_file_num_compaction_trigger(8);
    options.set_compression_type(rocksdb::DBCompressionType::None);
    options
}

fn state_options() -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(32 << 20);
    options.set_compression_type(rocksdb::DBCompressionType::None);
    let mut table = BlockBasedOptions::default();
    table.set_bloom_filter(10.0, false);
    options.set_block_based_table_factory(&table);
    options
}

impl Rocks {
    /// Open the database in `path`. The library's own lock keeps other processes out.
    pub(crate) fn open(path: &Path, create: bool) -> Result<Self, rocksdb::Error> {
        let mut options = Options::default();
        options.create_if_missing(create);
        options.create_missing_column_families(create);
        options.set_manual_wal_flush(true);
        // A crash may cut the log's tail; whatever stands before it is a prefix of the writes.
        options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::PointInTime);
        options.set_max_total_wal_size(256 << 20);
        options.set_max_background_jobs(2);
        options.set_bytes_per_sync(1 << 20);
        options.set_keep_log_file_num(4);
        options.set_max_log_file_size(16 << 20);
        options.set_max_open_files(512);
        let columns = Column::ALL.map(|column| {
            let options = match column {
                Column::Log => log_options(),
                Column::State => state_options(),
                Column::Meta | Column::StateMeta => Options::default(),
            };
            ColumnFamilyDescriptor::new(column.name(), options)
        });
        let db = Db::open_cf_descriptors(&options, path, columns)?;
        Ok(Self { db: Arc::new(db) })
    }

    fn column(&self, column: Column) -> io::Result<Arc<BoundColumnFamily<'_>>> {
        column_of(&self.db, column)
    }
}

fn column_of(db: &Db, column: Column) -> io::Result<Arc<BoundColumnFamily<'_>>> {
    db.cf_handle(column.name())
        .ok_or_else(|| io::Error::other("a column family is missing"))
}

fn other(error: rocksdb::Error) -> io::Error {
    io::Error::other(error)
}

fn collect(
    iterator: impl Iterator<Item = Result<(Box<[u8]>, Box<[u8]>), rocksdb::Error>>,
    limit_bytes: usize,
) -> io::Result<Vec<Pair>> {
    let mut out = Vec::new();
    let mut bytes = 0;
    for pair in iterator {
        let (key, value) = pair.map_err(other)?;
        bytes += key.len() + value.len();
        out.push((key.into_vec(), value.into_vec()));
        if bytes >= limit_bytes {
            break;
        }
    }
    Ok(out)
}

fn range(from: &[u8], to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_lower_bound(from);
    options.set_iterate_upper_bound(to);
    options
}

impl Kv for Rocks {
    fn write(&self, ops: &Ops) -> io::Result<()> {
        if ops.is_empty() {
            return Ok(());
        }
        let columns = Column::ALL.map(|column| (column, self.column(column)));
        let handle = |column: Column| match &columns[column as usize].1 {
            Ok(handle) => Ok(handle),
            Err(error) => Err(io::Error::other(error.to_string())),
        };
        let mut batch = WriteBatch::with_capacity_bytes(ops.size_bytes() + 64);
        for (column, op) in ops.iter() {
            let handle = handle(column)?;
            match op {
                Op::Put(key, value) => batch.put_cf(handle, key, value),
                Op::Delete(key) => batch.delete_cf(handle, key),
                Op::DeleteRange(from, to) => batch.delete_range_cf(handle, from, to),
            }
        }
        self.db
            .write_opt(batch, &WriteOptions::default())
            .map_err(other)
    }

    fn sync(&self) -> io::Result<()> {
        self.db.flush_wal(true).map_err(other)
    }

    fn get(&self, column: Column, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.db.get_cf(&self.column(column)?, key).map_err(other)
    }

    fn page(
        &self,
        column: Column,
        from: &[u8],
        to: &[u8],
        limit_bytes: usize,
    ) -> io::Result<Vec<Pair>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let handle = self.column(column)?;
        let found = self
            .db
            .iterator_cf_opt(&handle, range(from, to), IteratorMode::Start);
        collect(found, limit_bytes)
    }

    fn last(&self, column: Column) -> io::Result<Option<Pair>> {
        let mut found = self
            .db
            .iterator_cf(&self.column(column)?, IteratorMode::End);
        let last = found.next().transpose().map_err(other)?;
        Ok(last.map(|(k, v)| (k.into_vec(), v.into_vec())))
    }

    fn view(&self) -> Box<dyn View> {
        let db = Arc::clone(&self.db);
        let snapshot = db.snapshot();
        // SAFETY: the snapshot borrows the database, which `db` in the same struct keeps alive and
        // in place (it is behind an `Arc`). The field order drops the snapshot first, and the
        // snapshot with its false lifetime never leaves the struct.
        let snapshot = unsafe {
            std::mem::transmute::<SnapshotWithThreadMode<'_, Db>, SnapshotWithThreadMode<'static, Db>>(
                snapshot,
            )
        };
        Box::new(RocksView { snapshot, db })
    }

    fn reclaim(&self, column: Column, from: &[u8], to: &[u8]) {
        let Ok(handle) = self.column(column) else {
            return;
        };
        // RocksDB takes the end to be part of the range: a table whose last key is `to` itself,
        // which lives, would go with the others.
        let Some(last) = before(to).filter(|last| from < last.as_slice()) else {
            return;
        };
        // Whole tables are dropped at once; what is left waits for compaction.
        if let Err(error) = self.db.delete_file_in_range_cf(&handle, from, &last) {
            tracing::warn!(%error, "deleting old tables failed; compaction will do it");
        }
    }
}

/// A key of the same length that is smaller, by one as a number; `None` for the smallest.
fn before(key: &[u8]) -> Option<Vec<u8>> {
    let mut smaller = key.to_vec();
    for byte in smaller.iter_mut().rev() {
        match byte.checked_sub(1) {
            Some(less) => {
                *byte = less;
                return Some(smaller);
            }
            None => *byte = u8::MAX,
        }
    }
    None
}

/// Fields are dropped in this order.
struct RocksView {
    snapshot: SnapshotWithThreadMode<'static, Db>,
    db: Arc<Db>,
}

impl View for RocksView {
    fn page(
        &self,
        column: Column,
        from: &[u8],
        to: &[u8],
        limit_bytes: usize,
    ) -> io::Result<Vec<Pair>> {
        if from >= to {
            return Ok(Vec::new());
        }
        let handle = column_of(&self.db, column)?;
        let found = self
            .snapshot
            .iterator_cf_opt(&handle, range(from, to), IteratorMode::Start);
        collect(found, limit_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reclaiming_a_range_leaves_the_key_behind_it_even_where_a_table_ends_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let rocks = Rocks::open(directory.path(), true).unwrap();
        let key = |index: u64| index.to_be_bytes();
        let mut ops = Ops::default();
        for index in 1..=256 {
            ops.put(Column::Log, &key(index), b"entry");
        }
        rocks.write(&ops).unwrap();
        let handle = rocks.column(Column::Log).unwrap();
        rocks.db.flush_cf(&handle).unwrap();
        // Only tables below the first level are dropped whole.
        rocks
            .db
            .compact_range_cf(&handle, None::<&[u8]>, None::<&[u8]>);
        rocks.reclaim(Column::Log, &key(1), &key(256));
        let last = rocks.last(Column::Log).unwrap();
        assert_eq!(last.map(|(found, _)| found), Some(key(256).to_vec()));
    }

    #[test]
    fn the_key_before_is_the_next_smaller_number() {
        assert_eq!(before(&[1, 0]), Some(vec![0, 255]));
        assert_eq!(before(&[7]), Some(vec![6]));
        assert_eq!(before(&[0, 0]), None);
    }
}
