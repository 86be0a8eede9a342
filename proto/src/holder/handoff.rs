//! A Slicelet's two parts in handoffs: source and destination.

use std::collections::btree_map::Entry;
use std::time::Duration;

use super::{Action, Holder, Local, OnNotReady, Output, Part};
use crate::canonical::{Canonical, Visitor};
use crate::clock::ClockTime;
use crate::command::Digest;
use crate::id::{Epoch, HandoffId, SessionId};
use crate::limits;
use crate::message::{Moved, Ready, ReadyAnswer, Surrender, Word};
use crate::slice::Slice;
use crate::view::{Assigned, Handoff, Lease};

/// How often a destination repeats *ready* while it waits for the source's answer.
const READY_AGAIN: Duration = Duration::from_millis(200);
/// So many handoff deadlines a source waits for a destination that moves on all the time.
const LONGEST: u32 = 30;

/// Where a source stands. ◆ The first of surrendered and refused wins for the life of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Serving,
    Freezing,
    Surrendered(Digest),
    Refused,
}

/// A handoff away from this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    slice: Slice,
    epoch: Epoch,
    handoff: Handoff,
    state: Source,
    deadline: ClockTime,
    /// Until when the deadline is put off, unless the process is about to end.
    put_off_until: ClockTime,
    /// The destination's latest *ready*, not yet answered.
    waiting: Option<Ready>,
}

impl Outgoing {
    pub(super) fn wake_at(&self) -> Option<ClockTime> {
        (self.state == Source::Serving).then_some(self.deadline)
    }
}

/// A handoff to this session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Incoming {
    slice: Slice,
    epoch: Epoch,
    from: SessionId,
    prepared: bool,
    /// The source's surrender was accepted, with this digest.
    accepted: Option<Digest>,
    refused: bool,
    ready_again: ClockTime,
}

impl Incoming {
    pub(super) fn wake_at(&self) -> Option<ClockTime> {
        (self.prepared && self.accepted.is_none() && !self.refused).then_some(self.ready_again)
    }

    /// Whether `slice`, or what it is a part of, is owned at `epoch` by this handoff. Handoffs that
    /// one plan began share their epoch.
    pub(super) fn brought(&self, slice: Slice, epoch: Epoch) -> bool {
        self.slice.contains(slice.first()) && self.epoch == epoch && self.accepted.is_some()
    }

    /// With which state it was surrendered.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.accepted
    }
}

impl Canonical for Outgoing {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.slice.visit(visitor);
        self.epoch.visit(visitor);
        self.handoff.id.visit(visitor);
        self.handoff.to.visit(visitor);
        self.handoff.epoch.visit(visitor);
        let asked = u64::from(self.handoff.ask_cancel) | u64::from(self.handoff.to_closed) << 1;
        visitor.plain(asked);
        match self.state {
            Source::Serving => {
                visitor.plain(0);
                visitor.due(self.deadline);
                visitor.due(self.put_off_until);
            }
            Source::Freezing => visitor.plain(1),
            Source::Surrendered(digest) => {
                visitor.plain(2);
                digest.visit(visitor);
            }
            Source::Refused => visitor.plain(3),
        }
        self.waiting.visit(visitor);
    }
}

impl Canonical for Incoming {
    fn visit<V: Visitor>(&self, visitor: &mut V) {
        self.slice.visit(visitor);
        self.epoch.visit(visitor);
        self.from.visit(visitor);
        visitor.plain(
            u64::from(self.prepared)
                | u64::from(self.accepted.is_some()) << 1
                | u64::from(self.refused) << 2,
        );
        self.accepted.visit(visitor);
        if self.wake_at().is_some() {
            visitor.due(self.ready_again);
        }
    }
}

impl Holder {
    pub(super) fn visit_handoffs<V: Visitor>(&self, visitor: &mut V) {
        visitor.plain(self.outgoing.len() as u64);
        for outgoing in self.outgoing.values() {
            outgoing.visit(visitor);
        }
        visitor.plain(self.incoming.len() as u64);
        for (id, incoming) in &self.incoming {
            id.visit(visitor);
            incoming.visit(visitor);
        }
    }

    /// ◆ Every word about a handoff that is still open in the view, in every renewal.
    pub(super) fn words(&self) -> Vec<Word> {
        let outgoing = self
            .outgoing
            .iter()
            .filter_map(|(id, outgoing)| match outgoing.state {
                Source::Surrendered(digest) => Some(Word::Surrendered(*id, digest)),
                Source::Refused => Some(Word::Refused(*id)),
                Source::Serving | Source::Freezing => None,
            });
        let incoming = self
            .incoming
            .iter()
            .filter(|(_, incoming)| incoming.accepted.is_some())
            .map(|(id, _)| Word::Accepted(*id));
        outgoing
            .chain(incoming)
            .take(limits::WORDS_PER_RENEWAL)
            .collect()
    }

    /// Brings both parts in line with a newer view. Handoffs that it does not show have ended.
    pub(super) fn follow_view(&mut self, now: ClockTime, out: &mut Output) {
        let (Some(me), Some(view)) = (self.session(), &self.view) else {
            return;
        };
        let mut mine: Vec<(Slice, Lease, Handoff)> = Vec::new();
        let mut held: Vec<(Slice, Epoch)> = Vec::new();
        for (slice, assigned) in view.slices.iter() {
            let Some(owner) = assigned.owner else {
                continue;
            };
            if owner.session == me {
                held.push((slice, owner.epoch));
            }
            if let Some(handoff) = assigned
                .handoff
                .filter(|handoff| owner.session == me || handoff.to == me)
            {
                mine.push((slice, owner, handoff));
            }
        }
        // A floor matters only while the view could still give its range at or below it.
        self.floors.retain(|range, floor| {
            held.iter()
                .any(|(slice, epoch)| slice.overlaps(range) && *epoch <= floor)
        });
        let open = |id: &HandoffId| mine.iter().any(|(_, _, handoff)| handoff.id == *id);
        self.outgoing.retain(|id, _| open(id));
        self.incoming.retain(|id, _| open(id));
        for (slice, owner, handoff) in mine {
            if owner.session == me {
                self.follow_outgoing(now, slice, owner.epoch, handoff, out);
            } else {
                self.follow_incoming(now, slice, owner.session, handoff, out);
            }
        }
    }

    fn follow_outgoing(
        &mut self,
        now: ClockTime,
        slice: Slice,
        epoch: Epoch,
        handoff: Handoff,
        out: &mut Output,
    ) {
        let deadline = self.latest(now);
        let fresh = Outgoing {
            slice,
            epoch,
            handoff,
            state: Source::Serving,
            deadline,
            put_off_until: now + self.config.handoff_deadline * LONGEST,
            waiting: None,
        };
        self.outgoing.entry(handoff.id).or_insert(fresh).handoff = handoff;
        // ◆ A view that shows the wish to cancel, or the destination closed, is the question.
        if handoff.ask_cancel || handoff.to_closed {
            self.refuse(now, handoff.id, out);
        }
        if let Some(ready) = self.early_ready.remove(&handoff.id) {
            self.destination_ready(ready, out);
        }
    }

    fn follow_incoming(
        &mut self,
        now: ClockTime,
        slice: Slice,
        from: SessionId,
        handoff: Handoff,
        out: &mut Output,
    ) {
        if let Entry::Vacant(fresh) = self.incoming.entry(handoff.id) {
            fresh.insert(Incoming {
                slice,
                epoch: handoff.epoch,
                from,
                prepared: false,
                accepted: None,
                refused: false,
                ready_again: now,
            });
            let address = self
                .view
                .as_ref()
                .and_then(|view| view.pods.get(&from).cloned());
            out.actions.push(Action::Prepare {
                handoff: handoff.id,
                slice,
                epoch: handoff.epoch,
                from,
                address,
            });
        }
        if let Some(surrender) = self.early_surrenders.remove(&handoff.id) {
            self.accept(now, surrender, out);
        }
    }

    /// A destination is ready: freeze, or say what has become of the handoff.
    pub(super) fn destination_ready(&mut self, ready: Ready, out: &mut Output) {
        // ◆ A process speaks only for the session that it holds now.
        if self.session() != Some(ready.from) && !mutant!("speaks_for_another_session") {
            out.actions
                .push(Action::AnswerReady(ready, ReadyAnswer::NotMine(ready.from)));
            return;
        }
        let Some(outgoing) = self.outgoing.get_mut(&ready.handoff) else {
            if self.early_ready.len() < limits::EARLY_HANDOFF_MESSAGES {
                self.early_ready.insert(ready.handoff, ready);
            }
            return;
        };
        if outgoing.handoff.to != ready.to {
            return;
        }
        outgoing.waiting = Some(ready);
        let forgotten = mutant!("refusal_forgotten") && outgoing.state == Source::Refused;
        if outgoing.state == Source::Serving || forgotten {
            self.freeze(ready.handoff, out);
        }
        self.answer_ready(ready.handoff, out);
    }

    fn freeze(&mut self, id: HandoffId, out: &mut Output) {
        if let Some(outgoing) = self.outgoing.get_mut(&id) {
            outgoing.state = Source::Freezing;
            out.changed = true;
            out.actions.push(Action::Freeze {
                handoff: id,
                slice: outgoing.slice,
            });
        }
    }

    fn answer_ready(&mut self, id: HandoffId, out: &mut Output) {
        let Some(me) = self.session() else { return };
        let Some(outgoing) = self.outgoing.get_mut(&id) else {
            return;
        };
        let answer = match outgoing.state {
            Source::Freezing if mutant!("surrender_before_drain") => {
                let digest = Digest::EMPTY;
                ReadyAnswer::Surrendered(Surrender {
                    handoff: id,
                    from: me,
                    to: outgoing.handoff.to,
                    digest,
                })
            }
            Source::Serving | Source::Freezing => return,
            Source::Refused => ReadyAnswer::Refused(id),
            Source::Surrendered(digest) => ReadyAnswer::Surrendered(Surrender {
                handoff: id,
                from: me,
                to: outgoing.handoff.to,
                digest,
            }),
        };
        if let Some(ready) = outgoing.waiting.take() {
            out.actions.push(Action::AnswerReady(ready, answer));
        }
    }

    /// ◆ Stored before it is said, and never undone.
    pub(super) fn refuse(&mut self, now: ClockTime, id: HandoffId, out: &mut Output) {
        let Some(outgoing) = self.outgoing.get_mut(&id) else {
            return;
        };
        if matches!(outgoing.state, Source::Serving | Source::Freezing) {
            outgoing.state = Source::Refused;
            out.changed = true;
            self.renew_soon(now);
            self.answer_ready(id, out);
        }
    }

    /// The slice is frozen and drained: surrender. Irrevocable from here on.
    pub(super) fn drained(
        &mut self,
        now: ClockTime,
        id: HandoffId,
        digest: Digest,
        out: &mut Output,
    ) {
        let Some(outgoing) = self.outgoing.get_mut(&id) else {
            return;
        };
        if outgoing.state != Source::Freezing {
            return;
        }
        outgoing.state = Source::Surrendered(digest);
        let (slice, epoch) = (outgoing.slice, outgoing.epoch);
        // ◆ The epoch is a floor for these keys, whatever a view shows.
        if !mutant!("no_epoch_floor") {
            self.floors.raise(slice, epoch);
        }
        out.changed = true;
        self.renew_soon(now);
        self.answer_ready(id, out);
    }

    /// Until when a destination is waited for that moves on now.
    fn latest(&self, now: ClockTime) -> ClockTime {
        let patience = self.config.handoff_deadline;
        match self.hurry {
            Some(until) => until.max(now + patience / 10),
            None => now + patience,
        }
    }

    /// This process is about to end: a destination that is slow begins cold rather than late.
    pub(super) fn hurry_handoffs(&mut self, now: ClockTime, until: ClockTime) {
        self.hurry = Some(until);
        self.config.on_not_ready = OnNotReady::GoCold;
        let latest = self.latest(now);
        for outgoing in self.outgoing.values_mut() {
            outgoing.deadline = latest;
        }
    }

    pub(super) fn check_handoff_deadlines(&mut self, now: ClockTime, out: &mut Output) {
        let late: Vec<HandoffId> = self
            .outgoing
            .iter()
            .filter(|(_, outgoing)| outgoing.state == Source::Serving && outgoing.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            match self.config.on_not_ready {
                OnNotReady::Stay => self.refuse(now, id, out),
                OnNotReady::GoCold => self.freeze(id, out),
            }
        }
    }

    pub(super) fn progressing(&mut self, now: ClockTime, id: HandoffId) {
        let (latest, ends) = (self.latest(now), self.hurry.is_some());
        if let Some(outgoing) = self.outgoing.get_mut(&id)
            && (ends || now < outgoing.put_off_until)
        {
            outgoing.deadline = outgoing.deadline.max(latest);
        }
    }

    pub(super) fn prepared(&mut self, id: HandoffId, now: ClockTime, _out: &mut Output) {
        if let Some(incoming) = self.incoming.get_mut(&id) {
            incoming.prepared = true;
            incoming.ready_again = now;
        }
    }

    /// Says ready, again and again until the source answers or the view shows the end.
    pub(super) fn repeat_ready(&mut self, now: ClockTime, out: &mut Output) {
        let Some(me) = self.session() else { return };
        for (id, incoming) in &mut self.incoming {
            if incoming.wake_at().is_some_and(|at| at <= now) {
                incoming.ready_again = now + READY_AGAIN;
                let ready = Ready {
                    handoff: *id,
                    from: incoming.from,
                    to: me,
                };
                let address = self
                    .view
                    .as_ref()
                    .and_then(|view| view.pods.get(&incoming.from).cloned());
                out.actions.push(Action::SendReady(ready, address));
            }
        }
    }

    pub(super) fn source_answered(
        &mut self,
        now: ClockTime,
        answer: ReadyAnswer,
        out: &mut Output,
    ) {
        match answer {
            ReadyAnswer::Surrendered(surrender) => self.accept(now, surrender, out),
            ReadyAnswer::Refused(id) => {
                if let Some(incoming) = self.incoming.get_mut(&id) {
                    incoming.refused = incoming.accepted.is_none();
                }
            }
            // Only the table can tell what became of the source's session; the view will show it.
            ReadyAnswer::NotMine(_) => {}
        }
    }

    /// ◆ Owns as soon as it has the source's surrender for exactly the handoff that is open in its
    /// present view with itself as destination; anything else is kept, bounded.
    fn accept(&mut self, now: ClockTime, surrender: Surrender, out: &mut Output) {
        if self.session() != Some(surrender.to) && !mutant!("speaks_for_another_session") {
            return;
        }
        let mut id = surrender.handoff;
        if mutant!("surrender_of_another_handoff") {
            id = self
                .incoming
                .first_key_value()
                .map_or(id, |(open, _)| *open);
        }
        match self.incoming.get_mut(&id) {
            Some(incoming)
                if incoming.from == surrender.from || mutant!("surrender_of_another_handoff") =>
            {
                if incoming.accepted.is_none() {
                    incoming.accepted = Some(surrender.digest);
                    out.changed = true;
                    self.renew_soon(now);
                }
            }
            Some(_) => {}
            None => {
                if self.early_surrenders.len() < limits::EARLY_HANDOFF_MESSAGES {
                    self.early_surrenders.insert(surrender.handoff, surrender);
                }
            }
        }
    }

    /// What this Slicelet is to each slice, by the present view and its own deeds.
    pub(super) fn rebuild_local(&mut self) {
        self.local.clear();
        let (Some(me), Some(view)) = (self.session.as_ref().map(|session| session.id), &self.view)
        else {
            return;
        };
        if self.shut {
            return;
        }
        for (slice, assigned) in view.slices.iter() {
            if let Some((epoch, part)) = self.part(me, slice, assigned) {
                self.local.push(Local { slice, epoch, part });
            }
        }
    }

    fn part(&self, me: SessionId, slice: Slice, assigned: &Assigned) -> Option<(Epoch, Part)> {
        let owner = assigned.owner?;
        if owner.session == me {
            let outgoing = assigned
                .handoff
                .and_then(|handoff| self.outgoing.get(&handoff.id));
            return Some(match outgoing {
                Some(outgoing) if matches!(outgoing.state, Source::Surrendered(_)) => {
                    (owner.epoch, Part::Gone(Box::new(self.moved(outgoing)?)))
                }
                _ if self.floors.forbid(slice, owner.epoch) => return None,
                Some(outgoing) if outgoing.state == Source::Freezing => {
                    (owner.epoch, Part::Frozen(outgoing.handoff.id))
                }
                _ => (owner.epoch, Part::Owner),
            });
        }
        if let Some((handoff, incoming)) = assigned
            .handoff
            .and_then(|h| Some((h, self.incoming.get(&h.id)?)))
        {
            let part = if incoming.accepted.is_some() {
                Part::Owner
            } else {
                Part::Arriving(handoff.id)
            };
            return Some((handoff.epoch, part))
                .filter(|_| !self.floors.forbid(slice, handoff.epoch));
        }
        assigned
            .replicas
            .contains(&me)
            .then_some((owner.epoch, Part::Replica))
    }

    fn moved(&self, outgoing: &Outgoing) -> Option<Moved> {
        let view = self.view.as_ref()?;
        Some(Moved {
            slice: outgoing.slice,
            handoff: outgoing.handoff.id,
            session: outgoing.handoff.to,
            address: view.pods.get(&outgoing.handoff.to)?.clone(),
            epoch: outgoing.handoff.epoch,
            generation: view.generation,
        })
    }

    /// Handoffs away from this session that may still go either way: neither surrendered nor
    /// refused.
    pub fn leaving(&self) -> impl Iterator<Item = HandoffId> {
        self.outgoing
            .iter()
            .filter(|(_, outgoing)| matches!(outgoing.state, Source::Serving | Source::Freezing))
            .map(|(id, _)| *id)
    }

    /// Slices that handoffs are bringing to this session, with the epoch each will be owned at.
    pub fn arriving(&self) -> impl Iterator<Item = (HandoffId, Slice, Epoch)> {
        self.incoming
            .iter()
            .filter(|(_, incoming)| incoming.accepted.is_none())
            .map(|(id, incoming)| (*id, incoming.slice, incoming.epoch))
    }
}
