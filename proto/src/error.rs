//! Why the table refused a command, and coarse kinds for callers.

use std::borrow::Cow;

use crate::id::{HandoffId, LogId, SessionId};
use crate::slice::Slice;
use crate::target::{BadConfig, TargetName};

/// Why `apply` refused a command. The command had no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No target of this name.
    #[error("there is no target {0}")]
    UnknownTarget(TargetName),
    /// The name is taken.
    #[error("target {0} exists already")]
    TargetExists(TargetName),
    /// The name belongs to a deleted target whose sessions have not all gone.
    #[error("target {0} was deleted; its name is free when its {1} sessions have gone")]
    TargetLeaving(TargetName, u32),
    /// A configuration outside its bounds.
    #[error("{0}")]
    BadConfig(#[from] BadConfig),
    /// The configuration has changed since the caller read it.
    #[error("the target's configuration is at version {current}, not {expected}; read it again")]
    ConfigVersion {
        /// What the caller had read.
        expected: u64,
        /// What is.
        current: u64,
    },
    /// No live session of this number.
    #[error("session {0} is not live; register again")]
    UnknownSession(SessionId),
    /// No open handoff of this number.
    #[error("handoff {0} is not open")]
    UnknownHandoff(HandoffId),
    /// A session spoke for a handoff in which it has not that part.
    #[error("session {0} has not that part in handoff {1}")]
    NotAParty(SessionId, HandoffId),
    /// A decision that was counted in another term than the entry's own.
    #[error("the decision belongs to term {decided}, the entry to {entry}")]
    OtherTerm {
        /// Where the decision was made.
        decided: u64,
        /// Where the entry was appended.
        entry: LogId,
    },
    /// The slice has an open handoff, which is never replaced, re-aimed, split or merged.
    #[error("{0} has the open handoff {1}")]
    HandoffOpen(Slice, HandoffId),
    /// The slice's owner has not taken in yet the state that the slice came with.
    #[error("the state of {0} may be on its way to its owner; try again when it is there")]
    NotTakenIn(Slice),
    /// The slice is not as the plan saw it.
    #[error("{0} has changed since the plan was made")]
    SliceChanged(Slice),
    /// The step cannot be made in the target's present mode.
    #[error("not possible while the target is {0}")]
    WrongMode(crate::target::Mode),
    /// The step makes no sense as given.
    #[error("{0}")]
    BadStep(Cow<'static, str>),
    /// A bound of `limits` is reached.
    #[error("the limit of {most} {what} is reached")]
    Limit {
        /// What there is too much of.
        what: Cow<'static, str>,
        /// How many there may be.
        most: usize,
    },
    /// Nothing is granted after a restore until every lease of the lost history has run out.
    #[error("restored: nothing is granted until every lease of the old cluster has run out")]
    RestoreWait,
    /// The incarnation given is not larger than the present one.
    #[error("the incarnation must be larger than {0}")]
    IncarnationNotLarger(u16),
    /// The log index no longer fits a fencing token.
    #[error("the log index no longer fits a fencing token; restore with a larger incarnation")]
    TokensExhausted,
    /// The command's bytes are not a command of this version.
    #[error("the command cannot be read: {0}")]
    Unreadable(String),
}
