//! Proposals and confirmations.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::error::{
    ClientWriteError, ForwardReason, ForwardToLeader, LinearizableReadError, RaftError,
};
use openraft::raft::{ClientWriteResponse, ClientWriteResult};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::RaftNode;
use crate::raft_types::{Answer, Command, CommittedLeaderId, TypeConfig, position};
use crate::{LogPosition, ProposeError};

/// Pause before a leader without a quorum is asked again.
const QUORUM_RETRY: Duration = Duration::from_millis(5);

/// How an attempt ended.
enum Attempt {
    Done(LogPosition, Bytes),
    /// Not appended, and may be tried again.
    NoQuorum,
    Failed(ProposeError),
}

impl RaftNode {
    /// Replicate `command`; returns when it is committed and applied here.
    ///
    /// With `in_term` the command is appended only in that term: a decision made from what this
    /// node knew as leader of that term never takes effect in another one.
    ///
    /// # Errors
    ///
    /// All but `Indeterminate` and `Fatal` mean that nothing was appended and nothing will be.
    /// After `deadline` the outcome is `Indeterminate`, or `NoQuorum` if it was never appended.
    pub async fn propose(
        &self,
        command: Bytes,
        in_term: Option<u64>,
        deadline: Duration,
    ) -> Result<(LogPosition, Bytes), ProposeError> {
        let bound = self.inner.config.max_command_bytes;
        if command.len() > bound {
            return Err(ProposeError::TooLarge {
                bytes: command.len(),
                bound,
            });
        }
        let until = Instant::now() + deadline;
        loop {
            let attempt = self.attempt(command.clone(), in_term, until).await;
            if mutant!("proposal_repeated") && matches!(attempt, Attempt::Failed(_)) {
                let again = self.attempt(command.clone(), in_term, until + deadline);
                if let Attempt::Done(at, reply) = again.await {
                    return Ok((at, reply));
                }
            }
            match attempt {
                Attempt::Done(at, reply) => return Ok((at, reply)),
                Attempt::Failed(error) => return Err(error),
                // A leader that has just won has not heard a quorum yet.
                Attempt::NoQuorum if Instant::now() + QUORUM_RETRY < until => {
                    tokio::time::sleep(QUORUM_RETRY).await;
                }
                Attempt::NoQuorum => return Err(ProposeError::NoQuorum),
            }
        }
    }

    async fn attempt(&self, command: Bytes, in_term: Option<u64>, until: Instant) -> Attempt {
        let places = Arc::clone(&self.inner.places);
        let Ok(place) = places.try_acquire_owned() else {
            return Attempt::Failed(ProposeError::Overloaded);
        };
        let (to, answer) = oneshot::channel();
        let mut request = self.inner.raft.write(Command(command));
        if let Some(term) = in_term
            && !mutant!("proposal_of_an_old_term")
        {
            request = request.with_leader(CommittedLeaderId { term });
        }
        let submitting = request.responder(Answer { to, _place: place });
        let waiting = async {
            submitting
                .await
                .map_err(|fatal| ProposeError::Fatal(fatal.to_string()))?;
            #[cfg(leasehold_mutants)]
            if mutant!("acknowledged_before_commit")
                && let Some(at) = self.appended_next().await
            {
                return Ok(Ok(ClientWriteResponse {
                    log_id: at,
                    data: Bytes::new(),
                    membership: None,
                }));
            }
            answer.await.map_err(|_| self.ended())
        };
        match tokio::time::timeout_at(until, waiting).await {
            Err(_) if mutant!("unknown_outcome_called_a_failure") => {
                Attempt::Failed(ProposeError::NoQuorum)
            }
            Err(_) => Attempt::Failed(ProposeError::Indeterminate("no result before the deadline")),
            Ok(Err(error)) => Attempt::Failed(error),
            Ok(Ok(result)) => self.outcome(result, in_term),
        }
    }

    /// Of a planted bug: the next entry of this leader's log, as soon as it is there.
    #[cfg(leasehold_mutants)]
    async fn appended_next(&self) -> Option<crate::raft_types::LogId> {
        let mut metrics = self.inner.raft.metrics();
        let before = metrics.borrow_watched().last_log_index;
        loop {
            let (now, term, leads) = {
                let seen = metrics.borrow_watched();
                let leads = seen.current_leader == Some(seen.id);
                (seen.last_log_index, seen.current_term, leads)
            };
            if !leads {
                return None;
            }
            if let Some(index) = now.filter(|_| now > before) {
                return Some(crate::raft_types::log_id(term, index));
            }
            metrics.changed().await.ok()?;
        }
    }

    /// Why the library dropped a proposal without a result.
    fn ended(&self) -> ProposeError {
        match &self.inner.raft.metrics().borrow_watched().running_state {
            Err(fatal) => ProposeError::Fatal(fatal.to_string()),
            Ok(()) => ProposeError::Indeterminate("this node is stopping"),
        }
    }

    fn outcome(&self, result: ClientWriteResult<TypeConfig>, in_term: Option<u64>) -> Attempt {
        match result {
            Ok(ClientWriteResponse { log_id, data, .. }) => Attempt::Done(position(&log_id), data),
            Err(ClientWriteError::ForwardToLeader(to)) => self.refusal(&to, in_term),
            Err(ClientWriteError::LogEntryDiscarded(_)) => Attempt::Failed(
                ProposeError::Indeterminate("another leader's log replaced the entry here"),
            ),
            // Only for changes of membership.
            Err(other) => Attempt::Failed(ProposeError::Fatal(other.to_string())),
        }
    }

    fn refusal(&self, to: &ForwardToLeader<TypeConfig>, in_term: Option<u64>) -> Attempt {
        let now = self
            .inner
            .raft
            .metrics()
            .borrow_watched()
            .vote
            .leader_id
            .term;
        if in_term.is_some_and(|term| term != now) {
            return Attempt::Failed(ProposeError::TermChanged { now });
        }
        match to.reason {
            ForwardReason::LeaseExpired => Attempt::NoQuorum,
            ForwardReason::LeadershipTransfer => Attempt::Failed(ProposeError::NoQuorum),
            ForwardReason::NotLeader => {
                let leader = self
                    .leader_hint()
                    .filter(|(id, _)| *id != self.inner.config.node_id);
                Attempt::Failed(ProposeError::NotLeader { leader })
            }
        }
    }

    /// Ask a majority whether this node still leads; returns after this node has applied
    /// everything that was committed when the question was put.
    ///
    /// The round starts after this call, so that the answer speaks of an instant after it. The
    /// returned position is the least one that a read must see: its `term` is the term whose
    /// leadership was confirmed, its `index` at least the first entry of that term, and it is
    /// applied here. Calls at the same time share rounds.
    ///
    /// # Errors
    ///
    /// `NotLeader`, `NoQuorum` (no majority answered within an election timeout), `Fatal`.
    /// Nothing was changed by any of them.
    pub async fn confirm(&self) -> Result<LogPosition, ProposeError> {
        let patience = self.inner.config.election_timeout_max();
        if mutant!("confirmed_without_a_quorum")
            && let Some(term) = self.inner.leadership.borrow().leads()
            && let Some(at) = *self.inner.applied.borrow()
        {
            return Ok(LogPosition { term, ..at });
        }
        let asked = self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        let linearizer = match tokio::time::timeout(patience * 2, asked).await {
            Err(_) => return Err(ProposeError::NoQuorum),
            Ok(Ok(linearizer)) => linearizer,
            Ok(Err(RaftError::Fatal(fatal))) => return Err(ProposeError::Fatal(fatal.to_string())),
            Ok(Err(RaftError::APIError(error))) => return Err(self.unconfirmed(&error)),
        };
        let confirmed = position(linearizer.read_log_id().log_id());
        if mutant!("confirmed_before_applied") {
            return Ok(confirmed);
        }
        let mut applied = self.inner.applied.clone();
        let reached = applied.wait_for(|at| at.is_some_and(|at| at.index >= confirmed.index));
        match tokio::time::timeout(patience * 4, reached).await {
            Ok(Ok(_)) => Ok(confirmed),
            // The first entry of the term cannot be committed, or the disk hangs.
            Err(_) => Err(ProposeError::NoQuorum),
            Ok(Err(_)) => Err(ProposeError::Fatal("the state machine has stopped".into())),
        }
    }

    fn unconfirmed(&self, error: &LinearizableReadError<TypeConfig>) -> ProposeError {
        match error {
            LinearizableReadError::ForwardToLeader(to) => match to.reason {
                ForwardReason::NotLeader => ProposeError::NotLeader {
                    leader: self
                        .leader_hint()
                        .filter(|(id, _)| *id != self.inner.config.node_id),
                },
                _ => ProposeError::NoQuorum,
            },
            LinearizableReadError::QuorumNotEnough(_) => ProposeError::NoQuorum,
        }
    }
}
