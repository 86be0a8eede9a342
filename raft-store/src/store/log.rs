//! The Raft log and the vote.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use parking_lot::Mutex;

use super::cache::Cache;
use super::kv::{Column, Kv, Ops};
use super::records;
use super::sync::Syncer;
use crate::codec::Malformed;
use crate::config::APPEND_BYTES;
use crate::raft_types::{Entry, LogId, TypeConfig, Vote};

/// Bytes read from the store at once.
const PAGE_BYTES: usize = 1 << 20;

/// Handle on the log; clones share it.
#[derive(Clone)]
pub(crate) struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    kv: Arc<dyn Kv>,
    syncer: Arc<Syncer>,
    cache: Mutex<Cache>,
    /// What is stored; kept because every read of the log asks for it.
    vote: Mutex<Option<Vote>>,
    entries_appended: Arc<AtomicU64>,
}

impl LogStore {
    pub(crate) fn open(kv: Arc<dyn Kv>, syncer: Arc<Syncer>) -> io::Result<Self> {
        let vote = Mutex::new(records::vote(&*kv)?);
        let inner = Inner {
            kv,
            syncer,
            cache: Mutex::default(),
            vote,
            entries_appended: Arc::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The stored vote.
    pub(crate) fn vote(&self) -> Option<Vote> {
        *self.inner.vote.lock()
    }

    /// Entries appended since start.
    pub(crate) fn entries_appended(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.inner.entries_appended)
    }

    /// Entries `start..end` until about `limit_bytes`; short only at the end of the log or of
    /// the limit.
    fn read(&self, start: u64, end: u64, limit_bytes: usize) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        if let Some(found) = self.inner.cache.lock().get(start, end, limit_bytes) {
            return Ok(found);
        }
        let (from, to) = (records::index_key(start), records::index_key(end));
        let pairs = self.inner.kv.page(Column::Log, &from, &to, limit_bytes)?;
        let mut entries: Vec<Entry> = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let entry = records::entry(&key, value)?;
            if entries
                .last()
                .is_some_and(|e| e.log_id.index + 1 != entry.log_id.index)
            {
                return Err(Malformed("a gap in the log").into());
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn read_all(&self, mut start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let mut out: Vec<Entry> = Vec::new();
        loop {
            let some = self.read(start, end, PAGE_BYTES)?;
            let (Some(first), Some(last)) = (some.first(), some.last()) else {
                return Ok(out);
            };
            if out
                .last()
                .is_some_and(|e| e.log_id.index + 1 != first.log_id.index)
            {
                return Err(Malformed("a gap in the log").into());
            }
            start = last.log_id.index + 1;
            out.extend(some);
        }
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(i) => *i,
        Bound::Excluded(i) => i.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(i) => i.saturating_add(1),
        Bound::Excluded(i) => *i,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let (start, end) = bounds(&range);
        self.read_all(start, end)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.vote())
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, APPEND_BYTES)
    }

    /// In pages, so that applying a long log needs little memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<Entry>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = bounds(&range);
        let pages = Pages {
            log: self.clone(),
            next: start,
            end,
            page: Vec::new().into_iter(),
        };
        futures::stream::iter(pages)
    }
}

/// The entries of a range, read page by page.
struct Pages {
    log: LogStore,
    next: u64,
    end: u64,
    page: std::vec::IntoIter<Entry>,
}

impl Iterator for Pages {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(entry) = self.page.next() {
            self.next = entry.log_id.index + 1;
            return Some(Ok(entry));
        }
        match self.log.read(self.next, self.end, PAGE_BYTES) {
            Err(e) => {
                self.end = self.next;
                Some(Err(e))
            }
            Ok(entries) => {
                self.page = entries.into_iter();
                let entry = self.page.next()?;
                self.next = entry.log_id.index + 1;
                Some(Ok(entry))
            }
        }
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let last_purged_log_id = records::purged(&*self.inner.kv)?;
        let last = match self.inner.kv.last(Column::Log)? {
            Some((key, value)) => Some(records::entry(&key, value)?.log_id),
            None => None,
        };
        let last_log_id = last.max(last_purged_log_id);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        if mutant!("vote_not_persisted") {
            *self.inner.vote.lock() = Some(*vote);
            return Ok(());
        }
        let mut ops = Ops::default();
        records::put_vote(&mut ops, vote);
        self.inner.kv.write(&ops)?;
        self.inner.syncer.barrier().await?;
        *self.inner.vote.lock() = Some(*vote);
        Ok(())
    }

    // `save_committed` is left out: the applied position is in the same write-ahead log, and a
    // node that has lost the end of both learns the commit position from the leader.

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut ops = Ops::default();
        let entries: Vec<Entry> = entries.into_iter().collect();
        for entry in &entries {
            records::put_entry(&mut ops, entry);
        }
        // Written here, so that the entries are readable on return; durable when the sync
        // thread calls back.
        self.inner.kv.write(&ops)?;
        self.inner
            .entries_appended
            .fetch_add(entries.len() as u64, Ordering::Relaxed);
        {
            let mut cache = self.inner.cache.lock();
            entries.into_iter().for_each(|e| cache.push(e));
        }
        if mutant!("entries_acknowledged_before_their_sync") {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.inner.syncer.append(callback);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let first = last.map_or(0, |l| l.index + 1);
        let mut ops = Ops::default();
        let (from, to) = (records::index_key(first), records::index_key(u64::MAX));
        ops.delete_range(Column::Log, &from[..]..&to[..]);
        let mut cache = self.inner.cache.lock();
        cache.truncate(first);
        if mutant!("conflicting_entries_left_on_disk") {
            return Ok(());
        }
        self.inner.kv.write(&ops)
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        // Only what is newly purged: overlapping range deletions pile up and slow every read.
        let first = records::purged(&*self.inner.kv)?.map_or(0, |p| p.index + 1);
        let mut ops = Ops::default();
        records::put_purged(&mut ops, &upto);
        let from = records::index_key(first);
        let to = records::index_key(upto.index.saturating_add(1));
        if from < to {
            ops.delete_range(Column::Log, &from[..]..&to[..]);
        }
        {
            let mut cache = self.inner.cache.lock();
            cache.purge(upto.index);
            self.inner.kv.write(&ops)?;
        }
        self.inner.kv.reclaim(Column::Log, &from, &to);
        Ok(())
    }
}
