//! A log of the times in which a Slicelet could serve each slice, for checkers outside.
//!
//! All times are nanoseconds of `CLOCK_MONOTONIC_RAW` plus the time that the host was suspended:
//! one clock for all processes of a host, and the one that leases run on, so that a deadline can
//! be written down before it comes.

use leasehold_proto::{FencingToken, Slice};

/// A change of what could be served. To the intervals between `Begin` and `End` of a slice applies
/// the lease: whatever the log of a killed process leaves open ends at its last `Extended`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnershipEvent {
    /// No guard was given before `at_ns`.
    Begin {
        /// Which slice.
        slice: Slice,
        /// At which token.
        token: FencingToken,
        /// When.
        at_ns: u64,
    },
    /// Soon after `at_ns` no guard is given; those in flight verify on. An `End` follows, unless the
    /// handoff is refused.
    Frozen {
        /// Which slice.
        slice: Slice,
        /// At which token.
        token: FencingToken,
        /// When.
        at_ns: u64,
    },
    /// No guard is given and none verifies after `at_ns`.
    End {
        /// Which slice.
        slice: Slice,
        /// At which token.
        token: FencingToken,
        /// When.
        at_ns: u64,
    },
    /// Nothing is served after `until_ns` unless it is extended again; `u64::MAX` while the target
    /// is eventual. Written before it takes effect.
    Extended {
        /// When the lease runs out.
        until_ns: u64,
    },
}

/// What an application gives to be told. Called on the Slicelet's own task: it must not block.
pub type OwnershipLog = Box<dyn FnMut(OwnershipEvent) + Send>;
