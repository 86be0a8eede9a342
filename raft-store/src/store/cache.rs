//! The newest entries in memory: what replication and apply read is what was just appended.

use std::collections::VecDeque;

use openraft::EntryPayload;

use crate::config::{CACHE_BYTES, CACHE_ENTRIES};
use crate::raft_types::Entry;

/// A gapless run of entries that ends with the last one of the log.
#[derive(Default)]
pub(crate) struct Cache {
    entries: VecDeque<Entry>,
    bytes: usize,
}

pub(crate) fn weight(entry: &Entry) -> usize {
    match &entry.payload {
        EntryPayload::Normal(command) => 64 + command.0.len(),
        _ => 256,
    }
}

impl Cache {
    pub(crate) fn push(&mut self, entry: Entry) {
        let follows = self
            .entries
            .back()
            .is_none_or(|b| b.log_id.index + 1 == entry.log_id.index);
        if !follows {
            self.clear();
        }
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
        while self.entries.len() > CACHE_ENTRIES || self.bytes > CACHE_BYTES {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= weight(&oldest);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    /// Forget entries from `index` on.
    pub(crate) fn truncate(&mut self, index: u64) {
        while self.entries.back().is_some_and(|e| e.log_id.index >= index) {
            self.bytes -= self.entries.pop_back().as_ref().map_or(0, weight);
        }
    }

    /// Forget entries up to `index`.
    pub(crate) fn purge(&mut self, index: u64) {
        while self
            .entries
            .front()
            .is_some_and(|e| e.log_id.index <= index)
        {
            self.bytes -= self.entries.pop_front().as_ref().map_or(0, weight);
        }
    }

    /// Entries `start..end` until `limit_bytes` are reached (at least one), if all are here.
    pub(crate) fn get(&self, start: u64, end: u64, limit_bytes: usize) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.log_id.index;
        let offset = usize::try_from(start.checked_sub(first)?).ok()?;
        let count = usize::try_from(end.checked_sub(start)?).ok()?;
        if count == 0 || offset.checked_add(count)? > self.entries.len() {
            return None;
        }
        let mut bytes = 0;
        let mut out = Vec::with_capacity(count);
        for entry in self.entries.range(offset..offset + count) {
            if bytes >= limit_bytes && !out.is_empty() {
                break;
            }
            bytes += weight(entry);
            out.push(entry.clone());
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft_types::{Command, log_id};

    fn entry(index: u64) -> Entry {
        let payload = EntryPayload::Normal(Command(bytes::Bytes::from(vec![0; 36])));
        Entry {
            log_id: log_id(1, index),
            payload,
        }
    }

    fn indexes(found: Option<Vec<Entry>>) -> Option<Vec<u64>> {
        found.map(|f| f.iter().map(|e| e.log_id.index).collect())
    }

    #[test]
    fn it_answers_only_what_it_holds_whole() {
        let mut cache = Cache::default();
        assert!(cache.get(0, 1, 100).is_none());
        (5..10).for_each(|i| cache.push(entry(i)));
        assert_eq!(indexes(cache.get(5, 8, 1000)), Some(vec![5, 6, 7]));
        assert_eq!(indexes(cache.get(5, 10, 150)), Some(vec![5, 6]));
        assert!(cache.get(4, 6, 1000).is_none());
        assert!(cache.get(9, 11, 1000).is_none());
        cache.truncate(8);
        cache.purge(5);
        assert_eq!(indexes(cache.get(6, 8, 1000)), Some(vec![6, 7]));
        cache.push(entry(20));
        assert!(cache.get(6, 8, 1000).is_none(), "a gap starts a new run");
        assert_eq!(cache.bytes, 100);
    }
}
