//! Commands that concern one target: the target is found, changed, and buried if that was the last
//! that kept it.

use super::{Applied, Entry, LeaseTable, same_term};
use crate::clock::ClockClass;
use crate::command::{Digest, EndWord, PlanStep, Reply};
use crate::error::Rejection;
use crate::id::{Generation, HandoffId, SessionId};
use crate::key::SliceKey;
use crate::limits;
use crate::target::{SessionSecret, Squid, TargetChange, TargetName};

impl LeaseTable {
    pub(super) fn update_target(
        &mut self,
        entry: &mut Entry,
        name: &TargetName,
        expected: Option<u64>,
        change: &TargetChange,
    ) -> Applied {
        self.live_target(name)?.update(entry, expected, change)
    }

    pub(super) fn register_session(
        &mut self,
        entry: &mut Entry,
        name: TargetName,
        squid: Squid,
        clock: ClockClass,
        secret: SessionSecret,
        app_version: String,
    ) -> Applied {
        let state = self
            .targets
            .get_mut(&name)
            .ok_or(Rejection::UnknownTarget(name))?;
        state.register(entry, &mut self.meta, squid, clock, secret, app_version)
    }

    pub(super) fn close_session(
        &mut self,
        entry: &mut Entry,
        name: &TargetName,
        session: SessionId,
    ) -> Applied {
        self.target_mut(name)?.close(entry, session)?;
        self.bury(entry, name);
        Ok(Reply::Done)
    }

    pub(super) fn expire_session(
        &mut self,
        entry: &mut Entry,
        name: &TargetName,
        session: SessionId,
        term: u64,
        successors: &[(SliceKey, SessionId)],
    ) -> Applied {
        same_term(term, entry.at)?;
        if successors.len() > limits::SUCCESSORS {
            return Err(Rejection::Limit {
                what: "successors".into(),
                most: limits::SUCCESSORS,
            });
        }
        self.target_mut(name)?.expire(entry, session, successors)?;
        self.bury(entry, name);
        Ok(Reply::Done)
    }

    pub(super) fn drain(
        &mut self,
        entry: &mut Entry,
        name: &TargetName,
        session: SessionId,
    ) -> Applied {
        self.live_target(name)?.drain(entry, session)
    }

    pub(super) fn ack_arming(
        &mut self,
        entry: &mut Entry,
        name: &TargetName,
        session: SessionId,
        arming: Generation,
    ) -> Applied {
        self.target_mut(name)?.ack_arming(entry, session, arming)
    }

    pub(super) fn forget_ghost(
        &mut self,
        entry: &mut Entry,
        name: &TargetName,
        session: Option<SessionId>,
    ) -> Applied {
        self.target_mut(name)?.forget_ghost(entry, session)?;
        self.bury(entry, name);
        Ok(Reply::Done)
    }

    pub(super) fn apply_plan(
        &mut self,
        entry: &mut Entry,
        name: TargetName,
        config_version: u64,
        steps: Vec<PlanStep>,
    ) -> Applied {
        let wait = self.meta.restore_wait.is_some();
        let state = self
            .targets
            .get_mut(&name)
            .ok_or(Rejection::UnknownTarget(name))?;
        state.apply_plan(entry, &mut self.meta, wait, config_version, steps)
    }

    pub(super) fn complete_handoff(
        &mut self,
        entry: &mut Entry,
        name: &TargetName,
        handoff: HandoffId,
        word: EndWord,
        digest: Option<Digest>,
    ) -> Applied {
        self.target_mut(name)?
            .complete_handoff(entry, handoff, word, digest)
    }

    pub(super) fn cancel_handoff(
        &mut self,
        entry: &mut Entry,
        name: &TargetName,
        handoff: HandoffId,
        refused_by: SessionId,
    ) -> Applied {
        self.target_mut(name)?
            .cancel_handoff(entry, handoff, refused_by)
    }

    pub(super) fn ask_cancel(
        &mut self,
        entry: &mut Entry,
        name: &TargetName,
        handoff: HandoffId,
    ) -> Applied {
        self.target_mut(name)?.ask_cancel(entry, handoff)
    }
}
