//! The proof that a request is served by the owner of its key.

use leasehold_proto::{Epoch, FencingToken, Slice, SliceKey, mutant};

use super::cell::Cell;
use super::lease::Lease;
use crate::error::Lost;

/// Proof that this process owned the key when the guard was given, and the means to ask whether
/// it still does. While it lives the slice is not surrendered, up to the drain deadline. Dropping
/// it ends the operation.
///
/// Ask [`Guard::verify`] before the reply leaves: a guard that was given is no promise about now.
#[must_use = "dropping the guard ends the operation"]
pub struct Guard {
    cell: &'static Cell,
    lease: &'static Lease,
    key: SliceKey,
    slice: Slice,
    epoch: Epoch,
    fenced: bool,
}

impl Guard {
    /// Requires that `cell` has just been entered; the guard leaves it when dropped.
    #[inline]
    pub(super) fn entered(
        cell: &'static Cell,
        lease: &'static Lease,
        key: SliceKey,
        slice: Slice,
        epoch: Epoch,
    ) -> Self {
        Self {
            cell,
            lease,
            key,
            slice,
            epoch,
            fenced: false,
        }
    }

    #[inline]
    pub(super) fn lease_runs(&self) -> bool {
        self.lease.runs()
    }

    pub(super) fn into_fenced(mut self) -> Self {
        self.fenced = true;
        self
    }

    /// Whether this process has owned the key without interruption since the guard was given, and
    /// owns it now. Costs one clock read.
    ///
    /// For a guard that [is fenced](Self::is_fenced) it only asks whether ownership is known to
    /// have ended; the store's fence decides.
    ///
    /// # Errors
    /// [`Lost`]: answer the client with `Status::from(lost)`, not with the result.
    #[inline]
    pub fn verify(&self) -> Result<(), Lost> {
        if mutant!("verify_always_passes") {
            return Ok(());
        }
        if !self.cell.is_valid() {
            return Err(Lost::Revoked);
        }
        if self.fenced || self.lease.runs() {
            Ok(())
        } else {
            Err(Lost::Lapsed)
        }
    }

    /// Goes with every write to an external store, which rejects one lower than the highest it
    /// has seen for the key.
    pub fn fencing_token(&self) -> FencingToken {
        self.epoch.token()
    }

    /// The epoch at which the slice is owned.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The slice as it was when the guard was given.
    pub fn slice(&self) -> Slice {
        self.slice
    }

    /// The key that the guard was asked for.
    pub fn slice_key(&self) -> SliceKey {
        self.key
    }

    /// Whether the lease had run out and the target says `serve_fenced`: ownership is not proven,
    /// only the fence of the store protects it.
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }
}

impl Drop for Guard {
    #[inline]
    fn drop(&mut self) {
        self.cell.leave();
    }
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guard({} in {} at {})", self.key, self.slice, self.epoch)
    }
}
