//! Counters of a Slicelet.

use std::sync::atomic::{AtomicU64, Ordering};

use leasehold_proto::transfer::Refusal;

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
    /// Transfers of state begun, away from here.
    transfers_out,
    /// Such of which the destination has everything.
    transfers_out_completed,
    /// Connections over which such went on where an earlier one broke.
    transfers_out_resumed,
    /// Times that one had to begin anew.
    transfers_out_begun_anew,
    /// Such that could not be completed: a record is too large, or the last change was not
    /// acknowledged in time.
    transfers_out_failed,
    /// Transfers of state begun, to here.
    transfers_in,
    /// Such of which everything is here.
    transfers_in_completed,
    /// Connections over which such went on where an earlier one broke.
    transfers_in_resumed,
    /// Times that one had to begin anew.
    transfers_in_begun_anew,
    /// Such that were given up.
    transfers_in_failed,
    /// State sent, in bytes of records.
    state_bytes_out,
    /// State taken in, in bytes of records.
    state_bytes_in,
    /// Slices that came with their state.
    arrivals_warm,
    /// Slices that came without, vacant ones too, where there is state to come.
    arrivals_cold,
    /// Slices served from the start, into which the state of their former owner was merged, or
    /// would have been.
    arrivals_merging,
    /// Calls for state before the handoff was known; such are made again.
    state_asked_early,
    /// Calls for state after the handoff was decided.
    state_asked_late,
    /// Calls and frames refused because they are of an older transfer of the slice.
    state_of_old_epoch,
    /// Calls and frames refused because they are of something else.
    state_of_wrong_tag,
    /// Frames refused because one between was lost.
    state_frame_gaps,
    /// Frames refused because they had come before, or came behind the end.
    state_frame_duplicates,
    /// Frames refused because their bytes are not those that were sent, or are not well-formed.
    state_frame_damage,
    /// Transfers refused because the two ends do not have the same bytes.
    state_digests_differ,
    /// Transfers refused because the application could not read records.
    state_bad_records,
    /// Transfers refused because a key that was compared differs.
    state_samples_differ,
}

impl Counters {
    /// A frame, or an acknowledgement, is not taken.
    pub(crate) fn refused_frame(&self, refused: Refusal) {
        match refused {
            Refusal::OldEpoch => &self.state_of_old_epoch,
            Refusal::WrongTag => &self.state_of_wrong_tag,
            Refusal::Gap { .. } => &self.state_frame_gaps,
            Refusal::Duplicate(_) | Refusal::BeyondEnd(_) => &self.state_frame_duplicates,
            Refusal::TooLarge(_) | Refusal::Checksum(_) => &self.state_frame_damage,
            Refusal::Digest(_) => &self.state_digests_differ,
        }
        .add(1);
    }

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
