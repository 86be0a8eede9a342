//! Counters of a Slicelet.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::GuardError;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What a Slicelet has done since it was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats { $($(#[$doc])* pub $name: u64,)* }

        #[derive(Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter,)* }

        impl Counters {
            pub(crate) fn read(&self) -> Stats {
                Stats { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

/// One number that only rises.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }
}

counters! {
    /// Guards asked for in slices that were open; counted once a second.
    guards,
    /// Sessions registered.
    registrations,
    /// Renewals sent.
    renewals_sent,
    /// Renewals answered.
    renewals_answered,
    /// Times that the lease ran out and came back.
    lapses,
    /// Slices taken over from another Slicelet.
    handoffs_in,
    /// Slices surrendered to another Slicelet.
    handoffs_out,
    /// Guards in flight that were cut off at a drain deadline, counted by slice.
    drains_cut_off,
    /// Guards refused because the key is another's.
    refused_not_owner,
    /// Guards refused because the key has moved.
    refused_moved,
    /// Guards refused because the slice is being handed over.
    refused_handing_over,
    /// Guards refused because the lease had run out.
    refused_lapsed,
    /// Guards refused because nothing is known yet or the Slicelet was closed.
    refused_not_serving,
    /// Requests that waited for a slice being handed over.
    waited,
    /// Requests that waited in vain, or could not because too many did.
    waited_in_vain,
}

impl Counters {
    #[cold]
    pub(crate) fn refused(&self, error: &GuardError) {
        match error {
            GuardError::NotOwner { .. } => &self.refused_not_owner,
            GuardError::Moved(_) => &self.refused_moved,
            GuardError::HandingOver | GuardError::TooManyWaiting => &self.refused_handing_over,
            GuardError::Lapsed => &self.refused_lapsed,
            GuardError::Starting | GuardError::Stopped => &self.refused_not_serving,
        }
        .add(1);
    }
}
