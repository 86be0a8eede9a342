//! The state of slices in an application's memory, which goes with them when they move.
//!
//! An application lends its state to its Slicelet with [`SliceletBuilder::state`](crate::SliceletBuilder::state).
//! A planned move then exports the slice *while it is served*, follows its changes, sends the last
//! one when the slice is frozen, and hands ownership over only when the destination has all of it.
//! [`StateMap`] is ready-made for caches, counters and indexes; the traits are for everything else.
//!
//! State is a sequence of records whose bytes are the application's own. A record is about one key
//! and says all that there is to say of it (its present value, or that it is gone), so that a later
//! record of a key replaces an earlier one.

mod map;

use leasehold_proto::Slice;

pub use map::{MapExport, StateMap, StateValue};

/// How records are to be taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Import {
    /// Nobody serves the slice here: a record replaces what there is of its key. Strong mode.
    Replace,
    /// The slice is served here already: a record is merged into what there is of its key, by a
    /// rule of the application under which older news loses. Eventual mode.
    Merge,
}

/// Records that the application cannot read. Nothing is served from a state of which any part was
/// refused: the transfer fails, and its slice stays or goes cold as the Slicelet was told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these records cannot be taken in: {0}")]
pub struct BadRecords(pub String);

/// State of slices, as a Slicelet sees it. Calls must not block for longer than it takes to copy
/// what they are about; they are made from the runtime's threads.
///
/// What is written must be written under a [`Guard`](crate::Guard) that *verifies inside the lock
/// that the write takes*: a guard that was cut off at a drain deadline must not write any more,
/// since its slice may be gone and, later, may be back. [`StateMap`] does so.
pub trait SliceState: Send + Sync + 'static {
    /// An export under way.
    type Export: StateExport;

    /// Begins to export the slice, which is served all the while: first what there is of it, then
    /// what has changed since, until it is dropped.
    fn export(&self, slice: Slice) -> Self::Export;

    /// Takes in records as an export of the same application wrote them, in their order. They are
    /// about keys of `slice` only; one that is not is refused.
    ///
    /// # Errors
    /// [`BadRecords`]: some of the records may have been taken in. With [`Import::Replace`] the
    /// caller discards the slice; with [`Import::Merge`] what was merged stays.
    fn import(&self, slice: Slice, records: &[u8], how: Import) -> Result<(), BadRecords>;

    /// Forgets everything about the slice: it was surrendered or lost, or it arrives without
    /// state. No guard of it is valid. `slice` may be a part of what was acquired, or several such
    /// joined. When this returns no earlier write is seen any more and none follows.
    fn discard(&self, slice: Slice);

    /// About how many bytes the slice takes up. Asked every second of each slice: a count that is
    /// kept, not one that is made.
    fn bytes(&self, slice: Slice) -> u64 {
        let _ = slice;
        0
    }

    /// Records of up to `most` keys of the slice, any of them, different ones for different seeds;
    /// to compare both ends before the surrender. Asked while nobody serves the slice: in bounded
    /// time. A record longer than
    /// [`limits::STATE_SAMPLE_BYTES`](leasehold_proto::limits::STATE_SAMPLE_BYTES) is not compared.
    /// None means that nothing is.
    fn sample(&self, slice: Slice, most: usize, seed: u64) -> Vec<Vec<u8>> {
        let _ = (slice, most, seed);
        Vec::new()
    }

    /// Whether a record that [`sample`](SliceState::sample) wrote at the other end says what there
    /// is here, after everything was taken in. The other end may be of another version of the
    /// application: compare what the record means, not its bytes with those that would be written
    /// here.
    fn agrees(&self, slice: Slice, sample: &[u8]) -> bool {
        let _ = (slice, sample);
        true
    }
}

/// What an export has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exported {
    /// There is more now.
    More,
    /// This was all there is now; what changes from here on comes with later calls.
    CaughtUp,
}

/// An export of one slice under way. Memory that it keeps must not grow with the size of the state:
/// keep which keys changed since they were written, not their values, which are read when it is
/// their turn; and of very many something coarser, as ranges, which are then read again.
pub trait StateExport: Send + 'static {
    /// Appends whole records to `out`, about `most_bytes` of them; one record that is larger goes
    /// alone. Each time as they are now. No record may be longer than
    /// [`limits::STATE_FRAME_BYTES`](leasehold_proto::limits::STATE_FRAME_BYTES), or its slice
    /// cannot move: refuse what is larger where it is written.
    fn read(&mut self, most_bytes: usize, out: &mut Vec<u8>) -> Exported;

    /// About how many bytes are still to come, if that is known.
    fn left_bytes(&self) -> Option<u64> {
        None
    }
}
