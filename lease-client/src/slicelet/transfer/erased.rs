//! An application's state behind a pointer.

use std::sync::Arc;

use leasehold_proto::{Slice, mutant};

use super::super::order::Turn;
use crate::state::{BadRecords, Import, SliceState, StateExport};

/// A [`SliceState`] that can stand behind a pointer.
pub(crate) trait State: Send + Sync {
    fn export(&self, slice: Slice) -> Box<dyn StateExport>;
    fn import(&self, slice: Slice, records: &[u8], how: Import) -> Result<(), BadRecords>;
    fn discard(&self, slice: Slice);
    fn bytes(&self, slice: Slice) -> u64;
    fn sample(&self, slice: Slice, most: usize, seed: u64) -> Vec<Vec<u8>>;
    fn agrees(&self, slice: Slice, sample: &[u8]) -> bool;
}

impl<S: SliceState> State for S {
    fn export(&self, slice: Slice) -> Box<dyn StateExport> {
        Box::new(SliceState::export(self, slice))
    }

    fn import(&self, slice: Slice, records: &[u8], how: Import) -> Result<(), BadRecords> {
        SliceState::import(self, slice, records, how)
    }

    fn discard(&self, slice: Slice) {
        SliceState::discard(self, slice);
    }

    fn bytes(&self, slice: Slice) -> u64 {
        SliceState::bytes(self, slice)
    }

    fn sample(&self, slice: Slice, most: usize, seed: u64) -> Vec<Vec<u8>> {
        SliceState::sample(self, slice, most, seed)
    }

    fn agrees(&self, slice: Slice, sample: &[u8]) -> bool {
        SliceState::agrees(self, slice, sample)
    }
}

/// Forgets the slice, off the runtime's threads; `false` if it was not done. The turn is held until
/// it is, even if nobody waits any more.
pub(crate) async fn discard(state: &Arc<dyn State>, slice: Slice, turn: Option<Turn>) -> bool {
    if mutant!("state_kept_after_loss") {
        return true;
    }
    let state = Arc::clone(state);
    let forgotten = tokio::task::spawn_blocking(move || {
        state.discard(slice);
        drop(turn);
    });
    let forgotten = forgotten.await;
    if forgotten.as_ref().is_err_and(|error| error.is_panic()) {
        tracing::error!(%slice, "the application panicked when it was to forget a slice");
    }
    forgotten.is_ok()
}
