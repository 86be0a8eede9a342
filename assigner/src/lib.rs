//! The Assigner: a replicated service that hands out slice leases, renews them and moves them.
//!
//! A [`Node`] is one replica. Its rules live in `leasehold-proto` (what may happen) and its log in
//! `leasehold-raft-store` (what has happened); this crate gives them sockets, a clock, and a
//! planner. A walk through the code:
//!
//! * `machine` feeds committed commands to the lease table; `replica` tells the others what changed;
//! * `leader` runs while this node leads, one value per term: renewals, words, expiry, plans;
//! * `service` speaks gRPC: sessions and administration on the leader, watches on every node;
//! * [`planner`] decides, as a pure function, what should move;
//! * [`restore`](mod@restore) begins a new cluster from a saved snapshot;
//! * [`testing`] runs whole clusters inside a test process.

mod ages;
pub mod clock;
mod leader;
mod loads;
mod machine;
mod metrics;
pub mod node;
pub mod planner;
mod replica;
#[cfg(feature = "rocksdb")]
pub mod restore;
mod service;
mod shared;
mod snapshot_file;
pub mod testing;

pub use node::{
    BootstrapError, DataDir, Limits, Node, NodeConfig, NodeStatus, PlannerConfig, StartError,
    Timers,
};
pub use snapshot_file::SnapshotFile;
