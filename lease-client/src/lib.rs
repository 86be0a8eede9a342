//! Leasehold for applications.
//!
//! A [`Slicelet`] lives in each process of a sharded service. It holds a lease, learns which slices
//! of the key space it owns, and answers for each request, without a call, whether this process
//! owns its key now. A [`Clerk`] lives in each client and knows, without a call, which process
//! that is. [`layer`] does both for gRPC services.
//!
//! # Serving
//!
//! ```no_run
//! use std::time::Duration;
//! use leasehold_client::{Lost, Slicelet};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let slicelet = Slicelet::builder("counter")
//!     .endpoints(["10.0.0.1:7400", "10.0.0.2:7400", "10.0.0.3:7400"])
//!     .advertise("10.0.1.7:9000")
//!     .start()?;
//! // The server at the advertised address must carry this, besides the application's service:
//! let peers = slicelet.peer_service().into_server();
//!
//! // For each request:
//! let guard = slicelet.guard_or_wait(b"alice").await?; // this process owns the key
//! let value = write_to_store(guard.fencing_token().as_u64()).await;
//! guard.verify()?; // and has owned it all the time: the reply may go
//! drop(guard); // ends the operation
//!
//! // Leaving without a failed request:
//! slicelet.drain(Duration::from_secs(30)).await?;
//! slicelet.close().await?;
//! # drop(peers); drop(value);
//! # Ok(())
//! # }
//! # async fn write_to_store(_token: u64) {}
//! ```
//!
//! # Calling
//!
//! ```no_run
//! use leasehold_client::Clerk;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let clerk = Clerk::builder("counter").endpoints(["10.0.0.1:7400"]).connect_lazy()?;
//! let reply = clerk
//!     .call(b"alice", |channel, route| async move {
//!         // e.g. CounterClient::new(channel).increment(..).await
//! #       drop((channel, route)); Ok::<_, tonic::Status>(())
//!     })
//!     .await?;
//! # let _ = reply;
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! In strong mode no two Slicelets pass a check for the same key at the same instant, whatever the
//! network, pauses, crashes and leader changes do, as long as each process's clock runs at the
//! right rate within its bound. What is still under way when a check has passed, such as a write
//! to a database, is protected by the [fencing token](Guard::fencing_token), not by time.

#[doc(hidden)]
pub mod bench;
mod channels;
mod clerk;
pub mod clock;
mod endpoints;
pub mod error;
pub mod layer;
pub mod pace;
mod slicelet;
pub mod state;

pub use channels::ChannelPool;
pub use clerk::{Clerk, ClerkBuilder, PodRoute, ReplicaChoice, Route};
pub use error::{Error, ErrorKind, GuardError, Lost, WriteError};
pub use leasehold_proto as proto;
pub use slicelet::{
    Arrival, Cause, Guard, OnTransferFailure, OwnershipEvent, OwnershipLog, PeerService,
    SliceHandler, SliceInfo, Slicelet, SliceletBuilder, Stats, Transfers,
};

/// The examples of the book.
#[cfg(doctest)]
#[doc = include_str!("../../docs/STATE_TRANSFER.md")]
struct Book;
