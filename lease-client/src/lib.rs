//! Leasehold for applications.
//!
//! A [`Slicelet`] lives in each process of a sharded service. It holds a lease, learns which slices
//! of the key space it owns, and answers for each request whether this process owns its key.

#[doc(hidden)]
pub mod bench;
mod channels;
mod clerk;
pub mod clock;
mod endpoints;
pub mod error;
pub mod layer;
mod slicelet;

pub use channels::ChannelPool;
pub use clerk::{Clerk, ClerkBuilder, PodRoute, ReplicaChoice, Route};
pub use error::{Error, ErrorKind, GuardError, Lost};
pub use leasehold_proto as proto;
pub use slicelet::{
    Cause, Guard, OwnershipEvent, OwnershipLog, PeerService, SliceHandler, SliceInfo, Slicelet, SliceletBuilder, Stats,
};
