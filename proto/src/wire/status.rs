//! Refusals and redirects as gRPC statuses, both ways.
//!
//! | [`Refusal`] | Code | What the caller does |
//! | --- | --- | --- |
//! | `NotLeader` | UNAVAILABLE | go to the leader, if named; else ask any other Assigner |
//! | `Halted` | UNAVAILABLE | try again later; an operator may be needed |
//! | `UnknownTarget` | NOT_FOUND | tell the operator |
//! | `UnknownSession` | FAILED_PRECONDITION | the session has ended: register again |
//! | `BadSecret` | PERMISSION_DENIED | the session is another's: register again |
//! | `Superseded` | ABORTED | stop: a newer one of the caller has taken over |
//! | `Overload` | RESOURCE_EXHAUSTED | try again later, less often |
//! | `TooLarge` | OUT_OF_RANGE | send less |
//! | `Invalid` | INVALID_ARGUMENT | nothing: the request can never succeed |
//! | `Conflict` | ABORTED | read again, then try again |
//! | `Rejected` | FAILED_PRECONDITION | nothing until the state is another |
//! | `Indeterminate` | DEADLINE_EXCEEDED | find out: it may or may not have taken effect |
//! | `Internal` | INTERNAL | tell the operator |
//!
//! The metadata `leasehold-reason` names the refusal, since codes are shared with transports and
//! proxies; `leasehold-leader` names the leader's address. An application's pod answers a client
//! that it does not serve with a [`Redirect`] in `leasehold-redirect-bin`.

use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::codec::beginning;
use super::types::{Redirect, UnavailableReason};
use super::{WireError, decode, pb};
use crate::error::Rejection;
use crate::limits;
use crate::target::PodAddress;

/// Names the refusal.
pub const REASON_KEY: &str = "leasehold-reason";
/// The leader's address.
pub const LEADER_KEY: &str = "leasehold-leader";
/// A serialised redirect.
pub const REDIRECT_KEY: &str = "leasehold-redirect-bin";

/// Why an Assigner or a Slicelet does not do what it was asked. Nothing changed, except perhaps
/// with `Indeterminate`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// This Assigner does not lead.
    #[error("this Assigner does not lead")]
    NotLeader {
        /// Where the leader is, if known.
        leader: Option<PodAddress>,
    },
    /// The leader does nothing for now, and why.
    #[error("{0}")]
    Halted(String),
    /// No target of this name.
    #[error("there is no such target")]
    UnknownTarget,
    /// The session has ended.
    #[error("the session is not live; register again")]
    UnknownSession,
    /// The secret does not match the session.
    #[error("the secret does not match the session")]
    BadSecret,
    /// A newer stream or request of the same caller has taken over.
    #[error("a newer one has taken over")]
    Superseded,
    /// Too much waits here.
    #[error("too much waits here; try again later")]
    Overload,
    /// The request is too large, and how.
    #[error("{0}")]
    TooLarge(String),
    /// The request is outside its format or bounds, and how.
    #[error("{0}")]
    Invalid(String),
    /// What the request was based on has changed, and how.
    #[error("{0}")]
    Conflict(String),
    /// The present state does not allow it, and why.
    #[error("{0}")]
    Rejected(String),
    /// It may or may not have taken effect.
    #[error("it is not known whether the request took effect")]
    Indeterminate,
    /// A fault of this side, and which.
    #[error("{0}")]
    Internal(String),
}

impl Refusal {
    fn code_and_reason(&self) -> (Code, &'static str) {
        match self {
            Refusal::NotLeader { .. } => (Code::Unavailable, "not-leader"),
            Refusal::Halted(_) => (Code::Unavailable, "halted"),
            Refusal::UnknownTarget => (Code::NotFound, "unknown-target"),
            Refusal::UnknownSession => (Code::FailedPrecondition, "unknown-session"),
            Refusal::BadSecret => (Code::PermissionDenied, "bad-secret"),
            Refusal::Superseded => (Code::Aborted, "superseded"),
            Refusal::Overload => (Code::ResourceExhausted, "overload"),
            Refusal::TooLarge(_) => (Code::OutOfRange, "too-large"),
            Refusal::Invalid(_) => (Code::InvalidArgument, "invalid"),
            Refusal::Conflict(_) => (Code::Aborted, "conflict"),
            Refusal::Rejected(_) => (Code::FailedPrecondition, "rejected"),
            Refusal::Indeterminate => (Code::DeadlineExceeded, "indeterminate"),
            Refusal::Internal(_) => (Code::Internal, "internal"),
        }
    }

    /// The refusal that a status carries; `None` when the status is not from Leasehold but from a
    /// transport or proxy, so that what became of the request is known only as far as its code says.
    pub fn from_status(status: &Status) -> Option<Refusal> {
        let text = |key| {
            status
                .metadata()
                .get(key)
                .and_then(|value| value.to_str().ok())
        };
        let message = || beginning(status.message(), limits::TEXT_BYTES).to_owned();
        Some(match text(REASON_KEY)? {
            "not-leader" => Refusal::NotLeader {
                leader: text(LEADER_KEY).and_then(|text| PodAddress::new(text).ok()),
            },
            "halted" => Refusal::Halted(message()),
            "unknown-target" => Refusal::UnknownTarget,
            "unknown-session" => Refusal::UnknownSession,
            "bad-secret" => Refusal::BadSecret,
            "superseded" => Refusal::Superseded,
            "overload" => Refusal::Overload,
            "too-large" => Refusal::TooLarge(message()),
            "invalid" => Refusal::Invalid(message()),
            "conflict" => Refusal::Conflict(message()),
            "rejected" => Refusal::Rejected(message()),
            "indeterminate" => Refusal::Indeterminate,
            "internal" => Refusal::Internal(message()),
            _ => return None,
        })
    }
}

impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Status {
        let (code, reason) = refusal.code_and_reason();
        let text = refusal.to_string();
        let mut status = Status::new(code, beginning(&text, limits::TEXT_BYTES));
        status
            .metadata_mut()
            .insert(REASON_KEY, MetadataValue::from_static(reason));
        if let Refusal::NotLeader {
            leader: Some(leader),
        } = refusal
            && let Ok(value) = MetadataValue::try_from(leader.as_str())
        {
            status.metadata_mut().insert(LEADER_KEY, value);
        }
        status
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Status {
        (&refusal).into()
    }
}

impl From<WireError> for Refusal {
    fn from(error: WireError) -> Refusal {
        match error.problem() {
            super::Problem::TooMuch { .. } => Refusal::TooLarge(error.to_string()),
            _ => Refusal::Invalid(error.to_string()),
        }
    }
}

impl From<&Rejection> for Refusal {
    fn from(rejection: &Rejection) -> Refusal {
        let text = rejection.to_string();
        match rejection {
            Rejection::UnknownTarget(_) => Refusal::UnknownTarget,
            Rejection::UnknownSession(_) => Refusal::UnknownSession,
            Rejection::BadConfig(_)
            | Rejection::BadStep(_)
            | Rejection::IncarnationNotLarger(_) => Refusal::Invalid(text),
            Rejection::ConfigVersion { .. }
            | Rejection::HandoffOpen(..)
            | Rejection::NotTakenIn(_)
            | Rejection::SliceChanged(_)
            | Rejection::OtherTerm { .. } => Refusal::Conflict(text),
            Rejection::RestoreWait | Rejection::TokensExhausted => Refusal::Halted(text),
            Rejection::Unreadable(_) => Refusal::Internal(text),
            Rejection::TargetExists(_)
            | Rejection::TargetLeaving(..)
            | Rejection::UnknownHandoff(_)
            | Rejection::NotAParty(..)
            | Rejection::WrongMode(_)
            | Rejection::Limit { .. } => Refusal::Rejected(text),
        }
    }
}

impl From<&Redirect> for Status {
    fn from(redirect: &Redirect) -> Status {
        let (code, text) = match redirect {
            Redirect::Moved(moved) => (
                Code::FailedPrecondition,
                format!("moved: {} is at {}", moved.slice, moved.address),
            ),
            Redirect::NotOwner { .. } => (
                Code::FailedPrecondition,
                "not the owner of the key".to_owned(),
            ),
            Redirect::Unavailable(UnavailableReason::Interrupted) => (
                Code::Unknown,
                "ownership was lost while the request was served; it may have taken effect"
                    .to_owned(),
            ),
            Redirect::Unavailable(UnavailableReason::Lapsed) => {
                (Code::Unavailable, "the lease has run out".to_owned())
            }
            Redirect::Unavailable(UnavailableReason::HandingOver) => {
                (Code::Unavailable, "the slice is handed over".to_owned())
            }
            Redirect::Unavailable(UnavailableReason::Starting) => {
                (Code::Unavailable, "no assignment is known yet".to_owned())
            }
            Redirect::Unavailable(UnavailableReason::Stopping) => {
                (Code::Unavailable, "shutting down".to_owned())
            }
        };
        let mut status = Status::new(code, text);
        let bytes = pb::Redirect::from(redirect).encode_to_vec();
        status
            .metadata_mut()
            .insert_bin(REDIRECT_KEY, MetadataValue::from_bytes(&bytes));
        status
    }
}

impl From<Redirect> for Status {
    fn from(redirect: Redirect) -> Status {
        (&redirect).into()
    }
}

impl Redirect {
    /// The redirect that a status carries, if it carries one; an error when it is outside its bounds.
    pub fn from_status(status: &Status) -> Option<Result<Redirect, WireError>> {
        const FIELD: &str = "Redirect";
        let value = status.metadata().get_bin(REDIRECT_KEY)?;
        let encoded = value.as_encoded_bytes().len();
        Some(
            super::codec::at_most(
                FIELD,
                encoded,
                limits::REDIRECT_BYTES.div_ceil(3) * 4,
                "encoded bytes",
            )
            .and_then(|()| {
                value
                    .to_bytes()
                    .map_err(|error| WireError::invalid(FIELD, error))
            })
            .and_then(|bytes| {
                decode::<pb::Redirect>(FIELD, &bytes, limits::REDIRECT_BYTES)?.try_into()
            }),
        )
    }
}
