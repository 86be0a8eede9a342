//! One error type per operation; each variant says what is known and what the caller does next.

use std::io;
use std::path::PathBuf;

use crate::{NodeId, RestoreError};

/// Why a node could not start. Nothing was changed on disk; starting again without a change
/// outside gives the same error, except for `Locked` and `Io`.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself; the text says where.
    #[error("invalid configuration: {0}")]
    Config(String),
    /// The directory belongs to something or somebody else.
    #[error("{path}: {found}; {advice}")]
    Foreign {
        /// The data directory.
        path: PathBuf,
        /// What was found there.
        found: String,
        /// What the operator can do.
        advice: &'static str,
    },
    /// The directory is ours, but its content cannot be trusted.
    #[error(
        "{path}: {found}; restore this directory from a copy, or remove this node from the cluster and add a new one under a new number"
    )]
    Corrupt {
        /// The data directory.
        path: PathBuf,
        /// What was found there.
        found: String,
    },
    /// The directory was written by a newer version.
    #[error(
        "{path}: written in format {found}, this program knows formats up to {known}; start a newer version"
    )]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// Another process (or another node in this process) uses the directory.
    #[error(
        "{path}: in use by another process; stop it first, two processes on one directory would destroy it"
    )]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// The state machine refused its records.
    #[error("the state machine refused its records: {0}")]
    Restore(#[from] RestoreError),
    /// The disk failed.
    #[error("storage: {0}")]
    Io(#[from] io::Error),
    /// Raft found its own records inconsistent.
    #[error("raft: {0}")]
    Raft(String),
}

/// Why a proposal or a confirmation has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Definite: nothing was appended. Ask the leader, if it is known; else try again later.
    #[error("this node is not the leader (leader: {leader:?})")]
    NotLeader {
        /// The leader's number and peer address as far as this node knows.
        leader: Option<(NodeId, String)>,
    },
    /// Definite: nothing was appended. The term asked for is over; decide afresh.
    #[error("the term asked for is over (now: {now})")]
    TermChanged {
        /// The term this node is in.
        now: u64,
    },
    /// Definite: nothing was appended. This node leads but has heard no quorum for an election
    /// timeout, or is handing leadership over. Try again later.
    #[error("the leader has no quorum at present")]
    NoQuorum,
    /// Definite: nothing was appended. Too much is in flight; try again later.
    #[error("too many proposals in flight")]
    Overloaded,
    /// Definite: nothing was appended. The command exceeds the configured bound.
    #[error("a command of {bytes} bytes exceeds the bound of {bound}")]
    TooLarge {
        /// Size of the command.
        bytes: usize,
        /// The bound.
        bound: usize,
    },
    /// Unknown: the entry may have been committed, or may still be. Only a read of the state can
    /// tell, or a command that is idempotent.
    #[error("outcome unknown: {0}")]
    Indeterminate(&'static str),
    /// This node has stopped for good; the process should end. The entry may have been committed.
    #[error("this node has stopped: {0}")]
    Fatal(String),
}

impl ProposeError {
    /// True if it is certain that the proposal has no effect, now or later.
    #[must_use]
    pub fn is_definite(&self) -> bool {
        !matches!(self, Self::Indeterminate(_) | Self::Fatal(_))
    }
}

/// Why an operator's request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// Definite: send the request to the leader.
    #[error("this node is not the leader (leader: {leader:?})")]
    NotLeader {
        /// The leader's number and peer address as far as this node knows.
        leader: Option<(NodeId, String)>,
    },
    /// Definite: the request contradicts the present state; the text says how.
    #[error("refused: {0}")]
    Refused(String),
    /// Unknown: look at the status before trying again.
    #[error("outcome unknown: {0}")]
    Indeterminate(String),
    /// This node has stopped for good.
    #[error("this node has stopped: {0}")]
    Fatal(String),
}
