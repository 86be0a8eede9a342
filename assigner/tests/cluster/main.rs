//! Whole clusters of Assigners on loopback sockets.

#![allow(clippy::unwrap_used, reason = "tests")]

mod clients;
mod failover;
mod handoffs;
mod modes;
mod refusals;
mod restarts;
#[cfg(feature = "rocksdb")]
mod restore;
mod sessions;
mod support;
mod targets;
mod transfers;
mod watches;
