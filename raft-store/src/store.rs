//! What a replica keeps: the log, the vote and the state machine's records, in one ordered,
//! atomic key-value store with one write-ahead log.

// Some of it serves only the store on disk.
#![cfg_attr(not(feature = "rocksdb"), allow(dead_code))]

pub(crate) mod cache;
pub(crate) mod contents;
pub(crate) mod kv;
pub(crate) mod log;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod records;
#[cfg(feature = "rocksdb")]
pub(crate) mod rocks;
pub(crate) mod snapshot;
pub(crate) mod sync;

#[cfg(feature = "rocksdb")]
pub(crate) mod directory;
#[cfg(feature = "rocksdb")]
pub(crate) mod seed;

#[cfg(test)]
mod suite;
