//! Hosts on one machine, and what goes wrong with them.
//!
//! [`Network`] gives each host a network of its own and breaks the links between them.
//! [`Processes`] starts, kills, stops and starves the one process of each host. [`Shim`] bends a
//! process's clocks and its `fsync`. [`Disk`] gives a host a file system of its own and takes its
//! power away. What a machine or a missing privilege does not allow is [`Effect::Skipped`], with
//! the reason, never silently nothing.
//!
//! Everything that outlives a process by itself (mounts, control groups, directories) carries the
//! process's identity in its name, so that [`remove_stale`] can tell the remains of a dead run
//! from a running one. Namespaces have no name: they vanish with the process.

mod disk;
mod mapped;
mod network;
mod process;
mod shim;
mod stale;
mod true_time;

pub use disk::{Disk, DiskKind};
pub use network::{Kind, LinkCount, LinkRule, Network, prepare};
pub use process::{ProcSpec, Processes};
pub use shim::{Shim, SyncFault};
pub use stale::{remove_stale, run_name};
pub use true_time::{TrueTime, true_now_ns, true_wall_ns};

/// How an attempt at a fault went. An error beside it means: it may be in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is in force.
    Done,
    /// It cannot be had here, or made no sense; nothing was done. Why.
    Skipped(String),
}

impl Effect {
    /// Skipped for this reason.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped(why.into())
    }
}
