//! The key-value store underneath: RocksDB on disk, ordered maps in memory.

use std::io;
use std::ops::Range;

/// A column family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Column {
    /// Index (u64, big endian) → entry.
    Log,
    /// `vote`, `committed`, `purged`.
    Meta,
    /// Generation (u64, big endian) + the state machine's key → the state machine's value.
    State,
    /// `applied`.
    StateMeta,
}

impl Column {
    pub(crate) const ALL: [Self; 4] = [Self::Log, Self::Meta, Self::State, Self::StateMeta];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Log => "raft_log",
            Self::Meta => "raft_meta",
            Self::State => "sm",
            Self::StateMeta => "sm_meta",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Put,
    Delete,
    DeleteRange,
}

struct Header {
    kind: Kind,
    column: Column,
    start: usize,
    middle: usize,
    end: usize,
}

/// One change of a batch, in the order in which it was added.
pub(crate) enum Op<'a> {
    Put(&'a [u8], &'a [u8]),
    Delete(&'a [u8]),
    /// From the first key up to, and without, the second.
    DeleteRange(&'a [u8], &'a [u8]),
}

/// An ordered, atomic set of changes, in one buffer: no allocation per change.
#[derive(Default)]
pub(crate) struct Ops {
    bytes: Vec<u8>,
    headers: Vec<Header>,
}

impl Ops {
    pub(crate) fn is_empty(&self) -> bool {
        self.headers.is_empty()
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn put(&mut self, column: Column, key: &[u8], value: &[u8]) {
        self.put_with(column, &[key], |buffer| buffer.extend_from_slice(value));
    }

    /// A put whose key is the concatenation of `key` and whose value is written in place.
    pub(crate) fn put_with(
        &mut self,
        column: Column,
        key: &[&[u8]],
        value: impl FnOnce(&mut Vec<u8>),
    ) {
        let start = self.bytes.len();
        for part in key {
            self.bytes.extend_from_slice(part);
        }
        let middle = self.bytes.len();
        value(&mut self.bytes);
        let end = self.bytes.len();
        self.headers.push(Header {
            kind: Kind::Put,
            column,
            start,
            middle,
            end,
        });
    }

    pub(crate) fn delete(&mut self, column: Column, key: &[&[u8]]) {
        let start = self.bytes.len();
        for part in key {
            self.bytes.extend_from_slice(part);
        }
        let end = self.bytes.len();
        self.headers.push(Header {
            kind: Kind::Delete,
            column,
            start,
            middle: end,
            end,
        });
    }

    pub(crate) fn delete_range(&mut self, column: Column, keys: Range<&[u8]>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(keys.start);
        let middle = self.bytes.len();
        self.bytes.extend_from_slice(keys.end);
        let end = self.bytes.len();
        self.headers.push(Header {
            kind: Kind::DeleteRange,
            column,
            start,
            middle,
            end,
        });
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Column, Op<'_>)> {
        self.headers.iter().map(|h| {
            let first = &self.bytes[h.start..h.middle];
            let second = &self.bytes[h.middle..h.end];
            let op = match h.kind {
                Kind::Put => Op::Put(first, second),
                Kind::Delete => Op::Delete(first),
                Kind::DeleteRange => Op::DeleteRange(first, second),
            };
            (h.column, op)
        })
    }
}

/// A key and its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// Reads of one moment.
pub(crate) trait View: Send + Sync {
    /// The pairs with `from ≤ key < to` in order, until about `limit_bytes` are collected (at
    /// least one pair, if there is one).
    fn page(
        &self,
        column: Column,
        from: &[u8],
        to: &[u8],
        limit_bytes: usize,
    ) -> io::Result<Vec<Pair>>;
}

/// An ordered key-value store with one write-ahead log: what is lost in a crash is always a
/// suffix of the writes since the last sync.
pub(crate) trait Kv: Send + Sync + 'static {
    /// Write atomically; visible at once, durable after the next sync.
    fn write(&self, ops: &Ops) -> io::Result<()>;
    /// Make everything written so far durable. An error is final: what the disk holds is unknown.
    fn sync(&self) -> io::Result<()>;
    fn get(&self, column: Column, key: &[u8]) -> io::Result<Option<Vec<u8>>>;
    /// See [`View::page`].
    fn page(
        &self,
        column: Column,
        from: &[u8],
        to: &[u8],
        limit_bytes: usize,
    ) -> io::Result<Vec<Pair>>;
    /// The pair with the largest key.
    fn last(&self, column: Column) -> io::Result<Option<Pair>>;
    /// A view of this moment.
    fn view(&self) -> Box<dyn View>;
    /// Give back the space of a deleted range. Only a hint.
    fn reclaim(&self, column: Column, from: &[u8], to: &[u8]);
}
