//! Renewals: collected from the streams, confirmed by a quorum round, answered in batches.

use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use leasehold_proto::grantor::{Input, Renewal};
use leasehold_proto::message::Renew;
use leasehold_proto::table::SessionPhase;
use leasehold_proto::wire::{AssignerMessage, ClosedReason, RefusedReason, renewed_message};
use leasehold_proto::{SessionId, TargetName};
use leasehold_raft_store::{LogPosition, ProposeError};

use super::{Leader, StreamId};
use crate::shared::Shared;

type Confirmation = (u64, Result<LogPosition, ProposeError>);

/// The quorum round under way, if there is one.
#[derive(Default)]
pub(super) struct Confirming {
    round: Option<BoxFuture<'static, Confirmation>>,
    since: Option<Instant>,
}

impl Confirming {
    /// Begins a round. The question is put after this call, and so after every renewal that the
    /// round confirms has arrived.
    pub(super) fn begin(&mut self, round: u64, shared: &Shared) {
        let raft = shared.raft.clone();
        self.since = Some(Instant::now());
        self.round = Some(Box::pin(async move { (round, raft.confirm().await) }));
    }

    /// How the round ended; never returns while there is none.
    pub(super) async fn next(&mut self) -> Confirmation {
        let Some(round) = self.round.as_mut() else {
            return std::future::pending().await;
        };
        let ended = round.await;
        self.round = None;
        ended
    }
}

impl Leader {
    /// A stream introduced a session. Whether it lives is asked again here, in the order of the
    /// events: it may have ended since the stream looked.
    pub(super) fn attach(&mut self, stream: StreamId, session: SessionId, target: TargetName) {
        let ttl = {
            let table = self.shared.replica.table();
            let record = table
                .target(&target)
                .and_then(|state| state.session(session));
            record
                .filter(|record| record.phase == SessionPhase::Live)
                .map(|record| record.ttl)
        };
        match ttl {
            Some(ttl) => self.streams.attach(stream, session, target, ttl),
            None => {
                let closed = AssignerMessage::Closed {
                    session,
                    reason: ClosedReason::Unknown,
                };
                self.streams.send(stream, (&closed).into());
            }
        }
    }

    /// Notes what each renewal says, and passes on those that may be answered.
    pub(super) fn collect(
        &mut self,
        stream: StreamId,
        renewals: Vec<Renew>,
        collected: &mut Vec<Renewal>,
    ) {
        let halted = self.is_halted();
        let incarnation = self.shared.replica.table().incarnation();
        for renew in renewals {
            let session = renew.session;
            let refused = match self.streams.attached(session) {
                None => Some(RefusedReason::NotAttached),
                Some(attached) if attached.stream != stream => Some(RefusedReason::Superseded),
                Some(_) if halted => Some(RefusedReason::HigherIncarnation),
                Some(attached) => {
                    if attached.note(&renew) {
                        self.plans.taken_in(session);
                    }
                    None
                }
            };
            if let Some(reason) = refused {
                self.shared.metrics.renewals_refused.inc();
                self.streams.refuse(stream, session, reason);
                continue;
            }
            if let Some(known) = renew
                .known
                .filter(|known| known.incarnation() > incarnation)
            {
                self.halt(format!(
                    "{session} knows {known}, of a later life of this cluster than incarnation {incarnation}: this is \
                     an old copy that must not go on; stop it, or restore it with a larger incarnation"
                ));
                self.streams
                    .refuse(stream, session, RefusedReason::HigherIncarnation);
                return;
            }
            collected.push(Renewal {
                session,
                seq: renew.seq,
            });
            if !renew.words.is_empty() || renew.armed.is_some() {
                self.listen(session, &renew.words, renew.armed);
            }
        }
    }

    /// Carries the end of a round to the Grantor. False when the term is over.
    pub(super) fn round_ended(
        &mut self,
        round: u64,
        result: Result<LogPosition, ProposeError>,
    ) -> bool {
        if let Some(since) = self.confirming.since.take() {
            self.shared
                .metrics
                .confirm_seconds
                .observe(since.elapsed().as_secs_f64());
        }
        match result {
            // ◆ The confirmation must speak of this very term.
            Ok(at) if at.term == self.term => self.input(Input::Confirmed(round)),
            Ok(_) | Err(ProposeError::Fatal(_)) => return false,
            Err(error) => {
                tracing::debug!(term = self.term, %error, "a round was not confirmed");
                self.shared.metrics.rounds_failed.inc();
                // Whoever waits here may find a leader with a quorum elsewhere.
                self.streams.turn_away(self.shared.leader_address());
                self.input(Input::NotConfirmed(round));
            }
        }
        true
    }

    pub(super) fn answer(&mut self, renewals: &[Renewal]) {
        if self.is_halted() {
            return;
        }
        let metrics = &self.shared.metrics;
        metrics.renewals_answered.inc_by(renewals.len() as u64);
        metrics.rounds_answered.inc();
        for renewal in renewals {
            let Some(attached) = self.streams.attached(renewal.session) else {
                continue;
            };
            let (stream, ttl, known) = (attached.stream, attached.ttl, attached.known);
            let update: Bytes =
                self.streams
                    .update_for(renewal.session, known, &self.shared.replica);
            self.streams.send(
                stream,
                renewed_message(renewal.session, renewal.seq, ttl, update),
            );
            self.plans.answered(renewal.session);
        }
    }

    pub(super) fn tell_closed(&mut self, renewals: &[Renewal]) {
        for renewal in renewals {
            self.streams.close(renewal.session, ClosedReason::Unknown);
        }
    }
}
