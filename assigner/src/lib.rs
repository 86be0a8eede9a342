//! The Assigner: a replicated service that hands out slice leases, renews them and moves them.
//!
//! A [`Node`] is one replica. Its rules live in `leasehold-proto` (what may happen) and its log in
//! `leasehold-raft-store` (what has happened); this crate gives them sockets, a clock, and a
//! planner. A walk through the code:
//!

mod clock;
pub mod node;

pub use node::{BootstrapError, DataDir, Limits, Node, NodeConfig, NodeStatus, PlannerConfig, StartError, Timers};
