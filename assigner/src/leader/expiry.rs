//! Expiry: sessions whose lease must have run out, and the wait after a restore.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use leasehold_proto::clock::wait_after_answer;
use leasehold_proto::command::{Command, Reply};
use leasehold_proto::{ClockClass, ClockTime, SessionId};
use leasehold_raft_store::ProposeError;

use super::{Leader, Proposal};

/// Pause before a refused proposal is made again in the same term.
const RETRY: Duration = Duration::from_millis(20);

/// The sessions that this term is expiring.
pub(super) struct Expiry {
    won: ClockTime,
    /// Decided and not yet applied; never answered again in this term.
    expiring: BTreeSet<SessionId>,
    /// Of those, the ones whose proposal has definitely failed, by when it is made again.
    retry: BTreeMap<SessionId, Instant>,
    /// When the wait after a restore is over.
    restore_at: Option<ClockTime>,
    restore_proposed: bool,
    restore_retry: Option<Instant>,
}

impl Expiry {
    pub(super) fn new(won: ClockTime) -> Self {
        Self {
            won,
            expiring: BTreeSet::new(),
            retry: BTreeMap::new(),
            restore_at: None,
            restore_proposed: false,
            restore_retry: None,
        }
    }

    /// The session is closed; true if it was being expired.
    pub(super) fn closed(&mut self, session: SessionId) -> bool {
        self.retry.remove(&session);
        self.expiring.remove(&session)
    }

    /// When a proposal is to be made again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.retry.values().copied().chain(self.restore_retry).min()
    }

    /// When the wait after a restore is over.
    pub(super) fn restored_at(&self) -> Option<ClockTime> {
        self.restore_at
    }
}

impl Leader {
    /// D has passed since this term last answered the session: proposes its end, with successors
    /// for what it held.
    pub(super) fn expire(&mut self, session: SessionId) {
        if self.is_halted() {
            return;
        }
        let Some(target) = self.plans.home_of(session) else {
            return;
        };
        if self.expiry.expiring.insert(session) {
            tracing::info!(term = self.term, %session, %target, "the session's lease has run out");
            self.shared.metrics.expiries.inc();
            self.note_lapse(&target, session);
        }
        let successors = self.successors_of(&target, session);
        let command = Command::ExpireSession {
            target,
            session,
            term: self.term,
            successors,
        };
        self.propose(Proposal::Expire(session), command);
    }

    /// ◆ What has no result is proposed again in this term only, as the same decision; the session
    /// stays unanswered meanwhile.
    pub(super) fn expiry_proposed(
        &mut self,
        session: SessionId,
        result: &Result<Reply, ProposeError>,
    ) {
        if result.is_err() && self.expiry.expiring.contains(&session) {
            self.expiry.retry.insert(session, Instant::now() + RETRY);
        }
    }

    pub(super) fn retry_expiries(&mut self) {
        let now = Instant::now();
        let due: Vec<SessionId> = self
            .expiry
            .retry
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(session, _)| *session)
            .collect();
        for session in due {
            self.expiry.retry.remove(&session);
            self.expire(session);
        }
    }

    /// After a restore nothing is granted until every lease of the lost history must have run
    /// out: D of the largest ttl and the worst clock, from the start of this term.
    pub(super) fn end_restore_wait(&mut self) {
        let Some(ttl) = self.shared.replica.table().restore_wait() else {
            self.expiry.restore_at = None;
            return;
        };
        if self.expiry.restore_proposed
            || self
                .expiry
                .restore_retry
                .is_some_and(|at| Instant::now() < at)
        {
            return;
        }
        let config = &self.shared.config.grantor;
        let over = self.expiry.won
            + wait_after_answer(ttl, ClockClass::Slewed, config.clock, config.granularity);
        self.expiry.restore_at = Some(over);
        if self.clock.now() >= over && !self.is_halted() {
            self.expiry.restore_proposed = true;
            self.expiry.restore_at = None;
            self.expiry.restore_retry = None;
            self.propose(
                Proposal::EndRestoreWait,
                Command::EndRestoreWait { term: self.term },
            );
        }
    }

    pub(super) fn restore_wait_proposed(&mut self, result: &Result<Reply, ProposeError>) {
        if result.is_err() {
            self.expiry.restore_proposed = false;
            self.expiry.restore_retry = Some(Instant::now() + RETRY);
        }
    }
}
