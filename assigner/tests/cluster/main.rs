//! Whole clusters of Assigners on loopback sockets.

mod clients;
mod failover;
mod handoffs;
mod modes;
mod refusals;
#[cfg(feature = "rocksdb")]
mod restore;
mod sessions;
mod support;
mod targets;
mod watches;
