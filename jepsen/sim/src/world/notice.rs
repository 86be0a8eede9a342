//! Notices which rare situations a commit brought about.

use leasehold_proto::command::{CloseProof, Command, EndWord, PlanStep, Reply};
use leasehold_proto::error::Rejection;
use leasehold_proto::id::HandoffId;
use leasehold_proto::table::{Event, Outcome, SessionPhase};
use leasehold_proto::view::Handoff;
use leasehold_proto::{Mode, SessionId, Slice};

use super::World;
use crate::check::keys_of;
use crate::coverage::Seen;

/// What a command is about, as it was before.
#[derive(Default)]
pub struct Before {
    mode: Option<Mode>,
    handoff: Option<(Slice, Handoff)>,
    phase: Option<SessionPhase>,
    /// Whether an open handoff leads to the session.
    destination: bool,
    existed: bool,
}

impl World {
    pub(super) fn before(&self, command: &Command) -> Before {
        let Some(state) = self.check.state() else {
            return Before::default();
        };
        let handoff = |id: &HandoffId| state.handoff(*id).map(|(slice, _, open)| (slice, open));
        let (handoff, session) = match command {
            Command::CompleteHandoff { handoff: id, .. }
            | Command::CancelHandoff { handoff: id, .. }
            | Command::AskCancel { handoff: id, .. } => (handoff(id), None),
            Command::CloseSession { session, .. } | Command::ExpireSession { session, .. } => {
                (None, Some(*session))
            }
            Command::ForgetGhost { session, .. } => (None, *session),
            _ => (None, None),
        };
        let leads = |id| state.handoffs().any(|(_, _, open)| open.to == id);
        Before {
            mode: Some(state.mode()),
            handoff,
            phase: session.and_then(|id| Some(state.session(id)?.phase)),
            destination: session.is_some_and(leads),
            existed: true,
        }
    }

    pub(super) fn notice_commit(&mut self, command: &Command, before: &Before, outcome: &Outcome) {
        if let Reply::Rejected(rejection) = &outcome.reply {
            return self.notice_rejection(command, rejection);
        }
        if let Reply::Plan(results) = &outcome.reply
            && let Command::ApplyPlan { steps, .. } = command
        {
            for (step, result) in steps.iter().zip(results) {
                self.notice_step(step, result);
            }
        }
        for event in &outcome.events {
            if let Event::HandoffEnded {
                handoff, completed, ..
            } = event
            {
                self.notice_end(command, before, *completed);
                if !matches!(
                    command,
                    Command::CompleteHandoff { .. } | Command::CancelHandoff { .. }
                ) {
                    self.check.memories.source_lost(*handoff);
                }
            }
            if let Event::TargetGone(_) = event {
                self.coverage.see(Seen::NameFree);
            }
        }
        self.notice_session(command, before, outcome);
        self.notice_mode(before);
    }

    fn notice_end(&mut self, command: &Command, before: &Before, completed: bool) {
        let asked = before
            .handoff
            .is_some_and(|(_, handoff)| handoff.ask_cancel);
        let to_closed = before.handoff.is_some_and(|(_, handoff)| handoff.to_closed);
        match (command, completed) {
            (Command::CompleteHandoff { word, .. }, _) => {
                self.coverage.see(match word {
                    EndWord::Surrendered(_) => Seen::CompletedBySource,
                    EndWord::Accepted(_) => Seen::CompletedByDestination,
                });
                if asked {
                    self.coverage.see(Seen::AskLost);
                }
                if to_closed {
                    self.coverage.see(Seen::CompletedToNobody);
                } else if let Some((slice, handoff)) = before.handoff {
                    self.notice_new_owner(slice, handoff.to);
                }
            }
            (Command::ExpireSession { .. }, true) => self.coverage.see(Seen::CompletedByExpiry),
            (Command::CloseSession { .. }, true) => self.coverage.see(Seen::CompletedByClosing),
            (Command::ExpireSession { .. } | Command::CloseSession { .. }, false) => {
                self.coverage.see(Seen::VacatedBothClosed)
            }
            (_, false) => {
                self.coverage.see(Seen::Cancelled);
                if asked {
                    self.coverage.see(Seen::CancelledAfterAsk);
                }
                if to_closed {
                    self.coverage.see(Seen::CancelledDestinationClosed);
                }
                if let Some((slice, handoff)) = before.handoff {
                    self.check.cancelled(slice, handoff.epoch);
                }
            }
            _ => {}
        }
    }

    fn notice_new_owner(&mut self, slice: Slice, to: SessionId) {
        if keys_of(slice).any(|k| self.surrendered.contains(&(to, k))) {
            self.coverage.see(Seen::HandedBack);
        }
    }

    fn notice_step(&mut self, step: &PlanStep, result: &Result<(), Rejection>) {
        let seen = match (step, result) {
            (PlanStep::Split { .. }, Ok(())) => Seen::SplitSlice,
            (PlanStep::Merge { .. }, Ok(())) => Seen::Merged,
            (PlanStep::SetReplicas { .. }, Ok(())) => Seen::ReplicasSet,
            (PlanStep::Reassign { .. }, Ok(())) => Seen::Reassigned,
            (_, Err(Rejection::HandoffOpen(..))) => Seen::OpenHandoffKept,
            (_, Err(Rejection::NotTakenIn(_))) => Seen::MergedTooEarly,
            (_, Err(Rejection::SliceChanged(_))) => Seen::PlanTooLate,
            _ => return,
        };
        self.coverage.see(seen);
    }

    fn notice_rejection(&mut self, command: &Command, rejection: &Rejection) {
        let seen = match (command, rejection) {
            (Command::ExpireSession { .. }, Rejection::OtherTerm { .. }) => Seen::ExpiryOtherTerm,
            (Command::AckArming { .. }, Rejection::WrongMode(_)) => Seen::AckOtherArming,
            (Command::ApplyPlan { .. }, Rejection::RestoreWait) => Seen::RestoreWaited,
            (Command::ApplyPlan { .. }, Rejection::ConfigVersion { .. }) => Seen::PlanTooLate,
            (Command::CreateTarget { .. }, Rejection::TargetLeaving(..)) => Seen::NameTaken,
            _ => return,
        };
        self.coverage.see(seen);
    }

    fn notice_session(&mut self, command: &Command, before: &Before, outcome: &Outcome) {
        let ended = |event: &Event| matches!(event, Event::SessionClosed(_));
        let phase = |world: &World, id: SessionId| {
            world
                .check
                .state()
                .and_then(|state| Some(state.session(id)?.phase))
        };
        match command {
            Command::RegisterSession { .. } => {
                let fresh = |event: &Event| matches!(event, Event::SessionRegistered { .. });
                if outcome.events.iter().any(fresh) && matches!(before.mode, Some(Mode::Arming(_)))
                {
                    self.coverage.see(Seen::BornAcknowledged);
                }
            }
            Command::CloseSession { proof, .. } => {
                if before.phase == Some(SessionPhase::Ghost) {
                    self.coverage.see(Seen::GhostSpoke);
                }
                self.coverage.see(match proof {
                    CloseProof::OwnWord => Seen::ClosedByWord,
                    CloseProof::Reaped => Seen::ClosedByProof,
                });
            }
            Command::ExpireSession { session, .. }
                if phase(self, *session) == Some(SessionPhase::Ghost) =>
            {
                self.coverage.see(Seen::GhostLeft)
            }
            Command::ForgetGhost { .. } if outcome.events.iter().any(ended) => {
                self.coverage.see(Seen::GhostForgotten)
            }
            Command::DrainSession { .. } => self.coverage.see(Seen::Drained),
            Command::UpdateTarget { change, .. } if change.ttl.is_some() => {
                self.coverage.see(Seen::TtlChanged)
            }
            Command::DeleteTarget { .. } => {
                self.coverage.see(Seen::Deleted);
                if self.check.state().is_some() {
                    self.coverage.see(Seen::TombstoneWaited);
                }
            }
            Command::EndRestoreWait { .. } => self.coverage.see(Seen::RestoreOver),
            _ => {}
        }
        let closed = outcome.events.iter().any(ended);
        if closed && before.destination && before.phase == Some(SessionPhase::Live) {
            self.coverage.see(Seen::DestinationClosed);
        }
    }

    fn notice_mode(&mut self, before: &Before) {
        let Some(state) = self.check.state().filter(|_| before.existed) else {
            return;
        };
        let (was, is) = (before.mode, state.mode());
        let ghost = state
            .sessions()
            .any(|session| session.phase == SessionPhase::Ghost);
        let seen = match (was, is) {
            (Some(Mode::Strong), Mode::Eventual) => Seen::ToEventual,
            (Some(Mode::Arming(_)), Mode::Eventual) => Seen::ArmingAbandoned,
            (Some(Mode::Eventual), Mode::Arming(_)) => Seen::ArmingBegan,
            (Some(Mode::Arming(_)), Mode::Strong) => Seen::ArmingEnded,
            (Some(Mode::Arming(_)), Mode::Arming(_)) if ghost && all_acknowledged(state) => {
                Seen::GhostKeptArming
            }
            _ => return,
        };
        self.coverage.see(seen);
    }
}

/// Whether every live session has acknowledged the present arming.
fn all_acknowledged(state: &leasehold_proto::table::TargetState) -> bool {
    let Mode::Arming(arming) = state.mode() else {
        return false;
    };
    state
        .live_sessions()
        .all(|session| session.acked_arming == Some(arming))
}
