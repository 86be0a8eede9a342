//! Errors: an enum per operation, and a coarse [`ErrorKind`] that says what the caller must do.

use std::sync::Arc;

use leasehold_proto::Generation;
use leasehold_proto::message::Moved;
use leasehold_proto::wire::status::Refusal;
use leasehold_proto::wire::{Redirect, UnavailableReason};

/// What the caller must do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// This pod does not own the key, and nothing was done: send the client elsewhere. At a
    /// client: no owner was found in time; nothing was done, try again.
    NotOwner,
    /// A later owner's token was seen, or ownership was lost under the operation: do not answer,
    /// undo or fence what was begun.
    Fenced,
    /// The lease or the session has run out. Nothing was done; it comes back by itself.
    Expired,
    /// Nothing was done; try again later.
    Unavailable,
    /// It may or may not have taken effect: find out before trying again.
    Indeterminate,
    /// The request can never succeed as it is: correct it.
    Invalid,
    /// A fault of this library or of the Assigner: report it.
    Internal,
}

/// Why a guard was refused. Nothing was done for the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// This Slicelet does not own the key. Send the client back to its map.
    #[error("this Slicelet does not own the key")]
    NotOwner {
        /// The view by which it does not; the client's map must be at least as new.
        generation: Option<Generation>,
    },
    /// The key was handed over. Send the client there.
    #[error("{} is at {} now", .0.slice, .0.address)]
    Moved(Arc<Moved>),
    /// The key is being handed over, from or to this Slicelet; wait with
    /// [`Slicelet::guard_or_wait`](crate::Slicelet::guard_or_wait).
    #[error("the slice is being handed over")]
    HandingOver,
    /// The lease has run out. It comes back by itself when the Assigner answers again.
    #[error("the lease has run out")]
    Lapsed,
    /// No assignment is known yet.
    #[error("no assignment is known yet")]
    Starting,
    /// The Slicelet was closed.
    #[error("the Slicelet was closed")]
    Stopped,
    /// Too many requests wait for slices that are being handed over.
    #[error("too many requests wait for slices being handed over")]
    TooManyWaiting,
}

impl GuardError {
    /// What the caller must do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            GuardError::NotOwner { .. } | GuardError::Moved(_) => ErrorKind::NotOwner,
            GuardError::Lapsed => ErrorKind::Expired,
            GuardError::HandingOver
            | GuardError::Starting
            | GuardError::Stopped
            | GuardError::TooManyWaiting => ErrorKind::Unavailable,
        }
    }

    /// What to answer the client; as a gRPC status: `Status::from(error.redirect())`.
    pub fn redirect(&self) -> Redirect {
        match self {
            GuardError::NotOwner { generation } => Redirect::NotOwner {
                generation: *generation,
            },
            GuardError::Moved(moved) => Redirect::Moved(Moved::clone(moved)),
            GuardError::HandingOver | GuardError::TooManyWaiting => {
                Redirect::Unavailable(UnavailableReason::HandingOver)
            }
            GuardError::Lapsed => Redirect::Unavailable(UnavailableReason::Lapsed),
            GuardError::Starting => Redirect::Unavailable(UnavailableReason::Starting),
            GuardError::Stopped => Redirect::Unavailable(UnavailableReason::Stopping),
        }
    }
}

impl From<GuardError> for tonic::Status {
    fn from(error: GuardError) -> Self {
        error.redirect().into()
    }
}

/// Why a guard is no longer valid. What was done under it may have happened beside a later owner:
/// do not answer as if it had succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// Ownership ended while the guard was held.
    #[error("ownership ended while the request was served")]
    Revoked,
    /// The lease has run out. The same guard is valid again if the lease is renewed before the
    /// Assigner gives the slice away.
    #[error("the lease ran out while the request was served")]
    Lapsed,
}

impl Lost {
    /// What the caller must do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Lost::Revoked => ErrorKind::Fenced,
            Lost::Lapsed => ErrorKind::Expired,
        }
    }
}

impl From<Lost> for tonic::Status {
    fn from(_: Lost) -> Self {
        Redirect::Unavailable(UnavailableReason::Interrupted).into()
    }
}

/// Why a write to a [`StateMap`](crate::state::StateMap) was refused. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The guard is no longer valid.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The key, or the key with its value, could not move with its slice. Write less.
    #[error("a key or value of {bytes} bytes is more than the {most} that may move")]
    TooLarge {
        /// How many it would take.
        bytes: u64,
        /// How many it may.
        most: usize,
    },
}

impl WriteError {
    /// What the caller must do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            WriteError::Lost(lost) => lost.kind(),
            WriteError::TooLarge { .. } => ErrorKind::Invalid,
        }
    }
}

impl From<WriteError> for tonic::Status {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Lost(lost) => lost.into(),
            WriteError::TooLarge { .. } => tonic::Status::out_of_range(error.to_string()),
        }
    }
}

/// An operation with the Assigner, or a call through a Clerk, that failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    status: Option<Box<tonic::Status>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            status: None,
        }
    }

    pub(crate) fn invalid(message: impl std::fmt::Display) -> Self {
        Self::new(ErrorKind::Invalid, message.to_string())
    }

    pub(crate) fn with_status(kind: ErrorKind, doing: &str, status: tonic::Status) -> Self {
        let message = format!("{doing}: {} ({:?})", status.message(), status.code());
        Self {
            kind,
            message,
            status: Some(Box::new(status)),
        }
    }

    /// What became of a request to an Assigner that answered with this status.
    pub(crate) fn from_assigner(doing: &str, status: tonic::Status) -> Self {
        let kind = match Refusal::from_status(&status) {
            Some(Refusal::UnknownSession | Refusal::BadSecret) => ErrorKind::Expired,
            Some(Refusal::UnknownTarget | Refusal::TooLarge(_) | Refusal::Invalid(_)) => {
                ErrorKind::Invalid
            }
            Some(Refusal::Indeterminate) => ErrorKind::Indeterminate,
            Some(Refusal::Internal(_)) => ErrorKind::Internal,
            Some(_) => ErrorKind::Unavailable,
            None => ErrorKind::Unavailable,
        };
        Self::with_status(kind, doing, status)
    }

    /// What the caller must do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The gRPC status that was answered, if one was.
    pub fn status(&self) -> Option<&tonic::Status> {
        self.status.as_deref()
    }
}
