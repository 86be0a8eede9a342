//! The protocol of Leasehold: its nouns, its limits, and its rules as pure machines.
//!
//! Nothing here performs I/O, reads a clock or draws a random number; time is an argument and
//! every machine is a value that can be cloned, compared and replayed. The four machines are
//!
//! * [`table::LeaseTable`]: the replicated rules, `apply(log_id, command) -> outcome`;
//! * [`grantor::Grantor`]: the clocked half of the Assigner's leader, one value per term;
//! * [`holder::Holder`]: the clocked half of a Slicelet;
//! * [`router::Router`]: a Clerk's map.
//!
//! The rules marked ◆ in docs/PROTOCOL.md each have a test in `tests/` that names them.

/// Whether the planted bug of this name is switched on: never, but under `--cfg leasehold_mutants`.
#[cfg(not(leasehold_mutants))]
#[macro_export]
#[doc(hidden)]
macro_rules! mutant {
    ($name:literal) => {
        false
    };
}
#[cfg(leasehold_mutants)]
#[macro_export]
#[doc(hidden)]
macro_rules! mutant {
    ($name:literal) => {
        $crate::mutants::active($name)
    };
}

#[cfg(all(leasehold_mutants, not(debug_assertions)))]
compile_error!(
    "a release build has no planted bugs: `./x mutants` builds them with debug assertions"
);

pub mod canonical;
pub mod clock;
pub mod command;
pub mod error;
pub mod grantor;
pub mod holder;
pub mod id;
pub mod key;
pub mod limits;
pub mod message;
#[cfg(leasehold_mutants)]
pub mod mutants;
pub mod overlap;
pub mod router;
pub mod slice;
pub mod slice_map;
pub mod table;
pub mod target;
pub mod transfer;
pub mod view;
#[cfg(feature = "wire")]
pub mod wire;

pub use clock::{ClockClass, ClockTime};
pub use id::{Epoch, FencingToken, Generation, HandoffId, LogId, SessionId};
pub use key::{KeyHash, SliceKey};
pub use slice::Slice;
pub use slice_map::SliceMap;
pub use target::{Mode, PodAddress, Squid, TargetName};
pub use view::{Assigned, Lease, Provider, View, ViewDiff, ViewUpdate};
