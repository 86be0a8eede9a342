//! Sessions: registered, drained, closed, expired; ghosts and arming.

use std::collections::BTreeMap;

use super::record::{MetaRecord, RecordKey, SessionPhase, SessionRecord};
use super::{Applied, Entry, Event, TargetState};
use crate::clock::ClockClass;
use crate::command::{Registered, Reply};
use crate::error::Rejection;
use crate::id::{Epoch, Generation, SessionId};
use crate::key::SliceKey;
use crate::limits;
use crate::target::{Mode, SessionSecret, Squid};
use crate::view::{Assigned, Lease};

impl TargetState {
    /// Idempotent by Squid while that session lives; never closes another session.
    pub(super) fn register(
        &mut self,
        entry: &mut Entry,
        meta: &mut MetaRecord,
        squid: Squid,
        clock: ClockClass,
        secret: SessionSecret,
        app_version: String,
    ) -> Applied {
        self.if_leaving()?;
        if let Some(found) = self
            .by_squid
            .get(&squid)
            .and_then(|id| self.sessions.get(id))
        {
            return Ok(self.registered(found));
        }
        if app_version.len() > limits::APP_VERSION_BYTES {
            return Err(Rejection::Limit {
                what: "bytes of application version".into(),
                most: limits::APP_VERSION_BYTES,
            });
        }
        if self.by_squid.len() >= limits::SESSIONS_PER_TARGET {
            return Err(Rejection::Limit {
                what: "live sessions".into(),
                most: limits::SESSIONS_PER_TARGET,
            });
        }
        let id = SessionId::mint(meta.incarnation, meta.next_session)
            .ok_or(Rejection::TokensExhausted)?;
        meta.next_session += 1;
        entry.touched.insert(RecordKey::Meta);
        // Born acknowledged: it has never served without checking leases in this target.
        let acked_arming = match self.mode {
            Mode::Arming(generation) => Some(generation),
            Mode::Strong | Mode::Eventual => None,
        };
        let record = SessionRecord {
            target: self.name.clone(),
            id,
            squid,
            clock,
            ttl: self.config.ttl,
            secret,
            app_version,
            phase: SessionPhase::Live,
            draining: false,
            acked_arming,
        };
        let reply = self.registered(&record);
        entry.event(Event::SessionRegistered {
            target: self.name.clone(),
            session: id,
            ttl: record.ttl,
            clock,
        });
        self.load_session(record);
        self.touch_session(entry, id);
        Ok(reply)
    }

    fn registered(&self, record: &SessionRecord) -> Reply {
        Reply::Registered(Registered {
            session: record.id,
            secret: record.secret,
            ttl: record.ttl,
            not_before: self.generation,
        })
    }

    pub(super) fn drain(&mut self, entry: &mut Entry, id: SessionId) -> Applied {
        let session = self
            .sessions
            .get_mut(&id)
            .filter(|session| session.phase == SessionPhase::Live);
        session.ok_or(Rejection::UnknownSession(id))?.draining = true;
        self.touch_session(entry, id);
        Ok(Reply::Done)
    }

    /// Its own word, or proof of death: whatever the session was, it serves nothing any more.
    pub(super) fn close(&mut self, entry: &mut Entry, id: SessionId) -> Result<(), Rejection> {
        if self.is_live(id) {
            self.release(entry, id, &[]);
        } else if !self.sessions.contains_key(&id) {
            return Err(Rejection::UnknownSession(id));
        }
        self.retire(entry, id, None);
        self.settle_arming(entry);
        Ok(())
    }

    /// D has passed. A ghost is not moved by time.
    pub(super) fn expire(
        &mut self,
        entry: &mut Entry,
        id: SessionId,
        successors: &[(SliceKey, SessionId)],
    ) -> Result<(), Rejection> {
        match self.sessions.get(&id).map(|session| session.phase) {
            Some(SessionPhase::Live) => {
                let phase = self.would_be_ghost(id).then_some(SessionPhase::Ghost);
                self.release(entry, id, successors);
                self.retire(entry, id, phase);
            }
            Some(SessionPhase::Leaving) => self.retire(entry, id, None),
            Some(SessionPhase::Ghost) | None => return Err(Rejection::UnknownSession(id)),
        }
        self.settle_arming(entry);
        Ok(())
    }

    /// Takes the session out of every slice that names it.
    ///
    /// ◆ Never cancels a handoff of its own: one whose destination lives is completed, whether or
    /// not the session had surrendered, else the slice falls vacant. ◆ A handoff *to* the session
    /// stays open: only the source's word ends it.
    fn release(&mut self, entry: &mut Entry, id: SessionId, successors: &[(SliceKey, SessionId)]) {
        let successors: BTreeMap<SliceKey, SessionId> = successors.iter().copied().collect();
        for (slice, mut assigned) in self.naming(id) {
            if assigned.owner.is_some_and(|owner| owner.session == id) {
                let handoff = assigned.handoff.take();
                if let Some(handoff) = handoff {
                    let completed = self.owner_after(handoff.to, handoff.epoch).is_some();
                    entry.event(Event::HandoffEnded {
                        target: self.name.clone(),
                        handoff: handoff.id,
                        slice,
                        to: handoff.to,
                        completed,
                    });
                }
                let inherits = handoff
                    .filter(|_| !mutant!("expiry_of_source_vacates"))
                    .and_then(|handoff| self.owner_after(handoff.to, handoff.epoch));
                // ◆ Nobody has said that it was surrendered: what the destination has received is no
                // more than a part, unless it holds the source's own word.
                assigned.provider = None;
                assigned.owner = inherits.or_else(|| {
                    let named = *successors.get(&slice.first())?;
                    (named != id).then(|| self.owner_after(named, Epoch::mint(entry.generation)))?
                });
            } else if let Some(handoff) =
                assigned.handoff.as_mut().filter(|handoff| handoff.to == id)
            {
                handoff.to_closed = true;
                if mutant!("closing_of_destination_ends_handoff") {
                    assigned.handoff = None;
                }
            }
            let owner = assigned.owner.map(|owner| owner.session);
            assigned.replicas = assigned
                .replicas
                .iter()
                .copied()
                .filter(|r| *r != id && Some(*r) != owner)
                .collect();
            self.put(entry, slice, assigned);
        }
    }

    /// The lease of `session` at `epoch`, if that session is live: nothing is given to a closed one.
    pub(super) fn owner_after(&self, session: SessionId, epoch: Epoch) -> Option<Lease> {
        self.is_live(session).then_some(Lease { session, epoch })
    }

    /// Ends the session's life: as a ghost, as one that leaves, or altogether.
    pub(super) fn retire(&mut self, entry: &mut Entry, id: SessionId, phase: Option<SessionPhase>) {
        let is_ghost = |session: &&SessionRecord| session.phase == SessionPhase::Ghost;
        let ghosts = || self.sessions.values().filter(is_ghost).count();
        let phase = match phase {
            Some(SessionPhase::Ghost) if ghosts() >= limits::GHOSTS_PER_TARGET => {
                self.ghosts_uncounted = self.ghosts_uncounted.saturating_add(1);
                self.touch(entry);
                None
            }
            phase => phase,
        };
        // A ghost's Squid may have a newer session by now; that one stays found.
        if let Some(session) = self
            .sessions
            .get(&id)
            .filter(|session| session.phase == SessionPhase::Live)
        {
            self.by_squid.remove(&session.squid);
        }
        match phase {
            Some(phase) => {
                if let Some(session) = self.sessions.get_mut(&id) {
                    session.phase = phase;
                }
            }
            None => {
                self.sessions.remove(&id);
            }
        }
        self.touch_session(entry, id);
        entry.event(match phase {
            Some(SessionPhase::Leaving) => Event::SessionLeaving(id),
            _ => Event::SessionClosed(id),
        });
    }

    /// Whether the process may serve on without a lease when its session closes now: the target is
    /// eventual, or arming and the session has not acknowledged *this* arming.
    pub(super) fn would_be_ghost(&self, id: SessionId) -> bool {
        let acked = self
            .sessions
            .get(&id)
            .and_then(|session| session.acked_arming);
        match self.mode {
            Mode::Strong => false,
            _ if mutant!("ghosts_dropped") => false,
            Mode::Eventual => true,
            Mode::Arming(generation) => acked != Some(generation),
        }
    }

    /// ◆ Counts only an acknowledgement of the present arming.
    pub(super) fn ack_arming(
        &mut self,
        entry: &mut Entry,
        id: SessionId,
        arming: Generation,
    ) -> Applied {
        if self.mode != Mode::Arming(arming) {
            return Err(Rejection::WrongMode(self.mode));
        }
        let session = self
            .sessions
            .get_mut(&id)
            .filter(|session| session.phase == SessionPhase::Live);
        session.ok_or(Rejection::UnknownSession(id))?.acked_arming = Some(arming);
        self.touch_session(entry, id);
        self.settle_arming(entry);
        Ok(Reply::Done)
    }

    /// ◆ Arming ends when every live session has acknowledged it and no ghost is left.
    pub(super) fn settle_arming(&mut self, entry: &mut Entry) {
        let Mode::Arming(generation) = self.mode else {
            return;
        };
        let settled = |session: &SessionRecord| {
            let acked = session.acked_arming == Some(generation)
                || (mutant!("older_arming_ack_counted") && session.acked_arming.is_some());
            session.phase == SessionPhase::Leaving || (session.phase == SessionPhase::Live && acked)
        };
        if self.ghosts_uncounted == 0 && self.sessions.values().all(settled) {
            self.set_mode(entry, Mode::Strong);
        }
    }

    /// An operator's word that the process behind a ghost, or behind all of them, is dead.
    pub(super) fn forget_ghost(
        &mut self,
        entry: &mut Entry,
        session: Option<SessionId>,
    ) -> Result<(), Rejection> {
        let is_ghost = |record: &&SessionRecord| {
            record.phase == SessionPhase::Ghost && session.is_none_or(|id| id == record.id)
        };
        let ghosts: Vec<SessionId> = self
            .sessions
            .values()
            .filter(is_ghost)
            .map(|record| record.id)
            .collect();
        match session {
            Some(id) if ghosts.is_empty() => return Err(Rejection::UnknownSession(id)),
            Some(_) => {}
            None => {
                self.ghosts_uncounted = 0;
                self.touch(entry);
            }
        }
        for id in ghosts {
            self.retire(entry, id, None);
        }
        self.settle_arming(entry);
        Ok(())
    }

    pub(super) fn check_sessions(
        &self,
        ids: &[SessionId],
        assigned: &Assigned,
    ) -> Result<(), Rejection> {
        let owner = assigned.owner.map(|owner| owner.session);
        match ids
            .iter()
            .find(|id| !self.is_live(**id) || Some(**id) == owner)
        {
            Some(id) => Err(Rejection::UnknownSession(*id)),
            None => Ok(()),
        }
    }
}
