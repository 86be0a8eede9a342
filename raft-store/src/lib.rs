//! A replicated, durable log for an opaque state machine.
//!
//! A [`RaftNode`] is one replica: Raft between peers over gRPC, with its log, its vote and the
//! records of a [`StateMachine`] in one RocksDB (or, for tests and simulations, in a
//! [`MemoryStore`]). What is replicated are commands, which this crate does not look into; the
//! machine writes what they change into the same atomic batch as the position of the entry, so a
//! restart finds both or neither.
//!
//! What a caller can rely on:
//!
//! - A command whose proposal returned `Ok` is durable on a majority, and applied on this node.
//! - A command whose proposal failed [definitely](ProposeError::is_definite) has no effect, ever.
//! - A proposal bound to a term is never appended in another one.
//! - [`RaftNode::confirm`] speaks of an instant after the call: a majority has then acknowledged
//!   this leadership. Leader leases are used for nothing.
//! - After a restart a node that has ever voted keeps silent for an election timeout, because it
//!   may have promised its last leader to elect nobody else meanwhile.
//!
//! The Raft library never shows in this interface, on the wire or on disk.

/// Whether the planted bug of this name is switched on: never, but under `--cfg leasehold_mutants`.
#[cfg(not(leasehold_mutants))]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}
#[cfg(leasehold_mutants)]
macro_rules! mutant {
    ($name:literal) => {
        leasehold_proto::mutants::active($name)
    };
}

mod codec;
mod config;
mod error;
mod machine;
mod network;
mod node;
mod raft_types;
mod runtime;
mod store;
mod types;
#[path = "gen/leasehold.raft.v1.rs"]
#[rustfmt::skip]
#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod wire;

pub use config::RaftConfig;
pub use error::{AdminError, ProposeError, StartError};
pub use machine::{Batch, RestoreError, StateMachine};
pub use network::server::PeerService;
pub use network::{Dialer, PeerIo, TcpDialer};
pub use node::leadership::{Leadership, Role};
pub use node::status::{Member, RaftStatus};
pub use node::{PeerServer, RaftNode, Storage, serve_connections, serve_peers};
pub use runtime::seed_timers;
pub use store::contents::{Contents, Logged};
pub use store::machine::Export;
pub use store::memory::MemoryStore;
#[cfg(feature = "rocksdb")]
pub use store::seed::restore_records;
pub use types::{LogPosition, NodeId};
